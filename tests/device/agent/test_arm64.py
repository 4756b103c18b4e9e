"""An emulated ARM64 board: the agent and the aarch64 runtimes do what they do here. Its latency means nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from device_models import CONV, LINEAR, QUICK, ignore, make_model
from ssh_server import SshServer

from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.target import Target
from edgeprune.device.agent.measure import evaluate_model, measure_models, measure_probes
from edgeprune.device.board import ModelFile, ProbeSettings
from edgeprune.device.connect import Device, open_device
from edgeprune.exporting.runners import describe_file, run_file

pytestmark = pytest.mark.device
TARGET = Target("rpi4", "an emulated board")
DEPTHWISE = LayerShape("conv", 16, 16, (3, 3), (1, 1), 16, (16, 16), (1, 1))


@pytest.fixture(scope="module")
def device(arm64_server: SshServer) -> Iterator[Device]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(arm64_server.home))
        with open_device(TARGET, "board") as device:
            yield device


def test_the_board_is_an_arm64_with_both_runtimes(device: Device, arm64_server: SshServer) -> None:
    assert device.transport.run(["uname", "-m"], timeout_s=60).stdout == b"aarch64\n"
    facts = device.facts
    assert (facts.machine, facts.cpu, facts.host_key) == ("aarch64", "4x Cortex-A72", arm64_server.fingerprint)
    assert set(facts.runtimes) == {"onnxruntime", "ai-edge-litert"}


@pytest.mark.parametrize("shape", [CONV, DEPTHWISE, LINEAR], ids=LayerShape.describe)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_outputs_agree_with_those_here(
    device: Device, runtime: str, precision: str, shape: LayerShape, tmp_path: Path
) -> None:
    model = make_model(tmp_path, runtime, shape, precision)
    inputs = make_inputs(model)
    here = run_file(model.path, inputs)
    there = evaluate_model(device, model, inputs, ignore)
    assert there.dtype == here.dtype
    assert np.ptp(here.astype(np.float64)) > 0
    if precision == "fp32":
        np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-5)
    else:
        assert np.max(np.abs(there.astype(np.int64) - here.astype(np.int64))) <= 1


def make_inputs(model: ModelFile) -> np.ndarray:
    """Four rows that fit a file."""
    (signature,), _ = describe_file(model.path)
    random, shape = np.random.default_rng(2), (4, *signature.shape[1:])
    if signature.dtype == "float32":
        return random.standard_normal(shape, dtype=np.float32)
    bounds = np.iinfo(signature.dtype)
    return random.integers(bounds.min, bounds.max, shape, dtype=signature.dtype, endpoint=True)


def test_models_and_probes_are_measured_there(device: Device, tmp_path: Path) -> None:
    models = [make_model(tmp_path, "onnxruntime", precision="int8"), make_model(tmp_path, "litert")]
    measured = measure_models(device, models, 1, QUICK, ignore)
    for one in measured.values():
        assert len(one.samples_ms) >= QUICK.min_samples
        assert one.peak_memory_mib is not None
    windows = measure_probes(device, models, 1, ProbeSettings(rounds=3, window_s=0.001), ignore)
    assert set(windows) == {model.name for model in models}
