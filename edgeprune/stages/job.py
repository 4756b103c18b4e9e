"""What every stage works on: the run, its target and recipe, the device, the traced net.

Whatever needs torch or a board is imported where it is used: a run is judged again without either.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.core import accelerators
from edgeprune.core.cost import INSTRUCTIONS, MS, costs_in
from edgeprune.core.formats import AUTO, FORMATS, RUNTIMES, find_runtime
from edgeprune.core.measuring.measurement import DeviceFacts
from edgeprune.core.metric import Metric, parse_metric
from edgeprune.core.progress import put_behind
from edgeprune.core.releasing.document import budget_gates
from edgeprune.core.releasing.gate import CLOCKED, COUNTED, TAILS, Gate, settle_gates
from edgeprune.core.releasing.runtime_faults import check_runtime
from edgeprune.core.target import Target
from edgeprune.errors import DeviceError, RunError, TargetError
from edgeprune.run import Run, open_run, preview_run, read_json
from edgeprune.shipped import load_gates, load_target
from edgeprune.stages.results import Judged, Profiled, R, Traced, read_result

if TYPE_CHECKING:
    import torch

    from edgeprune.device.board import Board, Session
    from edgeprune.recipes.load import Recipe
    from edgeprune.stages.net import Net

COUNTED_RUNTIME = "c"
"""What runs in QEMU: C is generated of the TFLite file, also where a target ships it with an interpreter."""
COSTS = ("latency_ms", "instructions", "speedup")
"""Limits on what a file costs, of which a request may say one."""
CHOSEN = "chosen.json"
"""Where a run keeps the runtime and the precision that it plans for, if its target leaves one open."""
BESIDE_TIME = ("confidence", "sram_bytes", "flash_bytes")
"""What a request may say of the budget beside its limit on time."""
ARENA_PRECISIONS = ("int8", "int16x8", "fp32")
"""Those in which activations have fixed types, as TensorFlow Lite Micro has kernels for."""
QUIET_WAIT_S = 300.0
"""How long the line waits for a board on which others are at work."""


@dataclass(frozen=True)
class Job:
    """A run with what its stages work on, each made when it is first asked for.

    `other_gates` is a file to judge it by, `other_history` that of the history, each this once in place of its own.
    """

    run: Run
    say: Callable[[str], None]
    stack: ExitStack
    other_gates: Path | None = None
    other_history: str | None = None
    anew: set[str] = field(default_factory=set)
    """Stages to be made anew, whatever earlier runs have made."""
    nets: dict[Path, Net] = field(default_factory=dict)
    """Nets that were read, by their files."""

    def read(self, kind: type[R]) -> R:
        """What a finished stage of this run has left.

        Raises:
            RunError: it has not finished, or its result was changed.
        """
        return read_result(self.run, kind)

    def detail(self, text: str) -> None:
        """Say something that belongs to the stage under way."""
        self.say(put_behind("  ", text))

    @cached_property
    def target(self) -> Target:
        """The target with what the request overrides."""
        request = self.run.request
        target = load_target(request["target"])
        if self.is_counted:
            target = replace(target, runtime=COUNTED_RUNTIME)
        changes = {name: request[name] for name in ("runtime", "precision", "threads") if request[name] is not None}
        target = replace(target, **changes)
        limits = {name: request[name] for name in COSTS if request.get(name) is not None}
        if limits:
            target = replace(target, budget=replace(target.budget, **{**dict.fromkeys(COSTS), **limits}))
        beside = {name: request[name] for name in BESIDE_TIME if request.get(name) is not None}
        target = replace(target, budget=replace(target.budget, **beside))
        if self.gates_file is not None:
            target = load_gates(self.gates_file, target)
        return replace(target, protocol=target.protocol.tell(target.judged_percentiles))

    @cached_property
    def is_counted(self) -> bool:
        """Whether the board is a core in QEMU, which counts instructions and has no clock."""
        from edgeprune.device.boards import is_counted

        return not self.estimated and is_counted(load_target(self.run.request["target"]), self.run.request["host"])

    @property
    def unit(self) -> str:
        """The unit of what files cost in this run."""
        return INSTRUCTIONS if self.is_counted else MS

    @property
    def gates_file(self) -> Path | None:
        """The file that says the gates in place of the target, if there is one."""
        file = self.run.request["gates"]
        return self.other_gates or (Path(file) if file is not None else None)

    @property
    def gates_source(self) -> str:
        """Where the gates come from."""
        return str(self.gates_file or f"target {self.target.name}")

    @property
    def asked_gates(self) -> tuple[Gate, ...]:
        """What the run is to be judged by: its gates and its whole budget.

        Raises:
            TargetError: a gate that does not fit the recipe's metric.
        """
        gates = budget_gates(self.target.budget, self.target.gates, self.unit)
        return settle_gates(gates, self.metric, self.gates_source)

    @property
    def gates(self) -> tuple[Gate, ...]:
        """What the run was judged by last; before it was, what it is to be judged by."""
        if not self.run.finished("gate"):
            return self.asked_gates
        judged = self.read(Judged)
        return settle_gates([Gate(**row) for row in judged.judged_by], self.metric, judged.source)

    @property
    def metric(self) -> Metric:
        """What the recipe judges a net by; without its function where the run has recorded it."""
        if self.run.finished("trace"):
            return parse_metric(self.read(Traced).metric)
        return self.recipe.metric

    @property
    def planned(self) -> Target:
        """The target as it is planned for: where it leaves something open, with what `profile` has chosen."""
        chosen = self.chosen
        if not chosen:
            return self.target
        return replace(self.target, runtime=chosen["runtime"], precision=chosen["precision"])

    @property
    def chosen(self) -> dict[str, str]:
        """What `profile` has chosen where the target leaves it open: the `runtime` and the `precision` to plan for, and
        the runtime of the unpruned fp32 file that all is held against (`baseline`). Empty before, or where all is said.
        """
        if AUTO not in (self.target.runtime, self.target.precision) or not (self.run.directory / CHOSEN).exists():
            return {}
        path = self.run.file(CHOSEN) if self.run.finished("profile") else self.run.directory / CHOSEN
        return dict(read_json(path))

    @property
    def baseline_runtime(self) -> str:
        """The runtime of the unpruned fp32 file that all is held against."""
        return self.chosen.get("baseline", self.target.runtime)

    @property
    def baseline_precision(self) -> str:
        """The precision of the unpruned file that all is held against: fp32, or int8 where nothing else runs."""
        return RUNTIMES[self.baseline_runtime].baseline_precision

    @property
    def baseline_format(self) -> str:
        """The format of the unpruned fp32 file that all is held against."""
        return RUNTIMES[self.baseline_runtime].format

    def runtime_of(self, file_format: str) -> str | None:
        """The runtime that runs files of a format on the board: what is planned for if it does, else the first that is
        there; None where none is.
        """
        names = dict.fromkeys((self.planned.runtime, self.baseline_runtime, *RUNTIMES))
        return find_runtime(file_format, filter(self.board.runtime_version, names))

    @cached_property
    def recipe(self) -> Recipe:
        """The user's model and data."""
        from edgeprune.recipes.load import load_recipe

        return load_recipe(self.run.request["recipe"])

    @property
    def recipe_name(self) -> str:
        """The recipe's name, known without loading it."""
        return Path(self.run.request["recipe"]).stem

    @cached_property
    def accelerator(self) -> torch.device:
        """Where nets are trained here: not the board. Unless the request says it the processor.

        Raises:
            UsageError: torch finds none of the kind that the request names.
        """
        from edgeprune.pruning.accelerator import find_accelerator

        return find_accelerator(self.run.request.get("accelerator") or accelerators.CPU)

    @cached_property
    def formats(self) -> tuple[str, ...]:
        """File formats that can be made here; where the board is emulated, only that which it runs."""
        made = tuple(name for name, file_format in FORMATS.items() if importlib.util.find_spec(file_format.made_by))
        return tuple(name for name in made if name == self.target.format) if self.is_counted else made

    @property
    def estimated(self) -> bool:
        """Whether the run is planned on an estimated profile, no board being at hand."""
        return bool(self.run.request.get("estimate"))

    @cached_property
    def board(self) -> Board:
        """The board, connected and held.

        Raises:
            DeviceError: it is not the board that this run began on, or cannot do what a run needs.
            TargetError: a gate on energy and no power meter, or a precision that its runtime computes wrong.
            RunError: the run is planned on an estimate, so no board belongs to it.
        """
        from edgeprune.device.board import require
        from edgeprune.device.boards import open_board

        self.require_measured()
        request = self.run.request
        board = self.stack.enter_context(open_board(self.target, request["host"], self.detail, self.session))
        self.detail(f"{board.facts.host}: {board.facts.cpu}, {board.facts.os or board.facts.model}")
        tails = TAILS & {gate.metric for gate in self.asked_gates}
        require(board, "time", "time_probes", "run", *["percentiles"] * bool(tails))
        board.check_power(self.target)
        check_runtime(self.target, board.facts.runtimes)
        if self.run.finished("profile"):
            begun = self.facts
            if begun.fingerprint != board.facts.fingerprint:
                raise DeviceError(
                    f"{self.run.directory}: was profiled on {begun.host} ({begun.cpu}, fingerprint "
                    f"{begun.fingerprint}), but {board.facts.host} has {board.facts.fingerprint}; name another --run"
                )
        return board

    @property
    def history(self) -> str | None:
        """The file that measurements are written into too, as `--history` names it; None where nothing does."""
        return self.run.request.get("history") if self.other_history is None else self.other_history

    @property
    def allows_busy(self) -> bool:
        """Whether the run goes on though others are at work on the board."""
        return bool(self.run.request.get("allow_busy"))

    @property
    def session(self) -> Session:
        """How boards are used in this run."""
        from edgeprune.device.board import Session

        wait_s = 0.0 if self.allows_busy else QUIET_WAIT_S
        governor, benchmark_model = (self.run.request.get(name) for name in ("set_governor", "benchmark_model"))
        return Session(bool(governor), wait_s, benchmark_model=benchmark_model)

    def require_measured(self) -> None:
        """Refuse whatever comes after planning in a run that was planned on an estimate.

        Raises:
            RunError: it was; says what to do.
        """
        if self.estimated:
            raise RunError(
                f"{self.run.directory}: was planned on an estimated profile; an estimate is never cut, measured or "
                "judged by; begin a new run with --host"
            )

    @property
    def facts(self) -> DeviceFacts:
        """What the board said of itself when it was profiled; asked now where that is still to come.

        Raises:
            RunError: the profile names no device.
        """
        if not self.run.finished("profile"):
            return self.board.facts
        facts = self.read(Profiled).device
        if facts is None:
            raise RunError(
                f"{self.run.directory}: its profile names no device, as one that was measured does; make it anew: "
                f"`edgeprune deploy --run {self.run.directory} --from profile`"
            )
        return facts


