"""A file, a microcontroller's target and a stand-in for vela, for the tests of estimates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tflite_files import build_separable

TARGET = """description = "a board"
runtime = "litert"
precision = "int8"
[hardware]
cpu = { value = "Arm Cortex-M4F", source = "its data sheet" }
cpu_mhz = { value = 120, source = "its data sheet" }
"""
SUMMARY = (
    "accelerator_configuration,system_config,memory_mode,core_clock,sram_memory_used,on_chip_flash_memory_used,"
    "off_chip_flash_memory_used,nn_macs,cycles_total\\n"
    "Ethos_U55_256,Ethos_U55_High_End_Embedded,Shared_Sram,500000000.0,2,0,1.5,12345,5000\\n"
)


def put_model(folder: Path, dead: int = 2, kind: type[np.generic] = np.int8) -> Path:
    path = folder / "a.tflite"
    path.write_bytes(build_separable(dead, kind))
    return path


def put_target(folder: Path, text: str = TARGET) -> Path:
    path = folder / "board.toml"
    path.write_text(text)
    return path


def put_vela(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "vela"
    program.write_text(f'#!/bin/sh\nprintf "{SUMMARY}" > x_summary_y.csv\necho "CPU operators = 3"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
