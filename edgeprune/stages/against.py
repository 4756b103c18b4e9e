"""A run held against a baseline: by figures that were recorded, or by both files measured in turns now.

Imports nothing heavy, so that a run is judged again in no time; what measures is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgeprune.core.measuring.measurement import DeviceFacts, Measurement, add_energy
from edgeprune.core.measuring.pairing import (
    find_ratio,
    has_same_reference,
    ratio_of_values,
    recorded_ratio,
)
from edgeprune.core.measuring.spread import RatioSpread, StudentSpread
from edgeprune.core.releasing.baseline import (
    Baseline,
    Newcomer,
    check_comparable,
    describe_device,
    device_kind,
    device_unit,
    match_figures,
)
from edgeprune.core.releasing.document import COLD_STARTS
from edgeprune.core.releasing.gate import INCONCLUSIVE, LOOKS, PERCENTILES, Strictness
from edgeprune.core.releasing.regression import (
    RATIO_METRICS,
    Figures,
    Regression,
    judge_regressions,
    settle_limits,
)
from edgeprune.core.target import Target
from edgeprune.errors import BaselineError, DeviceError
from edgeprune.stages.baseline import Progress, StoredBaseline, name_place, open_baseline, read_newcomer
from edgeprune.stages.job import Job
from edgeprune.stages.results import Against
from edgeprune.stages.sessions import Measurements, measure_until_decided

if TYPE_CHECKING:
    from edgeprune.device.board import ModelFile

BESIDE = "beside.json"
"""What was measured of both files in turns, for a verdict against a baseline."""
NEW, OLD = "run", "baseline"
OLD_FILE = "earlier"
"""The baseline's file among those that boards of a fleet measure, where the unpruned one has the other name."""
Session = tuple[Measurement, Measurement | None]
"""What was measured of a file, and of what took turns with it."""


@dataclass(frozen=True)
class Standing:
    """How a run stands against a baseline, and what was measured for it now, by NEW and OLD."""

    against: Against
    measured: Mapping[str, Measurement] = field(default_factory=dict)


def hold_against(job: Job, text: str, is_interleaved: bool = False, host: str | None = None) -> Standing:
    """Hold what a run ships against a baseline; `is_interleaved`: both files are measured now, in turns.

    Raises:
        BaselineError: there is no such baseline, or it says nothing of this run.
        DeviceError: the board cannot be reached, or is of another kind.
    """
    run, stored = read_newcomer(job), open_baseline(text, job.facts, job.detail)
    notes = check_comparable(stored.baseline, run, name_place(stored, text), is_interleaved)
    if not is_interleaved:
        return Standing(_settle(job, text, Pair(run, stored, notes=notes)))
    pair = _measure_pair(job, text, Pair(run, stored, notes=notes), host)
    return Standing(_settle(job, text, pair), {NEW: pair.run.figures.measurement, OLD: pair.old.figures.measurement})


@dataclass(frozen=True)
class Pair:
    """A run and a baseline; both measured in turns in so many `sessions`, 0 where their figures were recorded."""

    run: Newcomer
    stored: StoredBaseline
    sessions: int = 0
    notes: tuple[str, ...] = ()

    @property
    def old(self) -> Baseline:
        """The baseline."""
        return self.stored.baseline


def compare_pair(target: Target, pair: Pair) -> tuple[tuple[Regression, ...], dict[str, str]]:
    """Each metric held against its limit, and why others were not compared."""
    confidence, metric = target.budget.gate_confidence, pair.run.figures.metric
    unit = device_unit(pair.run.device)
    is_one_meter = bool(pair.sessions or (unit and unit == pair.old.unit))
    new, old = match_figures(pair.old, pair.run, is_one_meter)
    limits = settle_limits(target.baseline, metric, pair.run.figures.samples)
    demanded = [limit.metric for limit in target.baseline]
    strictness = Strictness(confidence=confidence, looks=LOOKS if pair.sessions else 1)
    return judge_regressions(Figures(new, old, metric, find_ratios(pair)), limits, demanded, strictness)


def find_ratios(pair: Pair) -> dict[str, RatioSpread]:
    """How the latencies of a run relate to those of a baseline, by metric."""
    new, old = pair.run.figures.measurement, pair.old.figures.measurement
    sides = (new, pair.run.reference), (old, pair.old.reference)
    starts = {
        name: ratio_of_values(*([start[place] for start in side.cold_starts_ms] for side in (new, old)))
        for place, name in enumerate(COLD_STARTS)
    }
    steady = {name: _latency_ratio(*sides, percentile, pair.sessions) for name, percentile in PERCENTILES.items()}
    return {name: ratio for name, ratio in (steady | starts).items() if ratio is not None}


def _latency_ratio(new: Session, old: Session, percentile: float, sessions: int) -> StudentSpread | None:
    """In turns over the processes of both; else, or where there are too few, as recorded in two sessions."""
    if not new[0].steady_ms or not old[0].steady_ms:
        return None
    return find_ratio(new[0], old[0], percentile) if sessions else recorded_ratio(new, old, percentile)


