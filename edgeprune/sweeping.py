"""Several budgets on one profile and one scoring: a run for each, and all that ships measured in turns; part of `ep`.

DIR/sweep.json          what was asked, so that `--run DIR` alone resumes; budgets that are out of reach
DIR/speedup-2/...       the run of a budget, a run directory like any other
DIR/interleaved.json    what the shipped files and the unpruned one took, in turns, with raw samples
DIR/comparison.json     the comparison (docs/sweep.md), and comparison.html, the page
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from edgeprune.comparing import INTERLEAVED, KINDS, SweepPlan, is_sweep, read_sweep, read_sweep_plan
from edgeprune.core.choosing.points import UNPRUNED
from edgeprune.core.measuring.measurement import Measurement
from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, PASS
from edgeprune.core.text import describe_duration, suggest
from edgeprune.deployment import SETTINGS, Settings, settle_paths, settle_request
from edgeprune.errors import ExportError, GraphError, InfeasibleBudget, PlanError, RunError, UsageError
from edgeprune.history.measured import describe_session
from edgeprune.history.row import HistoryRow
from edgeprune.history.writing import keep
from edgeprune.pipeline import deploy as run_line
from edgeprune.pipeline import open_job
from edgeprune.report.comparison import render_comparison_page
from edgeprune.run import CHANGEABLE, REQUEST, SWEEP, hold_directory, look_at_run, write_atomic, write_json
from edgeprune.scopes import SHARED, begin_scope
from edgeprune.shipped import load_target
from edgeprune.stages.interleave import Interleaved, ShippedFile, find_shipped, interleave, read_interleaved
from edgeprune.stages.job import Job, preview_job

COMPARISON, PAGE = "comparison.json", "comparison.html"
OWN_FAULTS = (PlanError, ExportError, GraphError)
"""What may befall one budget and none of the others."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sweep:
    """A finished sweep: its directory, and `comparison.json` as docs/sweep.md explains it."""

    directory: Path
    comparison: dict[str, Any]

    @property
    def page(self) -> Path:
        """The comparison as a page."""
        return self.directory / PAGE

    @property
    def verdict(self) -> str:
        """ "fail" where a run failed its gates or a budget has none; else "inconclusive" where one is; else "pass"."""
        verdicts = {row["verdict"] for row in self.comparison["rows"]} - {UNPRUNED}
        if FAIL in verdicts or self.comparison["without_run"]:
            return FAIL
        return PASS if verdicts == {PASS} else INCONCLUSIVE


def sweep(
    run: str | Path | None = None,
    say: Say = print,
    *,
    speedup: Sequence[float] = (),
    latency_ms: Sequence[float] = (),
    **options: Unpack[Settings],
) -> Sweep:
    """Take a recipe's model to several budgets, each with a run of its own; `run` is the directory of the sweep,
    perhaps begun by an earlier call, to which budgets are added.

    Raises:
        EdgepruneError: as the command line tells them, each a class of `edgeprune.errors`.
    """
    unknown = sorted(options.keys() - set(SETTINGS))
    if unknown:
        raise UsageError(f"sweep: no {unknown[0]!r}{suggest(unknown[0], SETTINGS)}")
    plan = settle_sweep(Path(run) if run is not None else None, {"speedup": speedup, "latency_ms": latency_ms}, options)
    return run_sweep(plan, say)


def settle_sweep(
    directory: Path | None, budgets: Mapping[str, Sequence[float]], options: Mapping[str, Any]
) -> SweepPlan:
    """What a sweep is to do: what is asked now and, of one that was begun, what was asked then.

    Raises:
        UsageError: no budget, one that is none, one twice, budgets of both kinds, or no target for a new sweep.
        RunError: the sweep was begun with something else.
    """
    given = {kind: tuple(values) for kind, values in budgets.items() if values}
    if len(given) > 1:
        raise UsageError("give --speedup or --latency-ms, not both")
    if directory is not None and is_sweep(directory):
        plan = _add_budgets(read_sweep_plan(directory), given)
        return replace(plan, request=_settle_again(plan, settle_paths({**dict.fromkeys(SETTINGS), **options})))
    if not given:
        raise UsageError("--speedup 1.5,2,3 or --latency-ms 8,6,4 is needed: the budgets to go through")
    if directory is not None and (directory / REQUEST).exists():
        raise UsageError(f"{directory}: is a run of one budget, not a sweep; name another --run")
    place, request = settle_request(directory, options)
    _refuse_counted(request)
    shared = {name: request[name] for name in SETTINGS}
    ((kind, values),) = given.items()
    return _sort_budgets(SweepPlan(directory or Path("runs") / f"sweep-{place.name}", kind, values, shared, {}))