def check_request(job: Job) -> None:
    """Settle what can be settled before anything slow begins.

    Raises:
        TargetError: a device that nothing here times, no budget, one of energy without a board, a runtime whose format
            cannot be made here, or a gate that does not fit the recipe's metric.
        RecipeError: the recipe cannot be loaded.
    """
    from edgeprune.device.board import refuse_untimed

    target, budget = job.target, job.target.budget
    if not (job.estimated or job.is_counted):
        refuse_untimed(target)
    _check_unit(job)
    if not (budget.is_timed or budget.is_sized):
        raise TargetError(
            f"target {target.name}: no budget; give {'--instructions' if job.is_counted else '--latency-ms'} or "
            "--speedup (or --sram, --flash), or [budget] in the target"
        )
    if budget.energy_mj is not None and job.estimated:
        raise TargetError(f"target {target.name}: a budget of energy_mj needs a board with a power meter; give --host")
    if target.runtime == AUTO and job.estimated:
        raise TargetError(
            f"target {target.name}: runtime auto is chosen on the board, and none is known; give --host, or --runtime"
        )
    if target.runtime != AUTO and target.format not in job.formats:
        needed = FORMATS[target.format]
        install = f"edgeprune[{needed.extra}]" if needed.extra else "edgeprune"
        raise TargetError(
            f"target {target.name}: runtime {target.runtime} needs {needed.title}; `pip install '{install}'`"
        )
    if budget.sram_bytes is not None:
        check_arena(target)
    if job.run.request.get("accelerator"):
        job.accelerator  # noqa: B018  one that is not here is told at once
    if not job.run.finished("trace"):
        job.recipe  # noqa: B018  loads it: a broken recipe is told at once
    job.asked_gates  # noqa: B018  one that does not fit is told at once


