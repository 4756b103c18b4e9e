"""The file that a run ships, measured on many boards and judged over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from edgeprune.core.measuring.measurement import DeviceFacts, Measurement, add_energy
from edgeprune.core.progress import put_behind
from edgeprune.core.releasing.document import Figures, gate_figures
from edgeprune.core.releasing.fleet import (
    WORST,
    BoardLatency,
    choose_deciding,
    choose_over_fleet,
    describe_state,
    find_unlike,
    judge_board,
)
from edgeprune.core.releasing.gate import QUALITY_METRICS, Gate, GateResult, decide
from edgeprune.core.releasing.regression import Regression
from edgeprune.core.releasing.shipping import judge_figures
from edgeprune.device.board import Board, ModelFile, Progress, require
from edgeprune.device.boards import open_board
from edgeprune.device.fleet import AT_ONCE, Answer, ask_boards
from edgeprune.errors import BaselineError
from edgeprune.exporting.runners import fit_inputs
from edgeprune.report.junit import render_fleet_junit
from edgeprune.report.markdown import render_fleet_markdown
from edgeprune.run import write_atomic, write_json
from edgeprune.stages.against import NEW, OLD, OLD_FILE, Pair, old_file, open_for_board, settle_measured
from edgeprune.stages.artifacts import REMOTE_ROWS, evaluation_rows
from edgeprune.stages.baseline import StoredBaseline, find_baselines, read_newcomer
from edgeprune.stages.job import Job
from edgeprune.stages.record import find_candidates, read_figures
from edgeprune.stages.results import Against
from edgeprune.stages.sources import describe_changes

VERSION = 2
ENERGY = "energy_mj"
MARKDOWN = "fleet.md"


@dataclass(frozen=True)
class Fleet:
    """Boards by name or address, the percentile that decides, and how many work at once.

    `baseline` is what each is held against too, if given: a name, run directory or file, each kind of device its own.
    """

    hosts: tuple[str, ...]
    percentile: int = WORST
    at_once: int = AT_ONCE
    baseline: str = ""


@dataclass(frozen=True)
class Measured:
    """One board: itself, the shipped file beside the unpruned fp32 one, and how it stands against its kind's baseline.

    `standing` is the reason where there is none; `earlier` is what was measured of the baseline's file.
    """

    facts: DeviceFacts
    result: Figures
    baseline: Figures
    standing: Against | str = ""
    earlier: Measurement | None = None


def measure_fleet(job: Job, fleet: Fleet) -> dict[str, Any]:
    """Measure the shipped file on every board, interleaved with the unpruned one, and judge by the run's gates.

    Energy and quality are measured there where a gate asks for them. Writes `fleet.json`, the raw samples as
    `fleet.samples.json`, the gates as `fleet.junit.xml`, and the verdict for a comment as `fleet.md`.

    Raises:
        RunError: the run was not measured yet.
        TargetError: a gate on energy and a board without a power meter.
        BaselineError: there is no such baseline at all.
    """
    if fleet.baseline:
        find_baselines(fleet.baseline)
    for change in describe_changes(job):
        job.say(change)
    candidates, gates = find_candidates(job, read_figures(job)), job.gates
    files = {"baseline": candidates.baseline, "result": candidates.chosen}
    answers = _ask(job, fleet, files, {gate.metric for gate in gates})
    confidence = job.target.budget.gate_confidence
    results = {answer.host: _judge(gates, answer, confidence) for answer in answers}
    deciding = [choose_deciding(gate, _column(results, i), fleet.percentile) for i, gate in enumerate(gates)]
    against = _judge_against(answers, fleet) if fleet.baseline else []
    verdicts = [result for _, result in deciding] + [row.to_result(fleet.baseline) for _, row in against]
    document = {
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": job.target.name,
        "artifact": files["result"].artifact.name,
        "metric": job.metric.to_dict(),
        "percentile": fleet.percentile,
        "verdict": decide(verdicts),
        "gates": [{"host": host, **result.to_dict()} for host, result in deciding],
        "boards": [_describe(answer, results[answer.host]) for answer in answers],
        "against": _describe_against(fleet.baseline, against),
        "unlike": [outlier.describe() for outlier in find_unlike(_latencies(answers))],
    }
    write_json(job.run.path("fleet.json"), document)
    write_atomic(job.run.path("fleet.junit.xml"), render_fleet_junit(document, job.recipe_name))
    write_atomic(job.run.path(MARKDOWN), render_fleet_markdown(document, job.recipe_name, job.run.directory))
    return document


def _ask(job: Job, fleet: Fleet, files: Mapping[str, Figures], metrics: set[str]) -> list[Answer[Measured]]:
    """What every board says of the two files, in the order in which they were named."""
    target = job.target
    models = [_model_file(job, name, figures) for name, figures in files.items()]
    rows = evaluation_rows(job, REMOTE_ROWS) if metrics & QUALITY_METRICS else None

    def work(host: str) -> Measured:
        def say(text: str) -> None:
            job.detail(put_behind(f"{host}: ", text))

        with open_board(target, host, say, job.session) as board:
            require(board, "time", *["energy"] * (ENERGY in metrics), *["run"] * bool(rows))
            board.check_power(target)
            stored = _find_baseline(job, fleet, board.facts, say)
            timed = [*models, old_file(stored)] if isinstance(stored, StoredBaseline) else models
            measurements = board.time(timed, target.threads, target.protocol, say)
            if ENERGY in metrics:
                measurements = add_energy(measurements, board.energy(timed, target, say))
            quality = _evaluate(job, board, models, rows, say) if rows else {}
            pair = {
                name: replace(figures, measurement=measurements[name], quality=quality.get(name))
                for name, figures in files.items()
            }
            standing = _hold_against(job, fleet, board.facts, stored, measurements)
            return Measured(board.facts, **pair, standing=standing, earlier=measurements.get(OLD_FILE))

    answers = {}
    for answer in ask_boards(fleet.hosts, work, fleet.at_once):
        answers[answer.host] = answer
        job.detail(f"{answer.host}: {_say(answer)}")
    samples = {host: _samples(answer.value) for host, answer in answers.items() if answer.value is not None}
    write_json(job.run.path("fleet.samples.json"), samples)
    return [answers[host] for host in fleet.hosts]


def _find_baseline(job: Job, fleet: Fleet, facts: DeviceFacts, say: Progress) -> StoredBaseline | str:
    """The baseline of a board's kind; the reason where there is none that the run can be held against."""
    if not fleet.baseline:
        return ""
    try:
        return open_for_board(job, fleet.baseline, facts, say)
    except BaselineError as exc:
        return str(exc)


