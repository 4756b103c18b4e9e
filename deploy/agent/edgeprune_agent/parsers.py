"""What a board says of itself: pure parsers of its files and of what its commands print."""

from __future__ import annotations

import re
from typing import Any

THROTTLE_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
ARM_CORES = {
    "0xb76": "ARM1176", "0xc07": "Cortex-A7", "0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57", "0xd08": "Cortex-A72", "0xd09": "Cortex-A73", "0xd0a": "Cortex-A75", "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1", "0xd40": "Neoverse-V1", "0xd41": "Cortex-A78", "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1", "0xd46": "Cortex-A510", "0xd47": "Cortex-A710", "0xd49": "Neoverse-N2",
}  # fmt: skip
"""Arm's CPU part numbers as /proc/cpuinfo shows them (technical reference manuals, MIDR_EL1)."""


def parse_cpuinfo(text: str) -> dict[str, Any]:
    """Name, flags, board model and clocks in MHz from /proc/cpuinfo of x86 or ARM."""
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), []).append(value.strip())
    parts = fields.get("CPU part", [])
    cores = [f"{parts.count(part)}x {ARM_CORES.get(part, 'Arm part ' + part)}" for part in sorted(set(parts))]
    flags = (fields.get("flags") or fields.get("Features") or [""])[0].split()
    return {
        "cpu": " + ".join(cores) or (fields.get("model name") or [""])[0],
        "cpu_flags": sorted(set(flags)),
        "model": (fields.get("Model") or [""])[0],
        "mhz": [float(value) for value in fields.get("cpu MHz", []) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", value)],
    }


def parse_kib(text: str, name: str) -> int | None:
    """The figure of a `Name:  123 kB` line of /proc/meminfo or /proc/PID/status, in KiB."""
    match = re.search(rf"^{re.escape(name)}:\s+([0-9]{{1,15}}) kB\s*$", text, re.MULTILINE)
    return int(match.group(1)) if match else None


def parse_os_release(text: str) -> str:
    """PRETTY_NAME of /etc/os-release."""
    match = re.search(r"^PRETTY_NAME=(.*)$", text, re.MULTILINE)
    return match.group(1).strip().strip("\"'") if match else ""


def parse_load(text: str) -> float | None:
    """The one-minute load of /proc/loadavg."""
    match = re.match(r"[0-9]{1,6}\.[0-9]{1,6}\b", text)
    return float(match.group()) if match else None


def parse_busy_ticks(text: str) -> tuple[int | None, int | None]:
    """Ticks that all cores together were at work, and those that a hypervisor took, from /proc/stat (proc(5)).

    The columns are user, nice, system, idle, iowait, irq, softirq, steal, guest and guest_nice; guests are in user.
    """
    match = re.match(r"cpu ((?: [0-9]{1,18}){7,10})(?:\n|$)", text)
    if match is None:
        return None, None
    ticks = [int(word) for word in match.group(1).split()]
    stolen = ticks[7] if len(ticks) > 7 else 0
    return sum(ticks[:3]) + sum(ticks[5:7]) + stolen, stolen


def parse_stall_us(text: str) -> int | None:
    """Microseconds in which some task waited for a core, from /proc/pressure/cpu (kernel.org, accounting/psi)."""
    match = re.search(r"^some .*total=([0-9]{1,18})$", text, re.MULTILINE)
    return int(match.group(1)) if match else None


def parse_process_ticks(text: str) -> tuple[int, str, int] | None:
    """Number, name and ticks of processor time of a process, from /proc/PID/stat, whose name may hold anything."""
    match = re.match(r"([0-9]{1,9}) \((.*)\) \S(?: -?[0-9]{1,20}){10} ([0-9]{1,18}) ([0-9]{1,18}) ", text, re.DOTALL)
    if match is None:
        return None
    return int(match.group(1)), match.group(2), int(match.group(3)) + int(match.group(4))


def parse_throttled(text: str) -> int | None:
    """The bits of `vcgencmd get_throttled`: 0 to 3 say what is now, 16 to 19 what was since boot."""
    match = re.search(r"throttled=0x([0-9a-fA-F]{1,8})\b", text)
    return int(match.group(1), 16) if match else None


def describe_throttled(before: int, after: int) -> list[str]:
    """What held at the start or the end, or was newly recorded between."""
    bits = (before | after | (after & ~before) >> 16) & 0xF
    return [name for place, name in enumerate(THROTTLE_BITS) if bits >> place & 1]


def pick_temperature(zones: list[tuple[str, str]]) -> float | None:
    """The hottest believable thermal zone of the processor, else of any, in degrees Celsius.

    `zones` are pairs of a zone's type and its reading in thousandths of a degree.
    """
    readings = [(kind.lower(), int(text) / 1000) for kind, text in zones if re.fullmatch(r"-?[0-9]{1,7}", text)]
    sane = [(kind, value) for kind, value in readings if -30 < value < 150]
    of_cpu = [value for kind, value in sane if re.search(r"cpu|soc|pkg|core|acpitz", kind)]
    return max(of_cpu or [value for _, value in sane], default=None)


def pick_fastest(clocks: dict[str, str], count: int) -> list[int]:
    """Numbers of the fastest cores, by the highest clock in kHz of each `cpuN`; of equal ones the last.

    The first core of a kind is where the kernel puts most interrupts.
    """
    cores = [(int(khz), int(name[3:])) for name, khz in clocks.items() if re.fullmatch(r"[0-9]{1,9}", khz)]
    return sorted(number for _, number in sorted(cores, reverse=True)[:count])
