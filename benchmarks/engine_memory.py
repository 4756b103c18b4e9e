"""How long the analysis of a large net takes, and how much memory analysis and surgery need beside the net itself.

    .bench/bin/python benchmarks/engine_memory.py [--network tv:resnet152] [--repeats 3]

Each figure comes from a process of its own. tracemalloc does not see torch, so that the operating system is asked: the
peak of resident memory (VmHWM, set back before the step) less what was resident when the step began, in multiples of
the bytes of the net's parameters and buffers. Wanted: model, analysis and the copy with half of every group within
twice the model. "all but one" shows what surgery costs beside the copy itself, at the largest copy that a cut can
leave; the proof runs two copies in float64. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from engine_coverage import PACKAGES, build_model, define_missing_operators
from engine_plans import strongest_half, timed
from machine import describe_machine
from torch.fx import GraphModule

from edgeprune.graph.analysis import Analysis
from edgeprune.graph.groups import find_groups
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import named_tensors, trace_model

RESULTS = Path(__file__).parent / "results" / "engine_memory.json"
LIMIT, LIMIT_S = 2.0, 2.0
SIDE = 224


def resident_mib(field: str) -> float:
    """VmRSS (now) or VmHWM (the peak since `forget_peak`) of this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:")) / 1024


def forget_peak() -> None:
    """Give free memory back to the system, so that it cannot hide growth, and let the peak begin here."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def measured(step: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result of a step, the MiB by which memory rose at the most meanwhile, and the seconds."""
    forget_peak()
    before = resident_mib("VmRSS")
    result, seconds = timed(step)
    return result, resident_mib("VmHWM") - before, seconds


def all_but_one(analysis: Analysis) -> dict[str, list[int]]:
    """Every group that can be cut, less one channel or what the group's step asks."""
    free = [group for group in analysis.groups if not group.frozen and group.size > group.step]
    return {group.name: list(range(group.size - group.step)) for group in free}


def size_mib(program: GraphModule) -> float:
    """All parameters and buffers."""
    return (
        sum(value.nbytes for value in {id(value): value for value in named_tensors(program).values()}.values()) / 2**20
    )


def analyse_and_cut(program: GraphModule, keep: dict[str, list[int]]) -> tuple[Analysis, GraphModule]:
    """Both steps, nothing of them given back in between."""
    analysis = find_groups(program)
    return analysis, apply_plan(program, analysis, keep)


def measure(network: str) -> dict[str, Any]:
    """One process's figures, in MiB and seconds."""
    example = torch.randn(1, 3, SIDE, SIDE)
    program = trace_model(build_model(network), example)
    analysis, analysis_mib, analysis_s = measured(lambda: find_groups(program))
    plans = {"half": strongest_half(program, analysis), "all_but_one": all_but_one(analysis)}
    row: dict[str, Any] = {"model_mib": size_mib(program), "analysis_mib": analysis_mib, "analysis_s": analysis_s}
    for name, keep in plans.items():
        pruned, row[f"surgery_{name}_mib"], row[f"surgery_{name}_s"] = measured(
            partial(apply_plan, program, analysis, keep)
        )
        row[f"copy_{name}_mib"] = size_mib(pruned)
        del pruned
    del analysis
    both, row["analysis_and_half_mib"], _ = measured(lambda: analyse_and_cut(program, plans["half"]))
    analysis, pruned = both
    error, row["proof_mib"], row["proof_s"] = measured(
        lambda: check_surgery(program, analysis, plans["half"], pruned, example)
    )
    return {key: round(value, 4) for key, value in row.items()} | {"proof_error": error, "groups": len(plans["half"])}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst of all processes, in multiples of the model."""
    worst = {key: round(max(row[key] / row["model_mib"] for row in rows), 3) for key in rows[0] if key.endswith("_mib")}
    together = round(1 + worst["analysis_and_half_mib"], 3)
    return {
        "model_analysis_and_half": together,
        "limit": LIMIT,
        "slowest_analysis_s": max(row["analysis_s"] for row in rows),
        "limit_s": LIMIT_S,
        "ok": together <= LIMIT and all(row["analysis_s"] < LIMIT_S for row in rows),
        "beside_the_model": {key.removesuffix("_mib"): times for key, times in worst.items() if key != "model_mib"},
    }


def main() -> None:
    """A process for each repeat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="tv:resnet152")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", action="store_true", help="measure in this process and print it")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.one:
        library = define_missing_operators()
        print(json.dumps(measure(options.network)))
        del library
        return
    command = [sys.executable, __file__, "--network", options.network, "--one"]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(options.repeats)]
    rows = [json.loads(run.stdout.splitlines()[-1]) for run in runs]
    document = {
        "machine": describe_machine(PACKAGES),
        "network": options.network,
        "summary": summary(rows),
        "processes": rows,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
