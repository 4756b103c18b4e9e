"""`--image`: a user's tool brings a firmware onto the board before it is measured, or says why not."""

from __future__ import annotations

import json
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from command_line import call
from fake_firmware import FakeFirmware, plug_in

from edgeprune.core.boards.flashing import fill_flash, parse_flash
from edgeprune.device.board import ModelFile
from edgeprune.device.serial import flashing
from edgeprune.device.serial.flashing import await_port
from edgeprune.device.transports.address import SerialAddress
from edgeprune.errors import TargetError

TARGET = 'description = "a board"\nruntime = "litert"\nprecision = "int8"\n'


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flashing, "RETURN_S", 0.5)


def write_tool(folder: Path, body: str) -> Path:
    """A program that stands for pyocd; its words are in `sys.argv`."""
    path = folder / "tool"
    path.write_text(f"#!{sys.executable}\nimport os, subprocess, sys, time\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def measure(folder: Path, tool: object, port: object, *words: object) -> tuple[int, str, str]:
    net, image = folder / "net.tflite", folder / "net.elf"
    net.write_bytes(b"a file's bytes")
    image.write_bytes(b"firmware")
    target = folder / "mine.toml"
    line = f'flash = ["{tool}", "flash", "--file={{image}}", "{{port}}"]\n' if tool else ""
    target.write_text(TARGET + line)
    host = f"serial:{port}" if str(port).startswith("/") else port
    return call("measure", net, "--target", target, "--host", host, "--image", image, "--json", *words)


def test_the_tool_gets_image_and_port_and_then_the_board_is_measured(tmp_path: Path) -> None:
    tool = write_tool(tmp_path, f"open({str(tmp_path / 'words')!r}, 'w').write('\\n'.join(sys.argv[1:]))")
    (tmp_path / "net.tflite").write_bytes(b"a file's bytes")
    firmware = FakeFirmware(sha256=ModelFile.of(tmp_path / "net.tflite", "litert").sha256)
    with plug_in(firmware) as wire:
        code, printed, said = measure(tmp_path, tool, wire.path)
    assert code == 0, said
    assert json.loads(printed)["samples_ms"]
    assert (tmp_path / "words").read_text().split("\n") == ["flash", f"--file={tmp_path / 'net.elf'}", wire.path]


def test_a_tool_that_fails_is_told_with_what_it_printed_and_nothing_is_asked(tmp_path: Path) -> None:
    tool = write_tool(tmp_path, "print('probe found', flush=True); sys.exit('no target connected')")
    firmware = FakeFirmware()
    with plug_in(firmware) as wire:
        code, _, said = measure(tmp_path, tool, wire.path)
    assert code == 1
    assert "  probe found" in said
    assert "  no target connected" in said
    assert f"target mine: flash: {tool} ended with status 1; see what it printed above" in said
    assert firmware.commands == []


def test_a_tool_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with plug_in(FakeFirmware()) as wire:
        code, _, said = measure(tmp_path, "no-such-pyocd", wire.path)
    assert code == 1
    assert "target mine: flash: cannot run no-such-pyocd: No such file or directory; install it, or" in said


def test_a_tool_that_hangs_is_ended_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flashing, "FLASH_S", 2.0)
    child = tmp_path / "child"
    tool = write_tool(
        tmp_path,
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(child)!r}, 'w').write(str(child.pid))\nprint('erasing', flush=True)\nchild.wait()",
    )
    with plug_in(FakeFirmware()) as wire:
        code, _, said = measure(tmp_path, tool, wire.path)
    assert code == 1
    assert "did not end within 2 s" in said
    assert "  erasing" in said
    assert is_gone(int(child.read_text()))


def is_gone(pid: int) -> bool:
    """Whether a process has ended, at once or soon; one that nobody has waited for counts as ended."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_port_that_comes_back_later_is_waited_for_and_no_longer_than_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = tmp_path / "tty"
    await_port(SerialAddress(str(port)))
    assert not port.exists()
    monkeypatch.setattr(flashing, "RETURN_S", 20.0)
    threading.Timer(0.5, port.touch).start()
    await_port(SerialAddress(str(port)))
    assert port.exists()


def test_a_target_without_a_tool_says_what_to_write(tmp_path: Path) -> None:
    with plug_in(FakeFirmware()) as wire:
        code, _, said = measure(tmp_path, "", wire.path)
    assert code == 2
    assert "'flash' is missing" in said
    assert 'flash = ["pyocd", "flash", "{image}"]' in said


def test_a_board_without_a_serial_line_takes_no_image(tmp_path: Path) -> None:
    tool = write_tool(tmp_path, "")
    code, _, said = measure(tmp_path, tool, "local")
    assert code == 2
    assert "expected --host serial:PORT" in said


def test_an_emulated_board_and_a_run_take_no_image(tmp_path: Path) -> None:
    image = tmp_path / "net.elf"
    image.write_bytes(b"")
    assert "are for a ready file" in call("measure", "--target", "local", "--image", image)[2]
    said = call("measure", image, "--target", "qemu-cortex-m4", "--image", image)[2]
    assert "an emulator is counted; give --target and --output alone" in said


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("pyocd flash {image}", "expected a list of words"),
        ([], "expected a list of words"),
        (["pyocd", 4, "{image}"], "expected a list of words"),
        (["pyocd", "", "{image}"], "expected a list of words"),
        (["pyocd", "flash", "{imgae}"], "unknown name {imgae}; did you mean 'image'"),
        (["pyocd", "--probe", "{serial}", "{image}"], "unknown name {serial}; valid: image, port"),
        (["pyocd", "flash"], "{image} is missing"),
        (["pyocd", "{port}"], "{image} is missing"),
    ],
)
def test_a_command_that_cannot_work_is_refused_as_the_target_is_read(value: object, message: str) -> None:
    with pytest.raises(TargetError) as refusal:
        parse_flash(value, "mine.toml")
    assert str(refusal.value).startswith("mine.toml: flash: ")
    assert message in str(refusal.value)


def test_names_in_a_path_are_left_as_they_are() -> None:
    command = parse_flash(["openocd", "-c", "program {image} verify", "{port}"], "mine.toml")
    assert fill_flash(command, "/a {port}/net.elf", "/dev/ttyACM0") == [
        "openocd",
        "-c",
        "program /a {port}/net.elf verify",
        "/dev/ttyACM0",
    ]
