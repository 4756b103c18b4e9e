"""Static quantization chosen by measured error, and what it is chosen from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from export_nets import ODD_SHAPE, OddNet, Separable, normal, seeded, traced

from edgeprune.core.quantizing.ranges import Range
from edgeprune.core.quantizing.rounding import round_weights
from edgeprune.core.quantizing.sqnr import measure_sqnr_db
from edgeprune.errors import ExportError
from edgeprune.exporting.metadata import embed_metadata
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.onnx.exporters import static_onnx
from edgeprune.exporting.onnx.quantize import OnnxScheme, choose_onnx_scheme, prepare_onnx
from edgeprune.exporting.parity.bisect import bisect_artifacts
from edgeprune.exporting.parity.layer_outputs import trace_file
from edgeprune.exporting.quantizing.observe import observe, observe_extremes, read_patches, run_rows
from edgeprune.exporting.quantizing.static import Settings, Static, Trials, tune
from edgeprune.exporting.quantizing.weights import change_weights, read_layers
from edgeprune.exporting.runners import fit_inputs, run_file
from edgeprune.exporting.tflite.exporters import static_tflite

SCHEME = choose_onnx_scheme("aarch64", {"asimddp"})
FORMATS = ("onnx", "tflite")


NETS = {"separable": (Separable, (3, 8, 8)), "odd": (OddNet, ODD_SHAPE)}
"""At most 64 places in each convolution's output: all of them are patches."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("files")
    tflite = pytest.importorskip("edgeprune.exporting.tflite.export")
    pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    made = {}
    for name, (net, shape) in NETS.items():
        example = torch.zeros(1, *shape)
        program = traced(seeded(net), example)
        for file_format, export in {"onnx": export_onnx, "tflite": tflite.export_tflite}.items():
            made[name, file_format] = folder / f"{name}.{file_format}"
            export(program, example, made[name, file_format])
    return made


@pytest.mark.parametrize("file_format", FORMATS)
def test_equalised_files_are_compared_layer_by_layer_with_the_net_equalised_alike(
    files: dict[tuple[str, str], Path], file_format: str, tmp_path: Path
) -> None:
    source, rows = files["separable", file_format], normal(40, *NETS["separable"][1])
    static = static_of(source, tmp_path) if file_format == "onnx" else static_tflite(source)
    trials = Trials(static, fit_inputs(source, rows), tmp_path)
    path = tmp_path / f"int8{source.suffix}"
    path.write_bytes(trials.quantize(Settings(equalised=True, rounded=True)))
    alike = bisect_artifacts(source, path, rows[:8])
    assert min(one.sqnr_db for one in alike.layers) > 25
    embed_metadata(path, {})
    assert min(one.sqnr_db for one in bisect_artifacts(source, path, rows[:8]).layers) < 12


