"""The commands of a firmware, in the manner of MLPerf Tiny's (docs/serial.md), and what their answers say.

MLPerf Tiny's: github.com/eembc/energyrunner, "Device under test interface". What is carried is told with its CRC-32.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.device.serial.line import Line, LineFault
from edgeprune.errors import DeviceError, RemoteError

PROFILE = "edgeprune 1"
FIELD = re.compile(r"m-([a-z-]+)-\[(.*)\]")
CHUNK = 64
"""Bytes that one command carries."""
MOST_RUNS = 64
"""Inferences of one command: the firmware keeps the time of each."""
NET_FAILED = "e-[the net failed"
MOST_BYTES, MOST_HZ = 1 << 24, 10**10


@dataclass(frozen=True)
class Firmware:
    """What a firmware says of itself: `model_sha256` is that of the .tflite file that it was made from.

    `tick_hz` is how often its counter counts in a second.
    """

    board: str
    model_sha256: str
    runtime: str
    input_bytes: int
    output_bytes: int
    tick_hz: int


def identify(line: Line) -> Firmware:
    """Ask the firmware what it is.

    Raises:
        DeviceError: it is none of edgeprune's.
        LineFault: what came was garbled.
    """
    fields = read_fields(line.ask("name"))
    if "name-dut" not in fields or "profile" not in fields:
        raise LineFault(f"{line.name}: it does not say its name and profile; found {sorted(fields)}")
    if fields["profile"] != PROFILE:
        raise DeviceError(
            f"{line.name}: another firmware answers: {fields['name-dut']!r} with profile {fields['profile']!r}, "
            f"expected {PROFILE!r}; flash one that `deploy/firmware` is part of (docs/serial.md)"
        )
    return Firmware(
        board=fields["name-dut"],
        model_sha256=fields.get("model", ""),
        runtime=fields.get("runtime", ""),
        input_bytes=_count(fields, "input-bytes", MOST_BYTES, line),
        output_bytes=_count(fields, "output-bytes", MOST_BYTES, line),
        tick_hz=_count(fields, "tick-hz", MOST_HZ, line),
    )


def load(line: Line, values: np.ndarray) -> None:
    """Bring the input there, int8 in one dimension.

    Raises:
        LineFault: bytes were lost.
        RemoteError: it takes an input of another size.
    """
    data = values.astype(np.int8, casting="same_kind", copy=False).tobytes()
    line.ask(f"db load {len(data)}")
    for start in range(0, len(data), CHUNK):
        end = min(start + CHUNK, len(data))
        fields = read_fields(line.ask(f"db {data[start:end].hex()}"))
        came = _count(fields, "loaded", MOST_BYTES, line), _count(fields, "crc", 1 << 32, line)
        if came != (end, zlib.crc32(data[:end])):
            raise LineFault(f"{line.name}: bytes of the input were lost: {came[0]} of {end} came, or others")


def infer(line: Line, runs: int, inference_s: float) -> tuple[int, ...]:
    """Ticks that each of so many inferences took; `inference_s` is the longest that one may take.

    Raises:
        LineFault: no answer in that time, or a garbled one.
        RemoteError: the firmware refuses.
        DeviceError: the net failed there.
    """
    try:
        fields = read_fields(line.ask(f"infer {runs}", runs * inference_s))
    except RemoteError as exc:
        raise DeviceError(str(exc)) if NET_FAILED in str(exc) else exc from exc
    try:
        ticks = tuple(int(text) for text in fields.get("ticks", "").split(","))
        crc = zlib.crc32(np.array(ticks, dtype="<u4").tobytes())
    except (ValueError, OverflowError):
        ticks, crc = (), -1
    if len(ticks) != runs or crc != _count(fields, "crc", 1 << 32, line):
        raise LineFault(f"{line.name}: the times of {runs} inferences came garbled")
    return ticks


def read_output(line: Line, firmware: Firmware) -> np.ndarray:
    """The output of the last inference, int8 in one dimension.

    Raises:
        LineFault: it came garbled.
    """
    fields = read_fields(line.ask("results"))
    try:
        data = bytes.fromhex(fields.get("results", ""))
    except ValueError:
        data = b""
    if len(data) != firmware.output_bytes or zlib.crc32(data) != _count(fields, "crc", 1 << 32, line):
        raise LineFault(f"{line.name}: the output came garbled")
    return np.frombuffer(data, np.int8)


def read_fields(answer: Sequence[str]) -> dict[str, str]:
    """Lines `m-NAME-[VALUE]` of an answer by name; other lines are no fields."""
    return {match[1]: match[2] for match in map(FIELD.fullmatch, answer) if match}


def _count(fields: dict[str, str], name: str, most: int, line: Line) -> int:
    """A number of a field; LineFault where it is none."""
    text = fields.get(name, "")
    if not re.fullmatch("[0-9]{1,12}", text) or int(text) > most:
        raise LineFault(f"{line.name}: {name} came garbled: {text[:40]!r}")
    return int(text)
