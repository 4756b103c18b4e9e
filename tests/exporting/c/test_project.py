"""Projects in C: they build, check themselves, and say when they are wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from emulated_board import needs_tools
from integer_nets import build_integer_net

from edgeprune.core.boards.cortex_m import CORES
from edgeprune.core.latency.layers import LayerShape
from edgeprune.errors import ExportError
from edgeprune.exporting.c import project as projects
from edgeprune.exporting.c.generate import GeneratedNet
from edgeprune.exporting.c.project import list_places, write_c_project
from edgeprune.exporting.tflite.probes import build_tflite_probe
from edgeprune.exporting.tflite.schema import pack_tflite, unpack_tflite

needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake; see test_packages.sh")
FIRMWARE = """
cmake_minimum_required(VERSION 3.16)
project(mine C)
add_subdirectory(${NET} net)
add_executable(mine ${NET}/selftest.c ${NET}/vectors.c ${NET}/startup.c ${NET}/semihosting.c)
target_link_libraries(mine PRIVATE edgeprune_net)
target_link_options(mine PRIVATE ${LINKING})
"""
"""What a user writes who adds the net to a firmware of their own."""


def write(folder: Path, core: str = "cortex-m4") -> Path:
    source = folder / "net.tflite"
    source.write_bytes(build_integer_net(ends=True))
    export = write_c_project(source, folder / "c", core)
    assert (export.steps_off, export.core) == (0, core)
    return export.folder


def run_selftest(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-C", str(folder), "test"], capture_output=True, text=True, check=False)


@needs_tools
def test_the_self_test_passes_and_fails_where_a_weight_is_wrong(tmp_path: Path) -> None:
    folder = write(tmp_path)
    completed = run_selftest(folder)
    assert completed.returncode == 0
    assert "self-test: 4 vectors, 0 wrong: passed" in completed.stdout + completed.stderr
    vectors = folder / "vectors.c"
    head, _, outputs = vectors.read_text().rpartition("    {")
    first, _, rest = outputs.partition(",")
    vectors.write_text(f"{head}    {{{int(first) - 1},{rest}")
    broken = run_selftest(folder)
    assert broken.returncode != 0
    assert "vector 3: bytes that differ: 1" in broken.stdout + broken.stderr


@needs_tools
@needs_cmake
@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m4"])  # portable kernels, and those of CMSIS-NN
def test_a_firmware_of_ones_own_takes_the_net_by_cmake(core: str, tmp_path: Path) -> None:
    net, machine = write(tmp_path, core), CORES[core].machine
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "CMakeLists.txt").write_text(FIRMWARE)
    linking = [
        "-nostartfiles",
        "--specs=nano.specs",
        "-Wl,--gc-sections",
        f"-T{net}/firmware.ld",
        *list_places(machine),
    ]
    settings = {
        "NET": str(net),
        "LINKING": ";".join(linking),
        "CMAKE_SYSTEM_NAME": "Generic",
        "CMAKE_C_COMPILER": "arm-none-eabi-gcc",
        "CMAKE_C_FLAGS": " ".join(CORES[core].flags),
        "CMAKE_TRY_COMPILE_TARGET_TYPE": "STATIC_LIBRARY",
    }
    words = [f"-D{name}={value}" for name, value in settings.items()]
    subprocess.run(["cmake", "-S", tmp_path / "mine", "-B", tmp_path / "build", *words], check=True)
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True)
    semihosting = [
        "-nographic",
        "-monitor",
        "none",
        "-serial",
        "none",
        "-semihosting-config",
        "enable=on,target=native",
    ]
    image = tmp_path / "build" / "mine"
    run = ["qemu-system-arm", "-M", machine.name, *semihosting, "-kernel", image]
    completed = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert (completed.returncode, "4 vectors, 0 wrong: passed" in completed.stdout + completed.stderr) == (0, True)


def test_the_project_says_how_its_numbers_are_meant(tmp_path: Path) -> None:
    folder = write(tmp_path)
    facts = json.loads((folder / "project.json").read_text())
    assert (facts["input_zero_point"], facts["output_zero_point"]) == (3, 7)
    assert facts["input_scale"] == pytest.approx(0.05)
    readme = (folder / "README.md").read_text()
    assert "| input | int8 [1, 8, 8, 4], real value = (int8 - 3) * 0.05" in readme
    assert "0_conv_2d | cmsis_nn." in readme


def test_a_core_without_simd_gets_portable_kernels(tmp_path: Path) -> None:
    folder = write(tmp_path, "cortex-m3")
    facts = json.loads((folder / "project.json").read_text())
    assert all(layer["kernel"].startswith(("portable", "optimized")) for layer in facts["layers"])
    assert not (folder / "net" / "third_party").exists()


def test_an_operator_that_the_generator_does_not_know_is_named(tmp_path: Path) -> None:
    schema, model = unpack_tflite(build_integer_net())
    for code in model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.ADD:
            code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SUB
    source = tmp_path / "net.tflite"
    source.write_bytes(pack_tflite(model))
    with pytest.raises(ExportError, match=r"operator 1 is SUB, which .* does not know; expected one of ADD, "):
        write_c_project(source, tmp_path / "c", "cortex-m4")


def test_a_float_file_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "net.tflite"
    shape = LayerShape("conv", 4, 4, (3, 3), (1, 1), 1, (8, 8), (1, 1))
    source.write_bytes(build_tflite_probe([(shape, False)]))
    with pytest.raises(ExportError, match="is no int8"):
        write_c_project(source, tmp_path / "c", "cortex-m4")


def test_code_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = GeneratedNet.run
    monkeypatch.setattr(projects.GeneratedNet, "run", lambda self, inputs: run(self, inputs) // 2)
    with pytest.raises(ExportError, match=r"misses LiteRT by \d+ of 255 steps; expected 8 at most"):
        write(tmp_path)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "c" / "net").mkdir(parents=True)
    (tmp_path / "c" / "net" / "mine.c").write_text("int x;\n")
    with pytest.raises(ExportError, match="non-empty"):
        write(tmp_path)
    assert (tmp_path / "c" / "net" / "mine.c").read_text() == "int x;\n"
