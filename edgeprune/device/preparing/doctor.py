"""Examining a board: one command that needs neither room nor Python there, and the judgement of what it prints."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from dataclasses import replace

from edgeprune.core.boards.doctor import Finding, Purpose, find_drift_s, judge_board, parse_board
from edgeprune.core.formats import RUNTIMES
from edgeprune.core.target import Target
from edgeprune.device.board import refuse_untimed
from edgeprune.device.connect import VENV, open_transport
from edgeprune.device.transports.transport import SHELL_REMEDY, plain
from edgeprune.errors import DeviceError

SILENCE_S = 120.0
"""Importing a runtime from a slow SD card takes a while."""
DESCRIBE = """
import importlib, importlib.metadata, json, platform, sys
runtimes, broken = {}, {}
for name, module in json.loads(sys.argv[1]).items():
    try:
        runtimes[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        continue
    try:
        importlib.import_module(module)
    except Exception as exc:
        broken[name] = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
print()
facts = {"path": sys.executable, "version": platform.python_version(), "runtimes": runtimes, "broken": broken}
print(json.dumps(facts))
"""
COLLECT = r"""
exec 2>/dev/null
section() { printf '\n== %s\n' "$1"; }
section begun; date +%s
section machine; uname -m
section glibc; getconf GNU_LIBC_VERSION || ldd --version | head -n 1 | grep -i -e glibc -e 'gnu libc'
section cores; getconf _NPROCESSORS_ONLN
section governor; cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor
section throttled; vcgencmd get_throttled
section memory; cat /proc/meminfo
section load; cat /proc/loadavg
place=$HOME/.cache/edgeprune/board
while [ ! -d "$place" ]; do place=${place%/*}; [ -n "$place" ] || place=/; done
section disk; df -Pk -- "$place"
mount=$(df -Pk -- "$place" | sed -n '2s/.*% *//p')
section place; echo "$place"; if [ -w "$place" ]; then echo writable; else echo closed; fi
grep -F -- " $mount " /proc/mounts | tail -n 1 | cut -d ' ' -f 4
section temperature; cat /sys/class/thermal/thermal_zone*/temp /sys/class/hwmon/hwmon*/temp*_input
section power; cat /sys/class/hwmon/hwmon*/name
ls /sys/bus/i2c/drivers | grep '^ina'; ls /sys/class/powercap | grep rapl | sed 's/^.*rapl.*$/rapl/'
vcgencmd pmic_read_adc | grep -q current && echo pmic
section python
describe=$1 modules=$2
shift 2
for python in "$@"; do
    case $python in "~/"*) python=$HOME/${python#"~/"} ;; esac
    command -v -- "$python" >/dev/null || continue
    "$python" -I -B -c "$describe" "$modules" </dev/null && break
done
section ended; date +%s
"""
"""Describes the board in sections; $1 is the program for Python, $2 its modules, the rest are interpreters to try."""


def examine_board(target: Target, host: str | None) -> tuple[str, list[Finding]]:
    """What is wrong with a target's board, the worst first, with the board's address.

    Raises:
        TargetError: no address is known.
        DeviceError: it cannot be reached, or runs no commands.
    """
    refuse_untimed(target)
    modules_by_package = {
        package.name: package.module for name in target.runtimes for package in RUNTIMES[name].packages
    }
    packages, modules = tuple(modules_by_package), json.dumps(modules_by_package)
    with closing(open_transport(target.name, host)) as transport:
        local = transport.name == "local"
        usual = [sys.executable] if local else [f"{VENV}/bin/python", "python3"]
        interpreters = [target.python] if target.python else usual
        begun = time.time()
        command = ["sh", "-c", COLLECT, "sh", DESCRIBE, modules, *interpreters]
        completed = transport.run(command, timeout_s=SILENCE_S)
        ended = time.time()
        text = plain(completed.stdout.decode(errors="replace"))
        if "== ended" not in text:
            raise DeviceError(
                f"{transport.host}: does not run commands as a board does: {text.strip()[:200]!r}; {SHELL_REMEDY}"
            )
        setup = f"edgeprune devices setup {target.option} --host {transport.host}"
    state = replace(parse_board(text), noise=completed.noise)
    remedy = f"pip install {packages[0]}" if local else setup
    return transport.host, judge_board(state, Purpose(packages, remedy, find_drift_s(state.times, begun, ended)))
