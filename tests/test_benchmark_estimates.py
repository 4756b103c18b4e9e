"""What the benchmark of estimated profiles rests on: lists of published networks, and the joint fit."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from estimated import Net, add, conv, load, measure, plain_net, pool, separable_net
from places import ROOT
from torch import Tensor, nn

from edgeprune.core.estimating.calibrate import CountedRows
from edgeprune.core.estimating.estimate import EstimatedProfile, Parameter
from edgeprune.core.estimating.prior import PRIOR
from edgeprune.core.latency.layers import LayerShape
from edgeprune.graph.costs import list_shapes
from edgeprune.graph.groups import find_groups
from edgeprune.graph.trace import trace_model

BENCHMARKS = ROOT / "benchmarks"
CELL = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def normed(cin: int, cout: int, kernel: int, stride: int = 1, first: bool = False) -> nn.Sequential:
    layer = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(*[nn.ReLU()] * first, layer, nn.BatchNorm2d(cout))


class Residual(nn.Module):
    def __init__(self, main: nn.Module, shortcut: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.main, self.shortcut, self.last = main, shortcut, last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.main(x) + self.shortcut(x))


def resnet18() -> nn.Module:
    layers: list[nn.Module] = [normed(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for cout, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            main = nn.Sequential(normed(channels, cout, 3, stride), nn.ReLU(), normed(cout, cout, 3))
            shortcut = nn.Identity() if channels == cout else normed(channels, cout, 1, stride)
            layers.append(Residual(main, shortcut, nn.ReLU()))
            channels = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class Cell(nn.Module):
    """Three nodes, each the sum of what its edges make of earlier ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        nodes = [[edge.split("~") for edge in node.strip("|").split("|")] for node in CELL.split("+")]
        self.edges = [[(int(source), name) for name, source in node if name != "none"] for node in nodes]
        made = {"skip_connect": nn.Identity, "avg_pool_3x3": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False)}
        made |= {f"nor_conv_{n}x{n}": lambda n=n: normed(width, width, n, first=True) for n in (1, 3)}
        self.operators = nn.ModuleList(made[name]() for node in self.edges for _, name in node)

    def forward(self, x: Tensor) -> Tensor:
        tensors, operators = [x], iter(self.operators)
        for node in self.edges:
            first, *others = [next(operators)(tensors[source]) for source, _ in node]
            tensors.append(sum(others, first))
        return tensors[-1]


