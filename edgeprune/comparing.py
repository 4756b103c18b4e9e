"""Runs side by side, read from their directories: finished ones, estimated ones, unfinished ones, and whole sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.core.choosing.card import CardRun, Evidence, find_misfit, is_of_one_curve
from edgeprune.core.choosing.document import Comparison
from edgeprune.core.choosing.points import (
    UNFINISHED,
    UNPRUNED,
    Interval,
    Point,
    Setting,
    read_latency,
    read_point,
    read_quality,
    read_setting,
)
from edgeprune.core.cost import MS
from edgeprune.core.latency.table import ESTIMATED
from edgeprune.core.measuring.measurement import Measurement
from edgeprune.core.measuring.pairing import find_ratio
from edgeprune.core.releasing.document import REPORT_VERSION
from edgeprune.errors import RunError, UsageError
from edgeprune.run import REQUEST, SWEEP, Run, look_at_run, read_json
from edgeprune.stages.explanation import read_explanation
from edgeprune.stages.interleave import Interleaved, read_interleaved
from edgeprune.stages.results import Fitted, read_result

INTERLEAVED = "interleaved.json"
SWEEP_VERSION = 1
KINDS = {"speedup": "speedup", "latency_ms": "latency"}
"""What a sweep may go through, by the name of the budget, and what its folders are called by."""


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep was asked for: budgets of one `kind`, and the `request` that they share.

    `out_of_reach` says of budgets that no widths meet why, by their names.
    """

    directory: Path
    kind: str
    budgets: tuple[float, ...]
    request: Mapping[str, Any]
    out_of_reach: Mapping[str, str]

    def name(self, budget: float) -> str:
        """What a budget is called, and its folder: `speedup-2`, `latency-4.5`."""
        return f"{KINDS[self.kind]}-{budget:g}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all budgets, in order."""
        return tuple(map(self.name, self.budgets))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        fields = asdict(self) | {"version": SWEEP_VERSION}
        return {name: value for name, value in fields.items() if name != "directory"}


def read_sweep_plan(directory: Path) -> SweepPlan:
    """What a sweep was asked for, as it was written down.

    Raises:
        RunError: no sweep, or it cannot be read.
    """
    path = directory / SWEEP
    document = read_json(path)
    try:
        if document["version"] != SWEEP_VERSION or document["kind"] not in KINDS:
            raise RunError(f"{path}: expected version {SWEEP_VERSION}; begin a new sweep")
        budgets = tuple(float(budget) for budget in document["budgets"])
        return SweepPlan(
            directory, document["kind"], budgets, dict(document["request"]), dict(document["out_of_reach"])
        )
    except (LookupError, TypeError, ValueError) as exc:
        raise RunError(f"{path}: is damaged ({exc!r}); begin a new sweep") from exc


def is_sweep(directory: Path) -> bool:
    """Whether a directory is that of a sweep."""
    return (directory / SWEEP).exists()


def read_comparison(directories: Sequence[Path]) -> Comparison:
    """Runs and sweeps side by side; a single sweep as it was measured in turns.

    Raises:
        UsageError: no run directory, or one that is named twice.
        RunError: one cannot be read.
    """
    _check_directories(directories)
    if len(directories) == 1 and is_sweep(directories[0]):
        return read_sweep(directories[0])
    points: list[Point] = []
    for directory, name in zip(directories, _name_apart(directories), strict=True):
        if is_sweep(directory):
            own = read_sweep(directory).points
            points += [replace(point, name=f"{name}/{point.name}") for point in own]
        else:
            points.append(read_run(directory, name))
    return Comparison(tuple(points), f"{len(points)} runs side by side")


def _check_directories(directories: Sequence[Path]) -> None:
    places: dict[Path, Path] = {}
    for directory in directories:
        if not directory.is_dir():
            raise UsageError(f"{directory}: is no run directory; to measure two files on a board, give --target")
        if directory.resolve() in places:
            raise UsageError(f"{directory}: is named twice; name each run once")
        places[directory.resolve()] = directory


def _name_apart(directories: Sequence[Path]) -> list[str]:
    """The last name of each directory, or all of its path where two share that."""
    names = [directory.resolve().name for directory in directories]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, directories, strict=True)]


def read_run(directory: Path, name: str) -> Point:
    """A run as a point, however far it has come.

    Raises:
        RunError: no run, or what it has made was changed.
    """
    run = look_at_run(directory)
    if run.finished("report"):
        return read_point(name, read_report(run), str(directory))
    recipe = Path(str(run.request.get("recipe", ""))).stem
    point = Point(name, UNFINISHED, recipe=recipe, directory=str(directory))
    if not run.finished("fit"):
        return point
    fitted = read_result(run, Fitted)
    predicted_ms = fitted.plan.predicted_ms
    if fitted.origin != ESTIMATED or predicted_ms is None:
        return point
    return replace(point, origin=ESTIMATED, latency=Interval(predicted_ms, predicted_ms, predicted_ms))


def read_report(run: Run) -> Mapping[str, Any]:
    """The report of a finished run.

    Raises:
        RunError: it has not finished, its report was changed, is one of another version, or has no latency.
    """
    report: Any = read_json(run.file("report.json"))
    version = report.get("version") if isinstance(report, dict) else None
    if version != REPORT_VERSION:
        raise RunError(
            f"{run.directory / 'report.json'}: version {version}; this edgeprune reads version {REPORT_VERSION}; write "
            f"it anew: `edgeprune report --run {run.directory}`"
        )
    if report.get("unit", MS) != MS:
        raise RunError(
            f"{run.directory}: counts {report['unit']} and has no latency, which is what is compared here; "
            f"`edgeprune gate --run {run.directory} --baseline OTHER` holds its counts against another run's"
        )
    return dict(report)