def _hold_against(
    job: Job,
    fleet: Fleet,
    facts: DeviceFacts,
    stored: StoredBaseline | str,
    measurements: Mapping[str, Measurement],
) -> Against | str:
    if isinstance(stored, str):
        return stored
    run = replace(read_newcomer(job), device=facts, reference=measurements["baseline"])
    measured = {NEW: measurements["result"], OLD: measurements[OLD_FILE]}
    return settle_measured(job, fleet.baseline, Pair(run, stored), measured)


def _judge_against(answers: Sequence[Answer[Measured]], fleet: Fleet) -> list[tuple[str, Regression]]:
    """Which board decides of each metric against its kind's baseline, and what is said of it."""
    boards: dict[str, Sequence[Regression] | str] = {}
    for answer in answers:
        standing = answer.value.standing if answer.value else f"not measured: {answer.error}"
        boards[answer.host] = standing if isinstance(standing, str) else standing.rows
    return choose_over_fleet(boards, fleet.percentile)


def _describe_against(name: str, rows: Sequence[tuple[str, Regression]]) -> dict[str, Any] | None:
    return {"name": name, "rows": [{"host": host, **asdict(row)} for host, row in rows]} if name else None


def _model_file(job: Job, name: str, figures: Figures) -> ModelFile:
    artifact = figures.artifact
    return ModelFile(name, job.run.file(artifact.path), artifact.sha256, figures.measurement.runtime)


def _evaluate(
    job: Job, board: Board, models: Sequence[ModelFile], rows: tuple[np.ndarray, np.ndarray], say: Progress
) -> dict[str, float]:
    """The recipe's metric of files on a board, by name."""
    inputs, targets = rows
    outputs = {model.name: board.run(model, fit_inputs(model.path, inputs), say) for model in models}
    return {name: float(job.recipe.metric(output, targets)) for name, output in outputs.items()}


def _say(answer: Answer[Measured]) -> str:
    return f"p50 {answer.value.result.latency.p50_ms:.4g} ms" if answer.value else f"not measured: {answer.error}"


def _samples(measured: Measured) -> dict[str, Any]:
    rows = {name: getattr(measured, name).measurement.to_dict() for name in ("baseline", "result")}
    return rows | ({OLD_FILE: measured.earlier.to_dict()} if measured.earlier else {})


def _judge(gates: Sequence[Gate], answer: Answer[Measured], confidence: float) -> tuple[GateResult, ...]:
    if answer.value is None:
        return judge_board(gates, str(answer.error))
    return judge_figures(gates, answer.value.result, answer.value.baseline, confidence)


def _column(results: dict[str, tuple[GateResult, ...]], index: int) -> dict[str, GateResult]:
    return {host: row[index] for host, row in results.items()}


def _latencies(answers: Sequence[Answer[Measured]]) -> list[BoardLatency]:
    """Boards whose run is valid."""
    runs = [(answer.host, answer.value.facts, answer.value.result) for answer in answers if answer.value is not None]
    return [
        BoardLatency(host, facts.fingerprint, figures.latency, describe_state(figures.measurement.conditions))
        for host, facts, figures in runs
        if figures.measurement.valid
    ]


def _describe(answer: Answer[Measured], gates: Sequence[GateResult]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "host": answer.host,
        "error": str(answer.error or ""),
        "gates": [gate.to_dict() for gate in gates],
    }
    if answer.value is None:
        return row
    facts, figures, standing = answer.value.facts, answer.value.result, answer.value.standing
    measurement = figures.measurement
    return row | {
        "device": facts.to_dict(),
        "latency": figures.latency.to_dict(),
        "against": asdict(standing) if isinstance(standing, Against) else standing or None,
        "baseline_latency": answer.value.baseline.latency.to_dict(),
        "speedup": gate_figures(figures, answer.value.baseline)["speedup"].value,
        "init_ms": measurement.init_ms,
        "first_ms": measurement.first_ms,
        "peak_memory_mib": measurement.peak_memory_mib,
        "quality": figures.shown_quality,
        "energy_mj": measurement.energy_mj,
        "conditions": asdict(measurement.conditions),
        "state": describe_state(measurement.conditions),
        "problems": list(measurement.problems),
    }
