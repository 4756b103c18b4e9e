"""From a TFLite file to a latency over a serial line: exported as C, built by its Makefile, run by QEMU."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from emulated_board import needs_tools, powered
from integer_nets import build_integer_net

from edgeprune.core.boards.cortex_m import CORES
from edgeprune.device.board import ModelFile
from edgeprune.device.boards import open_board
from edgeprune.exporting.tflite.run import run_tflite
from edgeprune.shipped import load_target

pytestmark = [pytest.mark.device, needs_tools]
TARGET = """
description = "a board"
runtime = "litert"
precision = "int8"
[protocol]
min_samples = 20
min_duration_s = 0.01
processes = 2
"""


@pytest.mark.parametrize("core", CORES)
def test_a_net_is_measured_with_the_firmware_that_its_project_builds(core: str, tmp_path: Path) -> None:
    net, target = tmp_path / "net.tflite", tmp_path / "mine.toml"
    net.write_bytes(build_integer_net())
    target.write_text(TARGET)
    assert call("export", net, "--format", "c", "--core", core, "--output", tmp_path / "c")[0] == 0
    subprocess.run(["make", "-C", tmp_path / "c", "firmware"], check=True, timeout=300)
    inputs = np.random.default_rng(3).integers(-128, 128, (4, 8, 8, 4)).astype(np.int8)
    with powered(tmp_path / "c" / "firmware.elf", CORES[core].machine.name) as port:
        code, printed, said = call("measure", net, "--target", target, "--host", f"serial:{port}", "--json")
        with open_board(load_target(str(target)), f"serial:{port}") as board:
            outputs = board.run(ModelFile.of(net, "litert"), inputs, lambda _: None)
    document = json.loads(printed)
    assert code in (0, 4), said  # 4: QEMU's counter follows the host's clock, which may be unsteady
    assert document["sha256"] == ModelFile.of(net, "litert").sha256
    assert min(document["samples_ms"]) > 0
    assert np.array_equal(outputs, run_tflite(net, inputs, optimised=False))
