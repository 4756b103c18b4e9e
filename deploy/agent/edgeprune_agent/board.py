"""Reading the board: its facts, and its state around a measurement."""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from edgeprune_agent.parsers import (
    parse_cpuinfo,
    parse_kib,
    parse_load,
    parse_os_release,
    parse_throttled,
    pick_temperature,
)

CPUS = "/sys/devices/system/cpu/cpu[0-9]*"


def read_text(root: str, path: str) -> str:
    """A file of the board, without the zero bytes of device trees; empty where there is none."""
    try:
        return Path(root + path).read_text("utf-8", "replace").replace("\0", "").strip()
    except OSError:
        return ""


def find_paths(root: str, pattern: str) -> list[str]:
    """Paths that match, below the root and without it, in order."""
    return sorted(str(path)[len(root) :] for path in Path(root or "/").glob(pattern.lstrip("/")))


def read_numbers(root: str, pattern: str) -> list[int]:
    """Whole numbers of all files that match."""
    texts = [read_text(root, path) for path in find_paths(root, pattern)]
    return [int(text) for text in texts if re.fullmatch(r"-?[0-9]{1,18}", text)]


def read_facts(root: str) -> dict[str, Any]:
    """What this board is, but for its address, runtimes and power meter."""
    cpu = parse_cpuinfo(read_text(root, "/proc/cpuinfo"))
    maker = " ".join(read_text(root, f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    clocks = read_numbers(root, CPUS + "/cpufreq/cpuinfo_max_freq")
    return {
        "machine": platform.machine(),
        "model": read_text(root, "/proc/device-tree/model") or cpu["model"] or maker.strip(),
        "cpu": cpu["cpu"] or platform.processor(),
        "cores": os.cpu_count() or 1,
        "cpu_flags": cpu["cpu_flags"],
        "memory_mib": (parse_kib(read_text(root, "/proc/meminfo"), "MemTotal") or 0) // 1024,
        "os": parse_os_release(read_text(root, "/etc/os-release")) or platform.platform(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "max_mhz": max(clocks) // 1000 if clocks else None,
    }


class State(NamedTuple):
    """The board at one moment."""

    mhz: float | None
    temperature_c: float | None
    load: float | None
    throttle_bits: int
    throttle_events: int


def read_state(root: str) -> State:
    """Clock (mean over the cores), temperature, load, and the firmware's and the kernel's signs of throttling."""
    clocks = [khz / 1000 for khz in read_numbers(root, CPUS + "/cpufreq/scaling_cur_freq")]
    clocks = clocks or parse_cpuinfo(read_text(root, "/proc/cpuinfo"))["mhz"]
    zones = find_paths(root, "/sys/class/thermal/thermal_zone*")
    readings = [(read_text(root, f"{zone}/type"), read_text(root, f"{zone}/temp")) for zone in zones]
    return State(
        mhz=round(statistics.mean(clocks), 1) if clocks else None,
        temperature_c=pick_temperature(readings),
        load=parse_load(read_text(root, "/proc/loadavg")),
        throttle_bits=read_throttle_bits(),
        throttle_events=sum(read_numbers(root, CPUS + "/thermal_throttle/*_throttle_count")),
    )


def read_throttle_bits() -> int:
    """What a Raspberry Pi's firmware says; 0 elsewhere."""
    command = shutil.which("vcgencmd")
    if command is None:
        return 0
    try:
        process = subprocess.run([command, "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return parse_throttled(process.stdout) or 0


def read_governor(root: str) -> str:
    """The frequency governors of the cores, each once."""
    paths = find_paths(root, CPUS + "/cpufreq/scaling_governor")
    return "+".join(sorted({read_text(root, path) for path in paths}))


def read_peak_mib() -> float | None:
    """The most memory that this process had resident, in MiB."""
    peak = parse_kib(read_text("", "/proc/self/status"), "VmHWM")
    return peak / 1024 if peak else None
