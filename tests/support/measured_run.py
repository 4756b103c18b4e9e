"""A run directory that has measured two files and is still to be judged, recorded as the line leaves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from recorded import record_run

from edgeprune.core.artifact import Artifact
from edgeprune.core.formats import find_runtime
from edgeprune.core.latency.correction import Correction
from edgeprune.core.measuring.energy import Energy
from edgeprune.core.measuring.measurement import Conditions, DeviceFacts, Measurement
from edgeprune.core.measuring.windows import Window
from edgeprune.core.metric import Metric
from edgeprune.core.planning.limits import Costs
from edgeprune.core.planning.plan import PruningPlan
from edgeprune.deployment import REQUEST
from edgeprune.run import hash_file, write_json
from edgeprune.stages.results import Confirmed, Exported, Fitted, Measured, Profiled, Recovery, Result, Traced

FACTS = DeviceFacts("desk", "aarch64", "a board", "a CPU", 4, (), 1000, "Linux", "6.1", "3.11", {"onnxruntime": "1"})
F1 = Metric("F1", better="higher")
ENERGY = Energy("a meter", "smart", "all", 4.0, 0.5, 3.0, 1.0, 2.0, 100, 50, 25.0)
BASELINE, PRUNED = "original-onnx-fp32", "pruned-onnx-fp32"


def make_measurement(
    name: str, sha256: str, p50_ms: float, problems: Sequence[str] = (), processes: int = 0
) -> Measurement:
    """What was measured of a file; of several `processes` with the windows in which it took turns with others."""
    if processes:
        return replace(make_measurement(name, sha256, p50_ms, problems), **make_windows(p50_ms, processes))
    samples = tuple(float(ms) for ms in p50_ms * np.linspace(0.98, 1.02, 101))
    return Measurement(
        name, sha256, "onnxruntime", "1.0", FACTS.fingerprint, Conditions(2), 3.0, 2.0, 1, samples, 50.0,
        energy=ENERGY, problems=tuple(problems),
    )  # fmt: skip


def make_windows(p50_ms: float, processes: int, speed: float = 1.0) -> dict[str, Any]:
    """Samples and windows of a file in ms, on a board that is `speed` times as slow as before and wanders by 5 %."""
    samples, windows = list[float](), list[Window]()
    for number in range(processes):
        for turn in range(6):
            at_s = number + turn / 10 + p50_ms / 1000
            level = p50_ms * speed * (1 + 0.05 * np.sin(at_s)) * (1 + 0.001 * np.cos(7 * number + 50 * p50_ms))
            own = [float(ms) for ms in level * np.linspace(0.98, 1.02, 21)]
            samples += own
            windows.append(Window(number, at_s, float(np.median(own)), len(own), 1000.0, 1.0, 0.0))
    return {"samples_ms": tuple(samples), "windows": tuple(windows)}


def _make_artifact(folder: Path, name: str, size: int = 1000) -> Artifact:
    role, file_format, precision = name.split("-")
    place = f"artifacts/{role}.{precision}.{file_format}"
    (folder / place).write_bytes(name.encode().ljust(size))
    return Artifact(place, role, file_format, precision, size, hash_file(folder / place), (), (), "a scheme")


@dataclass(frozen=True)
class Shipped:
    """How a run differs from the usual one: what ships and what was measured of it, on which device."""

    quality: float = 0.79
    size: int = 1000
    format: str = "onnx"
    facts: DeviceFacts = FACTS
    metric: Metric = F1
    processes: int = 0
    energy: Energy | None = ENERGY


def record_measured_run(
    folder: Path,
    pruned_ms: float = 0.4,
    problems: Sequence[str] = (),
    request: Mapping[str, object] | None = None,
    shipped: Shipped = Shipped(),
) -> Path:
    """Record it in `folder`; the original takes 1 ms, and the pruned file is measured once more in `confirm`."""
    (folder / "artifacts").mkdir(parents=True)
    runtime = find_runtime(shipped.format)
    toml = f'description = "a board"\nruntime = "{runtime}"\n[budget]\nspeedup = 2\n'
    (folder / "board.toml").write_text(toml)
    (folder / "mine.py").write_text("# a recipe")
    original, pruned = (name.replace("onnx", shipped.format) for name in (BASELINE, PRUNED))
    files = {original: _make_artifact(folder, original), pruned: _make_artifact(folder, pruned, shipped.size)}
    times, again = {original: 1.0, pruned: pruned_ms}, {original: 1.01, pruned: 1.01 * pruned_ms}
    plan = PruningPlan((), predicted_ms=0.4, budget_ms=0.5)
    documents = {"measurements.json": (times, tuple(problems)), "confirmed.json": (again, ())}
    for document, (milliseconds, reasons) in documents.items():
        rows = {
            name: replace(
                make_measurement(
                    name, files[name].sha256, ms, reasons if name == pruned else (), shipped.processes
                ),
                runtime=runtime, device=shipped.facts.fingerprint, energy=shipped.energy,
            )
            for name, ms in milliseconds.items()
        }  # fmt: skip
        write_json(folder / document, {name: row.to_dict() for name, row in rows.items()})
    write_json(folder / "plan.json", plan.to_dict())
    stages: dict[str, Result] = {
        "trace": Traced(metric=shipped.metric.to_dict(), quality=0.8, model_sha256="e" * 64),
        "profile": Profiled(baseline_ms=1.0, baseline_predicted_ms=1.0, device=shipped.facts, correction=Correction()),
        "fit": Fitted(plan=plan),
        "recover": Recovery(quality_before=0.5, quality=0.79),
        "export": Exported(artifacts=tuple(files.values()), costs=dict.fromkeys(files, Costs(100, 1, 1, 1))),
        "measure": Measured(quality={original: 0.8, pruned: shipped.quality}, samples=10),
        "confirm": Confirmed(artifact="", sessions=1),
    }
    products = {"fit": ["plan.json"], "measure": ["measurements.json"], "confirm": ["confirmed.json"]}
    products |= {"export": [file.path for file in files.values()]}
    own = {"target": str(folder / "board.toml"), "recipe": str(folder / "mine.py"), **(request or {})}
    return record_run(folder, {**dict.fromkeys(REQUEST), **own}, stages, products)
