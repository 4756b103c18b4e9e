"""Where and with what a benchmark was run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path


def describe_machine(packages: Sequence[str]) -> dict[str, str]:
    """The processor, Python and the versions of packages; every benchmark uses one thread unless it says otherwise."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    cpus = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    python = {"cpu": (cpus or [platform.machine()])[0], "threads": "1", "python": platform.python_version()}
    return python | {name: version(name) for name in packages}


def cpu_flags() -> list[str]:
    """What this processor can do, as Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