def cells() -> nn.Module:
    layers: list[nn.Module] = [normed(3, 16, 3)]
    for width in (16, 32, 64):
        if width > 16:
            main = nn.Sequential(normed(width // 2, width, 3, 2, True), normed(width, width, 3, first=True))
            shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(width // 2, width, 1, bias=False))
            layers.append(Residual(main, shortcut, nn.Identity()))
        layers += [Cell(width) for _ in range(5)]
    return nn.Sequential(
        *layers, nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    )


class Gated(nn.Module):
    """An inverted block with squeeze and excitation, as in MobileNetV3, between a first and a last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand = normed(3, 16, 3, 2), normed(16, 48, 1)
        self.depthwise = nn.Conv2d(48, 48, 5, 1, 2, groups=48)
        self.down, self.up, self.project = nn.Linear(48, 8), nn.Linear(8, 48), normed(48, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.stem(x))
        y = F.hardswish(self.depthwise(F.hardswish(self.expand(x))))
        scale = F.hardsigmoid(self.up(F.relu(self.down(y.mean((2, 3))))))
        return self.head((x + self.project(y * scale[:, :, None, None])).mean((2, 3)))


def gated() -> Net:
    from published_networks import Net as Written

    net = Written(32, activation="hardswish").conv(16, 3, 2).activate()
    return net.inverted(48, 16, 5, squeeze=8).linear(10).finish()


def compare(shapes: list[LayerShape] | Net) -> Counter[tuple[object, ...]]:
    """Layers as lists are compared: of operators on single values, how many there are."""
    return Counter(
        (one,) if one.has_weights or one.op == "pool" else (one.op, one.cin * prod(one.size)) for one in shapes
    )


def listed(model: nn.Module, size: int) -> Counter[tuple[object, ...]]:
    return compare(list_shapes(find_groups(trace_model(model, torch.zeros(2, 3, size, size))), {}))


def test_a_published_network_is_listed_as_the_tool_lists_it() -> None:
    import published_networks

    assert listed(resnet18(), 224) == compare(published_networks.resnet18())


def test_a_network_of_cells_is_listed_but_for_its_first_activations() -> None:
    import published_networks

    extra = listed(cells(), 32)
    written = compare(published_networks.nasbench201(CELL))
    assert not written - extra
    assert {key[0] for key in extra - written} == {"pointwise"}, "ReLU before a convolution"


def test_squeeze_and_excitation_is_listed_but_for_its_gate() -> None:
    assert not compare(gated()) - listed(Gated(), 32)
    assert {key[0] for key in listed(Gated(), 32) - compare(gated())} <= {"pointwise"}


@pytest.mark.parametrize(
    ("cell", "whole"),
    [
        (CELL, True),
        ("|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|", False),
        ("|none~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|", False),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", False),
        ("|none~0|+|none~0|none~1|+|avg_pool_3x3~0|none~1|none~2|", True),
    ],
)
def test_cells_in_which_an_edge_is_of_no_use_are_left_out(cell: str, whole: bool) -> None:
    import kept_aside

    assert kept_aside._is_whole(cell) is whole


NETS = [make(width, size) for make in (plain_net, separable_net) for width in (16, 64, 160) for size in (14, 56)]
NETS += [(conv(3, 32, 28), *[pool(32, 28, 3)] * n, *[add(32, 28)] * n, LayerShape("linear", 32, 10)) for n in (2, 6)]


def test_kin_share_what_they_say_and_the_rest_is_as_assumed() -> None:
    """A runtime with slow pools on one core, slow depthwise kernels on another core: a board that has both."""
    from joint_fit import Sample, fit_jointly

    assumed = {name: Parameter(one.value, one.spread) for name, one in PRIOR.items()}
    plain = replace(load("rpi4"), parameters=assumed, stretch=1.0)

    def sample(name: str, runtime: str, core: str, factors: dict[str, float]) -> Sample:
        moved = {key: Parameter(one.value * factors.get(key, 1), one.spread) for key, one in assumed.items()}
        rows = measure(replace(plain, parameters=moved), NETS)
        labels = {"runtime": runtime, "core": core, "chip": name, "source": name}
        return Sample(labels, CountedRows.of(plain, rows))

    slow_pools, slow_depthwise = {"pool": 0.3}, {"depthwise": 0.5}
    fit = fit_jointly(
        [
            *(sample(f"a{n}", "first", "old", slow_pools) for n in range(3)),
            *(sample(f"b{n}", "second", "new", slow_depthwise) for n in range(3)),
            *(sample(f"c{n}", "second", "old", {}) for n in range(3)),
        ]
    )

    def share(runtime: str, core: str, name: str) -> float:
        found = fit.at({"runtime": runtime, "core": core, "chip": "unseen"})
        return float(np.log(found[name].value / PRIOR[name].value))

    assert share("first", "new", "pool") < share("third", "third", "pool") < share("second", "old", "pool")
    assert (
        share("first", "new", "depthwise") < share("third", "third", "depthwise") < share("first", "old", "depthwise")
    )
    unknown = fit.at({"runtime": "first", "core": "new", "chip": "unseen"})
    assert unknown["fp16"].value == pytest.approx(PRIOR["fp16"].value), "no row was at fp16"
    assert unknown["pool"].spread < fit.at({"runtime": "third", "core": "third", "chip": "unseen"})["pool"].spread
    assert all(
        0 < one.spread <= np.hypot(PRIOR[name].spread, 1.01 * PRIOR[name].varies) for name, one in unknown.items()
    )


def test_a_source_of_unstated_conditions_says_how_layers_compare_and_not_how_fast() -> None:
    from joint_fit import Sample, fit_jointly

    assumed = {name: Parameter(one.value, one.spread) for name, one in PRIOR.items()}
    plain = replace(load("rpi4"), parameters=assumed, stretch=1.0)
    labels = {"runtime": "first", "core": "old", "chip": "a", "source": "a"}

    def speed(profile: EstimatedProfile, relative: bool) -> float:
        rows = [replace(row, latency_ms=2 * row.latency_ms) for row in measure(profile, NETS)]
        fit = fit_jointly([Sample(labels, CountedRows.of(plain, rows), relative)])
        asked = replace(plain, parameters=fit.at({**labels, "source": "other"}))
        return asked.predict_net(NETS[1]).latency_ms / plain.predict_net(NETS[1]).latency_ms

    assert speed(plain, relative=True) < 1.25
    assert speed(plain, relative=False) > 1.4
