"""How far latency tables miss whole nets that they have not seen: random widths of twelve nets, on this machine.

    python benchmarks/latency_prediction.py --work DIR [--only NAME ...] [--runtime R ...] [--precision P ...]

For each net, runtime and precision the line itself profiles the net (`edgeprune profile`: layers, joins, whole nets to
correct by), in one thread. Then 50 nets of random widths, other than those that the correction has seen, are built and
measured in turns with the unpruned one and its twin, and held against what was predicted of them. Weights are random:
latency does not depend on them. What was measured stays in DIR, and another call goes on from there.

Errors and coverage are those of figures as they were measured: nothing is taken off for the minutes between profile
and measurement. Beside them stands, as `drift`, how much slower the unpruned net was than in the profile, and the mean
error with that taken off. `twin_gaps` are how far the same net, measured twice in a session, was apart. `device_s` is
what the profile took on the device.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from planner_networks import NETWORKS

from edgeprune.core.latency.correction import Correction, fit_correction
from edgeprune.core.latency.table import Prediction, describe_net
from edgeprune.deployment import REQUEST
from edgeprune.pipeline import deploy, open_job
from edgeprune.run import read_json, write_json
from edgeprune.stages.artifacts import build_variant
from edgeprune.stages.job import Job
from edgeprune.stages.latency import cut_net, draw_nets, measure_beside_original, read_table
from edgeprune.stages.open_net import read_net
from edgeprune.stages.record import read_originals
from edgeprune.stages.results import Profiled

RESULTS = Path(__file__).parent / "results" / "latency_prediction.json"
VARIANTS, SEED, AT_ONCE = 50, 11, 17
PACKAGES = ("torch", "onnx", "onnxruntime", "litert-torch", "ai-edge-litert", "ai-edge-quantizer", "numpy", "scipy")
RECIPE = '''"""{name} with random weights and data."""

import sys

sys.path.append({folder!r})
import torch
from planner_networks import NETWORKS

from edgeprune.core.metric import Metric

make, shape = NETWORKS[{name!r}]
torch.manual_seed(0)
rows = [(torch.randn(8, *shape[1:]), torch.zeros(8))]


def model():
    return make()


def train_data():
    return rows


eval_data = calibration_data = train_data


def loss(outputs, targets):
    return outputs.square().mean()


metric = Metric("nothing", lambda outputs, targets: 0.0, better="higher")
'''


def learn_correction(job: Job) -> Correction:
    """The correction, learned anew from the nets that a run's profile measured."""
    table, profiled = read_table(job), job.read(Profiled)
    net = read_net(job)
    nets = [describe_net(table, net.layers, variant.widths, variant.net.measured_ms) for variant in profiled.variants]
    return fit_correction(nets, profiled.twin_gap)


def predict_variants(job: Job, variants: Sequence[Mapping[str, int]], correction: Correction) -> list[Prediction]:
    """What is predicted of nets."""
    table = read_table(job)
    net = read_net(job)
    return [table.predict_net([layer.at(widths) for layer in net.layers], correction) for widths in variants]


def draw_unseen(job: Job, count: int) -> list[dict[str, int]]:
    """Nets that the correction was not learned from."""
    table = read_table(job)
    profiled = [variant.widths for variant in job.read(Profiled).variants]
    candidates = draw_nets(read_net(job), table, count + len(profiled), SEED)
    return [widths for widths in candidates if widths not in profiled][:count]


def measure_variants(job: Job, variants: Sequence[dict[str, int]]) -> dict[str, Any]:
    """Latency in ms of each net, of the unpruned one that ran in turns with it, and the twins' gap of each session."""
    originals, measured_ms, beside_ms, gaps = read_originals(job), list[float](), list[float](), list[float]()
    for start in range(0, len(variants), AT_ONCE):
        batch = dict(enumerate(variants[start : start + AT_ONCE], start))
        files = {f"unseen{number}": find_file(job, f"unseen{number}", widths) for number, widths in batch.items()}
        times = measure_beside_original(job, originals, files)
        measured_ms += [times.latency_ms[name] for name in files]
        beside_ms += [times.latency_ms["baseline"]] * len(files)
        gaps.append(times.twin_gap)
        job.say(f"  {start + len(batch)} of {len(variants)} unseen nets measured, twins {gaps[-1]:.1%} apart")
    return {"widths": list(variants), "measured_ms": measured_ms, "beside_ms": beside_ms, "twin_gaps": gaps}


