"""Rows of the history from measurements, and from what a run directory has, also one of an earlier version."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgeprune.core.latency.table import MEASURED
from edgeprune.core.measuring.measurement import TAIL_PERCENTS, Conditions, DeviceFacts, Measurement, parse_measurement
from edgeprune.core.metric import TOP1
from edgeprune.errors import HistoryError, RunError
from edgeprune.history.filters import format_time
from edgeprune.history.row import HistoryRow
from edgeprune.run import REQUEST, Run, hash_file, read_json
from edgeprune.shipped import PACKAGE

REPORT, FILES = "report.json", {"measure": "measurements.json", "confirm": "confirmed.json", "gate": "beside.json"}
"""What a run directory keeps its measurements in, by the stage that made them."""
DEFAULTS: dict[str, Any] = {"windows": [], "inputs": {}, "cold_starts_ms": [], "providers": {}, "problems": []}
"""Fields of a measurement that earlier versions had not."""


def describe_measurement(measurement: Measurement, stage: str, created: str) -> HistoryRow:
    """What a measurement alone tells; without a single sample its latencies are None."""
    return HistoryRow(
        key=hash_measurement(measurement),
        created=created,
        origin=MEASURED,
        stage=stage,
        artifact=measurement.artifact,
        artifact_sha256=measurement.sha256,
        device=measurement.device,
        runtime=measurement.runtime,
        runtime_version=measurement.runtime_version,
        threads=measurement.conditions.threads,
        valid=measurement.valid,
        problems=json.dumps(list(measurement.problems)),
        conditions=json.dumps(asdict(measurement.conditions)),
        samples=len(measurement.samples_ms),
        init_ms=_number(measurement.init_ms),
        first_ms=_number(measurement.first_ms),
        peak_memory_mib=_number(measurement.peak_memory_mib),
        **_latency_columns(measurement),
        **_energy_columns(measurement),
    )


def hash_measurement(measurement: Measurement) -> str:
    """What makes a measurement this one, wherever it is kept: the file, the device and the runtime that ran it, and
    every sample in ms with the start of every window. Hexadecimal SHA-256."""
    deciding = (
        *(measurement.sha256, measurement.device, measurement.runtime, measurement.runtime_version),
        measurement.conditions.threads,
        [float(sample) for sample in measurement.samples_ms],
        [float(window.at_s) for window in measurement.windows],
        [None if start is None else float(start) for start in (measurement.init_ms, measurement.first_ms)],
    )
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()


def _latency_columns(measurement: Measurement) -> dict[str, Any]:
    if not measurement.steady_ms:
        return {}
    latency = measurement.latency
    if measurement.is_counted:
        return {"instructions": latency.p50_ms}
    percentiles = {f"latency_p{percent}_ms": getattr(latency, f"p{percent}_ms") for percent in (50, *TAIL_PERCENTS)}
    return {**percentiles, "latency_low_ms": latency.median_low_ms, "latency_high_ms": latency.median_high_ms}


def _energy_columns(measurement: Measurement) -> dict[str, Any]:
    energy = measurement.energy
    if energy is None:
        return {}
    above_w = None if energy.power_w is None or energy.idle_w is None else energy.power_w - energy.idle_w
    figures = {"energy_mj": energy.energy_mj, "energy_uncertainty_mj": energy.uncertainty_mj, "power_w": above_w}
    return {name: _number(figure) for name, figure in figures.items()}


def describe_file(measurement: Measurement, path: Path, facts: DeviceFacts, target: str) -> HistoryRow:
    """The row of a ready file that was measured just now, alone; its name is that of the file or of the run."""
    row = describe_measurement(measurement, "file", format_time(datetime.now(UTC)))
    size = path.stat().st_size if path.is_file() else None
    row = replace(row, artifact=path.name, file_bytes=size, target=target, edgeprune=version("edgeprune"))
    return replace(row, host=facts.host, cpu=facts.cpu)


@dataclass(frozen=True)
class RunRecord:
    """What a run directory has: documents as they are in JSON, empty where a stage has not finished."""

    run: Run
    report: Mapping[str, Any]
    exported: Mapping[str, Any]
    quality: Mapping[str, Any]
    facts: Mapping[str, Any]
    hashes: Mapping[str, str | None]
    """`recipe_sha256`, `model_sha256` and `plan_sha256`."""

    @property
    def artifacts(self) -> dict[str, Mapping[str, Any]]:
        """What is known of each file, by artifact name."""
        rows = self.report.get("artifacts") or self.exported.get("artifacts") or []
        return {f"{row['role']}-{row['format']}-{row['precision']}": row for row in rows}

    def name_file(self, measurement: Measurement) -> str:
        """What the run calls a file that was measured; its own name there, where the run has no such file."""
        names = [name for name, row in self.artifacts.items() if row.get("sha256") == measurement.sha256]
        return measurement.artifact if measurement.artifact in names or not names else names[0]


def describe_run(run: Run, report: Mapping[str, Any] | None = None) -> list[HistoryRow]:
    """A row for each measurement that a run directory holds; `report` is its report, read from there if not given.

    Files are held against the run's record where it has one (those of the first versions have none).

    Raises:
        HistoryError: what is there is no measurement that this version can read.
        RunError: a file is damaged, or was changed since it was made.
    """
    try:
        record = _read_run(run, _read(run, REPORT) if report is None else report)
        rows = []
        for stage, name in FILES.items():
            if (run.directory / name).exists() and (stage == "measure" or run.finished(stage)):
                created = _find_time(run.directory / name, record.report)
                documents = _read(run, name).values()
                rows += [describe_in_run(read_measurement(row), stage, created, record) for row in documents]
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise HistoryError(
            f"{run.directory}: what it holds is no record of measurements that this edgeprune reads: "
            f"{type(exc).__name__} {exc}"
        ) from exc
    return rows


def read_measurement(document: Mapping[str, Any]) -> Measurement:
    """A measurement as :meth:`Measurement.to_dict` gives it, or gave it in an earlier version."""
    names = {column.name for column in fields(Measurement)}
    threads = int(document["conditions"]["threads"])
    conditions = {**asdict(Conditions(threads)), **document["conditions"]}
    own = {name: value for name, value in document.items() if name in names}
    return parse_measurement({**DEFAULTS, **own, "conditions": conditions})


def describe_session(measurements: Mapping[Path, Sequence[Measurement]], created: str) -> list[HistoryRow]:
    """The rows of files of several runs that took turns, by the directory of the run that they are told with.

    Raises:
        HistoryError, RunError: as :func:`describe_run`.
    """
    rows = []
    for directory, own in measurements.items():
        run = open_record(directory)
        record = _read_run(run, _read(run, REPORT))
        rows += [describe_in_run(measurement, "sweep", created, record) for measurement in own]
    return rows


def describe_in_run(measurement: Measurement, stage: str, created: str, record: RunRecord) -> HistoryRow:
    """The row of one measurement of a run, with what its documents tell of the file."""
    own = replace(measurement, energy=None) if stage == "confirm" else measurement  # energy is taken over there
    row = describe_measurement(replace(own, artifact=record.name_file(own)), stage, created)
    file, report, request = record.artifacts.get(row.artifact, {}), record.report, record.run.request
    return replace(
        row,
        precision=_text(file.get("precision")),
        file_bytes=None if file.get("bytes") is None else int(file["bytes"]),
        host=_text(record.facts.get("host")),
        cpu=_text(record.facts.get("cpu")),
        target=_text(report.get("target") or _stem(request.get("target"))),
        recipe=_text(report.get("recipe") or _stem(request.get("recipe"))),
        edgeprune=_text(report.get("edgeprune")),
        run=_name_directory(record.run.directory),
        verdict=_text(report.get("verdict")),
        recipe_sha256=record.hashes["recipe_sha256"],
        model_sha256=record.hashes["model_sha256"],
        plan_sha256=record.hashes["plan_sha256"] if file.get("role") == "pruned" else None,
        **_quality_columns(row.artifact, file, record),
        **_shipping_columns(row, file, record),
    )


def _quality_columns(artifact: str, file: Mapping[str, Any], record: RunRecord) -> dict[str, Any]:
    """The quality of a file; of the first reports, whose metric was always the same, too."""
    quality = file.get("quality", file.get("accuracy_percent", record.quality.get(artifact)))
    metric = record.report.get("metric", {}).get("name", TOP1.name if "accuracy_percent" in file else None)
    return {"quality": _number(quality), "metric": _text(metric)}


def _shipping_columns(row: HistoryRow, file: Mapping[str, Any], record: RunRecord) -> dict[str, Any]:
    """Whether the file ships; with the speed-up, which is told of what ships, as it was measured last."""
    ships = file.get("shipped")
    last = "confirm" if record.run.finished("confirm") else "measure"
    if not ships or row.stage != last:
        return {"shipped": ships}
    low, high = record.report.get("speedup_interval") or (None, None)
    figures = {"speedup": record.report.get("speedup"), "speedup_low": low, "speedup_high": high}
    return {"shipped": True, **{name: _number(figure) for name, figure in figures.items()}}


def _read_run(run: Run, report: Mapping[str, Any]) -> RunRecord:
    exported, measured, profiled = (_read(run, f"stages/{name}.json") for name in ("export", "measure", "profile"))
    return RunRecord(
        run=run,
        report=report,
        exported=exported,
        quality=measured.get("quality") or {},
        facts=report.get("device") or profiled.get("device") or {},
        hashes=hash_sources(run),
    )


def hash_sources(run: Run) -> dict[str, str | None]:
    """SHA-256 of what a run's files were made of; None where it is gone or was changed."""
    return {
        "recipe_sha256": _hash_recipe(run),
        "model_sha256": _text(_read(run, "stages/trace.json").get("model_sha256")),
        "plan_sha256": hash_file(_locate(run, "plan.json")) if (run.directory / "plan.json").exists() else None,
    }


