"""What each stage leaves for those after it: a dataclass a stage, with a version; read and written here alone.

Fields are JSON as msgspec has it: dataclasses as objects, tuples as lists. Imports nothing heavy, so that a run is
judged again in no time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import msgspec

from edgeprune.core.artifact import Artifact
from edgeprune.core.cost import MS
from edgeprune.core.latency.correction import Correction, MeasuredNet
from edgeprune.core.latency.table import MEASURED
from edgeprune.core.measuring.measurement import DeviceFacts
from edgeprune.core.measuring.paired_quality import QualitySpread
from edgeprune.core.planning.limits import Costs
from edgeprune.core.planning.plan import PruningPlan
from edgeprune.core.releasing.gate import GateResult
from edgeprune.core.releasing.regression import Regression
from edgeprune.errors import RunError
from edgeprune.run import Run


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a stage leaves: `stage` makes it; `version` is another one whenever fields change their meaning."""

    stage: ClassVar[str]
    version: ClassVar[int] = 1


@dataclass(frozen=True, kw_only=True)
class Traced(Result):
    """The net that was traced; `metric` as :meth:`Metric.to_dict` has it, `quality` of the net in torch."""

    stage = "trace"
    metric: dict[str, str]
    quality: float
    model_sha256: str = ""
    prunable: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A whole net of random widths that the profile measured."""

    widths: dict[str, int]
    net: MeasuredNet


@dataclass(frozen=True, kw_only=True)
class Profiled(Result):
    """What the net costs on the device, in ms or in what `unit` says, or is estimated to; without a device where it is
    estimated.

    `twin_gap`: how far the unpruned net, measured twice, was apart (a fraction). `problems`: what else worked on the
    board. `power_w` is above idle. `overhead_bytes`: what a file holds beside weights. `measured_at` in UTC;
    `recalled`: in another run.
    """

    stage = "profile"
    baseline_ms: float
    correction: Correction
    device: DeviceFacts | None = None
    origin: str = MEASURED
    baseline_interval_ms: tuple[float, float] | None = None
    baseline_predicted_ms: float | None = None
    baseline_precision: str = "fp32"
    """What `baseline_ms` is of; int8 where a microcontroller is estimated."""
    twin_gap: float = 0.0
    problems: tuple[str, ...] = ()
    power_w: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    overhead_bytes: int = 0
    originals: tuple[Artifact, ...] = ()
    variants: tuple[Variant, ...] = ()
    measured_at: str = ""
    recalled: bool = False
    unit: str = MS


@dataclass(frozen=True, kw_only=True)
class Scored(Result):
    """Scores of channels by group, and the predicted rise of the loss by group and width.

    `steps`: how long each cut net was trained before its loss was taken.
    """

    stage = "score"
    importance: str
    scores: dict[str, tuple[float, ...]]
    loss: dict[str, dict[int, float]]
    steps: int = 0
    recalled: bool = False


@dataclass(frozen=True, kw_only=True)
class Planned(Result):
    """The plan before any cut net was measured."""

    stage = "plan"
    plan: PruningPlan


@dataclass(frozen=True, kw_only=True)
class Try:
    """A cut net that was measured untrained; `loss_increase` is predicted, None in runs of earlier versions."""

    predicted_ms: float
    measured_ms: float
    share_of_budget: float
    loss_increase: float | None = None


@dataclass(frozen=True, kw_only=True)
class Fitted(Result):
    """The plan that holds, and the nets that were measured on the way."""

    stage = "fit"
    plan: PruningPlan
    tries: tuple[Try, ...] = ()
    origin: str = MEASURED
    unit: str = MS


@dataclass(frozen=True, kw_only=True)
class Pruned(Result):
    """How far the cut net is from the whole one with the cut channels silenced, relative to the outputs."""

    stage = "prune"
    proof_relative_error: float


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """A step of recovery: which of its states is kept, 0 for the one before it, and how each does on held-out data."""

    step: str
    kept: int
    states: int
    standings: tuple[dict[str, float | None], ...]


@dataclass(frozen=True, kw_only=True)
class Recovery(Result):
    """The quality in torch after the cut and after training; None where it is no finite number."""

    stage = "recover"
    quality_before: float | None
    quality: float | None
    recalibrated: bool = False
    held_out: dict[str, str | int] = field(default_factory=dict)
    steps: tuple[TrainingStep, ...] = ()
    notes: tuple[str, ...] = ()
    model_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Exported(Result):
    """Every file, what the net in it costs, the links of its parity chain, and why some may not ship."""

    stage = "export"
    artifacts: tuple[Artifact, ...]
    costs: dict[str, Costs] = field(default_factory=dict)
    parity: tuple[dict[str, Any], ...] = ()
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Measured(Result):
    """The quality of each file on the device over so many `samples`, with its spread; files that compute something else
    there.
    """

    stage = "measure"
    quality: dict[str, float | None]
    samples: int
    spreads: dict[str, QualitySpread] = field(default_factory=dict)
    parity: tuple[dict[str, Any], ...] = ()
    broken: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Confirmed(Result):
    """What was measured again, in how many sessions."""

    stage = "confirm"
    artifact: str
    sessions: int


@dataclass(frozen=True, kw_only=True)
class Against:
    """How a run stands against a baseline: what was compared, why other metrics were not, what a reader must know.

    `sessions` are those in which both files took turns now; 0 where recorded figures were compared. `title` says it all
    in a line.
    """

    name: str
    place: str
    title: str
    created: str
    edgeprune: str
    artifact_sha256: str
    sessions: int
    rows: tuple[Regression, ...]
    not_compared: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judged(Result):
    """The verdict; `judged_by` are the gates as keywords of :class:`Gate`, `source` says where they come from.

    `against`: how it stands against a baseline, where one was named.
    """

    stage = "gate"
    verdict: str
    artifact: str
    gates: tuple[GateResult, ...]
    judged_by: tuple[dict[str, Any], ...]
    source: str
    against: Against | None = None


@dataclass(frozen=True, kw_only=True)
class Reported(Result):
    """The verdict that the report tells."""

    stage = "report"
    verdict: str


R = TypeVar("R", bound=Result)


def run_stage(run: Run, kind: type[R], compute: Callable[[], R]) -> R:
    """The result of a stage: read if it has finished before, else computed and saved.

    Raises:
        RunError: something on this machine cannot be read or written.
    """
    run.stage(kind.stage, lambda: to_document(compute()))
    return read_result(run, kind)


def read_result(run: Run, kind: type[R]) -> R:
    """What a finished stage has left.

    Raises:
        RunError: it has not finished, its result was changed, or another version of edgeprune made it.
    """
    return from_document(kind, run.result(kind.stage), run)


def to_document(result: Result) -> dict[str, Any]:
    """JSON-ready, with the version."""
    fields: dict[str, Any] = msgspec.to_builtins(result, str_keys=True)
    return {"version": result.version, **fields}


def from_document(kind: type[R], document: Any, run: Run) -> R:
    """Read back what :func:`to_document` gave.

    Raises:
        RunError: another version, or fields that are missing or of another type.
    """
    version = document.get("version") if isinstance(document, dict) else None
    if version != kind.version:
        age = "a newer" if isinstance(version, int) and version > kind.version else "an older"
        said = f"was made by {age} edgeprune (found version {version}, expected {kind.version})"
        raise RunError(f"{_place(run, kind)}: {said}; {_remedy(run, kind)}")
    try:
        return msgspec.convert(document, kind, str_keys=True)
    except msgspec.ValidationError as exc:
        raise RunError(
            f"{_place(run, kind)}: was made by another version of edgeprune: {exc}; {_remedy(run, kind)}"
        ) from exc


def _place(run: Run, kind: type[Result]) -> str:
    return f"{run.directory / 'stages' / kind.stage}.json"


def _remedy(run: Run, kind: type[Result]) -> str:
    return f"make it anew: `edgeprune deploy --run {run.directory} --from {kind.stage}`"
