"""How often the loop of plan, cut and measure lands within [0.93, 1.00] of a latency budget, on this machine.

    python benchmarks/latency_prediction.py --work DIR ...     # profiles the nets
    python benchmarks/budget_hits.py --work DIR [--only NAME ...] [--runtime R] [--precision P]

For each net five budgets, as shares of its unpruned fp32 latency. `edgeprune`'s own stages plan and fit; then the net
that they chose is measured anew, interleaved with the unpruned one, so that the figure is not the one it was chosen by.
`tries` is how many cut nets the loop measured on the device. Weights are random and the loss is synthetic (see
planner.py): what is tried is whether latencies are met. Branches stay: where one is worth little, the best plan is to
cut it alone, far below the budget. A budget that is proven infeasible counts in none.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from latency_prediction import PACKAGES, make_request
from machine import describe_machine
from planner import channel_norms, synthetic_loss
from planner_networks import NETWORKS

from edgeprune.errors import InfeasibleBudget
from edgeprune.graph.surgery import apply_plan
from edgeprune.pipeline import deploy, open_job
from edgeprune.run import read_json, write_json
from edgeprune.stages.artifacts import build_variant
from edgeprune.stages.job import Job
from edgeprune.stages.latency import budget_ms, measure_beside_original
from edgeprune.stages.model import read_plan
from edgeprune.stages.open_net import read_net
from edgeprune.stages.record import read_originals
from edgeprune.stages.results import Fitted, Scored, run_stage

RESULTS = Path(__file__).parent / "results" / "budget_hits.json"
SHARES = (0.35, 0.5, 0.6, 0.75, 0.9)
WITHIN = (0.93, 1.0)
RECORDED = [f"{folder}/{stage}.json" for folder in ("stages", "record") for stage in ("trace", "profile")]
PROFILED = ("original.pt2", "latency_table.json", "artifacts", "variants/variant0", *RECORDED)


def write_scores(job: Job) -> None:
    """In place of a measured sensitivity: L2 norms and a synthetic loss."""
    net = read_net(job)
    norms = channel_norms(net.program, net.analysis)
    widths = {name: (1,) if net.analysis.group(name).is_branch else offered for name, offered in net.widths.items()}
    loss = synthetic_loss(net.analysis, norms, widths, 0)
    scores = {group: tuple(norms[group].tolist()) if group in norms else (1.0,) for group in net.widths}
    run_stage(job.run, Scored, lambda: Scored(importance="l2", scores=scores, loss=loss))


def measure_again(job: Job) -> float:
    """The chosen net's latency as a share of the budget, beside the unpruned net."""
    net = read_net(job)
    path = build_variant(job, "final", apply_plan(net.program, net.analysis, read_plan(job).keep))
    originals = read_originals(job)
    latency_ms = measure_beside_original(job, originals, {"final": path}).latency_ms
    return latency_ms["final"] / budget_ms(job, latency_ms["baseline"])


def hit(profiled: Path, name: str, share: float) -> dict[str, Any]:
    """Plan and fit one budget in a run of its own that takes over the net's profile."""
    folder = profiled.with_name(f"{profiled.name}-{share:g}")
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("stages", "record", "variants"):
        (folder / part).mkdir(parents=True)
    for part in PROFILED:
        source = profiled / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
    request = read_json(profiled / "request.json")
    options = {key: request[key] for key in ("runtime", "precision")} | {"speedup": 1 / share}
    with open_job(folder, make_request(folder, name, options), lambda text: print(f"{name} {share} {text}")) as job:
        write_scores(job)
        row = {"network": name, **{key: request[key] for key in ("runtime", "precision")}, "share": share}
        try:
            deploy(job, "fit")
        except InfeasibleBudget as error:
            return {**row, "infeasible": str(error)}
        return {**row, "tries": len(job.read(Fitted).tries), "measured_share": round(measure_again(job), 4)}


def summarise(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The share of feasible budgets that were met, and how many nets that took."""
    met = [WITHIN[0] <= row["measured_share"] <= WITHIN[1] for row in rows if "measured_share" in row]
    tries = [row["tries"] for row in rows if "tries" in row]
    return {"hit_rate": float(np.mean(met)), "budgets": len(met), "mean_tries": float(np.mean(tries))}


def main() -> None:
    """Run what is asked for, writing the results after every budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS))
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    rows = read_json(RESULTS)["rows"] if RESULTS.exists() else []
    for name in options.only:
        for share in SHARES:
            row = hit(options.work / f"{name}-{options.runtime}-{options.precision}", name, share)
            key = ("network", "runtime", "precision", "share")
            rows = [*(other for other in rows if any(other[part] != row[part] for part in key)), row]
            document = {
                "machine": describe_machine(PACKAGES),
                "within": WITHIN,
                "summary": summarise(rows),
                "rows": rows,
            }
            write_json(RESULTS, document)
            print(row, flush=True)


if __name__ == "__main__":
    main()
