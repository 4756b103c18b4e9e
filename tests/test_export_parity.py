"""Figures and limits of parity, and planted faults: each breaks the link that it sits on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_nets import ODD_SHAPE, OddNet, normal, seeded, traced
from hypothesis import given
from hypothesis import strategies as st
from parity_chain import compare_artifacts
from torch import Tensor, nn

from edgeprune.core.artifact import Artifact
from edgeprune.errors import ExportError, ParityError
from edgeprune.export import parity
from edgeprune.export.artifacts import ExportRequest, build_artifacts
from edgeprune.export.files import sha256_of
from edgeprune.export.parity import TOLERANCES, Parity, check_parity, compare_outputs
from edgeprune.export.quantize_onnx import choose_onnx_scheme, quantize_onnx

INT8 = TOLERANCES["int8"]
SCHEME = choose_onnx_scheme("unknown", ())


@pytest.fixture(scope="module")
def odd_program() -> nn.Module:
    return traced(seeded(OddNet), torch.zeros(1, *ODD_SHAPE))


@pytest.fixture
def built(odd_program: nn.Module, tmp_path: Path) -> tuple[Artifact, ...]:
    request = ExportRequest(tmp_path, "pruned", ("onnx",), ("fp32", "int8"), [normal(64, *ODD_SHAPE)], SCHEME)
    return build_artifacts(odd_program, torch.zeros(1, *ODD_SHAPE), request)


def broken_links(chain: tuple[Parity, ...]) -> list[str]:
    return [one.link for one in chain if not one.ok]


def test_figures_of_a_known_error() -> None:
    reference = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], np.float32)
    other = np.array([[1.0, 0.3, 0.0], [0.0, 2.0, 0.4]], np.float32)
    figures = compare_outputs("a -> b", reference, other, INT8)
    assert figures.max_error == pytest.approx(0.4)
    assert figures.mean_error == pytest.approx(0.7 / 6)
    assert figures.relative_error == pytest.approx(0.2)
    assert figures.sqnr_db == pytest.approx(10 * np.log10(5 / 0.25))
    assert figures.top1_agreement == 1.0
    assert json.loads(json.dumps(asdict(figures)))["link"] == "a -> b"


def test_identical_and_silent_references_have_finite_figures() -> None:
    ones, zeros = np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)
    assert compare_outputs("same", ones, ones, INT8).sqnr_db == 300.0
    assert compare_outputs("silent", zeros, zeros, INT8).ok
    noise = compare_outputs("noise", zeros, ones, INT8)
    assert (noise.sqnr_db, noise.ok) == (-300.0, False)
    assert not compare_outputs("noise", zeros, ones, TOLERANCES["fp32"]).ok


@given(st.floats(-60, 60), st.floats(1e-3, 1e3))
def test_the_ratio_is_that_of_the_noise_whatever_the_scale(ratio_db: float, scale: float) -> None:
    signal = normal(8, 16) * np.float32(scale)
    noise = normal(8, 16, seed=1).astype(np.float64)
    noise *= np.sqrt((signal.astype(float) ** 2).sum() / (noise**2).sum() / 10 ** (ratio_db / 10))
    assert compare_outputs("", signal, signal + noise, INT8).sqnr_db == pytest.approx(ratio_db, abs=1e-6)


@pytest.mark.parametrize(
    ("noise_db", "flipped", "ok"), [(21, 30, True), (19, 0, True), (16, 0, True), (16, 30, False), (14, 0, False)]
)
def test_between_the_two_limits_the_decisions_must_agree(noise_db: float, flipped: int, ok: bool) -> None:
    reference = np.zeros((100, 1000), np.float32)
    reference[:, :2] = 10.0, 9.999
    other = reference.copy()
    other[:, 2:] = np.sqrt((reference[0] ** 2).sum() / 10 ** (noise_db / 10) / 998)
    other[:flipped, 1] = 10.001
    figures = compare_outputs("a -> b", reference, other, INT8)
    assert figures.top1_agreement == 1 - flipped / 100
    assert figures.ok == ok


def test_outputs_that_are_no_class_vectors_have_no_top1() -> None:
    maps = normal(2, 3, 4)
    assert compare_outputs("maps", maps, maps, INT8).top1_agreement is None
    assert "top-1" not in compare_outputs("maps", maps, maps, INT8).describe()


def test_outputs_without_figures_are_refused() -> None:
    with pytest.raises(ParityError, match=r"a -> b: output shapes \[2, 3\] and \[2, 4\]"):
        compare_outputs("a -> b", normal(2, 3), normal(2, 4), INT8)
    with pytest.raises(ParityError, match="a -> b: the result has NaN or infinity"):
        compare_outputs("a -> b", normal(2, 3), np.full((2, 3), np.inf, np.float32), INT8)


def test_the_chain_of_a_sound_export_holds(odd_program: nn.Module, built: tuple[Artifact, ...], tmp_path: Path) -> None:
    chain = compare_artifacts(odd_program, built, tmp_path, normal(32, *ODD_SHAPE, seed=1))
    assert [one.link for one in chain] == [
        "pruned: torch -> onnx fp32",
        "pruned: onnx fp32 -> onnx int8",
        "pruned: onnx int8 reference kernels -> optimised kernels",
    ]
    assert [check_parity(one) for one in chain] == list(chain)


def test_without_a_float_file_int8_is_held_against_torch(
    odd_program: nn.Module, built: tuple[Artifact, ...], tmp_path: Path
) -> None:
    chain = compare_artifacts(odd_program, built[1:], tmp_path, normal(32, *ODD_SHAPE, seed=1), same_processor=False)
    assert [one.link for one in chain] == ["pruned: torch -> onnx int8"]
    assert chain[0].ok


def test_an_edited_file_is_stale(odd_program: nn.Module, built: tuple[Artifact, ...], tmp_path: Path) -> None:
    path = tmp_path / built[1].path
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ExportError, match=r"pruned\.int8\.onnx: stale: sha256 .* export pruned-onnx-int8 again"):
        compare_artifacts(odd_program, built, tmp_path, normal(4, *ODD_SHAPE))
    path.unlink()
    with pytest.raises(ExportError, match=r"pruned\.int8\.onnx: cannot read"):
        compare_artifacts(odd_program, built, tmp_path, normal(4, *ODD_SHAPE))


def multiply_a_scale(path: Path, _: Path) -> None:
    """A wrong scale on the weights of the second convolution."""
    model = onnx.load(path)
    weights = [node.input[1] for node in model.graph.node if node.op_type == "Conv"][1]
    dequantize = next(node for node in model.graph.node if weights in node.output)
    scale = next(one for one in model.graph.initializer if one.name == dequantize.input[1])
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * np.float32(3), scale.name))
    onnx.save(model, path)


def clip_the_ranges(path: Path, source: Path) -> None:
    """Calibrated on inputs a tenth as large as the real ones."""
    quantize_onnx(source, path, [normal(32, *ODD_SHAPE) / 10], SCHEME)


def shift_a_zero_point(path: Path, _: Path) -> None:
    """The input's zero point off by forty steps."""
    model = onnx.load(path)
    quantize = next(node for node in model.graph.node if node.input[0] == "input")
    zero = next(one for one in model.graph.initializer if one.name == quantize.input[2])
    dequantize = next(node for node in model.graph.node if node.input[0] == quantize.output[0])
    shifted = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(zero) - np.uint8(40), "shifted_zero_point")
    model.graph.initializer.append(shifted)
    dequantize.input[2] = "shifted_zero_point"
    onnx.save(model, path)


