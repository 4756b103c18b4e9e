"""A microcontroller over a serial line, and all that goes wrong on one: over a pseudo-terminal, as pyserial sees it."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_firmware import TICK_HZ, FakeFirmware, plug_in

from edgeprune.core.measuring.energy import Meter
from edgeprune.core.measuring.measurement import Protocol
from edgeprune.core.releasing.gate import Gate
from edgeprune.core.target import COMMAND, PowerSource
from edgeprune.device.board import ModelFile, Session, require
from edgeprune.device.boards import measure_files, open_board
from edgeprune.device.meters import polling
from edgeprune.device.serial import line as line_module
from edgeprune.errors import ConnectionFailed, DeviceError, TargetError, UsageError
from edgeprune.shipped import load_target

PROTOCOL = Protocol(min_samples=30, min_duration_s=0.05, processes=3)
TARGET = replace(load_target("local"), name="board", runtime="litert", precision="int8", protocol=PROTOCOL)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "ANSWER_S", 0.2)
    monkeypatch.setattr(line_module, "QUIET_S", 0.02)
    monkeypatch.setattr("edgeprune.device.serial.board.LONGEST_INFERENCE_S", 0.3)
    monkeypatch.setattr("edgeprune.device.serial.board.LONGEST_START_S", 0.3)


def model(firmware: FakeFirmware) -> ModelFile:
    return ModelFile("net", Path("net.tflite"), firmware.sha256, "litert")


def ignore(_: str) -> None:
    pass


def measure(firmware: FakeFirmware) -> object:
    with plug_in(firmware) as wire, open_board(TARGET, f"serial:{wire.path}") as board:
        return board.time([model(firmware)], 1, PROTOCOL, ignore)["net"]


def once(then: Callable[[bytes], bytes | None], when: Callable[[bytes], bool]) -> Callable[[bytes], bytes | None]:
    """A fault that comes a single time, of the first bytes that it is for."""
    times = itertools.count()

    def fault(data: bytes) -> bytes | None:
        return then(data) if when(data) and next(times) == 0 else data

    return fault


def test_a_net_is_timed_by_the_boards_own_counter_over_several_starts() -> None:
    firmware = FakeFirmware(ticks=2000)
    measured = measure(firmware)
    assert measured.valid, measured.problems
    assert measured.latency.p50_ms == pytest.approx(1e3 * 2001.5 / TICK_HZ, rel=1e-3)
    assert {window.process for window in measured.windows} == {0, 1, 2}
    assert len(measured.samples_ms) >= 30
    assert firmware.commands.count("reset") == 3
    assert (measured.runtime_version, measured.first_ms) == ("a generator 1.0", 2.0)
    assert "timed by the board, 1,000,000 ticks a second" in measured.conditions.describe()


def test_outputs_come_back_for_every_input() -> None:
    firmware = FakeFirmware()
    inputs = np.random.default_rng(0).integers(-128, 127, (5, 10, 10), np.int8)
    with plug_in(firmware) as wire, open_board(TARGET, f"serial:{wire.path}@115200") as board:
        outputs = board.run(model(firmware), inputs, ignore)
    assert outputs.dtype == np.int8
    assert np.array_equal(outputs, inputs.reshape(5, -1)[:, :4] + 1)


def is_load(command: bytes) -> bool:
    return command.startswith(b"db ")


def tells_times(answer: bytes) -> bool:
    return b"m-ticks" in answer


LOST = {
    "a byte of a command": ("fault", once(lambda command: command[1:], lambda command: command == b"name")),
    "a letter of the input": ("fault", once(lambda command: command[:-1], lambda command: len(command) > 60)),
    "two letters of the input": ("fault", once(lambda command: command[:-2], is_load)),
    "a changed letter of the input": ("fault", once(lambda command: command[:-1] + b"0", is_load)),
    "the end of a command": ("fault", once(lambda _: None, lambda command: command.startswith(b"infer"))),
    "a letter of the times": ("echo", once(lambda answer: answer.replace(b"2000", b"200", 1), tells_times)),
    "the last line of an answer": ("echo", once(lambda answer: answer[:-9], tells_times)),
    "the name of a field": (
        "echo",
        once(lambda answer: answer.replace(b"m-crc", b"m-rc"), lambda text: b"m-crc" in text),
    ),
    "a reset in the middle": ("echo", once(lambda _: b"m-init-done\r\nm-ready\r\n", tells_times)),
}


@pytest.mark.parametrize("lost", LOST)
def test_what_is_lost_once_is_noticed_and_asked_for_again(lost: str) -> None:
    where, fault = LOST[lost]
    firmware = FakeFirmware(**{where: fault})  # type: ignore[arg-type]
    measured = measure(firmware)
    assert measured.latency.p50_ms == pytest.approx(2.0015, rel=1e-3)
    assert {window.process for window in measured.windows} == {0, 1, 2}
    assert set(measured.samples_ms) == {2.0, 2.003}


ALWAYS: dict[str, tuple[FakeFirmware, str]] = {
    "hung": (FakeFirmware(fault=lambda _: None), "no answer to 'name' in its time"),
    "hangs as it computes": (
        FakeFirmware(fault=lambda command: None if command.startswith(b"infer") else command),
        "no answer to 'infer 1' in its time",
    ),
    "resets as it computes": (
        FakeFirmware(echo=lambda answer: b"m-init-done\r\nm-ready\r\n" if tells_times(answer) else answer),
        "the board began anew while it was at 'infer 1'",
    ),
    "drops a byte of every long command": (
        FakeFirmware(fault=lambda command: command[:-2] if len(command) > 80 else command),
        "bytes of the input were lost: 63 of 64",
    ),
    "noise": (FakeFirmware(echo=lambda _: b"\xff\x00%&" * 9), "no answer to 'name'"),
}


@pytest.mark.parametrize("fault", ALWAYS)
def test_what_never_gets_better_ends_soon_with_the_cause(fault: str) -> None:
    firmware, text = ALWAYS[fault]
    began_s = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"\(3 attempts\); check cable, baud rate and power") as raised:
        measure(firmware)
    assert text in str(raised.value)
    assert time.monotonic() - began_s < 20


def test_the_same_command_goes_on_once_the_board_is_well() -> None:
    firmware = FakeFirmware(fault=lambda command: None)
    with plug_in(firmware) as wire:
        with pytest.raises(ConnectionFailed), open_board(TARGET, f"serial:{wire.path}"):
            pass
        firmware.fault = lambda command: command
        with open_board(TARGET, f"serial:{wire.path}") as board:
            assert board.time([model(firmware)], 1, PROTOCOL, ignore)["net"].valid


def test_other_firmware_is_named_and_not_believed() -> None:
    firmware = FakeFirmware(profile="ULPMark for tinyML Firmware V0.0.1")
    with pytest.raises(DeviceError, match=r"another firmware answers: 'fake board' with profile 'ULPMark for tinyML"):
        measure(firmware)


def test_firmware_of_another_net_is_named_and_not_timed() -> None:
    firmware = FakeFirmware()
    with plug_in(firmware) as wire, open_board(TARGET, f"serial:{wire.path}") as board:
        other = replace(model(firmware), sha256="b" * 64)
        with pytest.raises(DeviceError, match=r"holds another net \(a{12}\), expected that of net.tflite \(b{12}\)"):
            board.time([other], 1, PROTOCOL, ignore)
        with pytest.raises(DeviceError, match="cannot time 2 files: its firmware holds one net"):
            board.time([model(firmware), other], 1, PROTOCOL, ignore)
    assert not any(command.startswith("infer") for command in firmware.commands)


def test_a_net_that_fails_there_is_told_at_once_and_not_blamed_on_the_line() -> None:
    firmware = FakeFirmware(
        echo=lambda answer: b"e-[the net failed: 7]\r\nm-ready\r\n" if tells_times(answer) else answer
    )
    with pytest.raises(DeviceError, match=r"e-\[the net failed: 7\]") as raised:
        measure(firmware)
    assert "attempts" not in str(raised.value)
    assert sum(command.startswith("infer") for command in firmware.commands) == 1


def test_an_unplugged_board_is_told_and_ends_at_once() -> None:
    firmware = FakeFirmware()
    with plug_in(firmware) as wire, open_board(TARGET, f"serial:{wire.path}") as board:
        wire.unplug()
        with pytest.raises(ConnectionFailed, match=r"the line was lost|no answer"):
            board.time([model(firmware)], 1, PROTOCOL, ignore)


def test_a_port_is_opened_by_one_at_a_time() -> None:
    with (
        plug_in(FakeFirmware()) as wire,
        open_board(TARGET, f"serial:{wire.path}"),
        pytest.raises(ConnectionFailed, match="another program has it open"),
        open_board(TARGET, f"serial:{wire.path}"),
    ):
        pass


def test_a_port_that_is_not_there_is_told() -> None:
    with (
        pytest.raises(ConnectionFailed, match="there is no such port; is the board plugged in"),
        open_board(TARGET, "serial:/dev/ttyNONE7"),
    ):
        pass


@pytest.mark.parametrize(
    "text", ["serial:", "serial:ttyACM0", "serial:/dev/ttyACM0@fast", "serial:/dev/ttyACM0@0", "serial:/dev/a b"]
)
def test_an_address_that_is_no_line_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no serial line; expected serial:/dev/ttyACM0"), open_board(TARGET, text):
        pass


def test_what_the_board_lacks_is_told() -> None:
    firmware = FakeFirmware()
    with plug_in(firmware) as wire, open_board(TARGET, f"serial:{wire.path}") as board:
        assert {"time_probes", "energy", "nodes", "sustain"} == board.lacks.keys()
        with pytest.raises(DeviceError, match="firmware holds one net"):
            board.time_probes([], 1, None, ignore)  # type: ignore[arg-type]
        with pytest.raises(DeviceError, match=r'takes 100 values of int8, found 100 of float32; ship with io = "int8"'):
            board.run(model(firmware), np.zeros((2, 100), np.float32), ignore)
        with (
            pytest.raises(UsageError, match="--set-governor is for boards with an operating system"),
            open_board(TARGET, f"serial:{wire.path}", ignore, Session(set_governor=True)),
        ):
            pass


def test_a_file_is_measured_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from command_line import call

    path = tmp_path / "net.tflite"
    path.write_bytes(b"a file's bytes")
    firmware = FakeFirmware(sha256=ModelFile.of(path, "litert").sha256)
    target = tmp_path / "mine.toml"
    target.write_text('description = "a board"\nruntime = "litert"\nprecision = "int8"\n')
    with plug_in(firmware) as wire:
        code, printed, said = call("measure", path, "--target", target, "--host", f"serial:{wire.path}", "--json")
    assert code == 0, said
    assert json.loads(printed)


METER = Meter("bench supply", "command", "W", 0.01, True, 0.0, 1.0)


@pytest.fixture
def bench_supply(monkeypatch: pytest.MonkeyPatch) -> FakeFirmware:
    """Firmware of a board that draws 1 W at rest and 3 W while it infers, and a meter that sees it."""
    firmware, busy_s = FakeFirmware(ticks=2000), [0.0]

    def notice(command: bytes) -> bytes:
        if command.startswith(b"infer"):
            busy_s[0] = time.perf_counter()
        return command

    def draw_w() -> float:
        return 3.0 if time.perf_counter() - busy_s[0] < 0.1 else 1.0

    firmware.fault = notice
    monkeypatch.setattr("edgeprune.device.meters.PLUG_POLL_S", 0.01)
    for module in ("edgeprune.device.serial.energy", "edgeprune.device.meters"):
        monkeypatch.setattr(f"{module}.open_external", lambda source: (METER, lambda: polling(draw_w)))
    return firmware


def test_energy_is_what_a_meter_beside_the_board_sees_above_rest(bench_supply: FakeFirmware) -> None:
    target = replace(TARGET, power=PowerSource(COMMAND, command=("a", "meter")))
    net = model(bench_supply)
    with plug_in(bench_supply) as wire:
        _, measured = measure_files(target, f"serial:{wire.path}", [net], Session(), ignore)
    energy = measured["net"].energy
    assert energy is not None
    assert (energy.idle_w, energy.power_w) == (pytest.approx(1.0, abs=0.1), pytest.approx(3.0, abs=0.1))
    inferences = sum(int(text.partition(" ")[2]) for text in bench_supply.commands if text.startswith("infer"))
    assert 0 < energy.inferences < inferences
    assert energy.energy_mj == pytest.approx(2000 * energy.duration_s / energy.inferences, rel=0.1)


def test_without_a_meter_energy_is_no_figure_and_a_gate_on_it_is_refused() -> None:
    firmware = FakeFirmware()
    gated = replace(TARGET, gates=(Gate("energy_mj", at_most=1.0),))
    with plug_in(firmware) as wire, open_board(gated, f"serial:{wire.path}") as board:
        assert board.energy([model(firmware)], gated, ignore) == {}
        with pytest.raises(DeviceError, match="cannot measure energy: nothing over the line tells of power; name a"):
            require(board, "energy")
        with pytest.raises(TargetError, match=r"target board: a gate on energy_mj, but .*; name a meter that this"):
            board.check_power(gated)
