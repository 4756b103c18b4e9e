"""What is wrong with a board: its state as one command prints it, and the judgement of that state.

Whatever a board does not tell is no finding, but for what a measurement needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeprune.core.formats import list_packages

ERROR, WARNING, NOTE = "error", "warning", "note"
MIN_PYTHON = (3, 8)
THROTTLED = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
"""Bits 0 to 3 of `vcgencmd get_throttled` are now, 16 to 19 since the start (Raspberry Pi documentation)."""
POWER_CHIPS = ("ina", "amc", "rapl", "pmic")
DRIFT_S = 5.0
FULL_MIB, NEARLY_FULL_MIB, NEARLY_FULL_SHARE = 64, 500, 0.05
SWAP_MIB = 16
HOT_C = 75.0
BUSY = 0.5
SECTION = re.compile(r"^== ([a-z]+)$", re.MULTILINE)
NUMBER = re.compile(r"-?[0-9]{1,15}")


@dataclass(frozen=True)
class BoardState:
    """What a board tells of itself; None or empty where it does not. `times` are s since 1970, at both ends."""

    times: tuple[int, ...] = ()
    machine: str = ""
    glibc: tuple[int, ...] = ()
    cores: int | None = None
    governors: tuple[str, ...] = ()
    throttle_bits: int | None = None
    swap_used_mib: float | None = None
    load: float | None = None
    disk_free_mib: float | None = None
    disk_mib: float | None = None
    temperatures_c: tuple[float, ...] = ()
    power_meters: tuple[str, ...] = ()
    python: str = ""
    python_version: tuple[int, ...] = ()
    runtimes: Mapping[str, str] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    """Why an installed runtime does not load, by name."""
    noise: str = ""
    """What its login shell prints before a command."""
    place: str = ""
    """Where edgeprune's folder lies or would be made, and in `place_is` whether it can be used for that."""
    place_is: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. An "error" keeps a board from being used, a "warning" makes its figures doubtful."""

    severity: str
    what: str
    remedy: str

    def describe(self) -> str:
        """For people, in two lines."""
        return f"{self.severity:8} {self.what}\n{'':8} mend: {self.remedy}"


@dataclass(frozen=True)
class Purpose:
    """What a board is wanted for: the packages of which one must be there, and the command that installs it.

    `drift_s` is by how much its clock is at least off, seen from here; positive where it is ahead.
    """

    packages: tuple[str, ...]
    setup: str
    drift_s: float = 0.0


def parse_board(text: str) -> BoardState:
    """Read what the command of device/preparing/doctor.py prints; what cannot be read is left out."""
    names = SECTION.split(text)
    parts = {name: body.strip() for name, body in zip(names[1::2], names[2::2], strict=False)}
    begun, ended = _numbers(parts.get("begun", "")), _numbers(parts.get("ended", ""))
    free, total = _parse_disk(parts.get("disk", ""))
    python = _parse_json(parts.get("python", ""))
    load = re.match(r"[0-9]{1,6}\.[0-9]{1,3}\b", parts.get("load", ""))
    bits = re.search(r"throttled=0x([0-9a-fA-F]{1,8})\b", parts.get("throttled", ""))
    return BoardState(
        times=(begun[0], ended[0]) if begun and ended else (),
        machine=parts.get("machine", ""),
        glibc=_parse_version(parts.get("glibc", "")),
        cores=next(iter(_numbers(parts.get("cores", ""))), None),
        governors=tuple(sorted(set(parts.get("governor", "").split()))),
        throttle_bits=int(bits.group(1), 16) if bits else None,
        swap_used_mib=_parse_swap(parts.get("memory", "")),
        load=float(load.group()) if load else None,
        disk_free_mib=free,
        disk_mib=total,
        temperatures_c=tuple(
            reading / 1000 for reading in _numbers(parts.get("temperature", "")) if 0 < reading < 200_000
        ),
        power_meters=tuple(
            sorted({chip for chip in parts.get("power", "").split() if chip.lower().startswith(POWER_CHIPS)})
        ),
        place=parts.get("place", "").partition("\n")[0],
        place_is=tuple(re.split(r"[\n,]", parts.get("place", ""))[1:]),
        python=str(python.get("path", "")),
        python_version=_parse_version(str(python.get("version", ""))),
        runtimes=_texts(python.get("runtimes")),
        broken=_texts(python.get("broken")),
    )


def find_drift_s(times: tuple[int, ...], begun_s: float, ended_s: float) -> float:
    """By how much a board's clock is off at least, given ours around its answer; 0 where it may be right."""
    if not times:
        return 0.0
    behind, ahead = begun_s - (times[0] + 1), times[1] - ended_s
    return -behind if behind > 0 else max(0.0, ahead)


