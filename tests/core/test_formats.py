"""The tables of formats and runtimes: they agree with what makes the files, and with what loads them on a board."""

from __future__ import annotations

import subprocess
import sys

import pytest
from edgeprune_agent.providers import NAMES
from edgeprune_agent.runtimes import find_runtime as find_module
from edgeprune_agent.runtimes import list_formats, list_runtimes
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.boards.delegates import DELEGATES
from edgeprune.core.formats import (
    FORMATS,
    RUNTIMES,
    FileFormat,
    Package,
    Runtime,
    find_runtime,
    list_board_runtimes,
    list_precisions,
)
from edgeprune.core.target import Target
from edgeprune.device.preparing.site import Interpreter, choose_packages
from edgeprune.errors import DeviceError


@pytest.mark.parametrize("name", list_board_runtimes())
def test_the_agent_has_a_module_for_each_runtime(name: str) -> None:
    module, runtime = find_module(name), RUNTIMES[name]
    assert {package.name: package.module for package in runtime.packages} == module.PACKAGES
    assert list(module.PACKAGES) == [package.name for package in runtime.packages]
    assert (module.FORMAT, hasattr(module, "profile_nodes")) == (runtime.format, runtime.tells_nodes)
    assert runtime.providers == (tuple(NAMES) if name == "onnxruntime" else tuple(DELEGATES))


def test_the_agent_knows_no_other_runtime_or_format() -> None:
    assert (set(list_runtimes()), set(list_formats())) == (set(list_board_runtimes()), set(FORMATS))


def test_a_second_runtime_of_a_format_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "other", Runtime("other", "onnx", (Package("other", "other", (2, 17), 9),)))
    assert find_runtime("onnx") == "onnxruntime"
    assert find_runtime("onnx", ("litert", "other", "onnxruntime")) == "other"
    assert find_runtime("onnx", ("litert",)) is None
    assert Target("board", "", "other").format == "onnx"
    assert Target("board", "", "auto").runtimes == ("onnxruntime", "litert", "other")


def test_what_runs_on_microcontrollers_alone_is_nothing_that_auto_chooses() -> None:
    assert "tflm" in RUNTIMES
    assert "tflm" not in Target("board", "", "auto").runtimes
    assert find_runtime("tflite") == "litert"


def test_precisions_are_those_of_any_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "other", FileFormat("other", "Other", ("fp32", "int4"), "torch"))
    assert list_precisions()[-1] == "int4"
    assert len(set(list_precisions())) == len(list_precisions())


@given(
    st.sampled_from(list_board_runtimes()), st.integers(8, 15), st.sampled_from(["x86_64", "aarch64", "armv7l", "i686"])
)
def test_what_is_installed_has_wheels_for_the_interpreter(runtime: str, minor: int, machine: str) -> None:
    interpreter, wide = Interpreter((3, minor), machine, ""), machine in ("x86_64", "aarch64")
    litert = "ai-edge-litert" if wide and minor >= 10 else "tflite-runtime" if minor <= 11 else None
    wanted = {"onnxruntime": "onnxruntime" if wide else None, "litert": litert}[runtime]
    if wanted is None:
        with pytest.raises(DeviceError, match="use --runtime litert" if litert else "use an older Python"):
            choose_packages(runtime, interpreter, "board")
        return
    name, *beside = choose_packages(runtime, interpreter, "board")
    assert (name, beside) == (wanted, ["numpy<2"] if wanted == "tflite-runtime" else [])


@pytest.mark.parametrize("name", FORMATS)
def test_what_looks_at_a_file_imports_no_torch(name: str) -> None:
    """Measuring a ready file and calibrating a profile start in a third of a second so."""
    code = (
        f"from edgeprune.exporting.formats import find_format; import sys; find_format({name!r}); print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert f"edgeprune.exporting.{name}.format" in modules
    assert "torch" not in modules