def open_record(directory: Path) -> Run:
    """A run directory of any version, to read from.

    Raises:
        RunError: its request cannot be read.
    """
    request = read_json(directory / REQUEST) if (directory / REQUEST).exists() else {}
    return Run(directory, request if isinstance(request, dict) else {})


def _read(run: Run, name: str) -> dict[str, Any]:
    """A document of a run; empty where it is not there."""
    if not (run.directory / name).exists():
        return {}
    document = read_json(_locate(run, name))
    if not isinstance(document, dict):
        raise RunError(f"{run.directory / name}: expected a JSON object, found {type(document).__name__}")
    return document


def _locate(run: Run, name: str) -> Path:
    """A file of a run, proven to be what it was where the run has a record."""
    return run.file(name) if (run.directory / "record").is_dir() else run.directory / name


def _hash_recipe(run: Run) -> str | None:
    """SHA-256 of the recipe's file, if it is there and has not been changed since the run traced its model."""
    recipe, traced = str(run.request.get("recipe") or ""), run.directory / "stages" / "trace.json"
    built_in = PACKAGE / "recipes" / f"{recipe.replace('-', '_')}.py"
    path = Path(recipe) if recipe.endswith(".py") else built_in
    if not recipe or not path.is_file() or not traced.exists() or path.stat().st_mtime > traced.stat().st_mtime:
        return None
    return hash_file(path)


def _find_time(path: Path, report: Mapping[str, Any]) -> str:
    """When measurements were written: the time of their file, or of the report where a copy has made that a later
    one."""
    written = format_time(datetime.fromtimestamp(path.stat().st_mtime, UTC))
    created = report.get("created")
    return min(written, format_time(datetime.fromisoformat(created))) if isinstance(created, str) else written


def _name_directory(directory: Path) -> str:
    """Its whole path, as text that every reader takes."""
    return str(directory.absolute()).encode(errors="replace").decode()


def _number(value: Any) -> float | None:
    """A finite number; None for what is none."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _stem(value: Any) -> str | None:
    return Path(value).stem if isinstance(value, str) else None
