"""Operators without a rule, and defects in rules: told, never taken for one another."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from graph_nets import Net, conv, head, pooled
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgeprune.errors import GraphError
from edgeprune.graph import steps
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.cut import Cut
from edgeprune.graph.groups import find_groups
from edgeprune.graph.operators.table import OPERATORS
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import trace_model
from edgeprune.graph.walk import RuleFault, Value, Walk

EXAMPLE = torch.randn(2, 3, 8, 8)


def gated(net: Net, x: Tensor) -> Tensor:
    return pooled(net, net.b(torch.relu(net.a(x)).tanh()))


@pytest.fixture
def program() -> GraphModule:
    return trace_model(Net(gated, a=conv(3, 8), b=conv(8, 6), head=head(6)), EXAMPLE)


def broken(node: Node, walk: Walk) -> Value:
    """A rule with a defect."""
    return walk.values[node.all_input_nodes[1 // len(walk.sizes(node)[9:])]]


def quietly(program: GraphModule) -> Analysis:
    """As users see it: a warning, and the analysis goes on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuleFault)
        return find_groups(program)


def test_a_defect_in_a_rule_is_an_error_in_tests(program: GraphModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "aten.tanh", replace(OPERATORS["aten.tanh"], rule=broken))
    with pytest.raises(RuleFault, match=r"broken failed at tanh \(aten\.tanh\): ZeroDivisionError.*please report"):
        find_groups(program)


@pytest.mark.parametrize("kind", [ZeroDivisionError, TypeError, IndexError, KeyError, AttributeError, RuntimeError])
def test_a_user_is_told_operator_rule_and_exception_and_prunes_what_is_left(
    program: GraphModule, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def failing(node: Node, walk: Walk) -> Value:
        raise kind("the cause")

    monkeypatch.setitem(OPERATORS, "aten.tanh", replace(OPERATORS["aten.tanh"], rule=failing))
    analysis = quietly(program)
    (fault,) = analysis.faults
    for word in ("aten.tanh", "tanh", "failing", kind.__name__, "the cause"):
        assert word in fault
    assert fault in analysis.notes
    assert not any("no rule" in note for note in analysis.notes)
    assert analysis.group("a").frozen == "a defect in the rule for aten.tanh (at tanh)"
    keep = {"b": [0, 2, 5]}
    assert check_surgery(program, analysis, keep, apply_plan(program, analysis, keep), EXAMPLE) < 1e-9


def test_an_operator_without_a_rule_and_one_in_an_unknown_form_are_no_defects() -> None:
    net = Net(
        lambda net, x: pooled(net, net.b(torch.fft.rfft(net.a(x)[:, : 4 * x.shape[0]], dim=1).abs())),
        a=conv(3, 8),
        b=conv(5, 6),
        head=head(6),
    )
    analysis = find_groups(trace_model(net, EXAMPLE))
    assert analysis.faults == ()
    assert analysis.notes[0] == "no rule for this form of aten.slice: what meets it stays whole"


def test_a_defect_in_listing_costs_is_told_and_cuts_go_on(
    program: GraphModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise IndexError("the cause")

    monkeypatch.setattr(steps, "list_operators", failing)
    with pytest.raises(RuleFault, match="cannot be listed: IndexError: the cause"):
        find_groups(program)
    analysis = quietly(program)
    assert [layer.name for layer in analysis.layers] == ["a", "b", "head"]
    assert (len(analysis.faults), analysis.operators) == (1, ())
    keep = {"a": [1, 4]}
    assert check_surgery(program, analysis, keep, apply_plan(program, analysis, keep), EXAMPLE) < 1e-9


def test_a_defect_in_rewriting_names_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(node: Node, cut: Cut) -> None:
        raise KeyError("the cause")

    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(512, 3))
    program = trace_model(net, EXAMPLE)
    monkeypatch.setitem(OPERATORS, "aten.flatten", replace(OPERATORS["aten.flatten"], rewrite=failing))
    with pytest.raises(GraphError, match=r"flatten \(aten\.flatten\).*KeyError: 'the cause'.*report"):
        apply_plan(program, find_groups(program), {"0": [0, 1]})


def test_what_an_operator_gave_is_not_overwritten_by_a_later_one() -> None:
    """Evidence is read from values of a run after it has ended."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Hardtanh(0, 6, inplace=True))
    program = trace_model(net, EXAMPLE)
    interpreter = torch.fx.Interpreter(program, garbage_collect_values=False)
    interpreter.run(EXAMPLE)
    (made,) = (value for node, value in interpreter.env.items() if "conv" in node.name)
    assert torch.equal(made, net[0](EXAMPLE))