def _refuse_counted(request: Mapping[str, Any]) -> None:
    """Refuse a board that counts: a sweep compares nets that took turns on a board, in ms.

    Raises:
        UsageError: the target's board is a core in QEMU.
    """
    from edgeprune.device.boards import is_counted

    if not request.get("estimate") and is_counted(load_target(request["target"]), request["host"]):
        raise UsageError(
            f"{request['target']}: a sweep compares latencies, and a core in QEMU has none; deploy one budget after "
            "the other: edgeprune deploy --run DIR --speedup 2"
        )


def _add_budgets(plan: SweepPlan, given: Mapping[str, tuple[float, ...]]) -> SweepPlan:
    if not given:
        return plan
    ((kind, values),) = given.items()
    if kind != plan.kind:
        raise RunError(f"{plan.directory}: is a sweep over {plan.kind}, not {kind}; name another --run")
    _sort_budgets(replace(plan, budgets=values))  # refuses what cannot be meant
    known = set(plan.names)
    return _sort_budgets(
        replace(plan, budgets=(*plan.budgets, *(value for value in values if plan.name(value) not in known)))
    )


def _sort_budgets(plan: SweepPlan) -> SweepPlan:
    """The budgets, the one that asks for least first."""
    least = 1.0 if plan.kind == "speedup" else 0.0
    for value in plan.budgets:
        if not least <= value < float("inf") or value == 0:
            asked = f"a number of {least:g} or more" if least else "a number above 0"
            raise UsageError(f"{value:g} is no budget of {plan.kind}; expected {asked}")
    names = plan.names
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"{twice[0]}: is asked for twice; name each budget once")
    return replace(plan, budgets=tuple(sorted(plan.budgets, reverse=plan.kind == "latency_ms")))


