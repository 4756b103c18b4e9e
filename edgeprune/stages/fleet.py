"""The file that a run ships, measured on many boards and judged over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from edgeprune.core.measuring.measurement import DeviceFacts, add_energy
from edgeprune.core.progress import put_behind
from edgeprune.core.releasing.document import Figures, gate_figures
from edgeprune.core.releasing.fleet import (
    WORST,
    BoardLatency,
    choose_deciding,
    describe_state,
    find_unlike,
    judge_board,
)
from edgeprune.core.releasing.gate import QUALITY_METRICS, Gate, GateResult, decide, judge
from edgeprune.device.board import Board, ModelFile, Progress, require
from edgeprune.device.boards import open_board
from edgeprune.device.fleet import AT_ONCE, Answer, ask_boards
from edgeprune.exporting.runners import fit_inputs
from edgeprune.run import write_json
from edgeprune.stages.artifacts import REMOTE_ROWS, evaluation_rows
from edgeprune.stages.job import Job
from edgeprune.stages.record import find_candidates, read_figures

VERSION = 2
ENERGY = "energy_mj"


@dataclass(frozen=True)
class Fleet:
    """Boards by name or address, the percentile that decides, and how many work at once."""

    hosts: tuple[str, ...]
    percentile: int = WORST
    at_once: int = AT_ONCE


@dataclass(frozen=True)
class Measured:
    """One board: itself, and the shipped file beside the unpruned fp32 one."""

    facts: DeviceFacts
    result: Figures
    baseline: Figures


def measure_fleet(job: Job, fleet: Fleet) -> dict[str, Any]:
    """Measure the shipped file on every board, interleaved with the unpruned one, and judge by the run's gates.

    Energy and quality are measured there where a gate asks for them. Writes `fleet.json`, and the raw samples as
    `fleet.samples.json`.

    Raises:
        RunError: the run was not measured yet.
        TargetError: a gate on energy and a board without a power meter.
    """
    candidates, gates = find_candidates(job, read_figures(job)), job.gates
    files = {"baseline": candidates.baseline, "result": candidates.chosen}
    answers = _ask(job, fleet, files, {gate.metric for gate in gates})
    confidence = job.target.budget.gate_confidence
    results = {answer.host: _judge(gates, answer, confidence) for answer in answers}
    deciding = [choose_deciding(gate, _column(results, i), fleet.percentile) for i, gate in enumerate(gates)]
    document = {
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": job.target.name,
        "artifact": files["result"].artifact.name,
        "metric": job.metric.to_dict(),
        "percentile": fleet.percentile,
        "verdict": decide([result for _, result in deciding]),
        "gates": [{"host": host, **result.to_dict()} for host, result in deciding],
        "boards": [_describe(answer, results[answer.host]) for answer in answers],
        "unlike": [outlier.describe() for outlier in find_unlike(_latencies(answers))],
    }
    write_json(job.run.path("fleet.json"), document)
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
            measurements = board.time(models, target.threads, target.protocol, say)
            if ENERGY in metrics:
                measurements = add_energy(measurements, board.energy(models, target, say))
            quality = _evaluate(job, board, models, rows, say) if rows else {}
            pair = {
                name: replace(figures, measurement=measurements[name], quality=quality.get(name))
                for name, figures in files.items()
            }
            return Measured(board.facts, **pair)

    answers = {}
    for answer in ask_boards(fleet.hosts, work, fleet.at_once):
        answers[answer.host] = answer
        job.detail(f"{answer.host}: {_say(answer)}")
    samples = {host: _samples(answer.value) for host, answer in answers.items() if answer.value is not None}
    write_json(job.run.path("fleet.samples.json"), samples)
    return [answers[host] for host in fleet.hosts]


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
    return {name: getattr(measured, name).measurement.to_dict() for name in ("baseline", "result")}


def _judge(gates: Sequence[Gate], answer: Answer[Measured], confidence: float) -> tuple[GateResult, ...]:
    if answer.value is None:
        return judge_board(gates, str(answer.error))
    figures, beside = answer.value.result, answer.value.baseline
    looked_at, baseline = gate_figures(figures, beside, confidence), gate_figures(beside, confidence=confidence)
    return tuple(judge(gate, looked_at, baseline) for gate in gates)


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
    facts, figures, measurement = answer.value.facts, answer.value.result, answer.value.result.measurement
    return row | {
        "device": facts.to_dict(),
        "latency": figures.latency.to_dict(),
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
