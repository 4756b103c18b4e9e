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
from edgeprune.core.metric import TOP1, Metric
from edgeprune.core.quantizing.sqnr import find_weakest_channel
from edgeprune.errors import ExportError, ParityError, RecipeError
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.files import sha256_of
from edgeprune.exporting.onnx.quantize import choose_onnx_scheme, quantize_onnx
from edgeprune.exporting.parity import chain as parity
from edgeprune.exporting.parity.chain import Judge, Parity, check_parity, compare_outputs
from edgeprune.exporting.parity.tolerances import TOLERANCES, Tolerance
from edgeprune.exporting.request import ExportRequest

INT8 = TOLERANCES["int8"]
SCHEME = choose_onnx_scheme("unknown", ())


@pytest.fixture(scope="module")
def odd_program() -> nn.Module:
    return traced(seeded(OddNet), torch.zeros(1, *ODD_SHAPE))


@pytest.fixture
def built(odd_program: nn.Module, tmp_path: Path) -> tuple[Artifact, ...]:
    request = ExportRequest(tmp_path, "pruned", ("onnx",), ("fp32", "int8"), [normal(64, *ODD_SHAPE)])
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
    run = parity.run_file

    def saturate(path: Path, inputs: np.ndarray, optimised: bool = True) -> np.ndarray:
        output, int8 = run(path, inputs, optimised), "int8" in path.name
        most = np.quantile(abs(output), 0.8)
        return output.clip(-most, most) if optimised and int8 else output

    monkeypatch.setattr(parity, "run_file", saturate)
    inputs = normal(32, *ODD_SHAPE, seed=1)
    chain = compare_artifacts(odd_program, built, tmp_path, inputs)
    assert broken_links(chain) == ["pruned: onnx int8 reference kernels -> optimised kernels"]
    with pytest.raises(ParityError, match=r"reference kernels -> optimised kernels.*reduce_range=True"):
        check_parity(chain[2])
    assert not broken_links(compare_artifacts(odd_program, built, tmp_path, inputs, same_processor=False))


