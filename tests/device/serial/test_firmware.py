"""The firmware of deploy/firmware, built for a Cortex-M4 and run by QEMU with its UART on a pseudo-terminal."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emulated_board import needs_tools, powered

from edgeprune.core.boards.cortex_m import CORES
from edgeprune.core.measuring.measurement import Protocol
from edgeprune.device.board import ModelFile
from edgeprune.device.boards import open_board
from edgeprune.device.serial.commands import identify, infer, load, read_output
from edgeprune.device.serial.line import open_line
from edgeprune.device.transports.address import SerialAddress
from edgeprune.errors import RemoteError
from edgeprune.exporting.c.project import list_places
from edgeprune.shipped import load_target, shipped_dir

pytestmark = [pytest.mark.device, needs_tools]

SHA256 = "c" * 64
NET = f"""
#include "edgeprune_model.h"
const char edgeprune_model_sha256[65] = "{SHA256}";
const char edgeprune_model_runtime[] = "by hand";
const uint32_t edgeprune_input_bytes = 150, edgeprune_output_bytes = 3;
int8_t edgeprune_input[150], edgeprune_output[3];
int edgeprune_model_run(void) {{
    int32_t sum = 0, weighted = 0;
    for (int round = 0; round < 50; round++)
        for (int place = 0; place < 150; place++) {{
            sum += edgeprune_input[place];
            weighted ^= edgeprune_input[place] + place;
        }}
    edgeprune_output[0] = (int8_t)(sum / 50), edgeprune_output[1] = (int8_t)weighted;
    edgeprune_output[2] = edgeprune_input[149];
    return edgeprune_input[0] == 99 ? 7 : 0;
}}
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("firmware")
    (folder / "net.c").write_text(NET)
    firmware = shipped_dir("deploy") / "firmware"
    sources = [firmware / "edgeprune_protocol.c", firmware / "mps2" / "board.c", folder / "net.c"]
    flags = ["-mcpu=cortex-m4", "-mthumb", "-O2", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostartfiles"]
    places = list_places(CORES["cortex-m4"].machine)
    script = ["-T", firmware / "firmware.ld", *places, "--specs=nosys.specs", "-I", firmware]
    command = ["arm-none-eabi-gcc", *flags, *script, *sources, "-o", folder / "firmware.elf", "-lc"]
    subprocess.run([str(word) for word in command], check=True, timeout=120)
    return folder / "firmware.elf"


def ignore(_: str) -> None:
    pass


def test_the_firmware_is_what_the_host_expects(image: Path) -> None:
    values = np.random.default_rng(1).integers(-128, 99, 150, np.int8)
    with powered(image) as port, open_line(SerialAddress(port)) as line:
        firmware = identify(line)
        assert (firmware.board, firmware.model_sha256, firmware.tick_hz) == ("MPS2", SHA256, 25_000_000)
        load(line, values)
        ticks = infer(line, 64, 1.0)
        output = read_output(line, firmware)
        assert min(ticks) > 100
        total = int(np.sum(values, dtype=np.int64))
        assert output[0] == np.int8((int(np.trunc(total)) + 128) % 256 - 128)
        assert output[2] == values[149]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("nonsense", "unknown: nonsense"),
        ("infer 1", "no input is loaded"),
        ("infer 65", "1 to 64 inferences"),
        ("infer x", "1 to 64 inferences"),
        ("db load 151", "expected bytes: 150"),
        ("db load", "unknown|expected"),
        ("db zz", "hexadecimal"),
        ("x" * 500, "unknown"),
    ],
)
def test_it_refuses_what_is_garbled_and_goes_on(image: Path, command: str, text: str) -> None:
    with powered(image) as port, open_line(SerialAddress(port)) as line:
        if command == "x" * 500:
            assert line.ask(command) == []  # longer than any command: nothing is done
        else:
            with pytest.raises(RemoteError, match=text):
                line.ask(command)
        assert identify(line).board == "MPS2"


def test_it_is_measured_over_several_starts_and_its_outputs_come_back(image: Path) -> None:
    protocol = Protocol(min_samples=40, min_duration_s=0.01, processes=3)
    target = replace(load_target("local"), name="board", runtime="litert", precision="int8", protocol=protocol)
    model = ModelFile("net", Path("net.tflite"), SHA256, "litert")
    inputs = np.random.default_rng(2).integers(-128, 99, (3, 150), np.int8)
    with powered(image) as port, open_board(target, f"serial:{port}") as board:
        measured = board.time([model], 1, protocol, ignore)["net"]
        outputs = board.run(model, inputs, ignore)
    assert len(measured.samples_ms) >= 40
    assert {window.process for window in measured.windows} == {0, 1, 2}
    assert np.array_equal(outputs[:, 2], inputs[:, 149])