def judge_board(state: BoardState, purpose: Purpose) -> list[Finding]:
    """What is wrong, the worst first."""
    findings = [
        *_judge_runtime(state, purpose),
        *_judge_place(state, purpose),
        *_judge_speed(state),
        *_judge_sensors(state),
    ]
    findings += _judge_shell(state)
    return sorted(findings, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.severity))


def _judge_runtime(state: BoardState, purpose: Purpose) -> Iterator[Finding]:
    if not state.python:
        yield Finding(
            ERROR, "no Python 3 that runs", "install python3 (3.8 or newer); on Debian: apt install python3-venv"
        )
        return
    if state.python_version < MIN_PYTHON:
        version = ".".join(map(str, state.python_version))
        yield Finding(ERROR, f"Python {version} is too old; 3.8 or newer is needed", "install a newer system or Python")
    present = [name for name in purpose.packages if name in state.runtimes]
    if present and present[0] in state.broken:
        fault = f"{present[0]} {state.runtimes[present[0]]} is installed but does not load: {state.broken[present[0]]}"
        yield Finding(ERROR, fault, f"install it anew: {purpose.setup}")
    if not present:
        yield Finding(ERROR, f"{' or '.join(purpose.packages)} is not installed for {state.python}", purpose.setup)
    if not present or present[0] in state.broken:
        yield from _judge_glibc(state, purpose)


def _judge_glibc(state: BoardState, purpose: Purpose) -> Iterator[Finding]:
    needed = min(package.min_glibc for name, package in list_packages().items() if name in purpose.packages)
    text = ".".join(map(str, needed))
    if not state.glibc:
        remedy = "use a system with glibc, such as Debian or Ubuntu"
        yield Finding(WARNING, f"no glibc was found; wheels of {purpose.packages[0]} need {text}", remedy)
    elif state.glibc < needed:
        version = ".".join(map(str, state.glibc))
        remedy = "install a newer system: Debian 10 has 2.28, Debian 11 2.31, Debian 12 2.36"
        yield Finding(
            ERROR, f"glibc {version} is too old for the wheels of {purpose.packages[0]}: {text} or newer", remedy
        )


def _judge_place(state: BoardState, purpose: Purpose) -> Iterator[Finding]:
    if "ro" in state.place_is:
        remedy = "sudo mount -o remount,rw THAT DISK; one that became so by itself may be failing (dmesg)"
        yield Finding(ERROR, f"{state.place} is on a disk that is mounted read-only", remedy)
    elif "closed" in state.place_is:
        remedy = "log in as a user that has a home there, or: sudo chown -R THE USER of that folder"
        yield Finding(ERROR, f"{state.place} cannot be written by this user", remedy)
    if "noexec" in state.place_is:
        remedy = "sudo mount -o remount,exec THAT DISK, or a link there to a folder on another disk"
        fault = f"{state.place} is on a disk that runs no programs (noexec): a runtime there does not load"
        yield Finding(WARNING if state.runtimes and not state.broken else ERROR, fault, remedy)
    if state.disk_free_mib is not None and state.disk_mib:
        nearly = min(NEARLY_FULL_MIB, NEARLY_FULL_SHARE * state.disk_mib)
        severity = ERROR if state.disk_free_mib < FULL_MIB else WARNING if state.disk_free_mib < nearly else ""
        if severity:
            fault = f"disk nearly full: {state.disk_free_mib:.0f} MiB of {state.disk_mib:.0f} MiB are free"
            yield Finding(severity, fault, "make room there; old releases go with `edgeprune release prune`")
    if abs(purpose.drift_s) > DRIFT_S:
        way = "ahead of" if purpose.drift_s > 0 else "behind"
        fault = f"its clock is at least {abs(purpose.drift_s):.0f} s {way} this machine's"
        yield Finding(WARNING, fault, "let it follow a time server: sudo timedatectl set-ntp true")
    if state.swap_used_mib is not None and state.swap_used_mib > SWAP_MIB:
        fault = f"swap in use: {state.swap_used_mib:.0f} MiB; a model that is swapped out is slow at random"
        yield Finding(WARNING, fault, "end other programs, then: sudo swapoff -a && sudo swapon -a")