def _settle(job: Job, text: str, pair: Pair) -> Against:
    rows, skipped = compare_pair(job.target, pair)
    old = pair.old
    return Against(
        name=text,
        place=str(pair.stored.place),
        title=_describe(text, pair),
        created=old.created,
        edgeprune=old.edgeprune,
        artifact_sha256=old.figures.artifact.sha256,
        sessions=pair.sessions,
        rows=rows,
        not_compared=skipped,
        notes=pair.notes,
    )


def _describe(text: str, pair: Pair) -> str:
    """What was held against what, and how far latencies may be believed."""
    head = f"against baseline {text} of {pair.old.created[:10]}"
    if pair.sessions:
        return f"{head}, measured in turns with it now ({pair.sessions} session{'s' * (pair.sessions > 1)}):"
    if pair.run.figures.measurement.is_counted:
        return f"{head}, instructions as they were counted then: the same file gives the same count on any day:"
    if has_same_reference(pair.run.reference, pair.old.reference):
        return (
            f"{head}, as recorded: latencies are of two sessions, what the board's speed did between them taken off by "
            "the unpruned file, which is the same in both; --interleave tells more:"
        )
    return (
        f"{head}, as recorded: latencies are of two sessions with nothing in common, which differ by several percent "
        "by themselves; --interleave measures both in turns:"
    )


def open_for_board(job: Job, text: str, facts: DeviceFacts, say: Progress) -> StoredBaseline:
    """The baseline of a board's kind, such that its file can be measured in turns with the run's.

    Raises:
        BaselineError: there is none, it says nothing of this run, or its file is gone.
    """
    stored = open_baseline(text, facts, say)
    check_comparable(stored.baseline, replace(read_newcomer(job), device=facts), name_place(stored, text), True)
    _require_file(stored)
    return stored


def old_file(stored: StoredBaseline) -> ModelFile:
    """The baseline's file, for a board."""
    from edgeprune.device.board import ModelFile

    figures = stored.baseline.figures
    return ModelFile(OLD_FILE, stored.artifact, figures.artifact.sha256, figures.measurement.runtime)


def settle_measured(job: Job, text: str, pair: Pair, measured: Mapping[str, Measurement]) -> Against:
    """How a pair stands that was `measured` in turns, by NEW and OLD."""
    return _settle(job, text, _replace_measured(pair, measured))


def _require_file(stored: StoredBaseline) -> None:
    if not stored.artifact.exists():
        raise BaselineError(
            f"{stored.artifact}: is gone, so that there is nothing to measure in turns with the run; restore it, or "
            "set the baseline again"
        )


def _measure_pair(job: Job, text: str, pair: Pair, host: str | None) -> Pair:
    """Both files measured in turns on one board, on while a latency is undecided."""
    from edgeprune.device.board import ModelFile, require
    from edgeprune.device.boards import open_board

    artifact = pair.run.figures.artifact
    _require_file(pair.stored)
    models = [
        ModelFile(NEW, job.run.file(artifact.path), artifact.sha256, pair.run.figures.measurement.runtime),
        replace(old_file(pair.stored), name=OLD),
    ]
    target, address = job.target, host or job.run.request["host"]
    with open_board(target, address, job.detail, job.session) as board:
        require(board, "time")
        if device_kind(board.facts) != pair.old.kind:
            raise DeviceError(
                f"{board.facts.host}: is {describe_device(board.facts)}, the baseline of another kind, "
                f"{describe_device(pair.old.device)}; name a board of that kind by --host"
            )

        def measure() -> Measurements:
            job.detail(f"measuring {artifact.path} in turns with the file of baseline {text}")
            return board.time(models, target.threads, target.protocol, job.detail)

        measured, sessions = measure_until_decided(
            job, measure, lambda pooled: _is_undecided(target, _replace_measured(pair, pooled))
        )
        pair = _replace_measured(pair, measured, sessions)
        if "energy" not in board.lacks:
            pair = _replace_measured(pair, add_energy(measured, board.energy(models, target, job.detail)), 0)
    return pair


def _replace_measured(pair: Pair, measured: Mapping[str, Measurement], sessions: int = 1) -> Pair:
    """The pair with what was measured of both files now in place of what was recorded."""
    run = replace(pair.run, figures=replace(pair.run.figures, measurement=measured[NEW]))
    old = replace(pair.old, figures=replace(pair.old.figures, measurement=measured[OLD]))
    return replace(pair, run=run, stored=replace(pair.stored, baseline=old), sessions=pair.sessions + sessions)


def _is_undecided(target: Target, pair: Pair) -> bool:
    """Whether a latency or cold start is too near to its limit."""
    rows, _ = compare_pair(target, pair)
    return any(row.metric in RATIO_METRICS and row.outcome == INCONCLUSIVE for row in rows)
