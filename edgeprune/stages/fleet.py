"""The file that a run ships, measured on many boards and judged over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from edgeprune.core.document import Figures, budget_gates, gate_figures
from edgeprune.core.fleet import WORST, BoardLatency, choose_deciding, describe_state, find_unlike, judge_board
from edgeprune.core.gate import Gate, GateResult, decide, judge
from edgeprune.core.measurement import DeviceFacts, Measurement
from edgeprune.device.connect import Device, open_device
from edgeprune.device.energy import add_energy, check_meter, measure_energy
from edgeprune.device.fleet import AT_ONCE, Answer, ask_boards
from edgeprune.device.measure import ModelFile, Progress, evaluate_model, measure_models
from edgeprune.export.runners import fit_inputs
from edgeprune.run import write_json
from edgeprune.stages.artifacts import REMOTE_ROWS, evaluation_rows
from edgeprune.stages.job import Job
from edgeprune.stages.measure import FORMAT_RUNTIMES, baseline_name, read_figures, shipped

VERSION = 1
ENERGY = "energy_mj"
ACCURACY = ("accuracy_percent", "accuracy_drop_points")


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

    Energy and accuracy are measured there where a gate asks for them. Writes `fleet.json`, and the raw samples as
    `fleet.samples.json`.

    Raises:
        RunError: the run was not measured yet.
        TargetError: a gate on energy and a board without a power meter.
    """
    gates = budget_gates(job.target.budget, job.target.gates)
    answers = _ask(job, fleet, {gate.metric for gate in gates})
    results = {one.host: _judge(gates, one) for one in answers}
    deciding = [choose_deciding(gate, _column(results, i), fleet.percentile) for i, gate in enumerate(gates)]
    document = {
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": job.target.name,
        "artifact": shipped(job),
        "percentile": fleet.percentile,
        "verdict": decide([result for _, result in deciding]),
        "gates": [{"host": host, **result.to_dict()} for host, result in deciding],
        "boards": [_describe(one, results[one.host]) for one in answers],
        "unlike": [one.describe() for one in find_unlike(_latencies(answers))],
    }
    write_json(job.run.path("fleet.json"), document)
    return document


def _ask(job: Job, fleet: Fleet, metrics: set[str]) -> list[Answer[Measured]]:
    """What every board says, in the order in which they were named."""
    figures, target = read_figures(job), job.target
    chosen = {"baseline": figures[baseline_name(job)], "result": figures[shipped(job)]}
    models = [_model_file(job, name, one) for name, one in chosen.items()]
    rows = evaluation_rows(job, REMOTE_ROWS) if metrics & set(ACCURACY) else None

    def work(host: str) -> Measured:
        def say(text: str) -> None:
            job.detail(f"{host}: {text}")

        with open_device(target, host, say, job.session) as device:
            check_meter(device, target)
            found = measure_models(device, models, target.threads, target.protocol, say)
            if ENERGY in metrics:
                found = add_energy(found, measure_energy(device, models, target, say))
            accuracy = _evaluate(job, device, models, rows, say) if rows else {}
            there = {name: _figures(one, found[name], accuracy.get(name)) for name, one in chosen.items()}
            return Measured(device.facts, **there)

    answers = {}
    for answer in ask_boards(fleet.hosts, work, fleet.at_once):
        answers[answer.host] = answer
        job.detail(f"{answer.host}: {_say(answer)}")
    samples = {host: _samples(one.value) for host, one in answers.items() if one.value is not None}
    write_json(job.run.path("fleet.samples.json"), samples)
    return [answers[host] for host in fleet.hosts]


def _model_file(job: Job, name: str, figures: Figures) -> ModelFile:
    artifact = figures.artifact
    return ModelFile(name, job.run.path(artifact.path), artifact.sha256, FORMAT_RUNTIMES[artifact.format])


def _evaluate(
    job: Job, device: Device, models: Sequence[ModelFile], rows: tuple[np.ndarray, np.ndarray], say: Progress
) -> dict[str, float]:
    """The accuracy of files on a board, in percent, by name."""
    inputs, targets = rows
    outputs = {one.name: evaluate_model(device, one, fit_inputs(one.path, inputs), say) for one in models}
    return {name: float(job.recipe.metric(found, targets)) for name, found in outputs.items()}


def _figures(figures: Figures, measurement: Measurement, accuracy_percent: float | None) -> Figures:
    """A file on another board; its accuracy is None where it was not measured there."""
    return replace(figures, measurement=measurement, accuracy_percent=accuracy_percent)


def _say(answer: Answer[Measured]) -> str:
    return f"p50 {answer.value.result.latency.p50_ms:.4g} ms" if answer.value else f"not measured: {answer.error}"


def _samples(measured: Measured) -> dict[str, Any]:
    return {name: getattr(measured, name).measurement.to_dict() for name in ("baseline", "result")}


def _judge(gates: Sequence[Gate], answer: Answer[Measured]) -> tuple[GateResult, ...]:
    if answer.value is None:
        return judge_board(gates, str(answer.error))
    figures, beside = answer.value.result, answer.value.baseline
    looked_at, baseline = gate_figures(figures, beside), gate_figures(beside)
    return tuple(judge(gate, looked_at, baseline) for gate in gates)


def _column(results: dict[str, tuple[GateResult, ...]], index: int) -> dict[str, GateResult]:
    return {host: row[index] for host, row in results.items()}


def _latencies(answers: Sequence[Answer[Measured]]) -> list[BoardLatency]:
    """Boards whose run is valid."""
    found = [(one.host, one.value.facts, one.value.result) for one in answers if one.value is not None]
    return [
        BoardLatency(host, facts.fingerprint, figures.latency, describe_state(figures.measurement.conditions))
        for host, facts, figures in found
        if figures.measurement.valid
    ]


def _describe(answer: Answer[Measured], gates: Sequence[GateResult]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "host": answer.host,
        "error": str(answer.error or ""),
        "gates": [one.to_dict() for one in gates],
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
        "accuracy_percent": figures.accuracy_percent,
        "energy_mj": measurement.energy_mj,
        "conditions": asdict(measurement.conditions),
        "state": describe_state(measurement.conditions),
        "problems": list(measurement.problems),
    }
