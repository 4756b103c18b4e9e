"""Projects for TensorFlow Lite Micro: they compile, and hold the file's bytes, operators and arena."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from command_line import call
from emulated_board import needs_tools
from integer_nets import build_integer_net
from places import ROOT

from edgeprune.core.memory.fit import COUNTED_32, COUNTED_64, PLANNED, ArenaCount
from edgeprune.errors import ExportError, MissingExtra
from edgeprune.exporting.tflite.micro import count_file
from edgeprune.exporting.tflite.schema import pack_tflite, unpack_tflite
from edgeprune.exporting.tflm import arena as arenas
from edgeprune.exporting.tflm.arena import size_arena
from edgeprune.exporting.tflm.operators import METHODS, NEWER
from edgeprune.exporting.tflm.project import write_tflm_project

STUB = ROOT / "tests" / "support" / "tflm_stub"
needs_counter = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None, reason="nothing that counts arenas is installed"
)
needs_cmake = pytest.mark.skipif(not all(map(shutil.which, ("cmake", "c++", "make"))), reason="no cmake or c++")
ARM = ("-mcpu=cortex-m4", "-mthumb", "-Wall", "-Wextra", "-Werror")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tflm") / "net.tflite"
    path.write_bytes(build_integer_net())
    return path


@pytest.fixture
def project(net: Path, tmp_path: Path) -> Path:
    return write_tflm_project(net, tmp_path / "project").folder


def read_define(project: Path, name: str) -> float:
    text = (project / "src" / "edgeprune_net.h").read_text()
    return float(re.findall(rf"^#define EDGEPRUNE_{name} (\S+?)f?(?: |$)", text, re.MULTILINE)[0])


def read_vectors(project: Path) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outputs `[N, values]` of the self-check."""
    halves = (project / "src" / "vectors.c").read_text().split("vector_outputs")
    rows = [re.findall(r"^    \{(.*)\},$", half, re.MULTILINE) for half in halves]
    inputs, outputs = (np.array([row.split(", ") for row in half], int).astype(np.int8) for half in rows)
    return inputs, outputs


@needs_counter
@needs_tools
def test_the_array_on_a_cortex_m_is_the_file(project: Path, net: Path, tmp_path: Path) -> None:
    built, binary = tmp_path / "model.o", tmp_path / "model.bin"
    compile_c = ["arm-none-eabi-gcc", *ARM, "-std=c11", "-fdata-sections", "-c", project / "src" / "model_data.c"]
    subprocess.run([*compile_c, "-o", built], check=True)
    section = ".rodata.model_data"
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", "-j", section, built, binary], check=True)
    assert binary.read_bytes() == net.read_bytes() == (project / "model.tflite").read_bytes()
    table = subprocess.run(["arm-none-eabi-objdump", "-h", built], check=True, capture_output=True, text=True).stdout
    assert re.search(rf"{re.escape(section)}\s.*2\*\*4$", table, re.MULTILINE)


@needs_counter
@needs_tools
def test_the_sources_compile_for_a_cortex_m(project: Path) -> None:
    sources = sorted(project.glob("src/*.cpp")) + sorted(project.glob("selfcheck/*.cpp"))
    words = ["arm-none-eabi-g++", *ARM, "-std=c++17", "-fno-rtti", "-fno-exceptions", "-fsyntax-only", "-I", STUB]
    subprocess.run([*words, "-I", project / "src", *sources], check=True)
    assert len(sources) == 3


@needs_counter
def test_the_resolver_has_the_operators_of_the_file_and_no_others(project: Path, net: Path) -> None:
    details = Interpreter(model_path=str(net))._get_ops_details()
    used = {detail["op_name"] for detail in details}
    text = (project / "src" / "edgeprune_operators.h").read_text()
    assert re.findall(r"operators\.(\w+)\(\).*/\* (\w+) \*/", text) == [
        ("AddConv2D", "CONV_2D"),
        ("AddAdd", "ADD"),
        ("AddMean", "MEAN"),
        ("AddFullyConnected", "FULLY_CONNECTED"),
    ]
    assert used == {"CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"}
    assert "MicroMutableOpResolver<4>" in text


