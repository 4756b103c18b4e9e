"""The file that a run ships, measured on many boards and judged over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from edgeprune.core.document import Figures, budget_gates, gate_figures
from edgeprune.core.fleet import (
    MEASURED_THERE,
    WORST,
    BoardLatency,
    choose_deciding,
    describe_state,
    find_unlike,
    judge_board,
)
from edgeprune.core.gate import Gate, GateResult, decide, judge
from edgeprune.core.measurement import DeviceFacts, Measurement
from edgeprune.device.connect import open_device
from edgeprune.device.fleet import AT_ONCE, Answer, ask_boards
from edgeprune.device.measure import ModelFile, measure_models
from edgeprune.run import write_json
from edgeprune.stages.artifacts import FORMAT_RUNTIMES, baseline_name, read_figures, shipped
from edgeprune.stages.job import Job

VERSION = 1


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

    Writes `fleet.json`, and the raw samples as `fleet.samples.json`.

    Raises:
        RunError: the run was not measured yet.
    """
    gates = budget_gates(job.target.budget, job.target.gates)
    judged = [gate for gate in gates if gate.metric in MEASURED_THERE]
    answers = _ask(job, fleet)
    results = {one.host: _judge(judged, one) for one in answers}
    deciding = [choose_deciding(gate, _column(results, i), fleet.percentile) for i, gate in enumerate(judged)]
    document = {
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": job.target.name,
        "artifact": shipped(job),
        "percentile": fleet.percentile,
        "verdict": decide([result for _, result in deciding]),
        "gates": [{"host": host, **result.to_dict()} for host, result in deciding],
        "not_judged": [gate.describe() for gate in gates if gate not in judged],
        "boards": [_describe(one, results[one.host]) for one in answers],
        "unlike": [one.describe() for one in find_unlike(_latencies(answers))],
    }
    write_json(job.run.path("fleet.json"), document)
    return document


def _ask(job: Job, fleet: Fleet) -> list[Answer[Measured]]:
    """What every board says, in the order in which they were named."""
    figures, target = read_figures(job), job.target
    chosen = {"baseline": figures[baseline_name(job)], "result": figures[shipped(job)]}
    models = [_model_file(job, name, one) for name, one in chosen.items()]

    def work(host: str) -> Measured:
        def say(text: str) -> None:
            job.detail(f"{host}: {text}")

        with open_device(target, host, say, bool(job.run.request.get("set_governor"))) as device:
            found = measure_models(device, models, target.threads, target.protocol, say)
            return Measured(device.facts, **{name: _figures(one, found[name]) for name, one in chosen.items()})

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


def _figures(figures: Figures, measurement: Measurement) -> Figures:
    """A file on another board, where its accuracy was not measured."""
    return replace(figures, measurement=measurement, accuracy_percent=None)


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
        "conditions": asdict(measurement.conditions),
        "state": describe_state(measurement.conditions),
        "problems": list(measurement.problems),
    }
