"""Property: on any graph of the known operators, any plan is exact, and so is a second one on what is left."""

from __future__ import annotations

from random import Random

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import SIDE, random_graph, random_plan

from edgeprune.graph.groups import find_groups
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan

torch.set_num_threads(1)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_any_plan_on_any_graph_is_exact(seed: int, steps: int) -> None:
    random = Random(seed)
    program, example = random_graph(random, steps), torch.zeros(2, 3, SIDE, SIDE)
    for _ in range(2):
        analysis = find_groups(program)
        keep = random_plan(analysis, random)
        pruned = apply_plan(program, analysis, keep)
        assert check_surgery(program, analysis, keep, pruned, example) < 1e-9
        program = pruned
