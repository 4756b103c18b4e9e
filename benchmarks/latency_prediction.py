"""How far latency tables miss whole nets that they have not seen: random widths of eight nets, on this machine.

    python benchmarks/latency_prediction.py --work DIR [--only NAME ...] [--runtime R ...] [--precision P ...]

For each net, runtime and precision the line itself profiles the net (`edgeprune profile`: layers, joins, whole nets to
correct by), in one thread. Then 50 nets of random widths, other than those that the correction has seen, are built and
measured interleaved with the unpruned one, and held against what was predicted of them. Weights are random: latency
does not depend on them. What was measured stays in DIR, and another call goes on from there. Figures are settled
medians: the 10th percentile of interleaved samples, times the ratio of median to 10th percentile that was usual when
the net was profiled. They are brought to the speed that the machine had then by the unpruned net, which runs in turns
with all others (`drift`: how much slower it was; large nets vary by 5 to 10 % as others use the memory of this shared
machine). Intervals promise what is measured at another time, drift included, and are held against that; beside it
stands how often they hold figures with the drift taken off. `device_s` is what the profile took on the device.
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

from edgeprune.cli import REQUEST
from edgeprune.core.correction import Correction, fit_correction
from edgeprune.core.latency import Prediction, describe_net
from edgeprune.core.statistics import settle_medians
from edgeprune.pipeline import deploy, open_job
from edgeprune.run import read_json, write_json
from edgeprune.stages.artifacts import build_variant
from edgeprune.stages.job import Job
from edgeprune.stages.latency import cut_net, draw_nets, measure_beside_original, read_table
from edgeprune.stages.record import read_originals

RESULTS = Path(__file__).parent / "results" / "latency_prediction.json"
VARIANTS, SEED, AT_ONCE = 50, 11, 17
DISTURBED, TRIES = 0.015, 5
BUSY = 1.06
"""Ratio of median to 10th percentile above which a profile was disturbed, and is made again."""
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
    table, rows = read_table(job), job.run.result("profile")["variants"]
    return fit_correction([describe_net(table, job.layers, row["widths"], row["measured_ms"]) for row in rows])


def predict_variants(job: Job, variants: Sequence[Mapping[str, int]], correction: Correction) -> list[Prediction]:
    """What is predicted of nets."""
    table = read_table(job)
    return [table.predict_net([layer.at(widths) for layer in job.layers], correction) for widths in variants]


def draw_unseen(job: Job, count: int) -> list[dict[str, int]]:
    """Nets that the correction was not learned from."""
    table = read_table(job)
    seen = [row["widths"] for row in job.run.result("profile")["variants"]]
    drawn = draw_nets(job, table, count + len(seen), SEED)
    return [widths for widths in drawn if widths not in seen][:count]


def measure_variants(job: Job, variants: Sequence[dict[str, int]]) -> dict[str, Any]:
    """Medians in ms of each net, and of the unpruned one that ran in turns with it.

    A batch beside which the unpruned net is off what it was when the profile was made, is measured again.
    """
    profiled = job.run.result("profile")
    originals = read_originals(job)
    measured_ms, beside_ms = list[float](), list[float]()
    for start in range(0, len(variants), AT_ONCE):
        batch = dict(enumerate(variants[start : start + AT_ONCE], start))
        files = {f"unseen{number}": find_file(job, f"unseen{number}", widths) for number, widths in batch.items()}
        for _ in range(TRIES):
            found, _ = settle_medians(measure_beside_original(job, originals, files), profiled["p50_over_p10"])
            if abs(found["baseline"] / profiled["baseline_ms"] - 1) <= DISTURBED:
                break
        measured_ms += [found[name] for name in files]
        beside_ms += [found["baseline"]] * len(files)
        job.say(f"  {start + len(batch)} of {len(variants)} unseen nets measured")
    return {"widths": list(variants), "measured_ms": measured_ms, "beside_ms": beside_ms}


def find_file(job: Job, name: str, widths: dict[str, int]) -> Path:
    """The file of a net, built where it is not there yet."""
    folder, target = job.run.directory / "variants" / name / "artifacts", job.target
    path = folder / f"pruned.{target.precision}.{target.format}"
    return path if path.exists() else build_variant(job, name, cut_net(job, widths))


def make_request(folder: Path, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A request for a run in `folder`, with a recipe of the net there."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.py"
    recipe.write_text(RECIPE.format(name=name, folder=str(Path(__file__).parent)))
    fixed = {"target": "local", "host": "local", "threads": 1, "recipe": str(recipe)}
    return {**dict.fromkeys(REQUEST), **fixed, **asked}


def run_net(work: Path, name: str, runtime: str, precision: str) -> dict[str, Any]:
    """Profile one net, measure its unseen variants, and compare."""
    folder = work / f"{name}-{runtime}-{precision}"
    request = make_request(folder, name, {"runtime": runtime, "precision": precision, "speedup": 1.5})
    with open_job(folder, request, lambda text: print(f"{name} {runtime} {precision} {text}", flush=True)) as job:
        deploy(job, "profile")
        while job.run.result("profile")["p50_over_p10"] > BUSY:
            job.run.forget("profile")
            deploy(job, "profile")
        unseen = folder / "unseen.json"
        if not unseen.exists():
            write_json(unseen, measure_variants(job, draw_unseen(job, VARIANTS)))
        found = read_json(unseen)
        correction = learn_correction(job)
        predicted = predict_variants(job, found["widths"], correction)
        profiled = job.run.result("profile")
    drift = np.array(found["beside_ms"]) / profiled["baseline_ms"]
    measured = np.array(found["measured_ms"]) / drift
    errors = np.array([one.latency_ms for one in predicted]) / measured - 1
    low, high = (np.array([getattr(one, end) for one in predicted]) for end in ("low_ms", "high_ms"))
    inside = {name: (low <= ms) & (ms <= high) for name, ms in (("drifting", measured * drift), ("steady", measured))}
    return {
        "network": name,
        "runtime": runtime,
        "precision": precision,
        "nets": len(errors),
        "measured_ms": [round(float(ms), 5) for ms in found["measured_ms"]],
        "drift": [round(float(one) - 1, 4) for one in drift],
        "errors": [round(float(one), 4) for one in errors],
        "leave_one_out_error": correction.error,
        "device_s": round(sum(profiled["seconds"].values())),
        "interval_coverage": float(np.mean(inside["drifting"])),
        "interval_coverage_with_drift_taken_off": float(np.mean(inside["steady"])),
        "mape_without_drift_taken_off": float(np.mean(np.abs((1 + errors) / drift - 1))),
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
    others = [one for one in rows if any(one[name] != row[name] for name in key)]
    return sorted([*others, row], key=lambda one: [one[name] for name in key])


def main() -> None:
    """Run what is asked for, writing the results after every net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS))
    parser.add_argument("--runtime", nargs="+", default=["onnxruntime", "litert"])
    parser.add_argument("--precision", nargs="+", default=["fp32", "int8"])
    asked = parser.parse_args()
    rows = read_json(RESULTS)["networks"] if RESULTS.exists() else []
    for name, runtime, precision in product(asked.only, asked.runtime, asked.precision):
        row = run_net(asked.work, name, runtime, precision)
        rows = merge(rows, row)
        every = np.concatenate([one["errors"] for one in rows])
        coverage = float(np.average([one["interval_coverage"] for one in rows], weights=[one["nets"] for one in rows]))
        summary = {**summarise(every), "interval_coverage": coverage, "nets": len(every)}
        write_json(RESULTS, {"machine": describe_machine(PACKAGES), "summary": summary, "networks": rows})
        print({key: value for key, value in row.items() if key not in ("errors", "measured_ms", "drift")}, flush=True)


if __name__ == "__main__":
    main()
