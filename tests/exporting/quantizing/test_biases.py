"""Biases that the integers of a static file cannot hold: each net here lost a channel, or all it says, to one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from export_nets import normal
from torch import Tensor, nn

from edgeprune.core.quantizing.sqnr import measure_sqnr_db
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.quantizing.biases import IntegerLayer, widen_scales
from edgeprune.exporting.request import ExportRequest
from edgeprune.exporting.runners import run_file
from edgeprune.graph.trace import trace_model

SHAPE = (3, 6, 6)
EXAMPLE = torch.zeros(1, *SHAPE)


class Lost(nn.Module):
    """Every kind of layer with a bias; of each, channel 1 has next to no weights and a bias that matters."""

    def __init__(self, weight: float, bias: float, turned: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense, self.deep = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.up = nn.ConvTranspose2d(6, 6, 2, 2) if turned else nn.Identity()
        self.last = nn.Linear(6, 4)
        for layer in (self.dense, self.deep, self.last):
            with torch.no_grad():
                layer.weight[1] *= weight
                layer.bias[1] = bias
        if turned:
            with torch.no_grad():
                self.up.weight[:, 1] *= weight
                self.up.bias[1] = bias

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.deep(torch.relu(self.dense(x))))
        return self.last(self.up(x).mean((2, 3)))


class Vanishing(nn.Module):
    """A net as it comes from a deep random initialisation: what reaches its last layer is next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.dense, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        with torch.no_grad():
            self.dense.weight.mul_(1e-9)
            nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.dense(x)).mean((2, 3)))


class Shared(nn.Module):
    """One layer used twice; what it reads the second time is a hundred times smaller."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.both = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.both(x), self.both(x * 0.01)], 1).mean((2, 3))


class Brim(nn.Module):
    """A bias just below 2^31 steps, and products that all have its sign: the sum is beyond 32 bits."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.dense, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        with torch.no_grad():
            self.dense.weight.fill_(sign * 1e-6)
            self.dense.bias.fill_(sign * 0.9999 * 2**31 / 255 * 1e-6 / 127)
            self.last.weight.abs_()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dense(x))


def worst_db(net: nn.Module, folder: Path, precision: str, file_format: str, scheme: str = "u8s8") -> float:
    """The least SQNR in dB of a static file beside its float file, over reference and optimised kernels."""
    rows = np.abs(normal(40, *SHAPE))
    rows /= rows.max()
    request = ExportRequest(folder, "pruned", (file_format,), ("fp32", precision), [rows], int8_scheme=scheme)
    floats, integers = build_artifacts(trace_model(net.eval(), EXAMPLE), EXAMPLE, request)
    wanted = run_file(folder / floats.path, rows)
    return min(
        measure_sqnr_db(wanted, run_file(folder / integers.path, rows, optimised=optimised))
        for optimised in (True, False)
    )


CASES: list[Callable[[], nn.Module]] = [
    lambda: Lost(0.0, 0.5),
    lambda: Lost(0.0, -0.5),
    lambda: Lost(1e-8, 1.0),
    lambda: Lost(3e-9, -2.0),
    Vanishing,
    Shared,
    lambda: Brim(1.0),
    lambda: Brim(-1.0),
]


@pytest.mark.parametrize("scheme", ["u8s8", "u8s8-qoperator"])
@pytest.mark.parametrize("case", CASES)
def test_onnx_files_hold_every_bias(case: Callable[[], nn.Module], scheme: str, tmp_path: Path) -> None:
    assert worst_db(case(), tmp_path, "int8", "onnx", scheme) > 35


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize("case", [*CASES, lambda: Lost(0.0, 0.5, turned=True)])
def test_tflite_files_hold_every_bias(case: Callable[[], nn.Module], precision: str, tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    assert worst_db(case(), tmp_path, precision, "tflite") > 35


def held(steps: list[int], scales: list[float], kind: type = np.int32, name: str = "layer") -> IntegerLayer:
    return IntegerLayer(name, 0.5, "weight", np.array(scales, np.float32), "bias", np.array(steps, kind))


def test_only_the_channel_whose_bias_does_not_fit_gets_a_larger_scale() -> None:
    layer = held([10, 2**31 - 1, -(2**30)], [2.0, 2.0, 2.0])
    biases = {"layer": np.array([10.0, 2.0**33, -(2.0**30)])}
    (scales,) = widen_scales([layer], biases).values()
    np.testing.assert_allclose(scales, [2.0, 2**33 / 2**30 / 0.5, 2.0])
    assert layer.hold(biases["layer"], scales).tolist() == [10, 2**30, -(2**30)]


def test_one_scale_for_all_follows_the_largest_bias() -> None:
    (scales,) = widen_scales([held([1, -(2**31)], [2.0])], {"layer": np.array([1.0, -(2.0**32)])}).values()
    np.testing.assert_allclose(scales, [2**32 / 2**30 / 0.5])


def test_layers_that_share_weights_get_what_the_tightest_needs() -> None:
    layers = [held([5], [2.0]), held([2**31 - 1], [2.0], name="other")]
    (scales,) = widen_scales(layers, {"layer": np.array([5.0]), "other": np.array([2.0**32])}).values()
    np.testing.assert_allclose(scales, [8.0])


@pytest.mark.parametrize(
    ("steps", "kind", "overflows"),
    [
        (2**30 - 1, np.int32, False),
        (2**30, np.int32, True),
        (-(2**31), np.int32, True),
        (2**31 - 2, np.int64, False),
        (2**31 - 1, np.int64, True),
    ],
)
def test_a_bias_that_leaves_no_room_is_seen(steps: int, kind: type, overflows: bool) -> None:
    assert held([0, steps], [1.0, 1.0], kind).overflows is overflows