def find_file(job: Job, name: str, widths: dict[str, int]) -> Path:
    """The file of a net, built where it is not there yet."""
    folder, target = job.run.directory / "variants" / name / "artifacts", job.target
    path = folder / f"pruned.{target.precision}.{target.format}"
    return path if path.exists() else build_variant(job, name, cut_net(read_net(job), widths))


def make_request(folder: Path, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A request for a run in `folder`, with a recipe of the net there."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.py"
    recipe.write_text(RECIPE.format(name=name, folder=str(Path(__file__).parent)))
    fixed = {"target": "local", "host": "local", "threads": 1, "recipe": str(recipe), "fresh": True}
    return {**dict.fromkeys(REQUEST), **fixed, **options}


def run_net(work: Path, name: str, runtime: str, precision: str) -> dict[str, Any]:
    """Profile one net, measure its unseen variants, and compare."""
    folder = work / f"{name}-{runtime}-{precision}"
    request = make_request(folder, name, {"runtime": runtime, "precision": precision, "speedup": 1.5})
    with open_job(folder, request, lambda text: print(f"{name} {runtime} {precision} {text}", flush=True)) as job:
        deploy(job, "profile")
        path = folder / "unseen.json"
        if not path.exists():
            write_json(path, measure_variants(job, draw_unseen(job, VARIANTS)))
        unseen, correction = read_json(path), learn_correction(job)
        predictions = predict_variants(job, unseen["widths"], correction)
        profiled = job.read(Profiled)
    drift = np.array(unseen["beside_ms"]) / profiled.baseline_ms
    measured_ms = np.array(unseen["measured_ms"])
    errors = np.array([prediction.latency_ms for prediction in predictions]) / measured_ms - 1
    low, high = (np.array([getattr(prediction, end) for prediction in predictions]) for end in ("low_ms", "high_ms"))
    return {
        "network": name,
        "runtime": runtime,
        "precision": precision,
        "nets": len(errors),
        "measured_ms": [round(float(ms), 5) for ms in measured_ms],
        "drift": [round(float(ratio) - 1, 4) for ratio in drift],
        "errors": [round(float(error), 4) for error in errors],
        "twin_gaps": [round(gap, 4) for gap in (profiled.twin_gap, *unseen["twin_gaps"])],
        "leave_one_out_error": correction.error,
        "device_s": round(sum(profiled.seconds.values())),
        "interval_coverage": float(np.mean((low <= measured_ms) & (measured_ms <= high))),
        "mape_with_drift_taken_off": float(np.mean(np.abs((1 + errors) * drift - 1))),
        **summarise(errors),
    }


def summarise(errors: np.ndarray) -> dict[str, float]:
    """Shares of nets predicted well, and the mean absolute error, as fractions."""
    missed = np.abs(errors)
    return {
        "within_10_percent": float(np.mean(missed <= 0.10)),
        "within_5_percent": float(np.mean(missed <= 0.05)),
        "mape": float(np.mean(missed)),
    }


def merge(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows with one added or replaced, in order."""
    key = ("network", "runtime", "precision")
    others = [other for other in rows if any(other[name] != row[name] for name in key)]
    return sorted([*others, row], key=lambda other: [other[name] for name in key])


def main() -> None:
    """Run what is asked for, writing the results after every net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS))
    parser.add_argument("--runtime", nargs="+", default=["onnxruntime", "litert"])
    parser.add_argument("--precision", nargs="+", default=["fp32", "int8"])
    options = parser.parse_args()
    rows = [row for row in read_json(RESULTS)["networks"] if "twin_gaps" in row] if RESULTS.exists() else []
    for name, runtime, precision in product(options.only, options.runtime, options.precision):
        row = run_net(options.work, name, runtime, precision)
        rows = merge(rows, row)
        errors = np.concatenate([net["errors"] for net in rows])
        coverage = float(np.average([net["interval_coverage"] for net in rows], weights=[net["nets"] for net in rows]))
        gaps = [gap for net in rows for gap in net["twin_gaps"]]
        summary = {**summarise(errors), "interval_coverage": coverage, "nets": len(errors), "worst_twin_gap": max(gaps)}
        write_json(RESULTS, {"machine": describe_machine(PACKAGES), "summary": summary, "networks": rows})
        print({key: value for key, value in row.items() if key not in ("errors", "measured_ms")}, flush=True)


if __name__ == "__main__":
    main()