def _judge_speed(state: BoardState) -> Iterator[Finding]:
    slow = [name for name in state.governors if name != "performance"]
    if slow:
        remedy = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding(WARNING, f"the frequency governor is {'+'.join(slow)}: clocks vary with the load", remedy)
    bits = state.throttle_bits or 0
    current = [name for bit, name in enumerate(THROTTLED) if bits >> bit & 1]
    before = [name for bit, name in enumerate(THROTTLED) if bits >> (bit + 16) & 1 and name not in current]
    for names, period in ((current, "now"), (before, "since it was started")):
        if names:
            remedy = "a power supply and cable that hold 5 V" if THROTTLED[0] in names else "cool it: heat sink or fan"
            yield Finding(WARNING, f"the firmware says {', '.join(names)} {period}", f"{remedy}; then restart it")
    hottest = max(state.temperatures_c, default=0.0)
    if hottest >= HOT_C:
        yield Finding(WARNING, f"hot: {hottest:.0f} C before anything was run", "cool it: heat sink, fan, or wait")
    if state.load is not None and state.load > BUSY:
        fault = f"busy in the last minute: load {state.load:.2f} on {state.cores or 'unknown'} cores"
        yield Finding(WARNING, fault, "see what runs (top) and end it; if a run has just ended, ask again in a minute")


def _judge_shell(state: BoardState) -> Iterator[Finding]:
    if state.noise:
        noise = " ".join("".join(char if char.isprintable() else " " for char in state.noise).split())
        remedy = "print in interactive shells only: in ~/.bashrc below `case $- in *i*) ;; *) return ;; esac`"
        yield Finding(NOTE, f"the login shell prints text, which breaks scp and rsync: {noise[:80]!r}", remedy)


def _judge_sensors(state: BoardState) -> Iterator[Finding]:
    if not state.governors:
        remedy = "on a virtual machine nothing; else see that the kernel has cpufreq"
        yield Finding(NOTE, "the frequency governor cannot be seen", remedy)
    if not state.temperatures_c:
        yield Finding(NOTE, "no temperature sensor", "watch for drift in the measurements instead")
    if not state.power_meters:
        yield Finding(
            NOTE, "no power sensor: energy cannot be measured", "connect a power meter, and name it in the target"
        )


def render_findings(host: str, findings: list[Finding]) -> str:
    """For people: each finding with how to mend it, and a last line that sums up."""
    counts = {
        severity: sum(finding.severity == severity for finding in findings) for severity in (ERROR, WARNING, NOTE)
    }
    summary = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count)
    return "\n".join([*(finding.describe() for finding in findings), f"{host}: {summary or 'nothing is wrong'}"])


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split() if NUMBER.fullmatch(word)]


def _parse_version(text: str) -> tuple[int, ...]:
    match = re.search(r"([0-9]{1,3})\.([0-9]{1,3})", text)
    return tuple(map(int, match.groups())) if match else ()


def _parse_disk(text: str) -> tuple[float | None, float | None]:
    """Free and whole MiB from `df -Pk`."""
    match = re.search(r"\s([0-9]{1,15})\s+[0-9]+\s+([0-9]{1,15})\s+[0-9]+%", text)
    return (int(match[2]) / 1024, int(match[1]) / 1024) if match else (None, None)


def _parse_swap(text: str) -> float | None:
    kib = dict(re.findall(r"^(SwapTotal|SwapFree):\s+([0-9]{1,15}) kB$", text, re.MULTILINE))
    return (int(kib["SwapTotal"]) - int(kib["SwapFree"])) / 1024 if len(kib) == 2 else None


def _parse_json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text.splitlines()[-1]) if text else {}
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(key): "".join(char for char in str(text)[:300] if char.isprintable()) for key, text in value.items()}