@needs_counter
def test_the_arena_is_what_the_interpreter_counts_and_a_margin(project: Path, net: Path) -> None:
    count = count_file(net)
    assert count is not None
    assert count.counted_by in (COUNTED_32, COUNTED_64)
    margin = read_define(project, "ARENA_BYTES") - count.total_bytes
    assert 2048 <= margin < 2048 + 16
    assert read_define(project, "ARENA_BYTES") % 16 == 0
    assert (
        f"/* {count.total_bytes} bytes {count.counted_by}, {count.counter}, and"
        in (project / "src" / "edgeprune_net.h").read_text()
    )


def test_a_large_arena_has_an_eighth_as_margin(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = ArenaCount(60_000, 4_001, COUNTED_32, "a counter")
    monkeypatch.setattr(arenas, "count_arena", lambda *_: (count, ()))
    assert size_arena(net).bytes == 72_016  # 64,001 and 8,000, rounded up to 16


def test_without_a_counter_nothing_is_written(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = ArenaCount(60_000, None, PLANNED, "edgeprune")
    monkeypatch.setattr(arenas, "count_arena", lambda *_: (count, ("no program `node`",)))
    with pytest.raises(MissingExtra, match=r"net\.tflite: nothing here counts its arena: no program `node`"):
        write_tflm_project(net, tmp_path / "project")
    assert not (tmp_path / "project").exists()


@needs_counter
def test_the_interpreter_gives_the_outputs_that_are_expected(project: Path, net: Path) -> None:
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(str(net))
    inputs, outputs = read_vectors(project)
    assert (set(inputs[0]), set(inputs[1])) == ({-128}, {127})
    assert len(np.unique(inputs[-1])) > 100
    for row, expected in zip(inputs, outputs, strict=True):
        interpreter.set_input(row.reshape(1, 8, 8, 4), 0)
        interpreter.invoke()
        off = np.abs(interpreter.get_output(0).astype(int).ravel() - expected)
        assert off.max() <= read_define(project, "STEPS_ALLOWED")


@needs_counter
def test_the_scales_are_those_of_the_file(project: Path, net: Path) -> None:
    interpreter = Interpreter(model_path=str(net))
    ends = {"INPUT": interpreter.get_input_details()[0], "OUTPUT": interpreter.get_output_details()[0]}
    for name, detail in ends.items():
        scale, zero_point = detail["quantization"]
        assert np.float32(read_define(project, f"{name}_SCALE")) == np.float32(scale)
        assert read_define(project, f"{name}_ZERO_POINT") == zero_point
        assert read_define(project, f"{name}_BYTES") == np.prod(detail["shape"])


def build(project: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the self-check by its CMakeLists.txt around a stub that gives zeros, and run it."""
    names = ("TFLM", "FLATBUFFERS", "GEMMLOWP", "RUY")
    sources = [f"-DFETCHCONTENT_SOURCE_DIR_{name}={STUB}" for name in names]
    subprocess.run(["cmake", "-S", project, "-B", folder, *sources], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", folder], check=True, capture_output=True)
    return subprocess.run([folder / "edgeprune_self_check"], capture_output=True, text=True, check=False)


@needs_counter
@needs_cmake
def test_the_self_check_passes_and_fails_where_outputs_or_the_arena_are_wrong(project: Path, tmp_path: Path) -> None:
    vectors, header = project / "src" / "vectors.c", project / "src" / "edgeprune_net.h"
    inputs, outputs = vectors.read_text().split("const int8_t vector_outputs")
    wrong = build(project, tmp_path / "build")
    assert (wrong.returncode, "4 vectors, 4 wrong" in wrong.stdout) == (1, True)
    zeros = re.sub(r"^    \{.*\},$", "    {0, 1, 0},", outputs, flags=re.MULTILINE)
    vectors.write_text(f"{inputs}const int8_t vector_outputs{zeros}")
    right = build(project, tmp_path / "build")
    assert right.returncode == 0
    assert "4 vectors, 0 wrong, worst output 1 steps of int8 off, error 0\narena used: 259 bytes\n" in right.stdout
    header.write_text(re.sub(r"(ARENA_BYTES) \d+", r"\1 128", header.read_text()))
    small = build(project, tmp_path / "build")
    assert (small.returncode, "0 vectors, 0 wrong" in small.stdout, "error 2\n" in small.stdout) == (1, True, True)


def test_every_method_is_of_an_operator_that_tflite_has() -> None:
    builtins = {name for name in vars(schema.BuiltinOperator) if name.isupper()}
    assert METHODS.keys() <= builtins
    assert {name: method.removeprefix("Add").lower() for name, method in METHODS.items()} == {
        name: name.replace("_", "").lower() for name in METHODS
    }
    assert set(NEWER) <= METHODS.keys()


def rewrite(net: Path, folder: Path, code: str) -> Path:
    """The net with another operator in place of its sum."""
    _, model = unpack_tflite(net.read_bytes())
    for entry in model.operatorCodes:
        if entry.builtinCode == schema.BuiltinOperator.ADD:
            entry.builtinCode = entry.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, code)
    path = folder / "other.tflite"
    path.write_bytes(pack_tflite(model))
    return path


@pytest.mark.parametrize("code", ["POW", "CUSTOM", "LSTM"])
def test_an_operator_that_it_lacks_is_named(net: Path, tmp_path: Path, code: str) -> None:
    with pytest.raises(ExportError, match=f"operator 1 is {code}, which TensorFlow Lite Micro does not have"):
        write_tflm_project(rewrite(net, tmp_path, code), tmp_path / "project")


def spoil_ends(model: Any, which: str) -> None:
    graph = model.subgraphs[0]
    if which == "two outputs":
        graph.outputs = [*graph.outputs, graph.operators[0].outputs[0]]
    elif which == "a batch":
        graph.tensors[graph.inputs[0]].shape = [2, 8, 8, 4]


@pytest.mark.parametrize(
    ("which", "message"),
    [("two outputs", "1 inputs and 2 outputs; expected one of each"), ("a batch", "takes 2 inputs at once")],
)
def test_a_net_of_other_ends_is_refused(net: Path, tmp_path: Path, which: str, message: str) -> None:
    _, model = unpack_tflite(net.read_bytes())
    spoil_ends(model, which)
    path = tmp_path / "other.tflite"
    path.write_bytes(pack_tflite(model))
    with pytest.raises(ExportError, match=message):
        write_tflm_project(path, tmp_path / "project")


def test_float_ends_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(build_integer_net(ends=True))
    with pytest.raises(ExportError, match=r'float_input is not int8; expected int8 at both ends: .* io = "integer"'):
        write_tflm_project(path, tmp_path / "project")


@needs_counter
def test_a_folder_of_something_else_is_left_alone_and_a_project_is_written_anew(net: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "CMakeLists.txt").write_text("mine\n")
    with pytest.raises(ExportError, match="holds something else; choose an empty folder"):
        write_tflm_project(net, tmp_path / "mine")
    assert (tmp_path / "mine" / "CMakeLists.txt").read_text() == "mine\n"
    for _ in range(2):
        assert write_tflm_project(net, tmp_path / "project").vectors == 4


@needs_counter
def test_the_command_writes_it_and_its_document_is_described(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, _ = call("export", net, "--format", "tflm", "--json")
    document = json.loads(printed)
    assert (code, document["operators"]) == (0, ["CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"])
    assert document["arena"]["bytes"] == read_define(tmp_path / "net-tflm", "ARENA_BYTES")
    page = (ROOT / "docs" / "json.md").read_text().partition("### `export MODEL --format tflm`")[2].partition("###")[0]
    described = set(re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE))
    arena = {f"arena.{name}" for name in document["arena"]}
    assert described == (document.keys() - {"version", "arena"}) | arena


@pytest.mark.parametrize("words", [("--core", "cortex-m4"), ("--target", "stm32l4r5")])
def test_what_is_for_plain_c_is_refused(net: Path, words: tuple[str, str]) -> None:
    code, _, said = call("export", net, "--format", "tflm", *words)
    assert code == 2
    assert "--core and --target are for --format c" in said
