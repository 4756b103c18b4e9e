"""A run directory that has measured two files and is still to be judged, recorded as the line leaves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from recorded import record_run

from edgeprune.core.artifact import Artifact
from edgeprune.core.latency.correction import Correction
from edgeprune.core.measuring.energy import Energy
from edgeprune.core.measuring.measurement import Conditions, DeviceFacts, Measurement
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


def make_measurement(name: str, sha256: str, p50_ms: float, problems: Sequence[str] = ()) -> Measurement:
    samples = tuple(float(ms) for ms in p50_ms * np.linspace(0.98, 1.02, 101))
    return Measurement(
        name, sha256, "onnxruntime", "1.0", FACTS.fingerprint, Conditions(2), 3.0, 2.0, 1, samples, 50.0,
        energy=ENERGY, problems=tuple(problems),
    )  # fmt: skip


def _make_artifact(folder: Path, name: str) -> Artifact:
    role, file_format, precision = name.split("-")
    place = f"artifacts/{role}.{precision}.{file_format}"
    (folder / place).write_bytes(name.encode().ljust(1000))
    return Artifact(place, role, file_format, precision, 1000, hash_file(folder / place), (), (), "a scheme")


def record_measured_run(
    folder: Path, pruned_ms: float = 0.4, problems: Sequence[str] = (), request: Mapping[str, object] | None = None
) -> Path:
    """Record it in `folder`; the original takes 1 ms, and the pruned file is measured once more in `confirm`."""
    (folder / "artifacts").mkdir(parents=True)
    (folder / "board.toml").write_text('description = "a board"\n[budget]\nspeedup = 2\n')
    (folder / "mine.py").write_text("# a recipe")
    files = {name: _make_artifact(folder, name) for name in (BASELINE, PRUNED)}
    times, again = {BASELINE: 1.0, PRUNED: pruned_ms}, {BASELINE: 1.01, PRUNED: 1.01 * pruned_ms}
    plan = PruningPlan((), predicted_ms=0.4, budget_ms=0.5)
    documents = {"measurements.json": (times, tuple(problems)), "confirmed.json": (again, ())}
    for document, (milliseconds, reasons) in documents.items():
        rows = {
            name: make_measurement(name, files[name].sha256, ms, reasons if name == PRUNED else ())
            for name, ms in milliseconds.items()
        }
        write_json(folder / document, {name: row.to_dict() for name, row in rows.items()})
    write_json(folder / "plan.json", plan.to_dict())
    stages: dict[str, Result] = {
        "trace": Traced(metric=F1.to_dict(), quality=0.8, model_sha256="e" * 64),
        "profile": Profiled(baseline_ms=1.0, baseline_predicted_ms=1.0, device=FACTS, correction=Correction()),
        "fit": Fitted(plan=plan),
        "recover": Recovery(quality_before=0.5, quality=0.79),
        "export": Exported(artifacts=tuple(files.values()), costs=dict.fromkeys(files, Costs(100, 1, 1, 1))),
        "measure": Measured(quality={BASELINE: 0.8, PRUNED: 0.79}, samples=10),
        "confirm": Confirmed(artifact="", sessions=1),
    }
    products = {"fit": ["plan.json"], "measure": ["measurements.json"], "confirm": ["confirmed.json"]}
    products |= {"export": [file.path for file in files.values()]}
    own = {"target": str(folder / "board.toml"), "recipe": str(folder / "mine.py"), **(request or {})}
    return record_run(folder, {**dict.fromkeys(REQUEST), **own}, stages, products)
