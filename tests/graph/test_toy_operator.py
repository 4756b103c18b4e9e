"""An operator that the engine does not know, in one record: how to add one.

A real one gets its rule, its rewriting and its record in the module of its subject in `edgeprune/graph/operators/`, and
a case in `tests/support/graph_cases.py`. What the record does not say is not so: an operator whose rule is missing
keeps whatever meets it whole, and is cut nowhere.
"""

from __future__ import annotations

import pytest
import torch
from graph_nets import Net, conv, head, pooled
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeprune.core.latency import steps as kinds
from edgeprune.graph.cut import Cut
from edgeprune.graph.groups import find_groups
from edgeprune.graph.nodes import arg
from edgeprune.graph.operators.record import OperatorFamily
from edgeprune.graph.operators.table import OPERATORS
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import trace_model
from edgeprune.graph.walk import Value, Walk
from edgeprune.pruning.masks import find_dead_channels

EXAMPLE = torch.randn(2, 3, 8, 8)


@torch.library.custom_op("toy::fade", mutates_args=())
def fade(x: Tensor, strength: Tensor, channels: int) -> Tensor:
    """`x[n, c] * strength[c]`, of `channels` channels."""
    return (x.reshape(len(x), channels, -1) * strength[:, None]).reshape(x.shape)


@fade.register_fake
def _(x: Tensor, strength: Tensor, channels: int) -> Tensor:
    return torch.empty_like(x)


def label_fade(node: Node, walk: Walk) -> Value:
    """A strength for each channel; what comes out has the channels of what goes in."""
    dims = walk.dims(arg(node, 0))
    walk.tie(node, dims[1], walk.dims(arg(node, 1))[0])
    return dims


def recount_channels(node: Node, cut: Cut) -> None:
    """The literal number of channels."""
    node.update_arg(2, cut.count(cut.dims(node)[1], arg(node, 2)))


FADE = OperatorFamily(("toy.fade",), label_fade, recount_channels, kind=kinds.POINTWISE, acts_per_channel=True)


@pytest.fixture
def program() -> GraphModule:
    net = Net(
        lambda net, x: pooled(net, net.b(torch.ops.toy.fade(net.a(x), net.strength, 8))),
        a=conv(3, 8),
        b=conv(8, 6),
        head=head(6),
        strength=nn.Parameter(torch.rand(8)),
    )
    return trace_model(net, EXAMPLE)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, *FADE.names, FADE)


def test_without_a_record_what_meets_it_stays_whole(program: GraphModule) -> None:
    analysis = find_groups(program)
    assert analysis.group("a").frozen == "no rule for toy.fade (at fade)"
    assert analysis.notes[0] == "no rule for toy.fade: what meets it stays whole"
    keep = {"b": [0, 3]}
    assert check_surgery(program, analysis, keep, apply_plan(program, analysis, keep), EXAMPLE) < 1e-9


@pytest.mark.usefixtures("known")
def test_its_rule_ties_what_belongs_together(program: GraphModule) -> None:
    analysis = find_groups(program)
    assert (analysis.group("a").frozen, analysis.faults) == ("", ())
    assert ("strength", 0) in {(member.tensor, member.dim) for member in analysis.group("a").members}


@pytest.mark.usefixtures("known")
def test_its_literal_follows_and_the_cut_is_proven(program: GraphModule) -> None:
    analysis = find_groups(program)
    keep = {"a": [1, 4, 6], "b": [0, 3]}
    pruned = apply_plan(program, analysis, keep)
    (node,) = pruned.graph.find_nodes(op="call_function", target=torch.ops.toy.fade.default)
    assert node.args[2] == 3
    assert check_surgery(program, analysis, keep, pruned, EXAMPLE) < 1e-9
    assert find_groups(pruned).group("a").size == 3


@pytest.mark.usefixtures("known")
def test_its_cost_follows_the_channels(program: GraphModule) -> None:
    (layer,) = (one for one in find_groups(program).operators if one.shape.op == kinds.POINTWISE)
    assert layer.at({"a": 3, "b": 6}).cout == 3


@pytest.mark.usefixtures("known")
def test_channels_that_are_dead_before_it_are_dead_behind_it(program: GraphModule) -> None:
    with torch.no_grad():
        for name in ("a.weight", "a.bias"):
            program.get_parameter(name)[[2, 5]] = 0
    assert find_dead_channels(program, find_groups(program))["a"] == (0, 1, 3, 4, 6, 7)
