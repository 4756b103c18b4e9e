"""Streams of channels: found in a file, raised in all its tensors at once, and the net computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from export_nets import Separable, normal, seeded, traced
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, leaky_relu, max_pool2d, relu, silu

from edgeprune.core.quantizing.sqnr import measure_sqnr_db
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.onnx.exporters import static_onnx
from edgeprune.exporting.onnx.quantize import choose_onnx_scheme, prepare_onnx
from edgeprune.exporting.quantizing.observe import find_peaks, run_rows
from edgeprune.exporting.quantizing.static import Settings, Trials
from edgeprune.exporting.quantizing.streams import Stream, choose_raises, equalise, find_streams
from edgeprune.exporting.quantizing.weights import WeightLayer, change_weights
from edgeprune.exporting.runners import fit_inputs, run_file

SHAPE = (3, 8, 8)
FORMATS = ("onnx", "tflite")


class Shortcut(nn.Module):
    """A residual net: what the stem and both blocks write is one stream, read by the blocks and the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.classifier = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4)
        self.inner = nn.ModuleList(nn.Conv2d(6, 5, 3, padding=1) for _ in range(2))
        self.outer = nn.ModuleList(nn.Conv2d(5, 6, 3, padding=1) for _ in range(2))
        with torch.no_grad():
            loudness = torch.logspace(0, -1.5, 6).view(6, 1, 1, 1)
            for one in (self.stem, *self.outer):
                one.weight.mul_(loudness)
                one.bias.mul_(loudness.flatten())
            for one in self.inner:
                one.weight.div_(loudness.view(1, 6, 1, 1))
            self.classifier.weight.div_(loudness.view(1, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.stem(x))
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = relu(x + outer(relu(inner(x))))
        return self.classifier(adaptive_avg_pool2d(x, 1).flatten(1))


class Blocked(nn.Module):
    """Everything else that two layers may have between them, 8 channels of 8 x 8 each time."""

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(width, 4, 1), between
        with torch.no_grad():
            self.first.weight.mul_(torch.logspace(0, -2, 8).view(8, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x), x))


def mean_of_channels(y: Tensor, _: Tensor) -> Tensor:
    """A mean over channels, spread again: as many values in each direction as there were channels."""
    return y.mean(1).reshape(-1, 8, 8, 1)


BETWEEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "silu": lambda y, _: silu(y),
    "concatenated": lambda y, x: torch.cat([y, x], 1),
    "bias": lambda y, _: y + torch.ones(8, 1, 1),
    "input": lambda y, x: relu(y + x[:, :1]),
    "transposed": lambda y, _: y.transpose(1, 2),
    "shuffled": lambda y, _: y.reshape(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8),
    "mean": mean_of_channels,
}


def export(net: nn.Module, file_format: str, folder: Path) -> Path:
    example, path = torch.zeros(1, *SHAPE), folder / f"net.{file_format}"
    if file_format == "onnx":
        export_onnx(traced(net, example), example, path)
        return path
    tflite = pytest.importorskip("edgeprune.exporting.tflite.export")
    pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    tflite.export_tflite(traced(net, example), example, path)
    return path


def raise_channels(path: Path, inputs: np.ndarray) -> tuple[Path, int]:
    """The file with its streams raised, and how many were."""
    streams = find_streams(path)
    raises = choose_raises(path, streams, fit_inputs(path, inputs))
    raised = path.with_name(f"raised{path.suffix}")
    raised.write_bytes(change_weights(path, equalise(streams, raises)))
    return raised, sum(bool(one.any()) for one in raises.values())


def peaks_of(path: Path, inputs: np.ndarray, stream: Stream) -> list[np.ndarray]:
    rows = list(run_rows(path, fit_inputs(path, inputs)))
    return [np.max([find_peaks(row[name], stream.axis) for row in rows], axis=0) for name in stream.tensors]