def _check_unit(job: Job) -> None:
    """Refuse limits in another unit than that of the board.

    Raises:
        TargetError: there is one.
    """
    target, budget, counted = job.target, job.target.budget, job.is_counted
    metrics = [gate.metric for gate in target.gates if (gate.metric in CLOCKED if counted else gate.metric in COUNTED)]
    if counted and (budget.latency_ms is not None or budget.energy_mj is not None or metrics):
        wrong = f"a gate on {metrics[0]}" if metrics else "a budget of time or energy"
        raise TargetError(
            f"target {target.name}: {wrong}, but its board is a core in QEMU, which counts instructions and tells no "
            "time; give --instructions or --speedup (or --sram, --flash), or gates on instructions"
        )
    if not counted and (budget.instructions is not None or metrics):
        raise TargetError(
            f"target {target.name}: instructions are counted in QEMU only, and this board is timed; give --latency-ms "
            "or --speedup, or a target such as qemu-cortex-m4"
        )


def check_arena(target: Target) -> None:
    """Require that what ships is a file whose memory an interpreter lays out by fixed rules.

    Raises:
        TargetError: it is not, or is yet to be chosen.
    """
    from edgeprune.exporting.formats import find_format

    open_choice = AUTO in (target.runtime, target.precision)
    inside = None if open_choice else find_format(target.format).inside
    if inside is None or inside.read_memory is None or target.precision not in ARENA_PRECISIONS:
        raise TargetError(
            f"target {target.name}: a budget of sram_bytes is planned for TFLite files in "
            f"{', '.join(ARENA_PRECISIONS)}; found runtime {target.runtime} and precision {target.precision}; give "
            "--runtime litert --precision int8"
        )


