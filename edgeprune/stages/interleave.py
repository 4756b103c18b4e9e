"""Files of several runs, measured in turns in one session on the board: what makes them comparable to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeprune.core.choosing.points import UNPRUNED
from edgeprune.core.measuring.measurement import Measurement, parse_measurement
from edgeprune.device.board import ModelFile
from edgeprune.errors import RunError
from edgeprune.run import Run, read_json, write_json
from edgeprune.stages.job import Job

INTERLEAVED_VERSION = 1


@dataclass(frozen=True)
class ShippedFile:
    """A file of a run, as its report has it."""

    path: Path
    sha256: str
    format: str


@dataclass(frozen=True)
class Interleaved:
    """Measurements by name, taken in turns in one session, at `measured_at` in UTC."""

    measurements: Mapping[str, Measurement]
    measured_at: str = ""

    @property
    def valid(self) -> bool:
        """Whether all of them may be believed."""
        return all(measurement.valid for measurement in self.measurements.values())

    def is_of(self, files: Mapping[str, ShippedFile]) -> bool:
        """Whether it is of these files and no others."""
        return {name: file.sha256 for name, file in files.items()} == {
            name: measurement.sha256 for name, measurement in self.measurements.items()
        }


def find_shipped(run: Run) -> tuple[ShippedFile, ShippedFile]:
    """What a finished run ships, and the unpruned file it is held against.

    Raises:
        RunError: one is gone or was changed.
    """
    report = read_json(run.file("report.json"))
    rows = {row["path"]: row for row in report["artifacts"]}
    shipped, baseline = rows[report["result"]["artifact"]], rows[report["baseline"]["artifact"]]
    files = (ShippedFile(run.file(row["path"]), row["sha256"], row["format"]) for row in (shipped, baseline))
    first, second = files
    return first, second


def interleave(job: Job, files: Mapping[str, ShippedFile], place: Path) -> Interleaved:
    """Measure files in turns by the target's protocol and write that down; on the job's board.

    Raises:
        DeviceError: the device cannot be reached or does not run them.
    """
    models = [
        ModelFile(name, file.path, file.sha256, job.runtime_of(file.format) or job.planned.runtime)
        for name, file in files.items()
    ]
    measurements = job.board.time(models, job.target.threads, job.target.protocol, job.detail)
    result = Interleaved(measurements, datetime.now(UTC).isoformat(timespec="seconds"))
    rows = {name: measurement.to_dict() for name, measurement in measurements.items()}
    write_json(place, {"version": INTERLEAVED_VERSION, "measured_at": result.measured_at, "measurements": rows})
    return result


def read_interleaved(place: Path) -> Interleaved | None:
    """What :func:`interleave` has written; None where it has not.

    Raises:
        RunError: it cannot be read, or another version wrote it.
    """
    if not place.exists():
        return None
    document: Any = read_json(place)
    version = document.get("version") if isinstance(document, dict) else None
    if version != INTERLEAVED_VERSION:
        raise RunError(
            f"{place}: version {version}; this edgeprune reads version {INTERLEAVED_VERSION}; remove it, and the sweep "
            "measures anew"
        )
    try:
        rows = {name: parse_measurement(row) for name, row in document["measurements"].items()}
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise RunError(f"{place}: is damaged ({exc}); remove it, and the sweep measures anew") from exc
    if UNPRUNED not in rows:
        raise RunError(f"{place}: has no measurement of the unpruned net; remove it, and the sweep measures anew")
    return Interleaved(rows, str(document.get("measured_at", "")))
