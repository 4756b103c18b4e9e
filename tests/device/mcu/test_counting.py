"""Firmware that is built and run in QEMU: what it gives, and what is counted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from integer_nets import build_integer_net

from edgeprune.core.boards.cortex_m import CORES, find_core
from edgeprune.device.mcu import counting
from edgeprune.device.mcu.counting import count_project
from edgeprune.device.mcu.firmware import CProject, mark_steps, run_tool
from edgeprune.errors import DeviceError
from edgeprune.exporting.c.generate import MODEL, generate_c
from edgeprune.exporting.tflite.run import run_tflite

HAS_TOOLS = all(map(shutil.which, ("arm-none-eabi-gcc", "qemu-system-arm")))
needs_tools = pytest.mark.skipif(not HAS_TOOLS, reason="no arm-none-eabi-gcc or qemu-system-arm; see test_packages.sh")
ROWS = np.random.default_rng(2).integers(-128, 128, (3, 8, 8, 4)).astype(np.int8)


def make_project(folder: Path, core: str) -> Path:
    folder.mkdir(exist_ok=True)
    source = folder / "source.tflite"
    source.write_bytes(build_integer_net())
    generate_c(source, folder / "project", core)
    return folder / "project"


@needs_tools
@pytest.mark.parametrize("core", CORES)
def test_every_core_gives_what_litert_gives_and_counts_the_same_each_time(core: str, tmp_path: Path) -> None:
    project = make_project(tmp_path, core)
    counts = count_project(project, core, ROWS)
    expected = run_tflite(project / MODEL, ROWS, optimised=False)
    assert np.abs(counts.outputs.astype(int) - expected.astype(int)).max() <= 1
    again = count_project(project, core, ROWS)
    assert (again.instructions, again.step_instructions) == (counts.instructions, counts.step_instructions)
    assert 0 <= sum(counts.step_instructions.values()) - counts.instructions[-1] < 40 * len(counts.step_instructions)
    assert counts.stack_bytes < 4096
    assert counts.sections[".bss"] > counts.arena_bytes


@needs_tools
def test_simd_takes_fewer_instructions_than_none(tmp_path: Path) -> None:
    with_simd = count_project(make_project(tmp_path / "4", "cortex-m4"), "cortex-m4", ROWS)
    without = count_project(make_project(tmp_path / "3", "cortex-m3"), "cortex-m3", ROWS)
    assert with_simd.instructions[0] * 1.5 < without.instructions[0]


@needs_tools
def test_a_counter_that_does_not_count_instructions_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = CORES["cortex-m4"]
    monkeypatch.setitem(counting.CORES, "cortex-m4", replace(core, machine=replace(core.machine, clock_mhz=24)))
    with pytest.raises(DeviceError, match=r"a loop of 200,000 instructions was counted as 208,3.*this QEMU"):
        count_project(make_project(tmp_path, "cortex-m4"), "cortex-m4", ROWS)


@needs_tools
def test_a_firmware_that_faults_is_told(tmp_path: Path) -> None:
    project = make_project(tmp_path, "cortex-m4")
    source = project / "net" / "bknn_net.c"
    source.write_text(source.read_text().replace("(arena + 0u)", "(arena + 0x40000000u)"))
    with pytest.raises(DeviceError, match=r"qemu-system-arm: status 99"):
        count_project(project, "cortex-m4", ROWS)


@needs_tools
def test_code_that_does_not_build_is_told(tmp_path: Path) -> None:
    project = make_project(tmp_path, "cortex-m4")
    (project / "net" / "bknn_net_kernels.h").write_text("#error broken\n")
    with pytest.raises(DeviceError, match=r"arm-none-eabi-gcc: status 1: .*#error broken"):
        count_project(project, "cortex-m4", ROWS)


def test_inputs_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"inputs int8 \[3, 8, 8, 3\]: the net takes int8 \[N, 8, 8, 4\]"):
        count_project(make_project(tmp_path, "cortex-m4"), "cortex-m4", ROWS[..., :3])


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no generated C project"):
        CProject.read(tmp_path)


def test_every_step_is_marked_and_a_missing_one_is_told() -> None:
    source = "void bknn_net_infer(\n    int a) {\n    bknn_net_x(1);\n    bknn_net_y(\n        2);\n}\n"
    assert mark_steps(source, 2).splitlines()[1:] == [
        "void bknn_net_infer_steps(",
        "    int a) {",
        "    bench_mark(-1);",
        "    bknn_net_x(1);",
        "    bench_mark(0);",
        "    bknn_net_y(",
        "        2);",
        "    bench_mark(1);",
        "}",
    ]
    with pytest.raises(DeviceError, match="calls 2 kernels, expected 3"):
        mark_steps(source, 3)


def test_a_missing_tool_is_told_with_its_package() -> None:
    with pytest.raises(DeviceError, match=r"no-such-gcc is not installed; .*apt-get install gcc-arm-none-eabi"):
        run_tool(["no-such-gcc"])


def test_cores_are_known_by_their_words() -> None:
    assert find_core("Cortex-M4F, 120 MHz") is CORES["cortex-m4"]
    assert find_core("Cortex-M33 with TrustZone") is CORES["cortex-m33"]
    assert find_core("2x Cortex-M0+") is None
    assert find_core("Cortex-A53") is None
