"""`import edgeprune as ep`: the code of its page, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT
from torch import Tensor, nn

import edgeprune as ep
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey, render_table
from edgeprune.errors import EdgepruneError, InfeasibleBudget, PlanError, UsageError
from edgeprune.net import Net

PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLE = torch.randn(1, 3, 16, 16)


class Chain(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 32, 3, padding=1)
        self.b = nn.Conv2d(32, 64, 3, padding=1)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))
        return out


class Written(Chain):
    """With a size of its own in the code."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)).reshape(-1, 64))
        return out


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return ep.trace(Chain().eval(), EXAMPLE)


def run_page(wanted: str) -> dict[str, Any]:
    """Run the page's code up to the last block of a kind; gives its names."""
    names: dict[str, Any] = {}
    for title, code in BLOCK.findall(PAGE):
        if not title.strip() or wanted in title:
            exec(compile(code, "docs/python.md", "exec"), names)
    return names


def test_the_code_of_the_page_runs(no_devices: Path) -> None:
    names = run_page("nothing else")
    assert names["pruned"].macs <= 0.5 * names["net"].macs
    assert type(names["pruned"].to_module()).__name__ == "SmallNet"
    assert names["by_ratio"].widths == {"stem": 16, "body": 48}
    assert names["again"].macs == names["final"].macs < names["pruned"].macs
    assert [file.precision for file in names["files"]] == ["fp32", "int8"]
    assert names["timed"].latency.p50_ms > 0


@pytest.mark.slow
@pytest.mark.alone
def test_the_line_runs_from_python(no_devices: Path) -> None:
    done = run_page("slow")["done"]
    assert done.verdict in ("pass", "inconclusive")
    assert done.report["verdict"] == done.verdict
    assert (done.directory / "report.html").exists()


def test_every_name_is_there_and_no_other_name_is_invented() -> None:
    for name in ep.__all__:
        assert callable(getattr(ep, name)), name
        assert f"`{name}`" in PAGE or f"ep.{name}" in PAGE or name in ("Net", "Deployment")
    assert dir(ep) == ep.__all__
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        ep.prun  # noqa: B018


def test_the_names_of_functions_are_not_those_of_rooms() -> None:
    """A package's submodule takes the place of a function of its name as soon as anything imports it."""
    folders = {path.stem for path in Path(ep.__path__[0]).iterdir()}
    assert not folders & set(ep.__all__)


def test_half_of_the_channels_go(net: Net) -> None:
    pruned = ep.prune(net, ep.plan(net, ratio=0.5))
    module = pruned.to_module().eval()
    assert isinstance(module, Chain)
    assert (module.a.out_channels, module.b.in_channels, module.b.out_channels) == (16, 16, 32)
    torch.testing.assert_close(module(EXAMPLE), pruned.program(EXAMPLE))
    assert pruned.parameters == sum(value.numel() for value in module.parameters())


