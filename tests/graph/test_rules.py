"""Each operator family: what is tied, what is frozen, and that a cut is exact."""

from __future__ import annotations

import pytest
import torch
from graph_cases import CASES
from graph_nets import Case, example_of, random_keep, randomise
from torch import nn

from edgeprune.core.latency.layers import LayerShape
from edgeprune.graph.groups import find_groups
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import trace_model


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_groups_are_as_expected_and_a_cut_is_exact(case: Case) -> None:
    example = example_of(case)
    program = trace_model(randomise(case.net()), example)
    analysis = find_groups(program)
    found = {group.name: group for group in analysis.groups}
    for name, size in case.free.items():
        assert (found[name].size, found[name].frozen) == (size, ""), analysis.groups
    for name, reason in case.frozen.items():
        assert any(
            reason in group.frozen
            for key, group in found.items()
            if key.split("#")[0].split(":")[0] == name.split("#")[0]
        )
    keep = random_keep(analysis)
    pruned = apply_plan(program, analysis, keep)
    assert sum(value.numel() for value in pruned.parameters()) < sum(value.numel() for value in program.parameters())
    assert check_surgery(program, analysis, keep, pruned, example) < 1e-9
    assert pruned(example[:1].repeat(3, *[1] * len(case.shape))).shape[0] == 3


@pytest.mark.parametrize("name", ["attention_by_matmul", "attention_by_einsum", "attention_folded", "attention_fused"])
def test_attention_has_heads_and_a_head_width(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    analysis = find_groups(trace_model(case.net(), example_of(case)))
    assert sorted(group.size for group in analysis.groups if not group.frozen) == [4, 6]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_counts_of_every_layer_follow_the_widths(case: Case) -> None:
    example = example_of(case)
    program = trace_model(case.net(), example)
    analysis = find_groups(program)
    keep = random_keep(analysis, 1)
    widths = {group.name: group.size for group in analysis.groups} | {name: len(kept) for name, kept in keep.items()}
    pruned = find_groups(apply_plan(program, analysis, keep))
    assert [layer.at(widths) for layer in analysis.layers] == [layer.shape for layer in pruned.layers]
    assert [one.at(widths) for one in analysis.operators] == [one.shape for one in pruned.operators]


def test_what_takes_time_beside_layers_is_found_with_what_it_follows() -> None:
    attention = next(case for case in CASES if case.name == "attention_fused")
    product, mean = find_groups(trace_model(attention.net(), example_of(attention))).operators
    assert (product.shape.cin, product.shape.cout, product.shape.groups, product.shape.size) == (24, 24, 4, (7, 7))
    assert mean.shape == LayerShape("pool", 5, 5, (7,), (7,), 1, (7,), (0,))
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Hardswish(), nn.Conv2d(8, 4, 1), nn.ReLU())
    (active,) = find_groups(trace_model(net, torch.randn(1, 3, 9, 9))).operators
    assert (active.name, active.shape.describe()) == ("0:hardswish", "hardswish 1 8->8 @ 16")
    assert active.cout.groups == {"0"}