@pytest.mark.parametrize("file_format", FORMATS)
def test_all_tensors_of_a_shortcut_are_raised_together(file_format: str, tmp_path: Path) -> None:
    path, inputs = export(seeded(Shortcut), file_format, tmp_path), normal(4, *SHAPE)
    streams = sorted(find_streams(path), key=lambda one: len(one.writers))
    assert [(len(one.writers), len(one.readers)) for one in streams] == [(1, 1), (1, 1), (3, 3)]
    raised, count = raise_channels(path, inputs)
    assert count == 3
    assert measure_sqnr_db(run_file(path, inputs), run_file(raised, inputs)) > 110
    before, after = peaks_of(path, inputs, streams[-1]), peaks_of(raised, inputs, streams[-1])
    factors = [two / one for one, two in zip(before, after, strict=True)]
    alive = np.min(before, axis=0) > 0
    for one in factors:  # the same in all tensors; halfway at most to the loudest of each
        np.testing.assert_allclose(one[alive], factors[0][alive], rtol=1e-3)
    limits = np.min([np.sqrt(one.max() / one[alive]) for one in before], axis=0)
    assert (factors[0][alive] <= np.clip(limits, 1, 4) * 2 ** (1 / 8) + 1e-3).all()
    assert factors[0].max() > 1.5


@pytest.mark.parametrize("file_format", FORMATS)
def test_nothing_is_raised_through_relu6_and_all_readers_take_it_back(file_format: str, tmp_path: Path) -> None:
    path, inputs = export(seeded(Separable), file_format, tmp_path), normal(4, *SHAPE)
    streams = find_streams(path)
    assert sorted((len(one.writers[0].weights), len(one.readers)) for one in streams) == [(6, 1), (6, 1), (7, 2)]
    raised, count = raise_channels(path, inputs)
    assert count == 3
    assert measure_sqnr_db(run_file(path, inputs), run_file(raised, inputs)) > 110


@pytest.mark.parametrize("name", BETWEEN)
def test_what_mixes_or_bends_channels_is_left_alone(name: str, tmp_path: Path) -> None:
    width = {"concatenated": 11}.get(name, 8)
    path, inputs = export(seeded(lambda: Blocked(BETWEEN[name], width)), "onnx", tmp_path), normal(4, *SHAPE)
    raised, count = raise_channels(path, inputs)
    assert count == 0
    np.testing.assert_array_equal(run_file(path, inputs), run_file(raised, inputs))


def test_channels_are_raised_through_what_keeps_them_apart(tmp_path: Path) -> None:
    def between(y: Tensor, _: Tensor) -> Tensor:
        y = avg_pool2d(max_pool2d(leaky_relu(y), 2), 2)
        return y + relu(y)

    path, inputs = export(seeded(lambda: Blocked(between)), "onnx", tmp_path), normal(4, *SHAPE)
    raised, count = raise_channels(path, inputs)
    assert count == 1
    assert measure_sqnr_db(run_file(path, inputs), run_file(raised, inputs)) > 110


def test_raising_leaves_the_function_unchanged_in_double_precision() -> None:
    net = seeded(Separable).double()
    inputs = torch.from_numpy(normal(8, *SHAPE)).double()
    wanted = net(inputs).detach()
    dense, deep, point = (
        WeightLayer(
            name,
            "",
            f"{name}.weight",
            f"{name}.bias",
            one.weight.numpy(force=True),
            one.bias.numpy(force=True),
            one.groups,
        )
        for name, one in (("dense", net.dense), ("deep", net.deep), ("point", net.point))
    )
    streams = [Stream((dense,), (deep,), (), 1), Stream((deep,), (point,), (), 1)]
    raises = {"dense.weight": np.array([8, 6, 3, 0, 0, 1]), "deep.weight": np.array([0, 1, 2, 3, 4, 5])}
    changes = {name: torch.from_numpy(values) for name, values in equalise(streams, raises).items()}
    kept = {f"{name}.{part}" for name in ("dense", "deep") for part in ("weight", "bias")}
    assert set(changes) == kept | {"point.weight"}
    assert min(float((net.state_dict()[name] - values).abs().max()) for name, values in changes.items()) > 1e-3
    net.load_state_dict({**net.state_dict(), **changes})
    torch.testing.assert_close(net(inputs), wanted, rtol=1e-12, atol=1e-12)


def test_quiet_channels_that_count_are_held_more_finely(tmp_path: Path) -> None:
    path = export(seeded(Shortcut), "onnx", tmp_path)
    prepare_onnx(path, prepared := tmp_path / "prepared.onnx")
    trials = Trials(static_onnx(prepared, choose_onnx_scheme("aarch64", {"asimddp"})), normal(64, *SHAPE), tmp_path)
    plain, raised = (trials.judge(trials.quantize(Settings(rounded=True, equalised=one))) for one in (False, True))
    assert raised > plain + 3
