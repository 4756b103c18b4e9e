"""Preparing a board: which packages, which wheels, and the installation over SSH with and without a network."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
from device_models import ignore
from ssh_server import SshServer

from edgeprune.core.target import Target
from edgeprune.device.connect import open_device
from edgeprune.device.setup import Interpreter, choose_packages, fits, setup_device, wheel_platforms
from edgeprune.errors import DeviceError, UsageError

TARGET = Target("rpi4", "a board of the tests")


@pytest.mark.parametrize(
    ("runtime", "version", "machine", "packages"),
    [
        ("onnxruntime", (3, 9), "aarch64", ("onnxruntime",)),
        ("litert", (3, 13), "aarch64", ("ai-edge-litert",)),
        ("litert", (3, 9), "aarch64", ("tflite-runtime", "numpy<2")),
        ("litert", (3, 11), "armv7l", ("tflite-runtime", "numpy<2")),
    ],
)
def test_each_board_gets_what_there_is_for_it(
    runtime: str, version: tuple[int, int], machine: str, packages: tuple[str, ...]
) -> None:
    assert choose_packages(runtime, Interpreter(version, machine, "2.36"), "board") == packages


@pytest.mark.parametrize(
    ("runtime", "version", "said"),
    [
        ("onnxruntime", (3, 11), "board: there is no onnxruntime for Python 3.11 on armv7l; use runtime litert"),
        ("litert", (3, 13), "board: there is no litert for Python 3.13 on armv7l; use an older Python"),
    ],
)
def test_a_board_that_nothing_is_made_for_is_told(runtime: str, version: tuple[int, int], said: str) -> None:
    with pytest.raises(DeviceError) as caught:
        choose_packages(runtime, Interpreter(version, "armv7l", "2.36"), "board")
    assert str(caught.value).startswith(said)


def test_wheels_for_older_c_libraries_are_taken_too() -> None:
    tags = wheel_platforms("aarch64", "2.19")
    assert tags == (
        "manylinux_2_19_aarch64",
        "manylinux_2_18_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    )
    assert wheel_platforms("aarch64", "") == tags[2:]


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("numpy-2.4.6-cp311-cp311-manylinux_2_28_aarch64.whl", True),
        ("flatbuffers-25.12.19-py2.py3-none-any.whl", True),
        ("numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("../x-1-py3-none-any.whl", False),
        ("numpy.whl", False),
    ],
)
def test_only_wheels_that_can_fit_are_pushed(name: str, fit: bool) -> None:
    assert fits(name, "aarch64") is fit


def test_this_machine_is_not_set_up() -> None:
    with pytest.raises(UsageError, match="needs no set-up; for its runtime: pip install onnxruntime"):
        setup_device(Target("local", "this machine"), None, None, ignore)


def make_wheel(folder: Path) -> None:
    """A package that calls itself onnxruntime."""
    info = "onnxruntime-9.9.dist-info"
    folder.mkdir()
    with zipfile.ZipFile(folder / "onnxruntime-9.9-py3-none-any.whl", "w") as wheel:
        wheel.writestr("onnxruntime.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: onnxruntime\nVersion: 9.9\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def fresh_board(ssh_server: SshServer) -> SshServer:
    """A board with Python alone, that reaches no package index."""
    ssh_server.stop()
    (ssh_server.board / ".local" / "share" / "edgeprune" / "venv").unlink()
    ssh_server.prelude = f"export PIP_NO_INDEX=1 PATH='{sys.base_prefix}/bin':$PATH; "
    ssh_server.start()
    return ssh_server


def test_a_board_without_a_network_is_set_up(
    fresh_board: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three ways in one, as a venv takes its time: nobody can fetch, wheels are given, this machine fetches."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    with pytest.raises(DeviceError, match=r"neither the board nor this machine can fetch onnxruntime .*--wheels DIR"):
        setup_device(TARGET, "board", None, ignore)
    with pytest.raises(DeviceError, match="no wheel for Python"):
        setup_device(TARGET, "board", tmp_path, ignore)
    make_wheel(tmp_path / "wheels")
    said = setup_device(TARGET, "board", tmp_path / "wheels", ignore)
    assert said.startswith("board: onnxruntime 9.9 for Python 3.")
    with open_device(TARGET, "board") as device:
        assert device.facts.runtimes == {"onnxruntime": "9.9"}
        assert device.python == str(fresh_board.board / ".local/share/edgeprune/venv/bin/python")
        device.transport.run([device.python, "-m", "pip", "uninstall", "-y", "-q", "onnxruntime"], timeout_s=60)
    lines: list[str] = []
    assert setup_device(TARGET, "board", None, lines.append) == said
    assert any("the board cannot fetch them itself" in line for line in lines)
