"""The same files in every runtime that may meet them: LiteRT, tflite-runtime 2.14, tflite-micro, and on ARM64."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from device_models import QUICK, ignore
from export_nets import ODD_SHAPE, GruNet, OddNet, TinyViT, normal, seeded, traced
from places import DEPLOY, SUPPORT
from ssh_server import SshServer

from edgeprune.core.artifact import Artifact
from edgeprune.core.releasing.runtime_faults import check_runtime, find_provider
from edgeprune.core.target import Target
from edgeprune.device.agent.measure import evaluate_model, measure_models
from edgeprune.device.board import ModelFile
from edgeprune.device.connect import Device, open_device
from edgeprune.errors import DeviceError, TargetError
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.parity.chain import check_parity, compare_outputs, measure_sqnr_db
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.request import ExportRequest
from edgeprune.exporting.runners import describe_file, run_file

NETS = {"odd": (OddNet, ODD_SHAPE), "vit": (TinyViT, ODD_SHAPE), "gru": (GruNet, (8, 6))}
PRECISIONS = ("fp32", "fp16", "int8", "dynamic-int8", "int16x8")
SAME_DB = {"fp32": 100, "fp16": 80, "int8": 30, "dynamic-int8": 38, "int16x8": 75}
"""What one file keeps between two runtimes: kernels order sums and round in their own ways."""
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}
CANNOT_BUILD = 3
SCRIPT = SUPPORT / "run_elsewhere.py"

Files = dict[tuple[str, str, str], Path]


def rows(net: str) -> np.ndarray:
    return normal(8, *NETS[net][1], seed=5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Each net in each format and precision."""
    pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")
    made: Files = {}
    for name, (net, shape) in NETS.items():
        folder, example = tmp_path_factory.mktemp(name), torch.zeros(1, *shape)
        request = ExportRequest(folder, "pruned", ("onnx", "tflite"), PRECISIONS, [normal(64, *shape)])
        artifacts: tuple[Artifact, ...] = build_artifacts(traced(seeded(net), example), example, request)
        made |= {(name, one.format, one.precision): folder / one.path for one in artifacts}
    return made


@pytest.fixture(scope="session")
def environments() -> Path:
    """Environments of the other TFLite runtimes, built once and kept in the cache."""
    cache = Path(os.environ.get("EDGEPRUNE_CACHE") or Path.home() / ".cache" / "edgeprune") / "runtimes"
    script = DEPLOY / "setup" / "other_runtimes.sh"
    environment = {**os.environ, "HOST_PYTHON": sys.executable}
    built = subprocess.run([script, cache], env=environment, capture_output=True, text=True, check=False)
    if built.returncode == CANNOT_BUILD:
        pytest.skip(built.stderr.strip().splitlines()[-1])
    assert built.returncode == 0, built.stderr
    return cache


@pytest.fixture(scope="module")
def old_runtime(environments: Path) -> Iterator[Device]:
    """This machine as a board whose only runtime is tflite-runtime 2.14, behind the agent."""
    target = Target("local", "an old board", "litert", python=str(environments / "tflite-runtime" / "bin" / "python"))
    with open_device(target, "local") as device:
        assert device.facts.runtimes == {"tflite-runtime": "2.14.0"}
        yield device


def run_there(device: Device, path: Path, inputs: np.ndarray) -> np.ndarray:
    return evaluate_model(device, ModelFile.of(path, RUNTIMES[path.suffix[1:]]), inputs, ignore)


@pytest.mark.device
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("net", NETS)
def test_tflite_runtime_computes_what_litert_computes(
    files: Files, old_runtime: Device, net: str, precision: str
) -> None:
    path = files[net, "tflite", precision]
    here = run_file(path, rows(net))
    if (net, precision) == ("vit", "int16x8"):
        with pytest.raises(DeviceError, match=r"INT16 is unsupported by op Rsqrt|cannot load it"):
            run_there(old_runtime, path, rows(net))
        return
    kept_db = measure_sqnr_db(here, run_there(old_runtime, path, rows(net)))
    if (net, precision) == ("gru", "int16x8"):
        assert kept_db < 5  # noise: what core/releasing/runtime_faults.py refuses
    else:
        assert kept_db >= SAME_DB[precision]


@pytest.mark.device
@pytest.mark.parametrize("net", NETS)
def test_a_scale_per_channel_in_hybrid_fully_connected_layers_is_noise_in_tflite_runtime(
    files: Files, old_runtime: Device, tmp_path: Path, net: str
) -> None:
    """Why dynamic-int8 files have one scale in fully-connected layers: the quantizer's own recipe fails there."""
    from ai_edge_quantizer import quantizer, recipe

    from edgeprune.exporting.foreign import quiet

    path = tmp_path / "channelwise.tflite"
    with quiet():
        maker = quantizer.Quantizer(str(files[net, "tflite", "fp32"]))
        maker.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        path.write_bytes(maker.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)
    wanted = run_file(files[net, "tflite", "fp32"], rows(net))
    assert measure_sqnr_db(wanted, run_file(path, rows(net))) > 38
    assert measure_sqnr_db(wanted, run_there(old_runtime, path, rows(net))) < 10
    ours = run_there(old_runtime, files[net, "tflite", "dynamic-int8"], rows(net))
    assert measure_sqnr_db(wanted, ours) > 36


