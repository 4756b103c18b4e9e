"""A release: the file that a run ships, with the runner that was made for it, named by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.core.answers import count, text
from edgeprune.core.artifact import Artifact
from edgeprune.core.releasing.document import REPORT_VERSION
from edgeprune.core.releasing.gate import PASS
from edgeprune.core.text import render_columns
from edgeprune.errors import RunError, UsageError

MANIFEST_VERSION = 1
ID_LENGTH = 16
SHORTEST_PREFIX = 4


@dataclass(frozen=True)
class Release:
    """What goes to a board. `manifest` holds the sha256 of the model and of the runner, and is named by its own.

    `signature` is the manifest's, empty where it is not signed; it is no part of the name.
    """

    manifest: str
    runner: str
    signature: str = ""

    @property
    def id(self) -> str:
        """Its name, the same for the same content."""
        return hashlib.sha256(self.manifest.encode()).hexdigest()[:ID_LENGTH]


@dataclass(frozen=True)
class ReleaseOnBoard:
    """A release as a board tells it; `manifest` is empty where it cannot be read there.

    `signature` is "none", "refused", "trusted", or "not checked" on a board that trusts no keys.
    """

    id: str
    whole: bool
    current: bool
    previous: bool
    bytes: int
    manifest: Mapping[str, Any]
    signature: str = "none"


def shipped_path(report: Mapping[str, Any], where: str) -> str:
    """Path of the file that a run ships, relative to the run directory.

    Raises:
        RunError: the run did not pass, or its report is of another version.
    """
    if report.get("version") != REPORT_VERSION:
        raise RunError(f"{where}: report version {report.get('version')!r}; expected {REPORT_VERSION}")
    if report.get("verdict") != PASS:
        raise RunError(
            f"{where}: the verdict is {report.get('verdict')!r}; only a run that passed its gates is released; "
            f"`edgeprune report --run` shows which gate did not pass"
        )
    return str(report["result"]["artifact"])


def build_release(report: Mapping[str, Any], artifact: Artifact, runner: str, threads: int) -> Release:
    """The release of a run that passed; the same run and runner give the same release."""
    result, device = report["result"], report["device"]
    manifest = {
        "version": MANIFEST_VERSION,
        "model": {"file": f"model.{artifact.format}", "sha256": artifact.sha256, "bytes": artifact.bytes},
        "runner": {"sha256": hashlib.sha256(runner.encode()).hexdigest()},
        "runtime": str(report["runtime"]).split()[0],
        "threads": threads,
        "precision": artifact.precision,
        "inputs": [{"name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype} for tensor in artifact.inputs],
        "outputs": [{"name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype} for tensor in artifact.outputs],
        "target": report["target"],
        "recipe": report["recipe"],
        "created": report["created"],
        "edgeprune": report["edgeprune"],
        "verdict": report["verdict"],
        "measured": {
            "device": device["fingerprint"],
            "cpu": device["cpu"],
            "runtime": report["runtime"],
            "latency_p50_ms": result["latency"]["p50_ms"],
            "latency_p95_ms": result["latency"]["p95_ms"],
            "quality": result["quality"],
            "metric": report["metric"],
        },
    }
    return Release(json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n", runner)


def parse_releases(rows: Any) -> list[ReleaseOnBoard]:
    """The releases on a board, from what its agent says.

    Raises:
        KeyError, TypeError, ValueError: they are told in words unknown here.
    """
    return [
        ReleaseOnBoard(
            id=text(row["id"]),
            whole=bool(row["whole"]),
            current=bool(row["current"]),
            previous=bool(row["previous"]),
            bytes=count(row["bytes"]),
            manifest=row["manifest"] if isinstance(row["manifest"], dict) else {},
            signature=text(row["signature"]),
        )
        for row in rows
    ]


def find_release(prefix: str, releases: Sequence[ReleaseOnBoard], host: str) -> str:
    """The one whole release whose ID begins so.

    Raises:
        UsageError: none, or several.
    """
    ids = [release.id for release in releases if release.whole]
    matches = (
        [release_id for release_id in ids if release_id.startswith(prefix)] if len(prefix) >= SHORTEST_PREFIX else []
    )
    if len(matches) != 1:
        listed = ", ".join(matches or ids) or "none"
        problem = f"begins so with {listed}" if matches else f"is none of those there: {listed}"
        if len(prefix) < SHORTEST_PREFIX:
            problem = f"is too short, {SHORTEST_PREFIX} digits at least; there are {listed}"
        raise UsageError(f"{host}: release {prefix!r} {problem}; `edgeprune release list` shows them")
    return matches[0]


def render_releases(releases: Sequence[ReleaseOnBoard]) -> str:
    """A table of the releases on a board."""
    if not releases:
        return "no releases there"
    head = (
        "release",
        "state",
        "target",
        "recipe",
        "precision",
        "p50 ms",
        "quality",
        "created",
        "bytes",
        "signature",
    )
    return render_columns([head, *map(_row, releases)])


def _row(release: ReleaseOnBoard) -> tuple[str, ...]:
    manifest, measured = release.manifest, release.manifest.get("measured", {})
    measured = measured if isinstance(measured, dict) else {}
    state = "active" if release.current else "previous" if release.previous else "" if release.whole else "not whole"
    texts = [_plain(manifest.get(key)) for key in ("target", "recipe", "precision")]
    figures = [_figure(measured.get("latency_p50_ms"), ".3f"), _quality(measured)]
    return (
        release.id,
        state,
        *texts,
        *figures,
        _plain(manifest.get("created")),
        f"{release.bytes:,}",
        _plain(release.signature),
    )


def _quality(measured: Mapping[str, Any]) -> str:
    """The recipe's metric with its name and unit; a board may hold anything."""
    value, metric = measured.get("quality"), measured.get("metric")
    if not isinstance(value, int | float) or not isinstance(metric, dict):
        return "-"
    figure = _figure(value, ".4g")
    return " ".join(word for word in (_plain(metric.get("name")), figure, _plain(metric.get("unit"))) if word)


def _plain(value: Any) -> str:
    """Text of a file that came from elsewhere, without control characters."""
    return "".join(char for char in value[:60] if char.isprintable()) if isinstance(value, str) else "-"


def _figure(value: Any, pattern: str) -> str:
    return f"{value:{pattern}}" if isinstance(value, int | float) else "-"