def boxes_and_scores(count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Four coordinates in pixels beside a score, `[N, 5]`, and the classes that the scores tell apart."""
    random = np.random.default_rng(0)
    classes = random.integers(0, 2, count)
    scores = np.where(classes, 0.9, 0.1) + random.normal(0, 0.03, count)
    return np.c_[random.uniform(0, 640, (count, 4)), scores].astype(np.float32), classes


def rounded(values: np.ndarray) -> np.ndarray:
    """Held in 8 bits by one scale, as a static file holds its output."""
    step = np.float32(values.max() / 255)
    return (values / step).round() * step


SCORE = Metric("score accuracy", lambda o, t: 100 * float(((o[:, 4] > 0.5) == t).mean()), better="higher", unit="%")
RMSE = Metric("RMSE", lambda o, t: float(np.sqrt(np.square(o[:, 4] - t).mean())), better="lower")
RMSE_HIGHER = replace(RMSE, compute=lambda o, t: 1 / float(np.sqrt(np.square(o[:, 4] - t).mean())), better="higher")


def test_a_channel_that_others_dwarf_is_judged_at_its_own_scale() -> None:
    outputs, _ = boxes_and_scores()
    found = compare_outputs("a -> b", outputs, rounded(outputs), INT8)
    assert found.sqnr_db > 50
    assert not found.ok
    assert found.weakest is not None
    assert (found.weakest.axis, found.weakest.index) == (1, 4)
    assert "channel 4 of 5 (axis 1) keeps" in found.describe()
    with pytest.raises(
        ParityError, match=r"channel 4 of 5 .* bring the channels to one scale.*and 6 dB in every channel"
    ):
        check_parity(found)
    scaled = outputs / [640, 640, 640, 640, 1]
    assert compare_outputs("a -> b", scaled, rounded(scaled), INT8).ok


@pytest.mark.parametrize("axis", [1, 3])
def test_channels_of_maps_are_judged_first_or_last(axis: int) -> None:
    maps = np.random.default_rng(1).standard_normal((4, 6, 5, 6))
    sizes = np.ones([6 if one == axis else 1 for one in range(4)])
    sizes[(0,) * axis + (2,)] = 1e-4
    found = compare_outputs("a -> b", maps * sizes, rounded(maps * sizes), INT8)
    assert found.weakest is not None
    assert (found.weakest.axis, found.weakest.index, found.weakest.count) == (axis, 2, 6)
    assert not found.ok


@pytest.mark.parametrize(("metric", "collapses"), [(SCORE, True), (RMSE, True), (RMSE_HIGHER, True)])
def test_a_metric_that_collapses_is_named_though_noise_is_low(metric: Metric, collapses: bool) -> None:
    outputs, classes = boxes_and_scores()
    wide = replace(INT8, channel_db=None)
    found = compare_outputs("a -> b", outputs, rounded(outputs), wide, Judge(metric, classes))
    assert found.sqnr_db > 50
    assert found.ok is not collapses
    assert f"{metric.name} falls from" in found.collapse
    assert found.top1_agreement is None  # the largest of pixels and a score is no class
    assert compare_outputs("a -> b", outputs, outputs, wide, Judge(metric, classes)).ok
    json.dumps(asdict(found), allow_nan=False)


@pytest.mark.parametrize(
    ("metric", "before", "count", "most"),
    [
        (SCORE, 94.0, 64, 300 * np.sqrt(0.94 * 0.06 / 64)),
        (SCORE, 99.0, 10_000, 5.0),
        (SCORE, 100.0, 64, 5.0),
        (RMSE, 0.33, 64, 0.165),
        (RMSE, -2.0, 64, 1.0),
    ],
)
def test_what_a_file_may_lose_on_so_many_rows(metric: Metric, before: float, count: int, most: float) -> None:
    assert Judge(metric, np.zeros(count)).most_drop(before) == pytest.approx(most)


@pytest.mark.parametrize(("drop", "ok"), [(4.9, True), (5.1, False), (-50.0, True)])
def test_a_drop_beyond_the_noise_of_few_rows_is_a_collapse(drop: float, ok: bool) -> None:
    figures = {0.0: 100.0, 1.0: 100.0 - drop}
    metric = replace(SCORE, compute=lambda outputs, _: figures[float(outputs.flat[0])])
    reference, other = np.zeros((8, 2)), np.ones((8, 2))
    anything = Tolerance("a test", "a test")
    assert compare_outputs("a -> b", reference, other, anything, Judge(metric, np.zeros(8))).ok is ok


def test_a_metric_without_a_number_is_a_collapse_of_the_file_and_not_of_the_rows() -> None:
    def compute(outputs: np.ndarray, _: np.ndarray) -> float:
        if outputs.flat[0] == 2:
            raise RecipeError("one class only")
        return float("nan") if outputs.flat[0] else 1.0

    judge, anything = Judge(replace(RMSE, compute=compute), np.zeros(8)), Tolerance("a test", "a test")
    zeros, ones, twos = (np.full((8, 2), value) for value in (0.0, 1.0, 2.0))
    assert "falls from 1 to no number" in compare_outputs("a -> b", zeros, ones, anything, judge).collapse
    assert compare_outputs("a -> b", twos, ones, anything, judge).ok
    assert compare_outputs("a -> b", ones, zeros, anything, judge).ok


def test_logits_keep_their_top1_by_a_judge_that_knows_them() -> None:
    logits = normal(64, 10)
    judge = Judge(replace(TOP1, compute=lambda *_: 100.0), np.zeros(64), classifies=True)
    assert compare_outputs("a -> b", logits, logits + np.float32(1e-4), INT8, judge).top1_agreement == 1.0


def weakest_db(reference: np.ndarray, other: np.ndarray) -> float | None:
    found = find_weakest_channel(reference, other)
    return None if found is None else found.sqnr_db


def test_a_channel_by_hand() -> None:
    reference = np.zeros((16, 3))
    reference[:, 0] = np.tile([10.0, -10.0], 8)
    reference[:, 1] = 100 + np.tile([2.0, -2.0], 8)  # varies by 2 about an offset: the offset is no information
    other = reference + np.array([0.1, 0.2, 0.0])
    assert weakest_db(reference, other) == pytest.approx(20.0)
    reference[:, 1] = 100 + np.tile([0.9, -0.9], 8)  # varies by less than a hundredth: a constant, held against itself
    assert weakest_db(reference, reference + np.array([0.1, 0.2, 0.0])) == pytest.approx(40.0)


def test_silent_channels_and_too_few_values_say_nothing() -> None:
    reference = np.random.default_rng(2).standard_normal((16, 2))
    reference[:, 1] *= 1e-9
    other = reference + np.array([0.0, 1e-9])
    assert weakest_db(reference, other) is None
    assert weakest_db(reference[:7], other[:7] + 1) is None
    assert weakest_db(reference, reference) is None
    assert weakest_db(reference[:, 0], reference[:, 0] + 1) is None
