"""The planner's optimum beside three other ways to choose widths, on the same table and the same importance.

    python benchmarks/planner.py [--only NAME ...] [--seeds N]

Six networks, budgets of 0.3, 0.5 and 0.7 of the unpruned latency, with and without residual branches to choose from.
Latencies are those of the shipped estimated profile of a Raspberry Pi 4 (ONNX Runtime, fp32, one thread), so no board
is needed. Weights are random, and the loss is synthetic: dropping channels that hold a share e of a group's squared L2
norm costs s e / (1 - e), where s is a random sensitivity of the group (log-normal, sigma 1). Channels of random weights
are all alike, so each is scaled by a random factor too (log-normal, sigma 0.5). A cut branch is taken for half of what
its addition sums, so e is 1/2. What is compared is how well each method solves the problem that it is given; no
accuracy is claimed. Seconds are of the processor, one thread, as the machine may be shared.

- HALP (Shen et al. 2022): in 30 steps the budget falls to its goal; in each, a knapsack (by dynamic programming) takes
  for every group what its layers cost by their outputs, the inputs being those of the step before.
- NetAdapt (Yang et al. 2018, algorithm 1): each step cuts one group by as much as saves the step's latency, the one of
  least loss; the first step saves 2.5 % of the unpruned latency, each later one 0.96 of that (the authors' defaults).
- Uniform: every group is cut to the same share of its channels, the largest that meets the budget; branches stay.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from planner_networks import NETWORKS

from edgeprune.core.latency.layers import Layer, LayerShape
from edgeprune.core.latency.table import LatencyTable
from edgeprune.core.planning.candidates import candidate_widths, probe_shapes
from edgeprune.core.planning.planner import Problem, choose_widths
from edgeprune.core.planning.program import RELATIVE_GAP
from edgeprune.errors import InfeasibleBudget
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.groups import find_groups
from edgeprune.graph.trace import named_tensors, trace_model
from edgeprune.shipped import list_profiles, load_profiles

RESULTS = Path(__file__).parent / "results" / "planner.json"
BOARD, RUNTIME, PRECISION, THREADS = "rpi4", "onnxruntime", "fp32", 1
STEP = 4
SHARES = (0.3, 0.5, 0.7)
SENSITIVITY, UNLIKENESS = 1.0, 0.5
EVERY_SHAPE = 10**9
HALP_STEPS = 30
HALP_MORE = 10
"""Further steps where the last one missed the budget, its costs being those of other inputs."""
NETADAPT_FIRST, NETADAPT_DECAY = 0.025, 0.96
PARTS = 10_000
"""Parts of the latency to be saved that the knapsack counts in."""
WITHIN = 1 + 1e-9

Widths = dict[str, int]


@dataclass(frozen=True)
class Case:
    """A problem with its latencies looked up fast: the sum over layers, each remembered by its shape."""

    problem: Problem

    @cached_property
    def _known(self) -> dict[LayerShape, float]:
        return {}

    @cached_property
    def full(self) -> Widths:
        """Every group whole."""
        return {group: widths[-1] for group, widths in self.problem.widths.items()}

    @cached_property
    def readers(self) -> dict[str, list[Layer]]:
        """Layers whose cost changes with a group."""
        return {
            group: [layer for layer in self.problem.layers if group in layer.depends_on] for group in self.problem.loss
        }

    @cached_property
    def makers(self) -> dict[str, list[Layer]]:
        """Layers whose output changes with a group."""
        return {
            group: [layer for layer in self.problem.layers if group in layer.cout.groups] for group in self.problem.loss
        }

    def layers_ms(self, layers: Sequence[Layer], widths: Mapping[str, int]) -> float:
        """Latency of some layers."""
        return sum(self._shape_ms(layer.at(widths)) for layer in layers)

    def _shape_ms(self, shape: LayerShape) -> float:
        if shape not in self._known:
            self._known[shape] = self.problem.table.predict(shape).latency_ms
        return self._known[shape]

    def net_ms(self, widths: Mapping[str, int]) -> float:
        """Latency of the net."""
        return self.layers_ms(self.problem.layers, widths)

    def loss(self, widths: Mapping[str, int]) -> float:
        """Predicted rise of the loss."""
        return sum(self.problem.loss[group][width] for group, width in widths.items())

    def narrower(self, group: str, than: int) -> list[int]:
        """Widths of a group below one, descending."""
        return [width for width in reversed(self.problem.widths[group]) if width < than]


def plan_exactly(case: Case, budget_ms: float) -> Widths | None:
    """Ours: the proven optimum (to the planner's gap)."""
    try:
        choice = choose_widths(case.problem, budget_ms)
    except InfeasibleBudget:
        return None
    if choice.gap > RELATIVE_GAP:
        raise SystemExit(f"no proof in time (gap {choice.gap:.1%}): the machine is too busy for this benchmark")
    return choice.widths


def plan_uniform(case: Case, budget_ms: float) -> Widths | None:
    """The same share of every group of channels, the largest that meets the budget."""
    for share in np.linspace(1, 0, 513):
        widths = {
            group: min(offered, key=lambda width, goal=share * offered[-1]: (abs(width - goal), -width))
            for group, offered in case.problem.widths.items()
        }
        widths |= {group: 1 for group, offered in case.problem.widths.items() if offered[-1] == 1}
        if case.net_ms(widths) <= budget_ms * WITHIN:
            return widths
    return None


def plan_netadapt(case: Case, budget_ms: float) -> Widths | None:
    """NetAdapt: cut one group a step, that which saves enough at the least loss."""
    widths, current_ms = dict(case.full), case.net_ms(case.full)
    step_ms = NETADAPT_FIRST * current_ms
    while current_ms > budget_ms * WITHIN:
        proposals = [proposal for group in widths if (proposal := _narrow(case, widths, group, step_ms)) is not None]
        if not proposals:
            step_ms /= 2
            if step_ms < 1e-6 * budget_ms:
                return None
            continue
        widths = min(proposals, key=case.loss)
        current_ms, step_ms = case.net_ms(widths), step_ms * NETADAPT_DECAY
    return widths


def _narrow(case: Case, widths: Widths, group: str, step_ms: float) -> Widths | None:
    """One group cut as little as saves `step_ms`."""
    layers = case.readers[group]
    before = case.layers_ms(layers, widths)
    for width in case.narrower(group, widths[group]):
        cut = {**widths, group: width}
        if before - case.layers_ms(layers, cut) >= step_ms:
            return cut
    return None


def plan_halp(case: Case, budget_ms: float) -> Widths | None:
    """HALP: knapsacks over what each group's layers cost by their outputs alone, for budgets that fall to the goal."""
    widths, full_ms = dict(case.full), case.net_ms(case.full)
    goals = [*np.geomspace(full_ms, budget_ms, HALP_STEPS + 1)[1:], *[budget_ms] * HALP_MORE]
    for turn, goal in enumerate(goals, 1):
        widths = _knapsack(case, widths, case.net_ms(widths) - float(goal))
        if turn >= HALP_STEPS and case.net_ms(widths) <= budget_ms * WITHIN:
            return widths
    return None


def _knapsack(case: Case, widths: Widths, must_save_ms: float) -> Widths:
    """The widths of least loss, none wider than now, that save so much by outputs alone; the narrowest if none do.

    By dynamic programming: `least[part]` is the least loss that saves so many parts or more.
    """
    if must_save_ms <= 0:
        return widths
    offered = {group: (width, *case.narrower(group, width)) for group, width in widths.items()}
    parts, least = np.arange(PARTS + 1), np.where(np.arange(PARTS + 1) == 0, 0.0, np.inf)
    steps: list[tuple[list[int], np.ndarray]] = []
    for group, narrower in offered.items():
        saved = [_saved_parts(case, widths, {**widths, group: width}, group, must_save_ms) for width in narrower]
        rises = [case.problem.loss[group][width] for width in narrower]
        options = np.stack([least[np.maximum(parts - part, 0)] + rise for part, rise in zip(saved, rises, strict=True)])
        steps.append((saved, options.argmin(axis=0)))
        least = options.min(axis=0)
    if not np.isfinite(least[PARTS]):
        return {group: narrower[-1] for group, narrower in offered.items()}
    chosen, remaining = dict(widths), PARTS
    for (group, narrower), (saved, best) in zip(reversed(offered.items()), reversed(steps), strict=True):
        pick = int(best[remaining])
        chosen[group], remaining = narrower[pick], max(remaining - saved[pick], 0)
    return chosen


def _saved_parts(case: Case, widths: Widths, cut: Widths, group: str, must_save_ms: float) -> int:
    """What a cut saves in the layers that make the group, in parts of what must be saved, rounded down."""
    saved_ms = case.layers_ms(case.makers[group], widths) - case.layers_ms(case.makers[group], cut)
    return int(np.clip(saved_ms / must_save_ms, 0, 1) * PARTS)


METHODS: dict[str, Callable[[Case, float], Widths | None]] = {
    "optimum": plan_exactly,
    "halp": plan_halp,
    "netadapt": plan_netadapt,
    "uniform": plan_uniform,
}


def synthetic_loss(
    analysis: Analysis, norms: Mapping[str, np.ndarray], widths: Mapping[str, Sequence[int]], seed: int
) -> dict[str, dict[int, float]]:
    """Loss rises by group and width; see the head of this file."""
    random = np.random.default_rng(seed)
    losses: dict[str, dict[int, float]] = {}
    for group, offered in widths.items():
        scale = float(random.lognormal(0, SENSITIVITY))
        if analysis.group(group).is_branch:
            losses[group] = {width: scale * (1 - width) for width in offered}
            continue
        squares = np.sort(norms[group] ** 2 * random.lognormal(0, UNLIKENESS, len(norms[group])) ** 2)[::-1]
        shares = np.cumsum(squares) / squares.sum()
        losses[group] = {width: scale * max(0.0, 1 / float(shares[width - 1]) - 1) for width in offered}
    return losses


def channel_norms(program: torch.fx.GraphModule, analysis: Analysis) -> dict[str, np.ndarray]:
    """L2 norm of the weights that make each channel."""
    tensors = named_tensors(program)
    norms = {}
    for group in analysis.channel_groups:
        total = np.zeros(group.size)
        for member in (member for member in group.members if member.role == "out"):
            weight = tensors[member.tensor].detach().double().movedim(member.dim, 0).flatten(1).square().sum(1).numpy()
            channel = analysis.channels(group.name, member.tensor, member.dim)
            np.add.at(total, channel[channel >= 0], weight[channel >= 0])
        norms[group.name] = np.sqrt(total)
    return norms


def board_table(layers: Sequence[Layer], widths: Mapping[str, Sequence[int]]) -> LatencyTable:
    """The estimated latencies of every shape that these widths give."""
    profile = load_profiles(BOARD, list_profiles()).choose(RUNTIME, PRECISION, THREADS)
    return profile.tabulate(probe_shapes(layers, widths, EVERY_SHAPE))


def compare_on(case: Case) -> list[dict[str, Any]]:
    """Every method at every budget."""
    full_ms, rows = case.net_ms(case.full), []
    for share in SHARES:
        row: dict[str, Any] = {"share": share}
        for name, method in METHODS.items():
            started = time.process_time()
            widths = method(case, share * full_ms)
            seconds = time.process_time() - started
            row[name] = _describe(case, widths)
            row.setdefault("cpu_seconds", {})[name] = round(seconds, 2)
        rows.append(row)
        print("   ", json.dumps(row), flush=True)
    return rows


def _describe(case: Case, widths: Widths | None) -> dict[str, float] | None:
    if widths is None:
        return None
    return {"loss": round(case.loss(widths), 6), "share": round(case.net_ms(widths) / case.net_ms(case.full), 4)}


def compare_network(name: str, seeds: int) -> dict[str, Any]:
    """One network, with and without its branches, for each seed of the synthetic loss."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    program = trace_model(build(), torch.randn(shape))
    analysis = find_groups(program)
    offers = candidate_widths(analysis.groups, analysis.layers, STEP)
    norms, table = channel_norms(program, analysis), board_table(analysis.layers, offers)
    branches = {group.name for group in analysis.groups if group.is_branch}
    plain = {group: (1,) if group in branches else offered for group, offered in offers.items()}
    comparison: dict[str, Any] = {"groups": len(offers) - len(branches), "branches": len(branches), "runs": []}
    for with_branches in (False, True)[: 1 + bool(branches)]:
        widths = offers if with_branches else plain
        for seed in range(seeds):
            loss = synthetic_loss(analysis, norms, widths, seed)
            print(f"  {name}, branches {with_branches}, seed {seed}", flush=True)
            rows = compare_on(Case(Problem(analysis.layers, loss, table)))
            comparison["runs"].append({"branches": with_branches, "seed": seed, "budgets": rows})
    return comparison


def summarise(networks: Mapping[str, Any]) -> dict[str, Any]:
    """How much lower the optimum's loss is, over all cases that both solve, and the longest time to plan each net."""
    rows = [row for network in networks.values() for run in network["runs"] for row in run["budgets"]]
    summary: dict[str, Any] = {"cases": len(rows)}
    for name in list(METHODS)[1:]:
        pairs = [(row["optimum"]["loss"], row[name]["loss"]) for row in rows if row["optimum"] and row[name]]
        lower = [1 - ours / theirs for ours, theirs in pairs if theirs > 0]
        summary[name] = {
            "optimum_is_worse": sum(ours > theirs * 1.001 + 1e-6 for ours, theirs in pairs),
            "median_lower_loss": round(median(lower), 4),
            "largest_lower_loss": round(max(lower), 4),
            "fails_where_optimum_does_not": sum(row[name] is None and row["optimum"] is not None for row in rows),
            "meets_what_is_infeasible": sum(row[name] is not None and row["optimum"] is None for row in rows),
        }
    summary["cpu_seconds_to_plan"] = {
        name: max(row["cpu_seconds"]["optimum"] for run in network["runs"] for row in run["budgets"])
        for name, network in networks.items()
    }
    return summary


def main() -> None:
    """Run the comparison and write the results."""
    parser = argparse.ArgumentParser(description="The planner's optimum beside HALP, NetAdapt and uniform widths.")
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), help="networks; their results are not written")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks = {name: compare_network(name, options.seeds) for name in options.only or NETWORKS}
    document = {
        "what": "predicted loss (synthetic, random weights) at shares of the latency; see benchmarks/planner.py",
        "table": f"estimated profile {BOARD}, {RUNTIME} {PRECISION}, {THREADS} thread",
        "step": STEP,
        "machine": describe_machine(("scipy", "numpy", "torch")),
        "summary": summarise(networks),
        "networks": networks,
    }
    print(json.dumps(document["summary"], indent=1))
    if not options.only:
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