@contextmanager
def open_job(
    directory: Path,
    request: dict[str, Any],
    say: Callable[[str], None],
    other_gates: Path | None = None,
    other_history: str | None = None,
) -> Iterator[Job]:
    """Open a run directory, and settle what can be settled before anything slow begins.

    Raises:
        EdgepruneError: the request does not fit the directory, or names what does not exist.
    """
    with open_run(directory, request) as run, ExitStack() as stack:
        job = Job(run, say, stack, other_gates, other_history)
        stack.enter_context(costs_in(job.unit))
        check_request(job)
        run.begin()
        yield job


@contextmanager
def preview_job(directory: Path, request: dict[str, Any], say: Callable[[str], None]) -> Iterator[Job]:
    """The job that :func:`open_job` would open, refused where that refuses; nothing is written.

    Raises:
        EdgepruneError: as there.
    """
    with preview_run(directory, request) as run, ExitStack() as stack:
        job = Job(run, say, stack)
        stack.enter_context(costs_in(job.unit))
        check_request(job)
        yield job


def reach_board(job: Job, until: str) -> None:
    """Find out, where the model is still to be loaded, whether the board answers, has Python, and is quiet; it is not
    held.

    Raises:
        DeviceError: it cannot be reached, or lacks Python.
    """
    from edgeprune.device.boards import reach_board as reach

    if until == "trace" or job.estimated or job.run.finished("trace"):
        return  # no board is needed, or the next stage opens it
    job.detail(f"{reach(job.target, job.run.request['host'], job.detail, job.session)} answers")


def find_address(job: Job, until: str, again: Collection[str] = ()) -> str:
    """Where the board is, in words, if the line is to run as far as a stage that needs it; `again` are made anew.

    Raises:
        TargetError: nothing says it.
    """
    from edgeprune.device.boards import describe_address

    profiled = job.run.finished("profile") and "profile" not in again
    if until == "trace" or job.estimated or profiled:
        return "as it was profiled"
    return describe_address(job.target, job.run.request["host"])