def test_the_output_of_the_last_layer_is_not_rounded(files: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    static, inputs = static_of(files["odd", "onnx"], tmp_path), normal(200, *ODD_SHAPE)
    path = tmp_path / "int8.onnx"
    path.write_bytes(static.quantize(static.source, observe_extremes(static.source, inputs[:20]), ()))
    for optimised in (True, False):
        assert len(np.unique(run_file(path, inputs, optimised=optimised))) > 600


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("net", ["separable", "odd"])
def test_patches_times_weights_are_the_output(files: dict[tuple[str, str], Path], net: str, file_format: str) -> None:
    path = files[net, file_format]
    (values,) = run_rows(path, normal(1, *NETS[net][1]))
    layers = {layer.name: layer for layer in read_layers(path)}
    assert len(layers) == (6 if net == "separable" else 4)
    for layer in layers.values():
        patches = read_patches(layer, values[layer.source])
        weights = layer.weights.reshape(layer.groups, -1, patches.shape[2])
        found = np.einsum("ngk,gok->ngo", patches, weights).reshape(len(patches), -1) + layer.biases
        candidates = (sorted_rows(one) for one in values.values() if sorted_rows(one).shape == found.shape)
        found = np.sort(found, axis=0)
        rectified = np.maximum(found, 0), np.clip(found, 0, 6), found
        assert any(np.allclose(one, other, atol=1e-4) for one in candidates for other in rectified), layer.name


def sorted_rows(value: np.ndarray) -> np.ndarray:
    """`[places, channels]` of a tensor of either layout, each channel sorted."""
    channels_last = value.reshape(-1, value.shape[-1])
    if value.ndim == 4 and value.shape[2] == value.shape[3]:
        channels_last = np.moveaxis(value, 1, -1).reshape(-1, value.shape[1])
    return np.sort(channels_last, axis=0)


def static_of(path: Path, folder: Path, scheme: OnnxScheme = SCHEME) -> Static:
    prepared = folder / "prepared.onnx"
    prepare_onnx(path, prepared)
    return static_onnx(prepared, scheme)


def test_an_outlier_in_the_calibration_data_is_clipped(files: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    static = static_of(files["odd", "onnx"], tmp_path)
    rows = normal(128, *ODD_SHAPE)
    rows[5, 0, 3, 3] = 300.0
    tuned = tune(Trials(static, rows, tmp_path))
    assert tuned.settings.method != "min-max"
    (tmp_path / "plain.onnx").write_bytes(static.quantize(static.source, observe_extremes(static.source, rows), ()))
    (tmp_path / "tuned.onnx").write_bytes(tuned.content)
    fresh = normal(64, *ODD_SHAPE, seed=7)
    wanted = run_file(static.source, fresh)
    plain, chosen = (
        measure_sqnr_db(wanted, run_file(tmp_path / f"{name}.onnx", fresh, optimised=False))
        for name in ("plain", "tuned")
    )
    assert chosen > plain + 10
    assert tuned.sqnr_db == pytest.approx(chosen, abs=2)
    assert tuned.describe().startswith(tuned.settings.method)


def test_rows_that_judge_are_not_fitted_to(files: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    static, seen = static_of(files["odd", "onnx"], tmp_path), []

    def quantize(path: Path, ranges: Mapping[str, Range], floats: Collection[str]) -> bytes:
        seen.append(ranges["input"][1])
        return static.quantize(path, ranges, floats)

    rows = normal(64, *ODD_SHAPE)
    rows[3::4] *= 50
    tune(Trials(replace(static, quantize=quantize), rows, tmp_path))
    assert max(seen) < 10


def test_a_trial_that_does_not_run_is_passed_over(files: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    static, made = static_of(files["odd", "onnx"], tmp_path), list[bytes]()

    def tune_without(broken: Collection[int]) -> bytes:
        """The best file, where some of those tried do not run."""
        made.clear()

        def quantize(path: Path, ranges: Mapping[str, Range], floats: Collection[str]) -> bytes:
            made.append(b"no file" if len(made) in broken else static.quantize(path, ranges, floats))
            return made[-1]

        return tune(Trials(replace(static, quantize=quantize), normal(64, *ODD_SHAPE), tmp_path)).content

    assert tune_without({1, 2}) != b"no file"
    assert len(made) > 6
    with pytest.raises(ExportError, match=r"judged\.onnx"):
        tune_without({0})


def test_few_rows_are_all_used_and_nothing_is_claimed(files: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    static = static_of(files["odd", "onnx"], tmp_path)
    rows = normal(8, *ODD_SHAPE)
    tuned = tune(Trials(static, rows, tmp_path))
    assert tuned.settings == Settings()
    assert tuned.sqnr_db is None
    assert "too few" in tuned.describe()
    assert tuned.content == static.quantize(static.source, observe_extremes(static.source, rows), ())


def test_rounded_weights_survive_both_quantizers(files: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    scheme, rows = choose_onnx_scheme("x86_64", ()), np.abs(normal(32, *ODD_SHAPE)) + 0.2
    statics = (
        static_of(files["odd", "onnx"], tmp_path, scheme),
        static_tflite(files["odd", "tflite"]),
    )
    for static in statics:
        layers, path = read_layers(static.source), tmp_path / f"quantized{static.source.suffix}"
        moments = observe(static.source, rows, layers).moments
        rounded = {one.weight: round_weights(one.weights, moments[one.weight], static.levels) for one in layers}
        (tmp_path / f"rounded{path.suffix}").write_bytes(change_weights(static.source, rounded))
        ranges = observe_extremes(static.source, rows)
        path.write_bytes(static.quantize(tmp_path / f"rounded{path.suffix}", ranges, ()))
        held = [one for layer in trace_file(path, rows[:1]).values() for one in layer.constants if one is not None]
        for layer in layers[:-1]:
            wanted = np.sort(rounded[layer.weight], axis=None)
            same = [one for one in held if one.size == wanted.size]
            assert any(np.allclose(np.sort(one, axis=None), wanted, rtol=1e-5, atol=1e-7) for one in same)


def test_layers_of_great_width_have_no_moments(
    files: dict[tuple[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeprune.exporting.quantizing.observe.MOST_WEIGHTS", 30)
    layers = read_layers(files["odd", "onnx"])
    found = observe(files["odd", "onnx"], normal(4, *ODD_SHAPE), layers)
    assert set(found.moments) == {layer.weight for layer in layers if layer.weights[0].size <= 30}
    assert len(found.moments) < len(layers)
