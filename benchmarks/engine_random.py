"""Prune 5,000 random graphs by random plans, twice each, and write the largest error of all proofs.

python benchmarks/engine_random.py [--graphs 5000]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from random import Random

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from random_graphs import SIDE, random_graph, random_plan

from edgeprune.graph.groups import find_groups
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan

RESULTS = Path(__file__).parent / "results" / "engine_random.json"


def main() -> None:
    """Seeds 0, 1, 2, ...; a failing seed is written with its error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=5000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, worst, nodes, groups, failed = time.perf_counter(), 0.0, 0, 0, {}
    for seed in range(options.graphs):
        random = Random(seed)
        program = random_graph(random, 1 + seed % 8)
        nodes += len(program.graph.nodes)
        for _ in range(2):
            analysis = find_groups(program)
            keep = random_plan(analysis, random)
            pruned = apply_plan(program, analysis, keep)
            error = check_surgery(program, analysis, keep, pruned, torch.zeros(2, 3, SIDE, SIDE))
            groups, worst, program = groups + len(keep), max(worst, error), pruned
            if not error <= 1e-9:
                failed[seed] = error
    document = {
        "graphs": options.graphs,
        "surgeries": 2 * options.graphs,
        "mean_nodes": round(nodes / options.graphs, 1),
        "pruned_groups": groups,
        "worst_relative_error": worst,
        "failed_seeds": failed,
        "seconds": round(time.perf_counter() - start, 1),
        "torch": torch.__version__,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