@pytest.mark.parametrize("plant", [multiply_a_scale, clip_the_ranges, shift_a_zero_point])
def test_a_fault_in_the_int8_file_breaks_its_link(
    odd_program: nn.Module, built: tuple[Artifact, ...], tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    path = tmp_path / built[1].path
    plant(path, tmp_path / built[0].path)
    forged = (built[0], replace(built[1], sha256=sha256_of(path)))
    chain = compare_artifacts(odd_program, forged, tmp_path, normal(32, *ODD_SHAPE, seed=1))
    assert "pruned: onnx fp32 -> onnx int8" in broken_links(chain)
    with pytest.raises(ParityError, match=r"onnx fp32 -> onnx int8: max error .* SQNR .* needed SQNR >= 20 dB"):
        check_parity(chain[1])


class Swapped(nn.Module):
    """Rows and columns of the image exchanged."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.transpose(2, 3))


def test_a_swapped_layout_breaks_the_float_link(built: tuple[Artifact, ...], tmp_path: Path) -> None:
    chain = compare_artifacts(Swapped(seeded(OddNet)).eval(), built, tmp_path, normal(8, *ODD_SHAPE))
    assert broken_links(chain) == ["pruned: torch -> onnx fp32"]
    with pytest.raises(ParityError, match=r"torch -> onnx fp32.*needed relative error <= 0\.0001"):
        check_parity(chain[0])


def test_a_model_left_in_training_mode_breaks_the_float_link(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Dropout(0.5))
    request = ExportRequest(tmp_path, "original", ("onnx",), ("fp32",))
    artifacts = build_artifacts(net.eval(), torch.zeros(1, 3, 4), request)
    chain = compare_artifacts(net.train(), artifacts, tmp_path, normal(8, 3, 4))
    with pytest.raises(ParityError, match=r"original: torch -> onnx fp32.*training mode"):
        check_parity(chain[0])


def test_saturating_kernels_are_told_from_a_bad_file(
    odd_program: nn.Module, built: tuple[Artifact, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parity.RUNNERS["onnx"]

    def saturate(path: Path, inputs: np.ndarray, optimised: bool = True) -> np.ndarray:
        output, int8 = run(path, inputs, optimised), "int8" in path.name
        most = np.quantile(abs(output), 0.8)
        return output.clip(-most, most) if optimised and int8 else output

    monkeypatch.setitem(parity.RUNNERS, "onnx", saturate)
    inputs = normal(32, *ODD_SHAPE, seed=1)
    chain = compare_artifacts(odd_program, built, tmp_path, inputs)
    assert broken_links(chain) == ["pruned: onnx int8 reference kernels -> optimised kernels"]
    with pytest.raises(ParityError, match=r"reference kernels -> optimised kernels.*reduce_range=True"):
        check_parity(chain[2])
    assert not broken_links(compare_artifacts(odd_program, built, tmp_path, inputs, same_processor=False))