@pytest.mark.parametrize("goal", ["macs", "parameters"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_limit_is_kept_and_nearly_used_whether_a_share_or_a_number(net: Net, goal: str, share: float) -> None:
    whole = getattr(net, goal)
    by_share = ep.plan(net, **{goal: share, "step": 1})  # type: ignore[arg-type]
    assert ep.plan(net, **{goal: round(share * whole), "step": 1}) == by_share  # type: ignore[arg-type]
    assert 0.9 * share * whole <= getattr(ep.prune(net, by_share), goal) <= share * whole


def test_what_a_net_keeps_of_its_importance_is_the_most_there_is(net: Net) -> None:
    """Channels of little weight go first, in the layer where they are."""
    model = Chain().eval()
    with torch.no_grad():
        model.a.weight[::2] *= 1e-3
        model.a.bias[::2] *= 1e-3  # type: ignore[index]
    plan = ep.plan(ep.trace(model, EXAMPLE), macs=0.51)
    assert plan.keep["a"] == tuple(range(1, 32, 2))
    assert plan.widths["b"] == 64


def test_a_latency_table_is_planned_by(net: Net, tmp_path: Path) -> None:
    """Only the first layer takes time here."""
    shapes = {
        layer.at({"a": a, "b": b}) for layer in net.analysis.layers for a in range(8, 33, 8) for b in range(8, 65, 8)
    }
    first = {shape for shape in shapes if shape.cin == 3}
    points = [LatencyPoint(shape, shape.cout / 8 if shape in first else 1e-9, 0.0, 1.0) for shape in shapes]
    table = LatencyTable(TableKey("device", "onnxruntime", "1", "fp32", 1), tuple(points))
    assert ep.plan(net, latency_ms=2.001, table=table).widths == {"a": 16, "b": 64}
    path = tmp_path / "latency_table.json"
    path.write_text(render_table(table))
    assert ep.plan(net, latency_ms=2.001, table=path).widths == ep.plan(net, latency_ms=2.001, table=str(path)).widths
    for wrong, said in ((3, "int; expected the path of"), (tmp_path / "none.json", "cannot be read: .*No such file")):
        with pytest.raises(UsageError, match=said):
            ep.plan(net, latency_ms=2.0, table=wrong)  # type: ignore[arg-type]


def test_a_module_whose_code_has_sizes_of_its_own_comes_back_as_its_graph() -> None:
    net = ep.trace(Written().eval(), EXAMPLE)
    pruned = ep.prune(net, ep.plan(net, ratio=0.5))
    module = pruned.to_module()
    assert not isinstance(module, Written)
    assert module(EXAMPLE).shape == (1, 10)
    assert module.train() is module
    assert module.training
    assert module.eval()(EXAMPLE).shape == (1, 10)
    twice = ep.prune(pruned, ep.plan(pruned, ratio=0.5))
    assert twice.to_module()(EXAMPLE).shape == (1, 10)


def test_what_was_trained_is_in_the_module_and_in_what_is_cut_from_it(net: Net) -> None:
    pruned = ep.prune(net, ep.plan(net, ratio=0.5))
    with torch.no_grad():
        pruned.program.get_parameter("head.bias").fill_(7.0)
    assert bool((pruned.to_module().get_parameter("head.bias") == 7.0).all())
    twice = ep.prune(pruned, ep.plan(pruned, ratio=0.5))
    assert bool((twice.to_module().get_parameter("head.bias") == 7.0).all())


def test_a_plan_is_for_the_net_that_it_was_made_for(net: Net) -> None:
    other = ep.trace(Chain().eval(), EXAMPLE)
    with pytest.raises(PlanError, match="was made for another net"):
        ep.prune(other, ep.plan(net, ratio=0.5))


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({}, UsageError, "give one goal of ratio, .*found none"),
        ({"ratio": 0.5, "macs": 0.5}, UsageError, "found ratio, macs"),
        ({"ratio": 1.0}, UsageError, "ratio: 1.0; expected the share that goes"),
        ({"ratios": {"a": -0.1}}, UsageError, "a: -0.1; expected"),
        ({"rato": 0.5}, UsageError, "no 'rato'; did you mean 'ratio'"),
        ({"macs": 0.0}, UsageError, "expected a share up to 1, or a number; the net has"),
        ({"macs": 1e-4}, InfeasibleBudget, "the narrowest choice has"),
        ({"ratio": 0.5, "whole": ["bee"]}, PlanError, "no layer or group 'bee' in this net"),
        ({"ratios": {"head": 0.5}}, PlanError, "'head' has to stay whole: it reaches the model's output"),
        ({"ratio": 0.5, "importance": "taylor"}, UsageError, "'taylor' needs data"),
        ({"ratio": 0.5, "importance": "tailor"}, UsageError, "not known; did you mean 'taylor'"),
        ({"macs": 0.5, "data": []}, UsageError, "belong together"),
        ({"latency_ms": 1.0}, UsageError, "belong together"),
    ],
)
def test_what_cannot_be_planned_is_told(net: Net, asked: dict[str, Any], kind: type[EdgepruneError], said: str) -> None:
    with pytest.raises(kind, match=said):
        ep.plan(net, **asked)


def test_deploy_and_measure_refuse_what_the_command_line_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no 'sped'"):
        ep.deploy(target="local", sped=2.0)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="--target is needed"):
        ep.deploy(recipe="digits-resnet8")
    with pytest.raises(UsageError, match=r"x\.onnx: no such file"):
        ep.measure(tmp_path / "x.onnx")