def run_elsewhere(environments: Path, runtime: str, path: Path, inputs: np.ndarray, folder: Path) -> np.ndarray:
    """Outputs in a runtime of an environment of its own."""
    given, made = folder / "inputs.npy", folder / "outputs.npy"
    np.save(given, inputs)
    command = [environments / runtime / "bin" / "python", "-I", SCRIPT, runtime, path, given, made]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outputs: np.ndarray = np.load(made)
    return outputs


@pytest.mark.device
@pytest.mark.parametrize(("net", "precision"), [(net, one) for net in ("odd", "gru") for one in PRECISIONS[::2]])
def test_tflite_micro_computes_what_litert_computes(
    files: Files, environments: Path, tmp_path: Path, net: str, precision: str
) -> None:
    path = files[net, "tflite", precision]
    outputs = run_elsewhere(environments, "tflite-micro", path, rows(net), tmp_path)
    assert measure_sqnr_db(run_file(path, rows(net)), outputs) >= SAME_DB[precision]


REFERENCES = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "str_ww_ref_model", "vww_96_int8")
FLOATS = ("pretrainedResnet", "vww_96_float")


@pytest.mark.device
@pytest.mark.parametrize("name", REFERENCES + FLOATS)
def test_reference_models_of_mlperf_tiny_agree_in_every_runtime_and_are_measured(
    environments: Path, tmp_path: Path, name: str
) -> None:
    """Files of another converter, with int8 inputs and outputs (Banbury et al., "MLPerf Tiny Benchmark", 2021)."""
    folder = os.environ.get("EDGEPRUNE_MLPERF_TINY")
    if not folder:
        pytest.skip("set EDGEPRUNE_MLPERF_TINY to a folder with the reference models of mlcommons/tiny")
    path = Path(folder) / f"{name}.tflite"
    (signature,), _ = describe_file(path)
    kind = "int8" if signature.dtype == "int8" else "fp32"
    scale, zero = input_scale(path)
    spread = 1.0 if signature.dtype == "float32" else 255 * scale
    low = 0.0 if signature.dtype == "float32" else (-128 - zero) * scale
    inputs = (low + spread * np.random.default_rng(0).random((8, *signature.shape[1:]))).astype(np.float32)
    with open_device(Target("local", "this machine", "litert"), "local") as device:
        model = ModelFile.of(path, "litert")
        here = evaluate_model(device, model, inputs, ignore)
        (measured,) = measure_models(device, [model], 1, QUICK, ignore).values()
    assert len(measured.samples_ms) >= QUICK.min_samples
    assert np.ptp(here) > 0
    for runtime in ("tflite-runtime", "tflite-micro"):
        there = run_elsewhere(environments, runtime, path, inputs, tmp_path)
        check_parity(compare_outputs(f"{name}: here -> {runtime}", here, there, TOLERANCES[kind]))


def input_scale(path: Path) -> tuple[float, int]:
    """Scale and zero point of a quantized input; zeros for float."""
    from ai_edge_litert.interpreter import Interpreter

    (details,) = Interpreter(model_path=str(path)).get_input_details()
    scale, zero = details["quantization"]
    return float(scale), int(zero)


@pytest.mark.device
@pytest.mark.parametrize("net", NETS)
def test_whole_nets_compute_on_arm64_what_they_compute_here(files: Files, arm64_server: SshServer, net: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(arm64_server.home))
        with open_device(Target("rpi4", "an emulated board"), "board") as device:
            kept_db = {
                (file_format, precision): measure_sqnr_db(run_file(path, rows(net)), run_there(device, path, rows(net)))
                for (name, file_format, precision), path in files.items()
                if name == net
            }
    assert {key: value for key, value in kept_db.items() if value < SAME_DB[key[1]]} == {}


def test_a_precision_that_the_boards_runtime_computes_wrong_is_refused() -> None:
    old, new = {"tflite-runtime": "2.14.0"}, {"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"}
    target = Target("old", "an old board", "litert", "int16x8")
    assert (find_provider("litert", old), find_provider("litert", new)) == ("tflite-runtime", "ai-edge-litert")
    assert find_provider("onnxruntime", old) == "onnxruntime"
    check_runtime(target, new)
    for precision in ("int8", "dynamic-int8", "auto"):
        check_runtime(Target("old", "an old board", "litert", precision), old)
    with pytest.raises(TargetError, match=r"target old: int16x8 in tflite-runtime 2\.14\.0: .*use int8, or install"):
        check_runtime(target, old)