def _settle_again(plan: SweepPlan, request: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in request.items():
        if value is not None and plan.request.get(name) != value and name not in CHANGEABLE:
            raise RunError(
                f"{plan.directory}: was made with {name} = {plan.request.get(name)!r}, not {value!r}; "
                f"name another --run, or leave {name} out"
            )
    return {name: plan.request.get(name) if value is None else value for name, value in request.items()}


def run_sweep(plan: SweepPlan, say: Say) -> Sweep:
    """Run every budget that has no finished run yet, measure all that ships in turns, and compare.

    Raises:
        EdgepruneError: what befalls all budgets alike, as a board that is gone; or no budget has a run.
    """
    with hold_directory(plan.directory, SWEEP):
        _check_first(plan, say)
        write_json(plan.directory / SWEEP, plan.to_dict())
        plan = _run_budgets(plan, say)
        _measure_in_turns(plan, say)
        return _write_comparison(plan)


def _check_first(plan: SweepPlan, say: Say) -> None:
    """Refuse what the first run would refuse before anything is written."""
    with preview_job(plan.directory / plan.names[0], _ask(plan, plan.budgets[0]), say):
        pass


def preview_sweep(plan: SweepPlan, say: Say) -> list[str]:
    """What a sweep would do, a line each, refused where it would be refused; nothing is written.

    Raises:
        EdgepruneError: as :func:`run_sweep`, as far as that is known before anything is run.
    """
    _check_first(plan, say)
    lines = [f"directory of the sweep: {plan.directory}"]
    for name in plan.names:
        begun, done = ((plan.directory / name / place).exists() for place in ("request.json", "report.json"))
        state = "out of reach" if name in plan.out_of_reach else "done" if done else "resumed" if begun else "will run"
        lines.append(f"  {state:12} {name}")
    return [*lines, "  then all that ships is measured in turns with the unpruned net, and compared"]


def _ask(plan: SweepPlan, budget: float) -> dict[str, Any]:
    """The request of a budget's run."""
    return {**plan.request, **dict.fromkeys(KINDS), plan.kind: budget}


def _run_budgets(plan: SweepPlan, say: Say) -> SweepPlan:
    """Run each budget; one that no widths meet is written down, one that fails otherwise is tried again next time."""
    failures: dict[str, str] = dict(plan.out_of_reach)
    durations_s: list[float] = []
    for number, budget in enumerate(plan.budgets):
        name = plan.name(budget)
        if name in plan.out_of_reach:
            continue
        left = f", {_say_left(durations_s, len(plan.budgets) - number)}" if durations_s else ""
        say(f"[budget {number + 1} of {len(plan.budgets)}] {name}{left}")
        begun = time.time()
        try:
            is_new = _run_budget(plan, budget, say)
        except OWN_FAULTS as exc:
            say(f"{name}: {exc}")
            failures[name] = str(exc)
            if isinstance(exc, InfeasibleBudget):
                plan = replace(plan, out_of_reach={**plan.out_of_reach, name: str(exc)})
                write_json(plan.directory / SWEEP, plan.to_dict())
        else:
            durations_s += [time.time() - max(begun, _shared_until(plan.directory / name))] if is_new else []
    if len(failures) == len(plan.budgets):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise PlanError(f"{plan.directory}: no budget has a run: {reasons}")
    return replace(plan, out_of_reach=failures)


def _say_left(durations_s: Sequence[float], count: int) -> str:
    """How long so many budgets may take still, by those that are done, without what all share."""
    return f"about {describe_duration(count * sum(durations_s) / len(durations_s))} left"


def _shared_until(place: Path) -> float:
    """When a run had what all budgets share, in seconds of the clock."""
    return max((place / "stages" / f"{name}.json").stat().st_mtime for name in SHARED)


def _run_budget(plan: SweepPlan, budget: float, say: Say) -> bool:
    """Run a budget as far as it has not been; tells whether there was something to do."""
    place = plan.directory / plan.name(budget)
    source = _find_source(plan, place)
    if source is not None and begin_scope(place, source):
        say(f"  profile and scores are those of {source.name}")
    with open_job(place, _ask(plan, budget), say) as job:
        if job.run.finished("report"):
            job.run.check("report")
            return False
        _check_reach(job)
        run_line(job)
    return True


def _find_source(plan: SweepPlan, place: Path) -> Path | None:
    """The run of another budget that has most of what all budgets share."""
    others = [plan.directory / name for name in plan.names]
    begun = [other for other in others if other != place and (other / REQUEST).exists()]
    return max(begun, key=lambda other: sum(map(look_at_run(other).finished, SHARED)), default=None)


def _check_reach(job: Job) -> None:
    """Refuse a budget by a profile that was taken over, as the stage that scores does by its own.

    Raises:
        InfeasibleBudget: no widths meet it; says the best that can be reached.
    """
    from edgeprune.stages.latency import check_budget
    from edgeprune.stages.open_net import read_net

    if job.run.finished("profile") and not job.run.finished("plan"):
        check_budget(job, read_net(job))


def _measure_in_turns(plan: SweepPlan, say: Say) -> None:
    """Measure what every run ships and the unpruned file in turns, unless that was done and is valid."""
    files: dict[str, ShippedFile] = {}
    for name in plan.names:
        if name not in plan.out_of_reach:
            files[name], files[UNPRUNED] = find_shipped(look_at_run(plan.directory / name))
    before = read_interleaved(plan.directory / INTERLEAVED)
    if before is not None and before.valid and before.is_of(files):
        return
    say(f"measuring {len(files)} files in turns: what {len(files) - 1} runs ship, and the unpruned net")
    budget = next(budget for budget in plan.budgets if plan.name(budget) in files)
    with open_job(plan.directory / plan.name(budget), _ask(plan, budget), say) as job:
        session = interleave(job, files, plan.directory / INTERLEAVED)
        keep(job.history, lambda: _describe_session(session, plan, job.run.directory), job.detail)


def _describe_session(session: Interleaved, plan: SweepPlan, first: Path) -> list[HistoryRow]:
    """Rows of the history; the unpruned file is told of with the `first` run."""
    by_run: dict[Path, list[Measurement]] = {}
    for name, measurement in session.measurements.items():
        by_run.setdefault(first if name == UNPRUNED else plan.directory / name, []).append(measurement)
    return describe_session(by_run, session.measured_at)


def _write_comparison(plan: SweepPlan) -> Sweep:
    comparison = replace(read_sweep(plan.directory), without_run=plan.out_of_reach)
    document = comparison.to_dict()
    write_json(plan.directory / COMPARISON, document)
    write_atomic(plan.directory / PAGE, render_comparison_page(document))
    return Sweep(plan.directory, document)