def read_sweep(directory: Path) -> Comparison:
    """A sweep as far as it has come: its finished runs with what they took in turns, and the unpruned net.

    Raises:
        RunError: no sweep, or what it has made was changed.
    """
    plan = read_sweep_plan(directory)
    places = {name: directory / name for name in plan.names if name not in plan.out_of_reach}
    points = {name: read_run(place, name) for name, place in places.items() if (place / REQUEST).exists()}
    points |= {name: Point(name, UNFINISHED) for name in places if name not in points}
    finished = [name for name, point in points.items() if point.setting is not None]
    interleaved = read_interleaved(directory / INTERLEAVED)
    in_turns = interleaved is not None and set(finished) == interleaved.measurements.keys() - {UNPRUNED}
    recipe, target = (Path(str(plan.request[name])).stem for name in ("recipe", "target"))
    shown = tuple(points.values())
    conditions = ""
    if interleaved is not None and in_turns:
        report = read_report(look_at_run(places[finished[0]]))
        shown = _put_in_turns(points, interleaved, report)
        conditions = describe_session(interleaved)
    return Comparison(shown, f"{recipe} on {target}", in_turns, plan.out_of_reach, conditions)


def describe_session(interleaved: Interleaved) -> str:
    """Under which conditions files were measured in turns, for people."""
    unpruned = interleaved.measurements[UNPRUNED]
    processes = len(unpruned.samples_by_process)
    return (
        f"all files in turns in one session, {interleaved.measured_at}; medians, with 95 % intervals over {processes} "
        f"processes; {unpruned.conditions.describe()}"
    )


def _put_in_turns(
    points: Mapping[str, Point], interleaved: Interleaved, report: Mapping[str, Any]
) -> tuple[Point, ...]:
    """The points of a sweep with what was measured in turns in place of their own sessions, and the unpruned net."""
    unpruned = interleaved.measurements[UNPRUNED]
    own = [
        _measured_in_turns(point, interleaved.measurements[name], unpruned)
        if name in interleaved.measurements
        else point
        for name, point in points.items()
    ]
    baseline = report["baseline"]
    whole = Point(
        UNPRUNED,
        UNPRUNED,
        setting=_setting_in_turns(read_setting(report), unpruned),
        latency=read_latency(unpruned.latency.to_dict()),
        quality=read_quality(baseline),
        speedup=Interval(1.0, 1.0, 1.0),
        original_quality=baseline["quality"],
        problems=unpruned.problems,
        recipe=str(report["recipe"]),
        result=baseline | {"latency": unpruned.latency.to_dict()},
    )
    return (whole, *own)


def _measured_in_turns(point: Point, measurement: Measurement, unpruned: Measurement) -> Point:
    latency = measurement.latency.to_dict()
    return replace(
        point,
        setting=point.setting and _setting_in_turns(point.setting, measurement),
        latency=read_latency(latency),
        speedup=Interval(*find_ratio(unpruned, measurement).interval()),
        problems=measurement.problems,
        result={**point.result, "latency": latency},
    )


def _setting_in_turns(setting: Setting, measurement: Measurement) -> Setting:
    conditions = measurement.conditions
    return replace(
        setting,
        runtime=f"{measurement.runtime} {measurement.runtime_version}",
        threads=conditions.threads,
        affinity=conditions.affinity,
        governor=conditions.governor,
    )


def gather_evidence(directories: Sequence[Path]) -> Evidence:
    """What a card of the first run is made from: of a sweep the run to choose; a run within a sweep has its curve.

    Raises:
        UsageError: a run that is named twice, a sweep of which no run is to be chosen, or a run that is neither a
            repeat of the first nor of its curve.
        RunError: one has not finished, or cannot be read.
    """
    _check_directories(directories)
    first, *others = directories
    curve: list[Point] = []
    if is_sweep(first):
        others = [first, *others]
        first = _choose_within(first)
    elif is_sweep(first.resolve().parent):
        others = [first.resolve().parent, *others]
    run, repeats = read_card_run(first), []
    for directory in {other.resolve(): other for other in others}.values():
        if is_sweep(directory):
            curve += [point for point in read_sweep(directory).points if point.verdict not in (UNPRUNED, UNFINISHED)]
            continue
        other = read_card_run(directory)
        misfit = find_misfit(run, other)
        if not misfit:
            repeats.append(other)
        elif is_of_one_curve(run, other):
            curve += [*([] if curve else [run.point]), other.point]
        else:
            raise UsageError(
                f"{directory}: is neither a run of the same plan with other seeds ({misfit}) nor one of the same net "
                "at another budget; leave it out"
            )
    return Evidence(run, repeats, curve)


def _choose_within(sweep: Path) -> Path:
    choice = read_sweep(sweep).choice
    if choice.name is None:
        raise UsageError(f"{sweep}: {choice.reason}; name one of its runs, as --run {sweep}/NAME")
    return sweep / choice.name


def read_card_run(directory: Path) -> CardRun:
    """A finished run for a card, with what was explained of it.

    Raises:
        RunError: it has not finished, or cannot be read.
    """
    run = look_at_run(directory)
    return CardRun(directory.resolve().name, read_report(run), read_explanation(run))
