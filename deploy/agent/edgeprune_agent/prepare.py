"""What a board is brought to before it is timed: cores, governor, temperature. The governor is set back, come what may.

governor.json    what the governors were, while they are set
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeprune_agent.board import CPUS, find_paths, read_state, read_text
from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.files import home
from edgeprune_agent.parsers import pick_fastest

FASTEST = "fastest"
PERFORMANCE = "performance"
GOVERNORS = CPUS + "/cpufreq/scaling_governor"
GUARD = """
trap '' HUP INT TERM
cat > /dev/null
record=$1; shift
while [ $# -gt 1 ]; do
    [ "$(cat "$1")" = "$2" ] || printf %s "$2" > "$1" || failed=1
    shift 2
done
[ -z "$failed" ] && rm -f -- "$record"
"""
"""Waits until its standard input ends, at the latest with the agent; then gives each file $2 its value $3 again."""
GUARD_S = 10.0
COOLING_POLL_S = 2.0


@contextmanager
def prepared(request: dict[str, Any], root: str) -> Iterator[None]:
    """The cores and the governor that a request asks for, in the body.

    Raises:
        AgentError: the board has no such cores, or its governor cannot be set or set back.
    """
    if request.get("cores"):
        pin(find_cores(request["cores"], request["threads"], root))
    if not request.get("set_governor"):
        yield
        return
    with governor_set(PERFORMANCE, root):
        yield


def find_cores(cores: Any, threads: int, root: str) -> list[int]:
    """The cores that are named, or as many of the fastest as there are threads.

    Raises:
        AgentError: the board does not tell which are fast.
    """
    if cores != FASTEST:
        return [int(core) for core in cores]
    paths = find_paths(root, CPUS + "/cpufreq/cpuinfo_max_freq")
    fastest = pick_fastest({path.split("/")[5]: read_text(root, path) for path in paths}, threads)
    if not fastest:
        raise AgentError("request", 'cores = "fastest": this board does not tell the clocks of its cores; name them')
    return fastest


def pin(cores: list[int]) -> None:
    """Run on these cores alone, and whatever is started from here too.

    Raises:
        AgentError: the board has no such cores, or this process may not use them.
    """
    try:
        before = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores)
        affinity = sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError, ValueError, OverflowError) as exc:
        raise AgentError("request", f"cores {cores} cannot be used: {exc}; core numbers begin at 0") from exc
    if affinity != sorted(set(cores)):
        raise AgentError("request", f"cores {cores} cannot be used: there are {before}")


@contextmanager
def governor_set(governor: str, root: str) -> Iterator[None]:
    """Set the governor of every core, in the body.

    A process of its own sets them back once this one has ended, however it ends; should that be killed too, the next
    agent does. After a restart the board has its own again.

    Raises:
        AgentError: the board has none, or it cannot be set or set back.
    """
    set_back_left(root)
    before = {root + path: read_text(root, path) for path in find_paths(root, GOVERNORS)}
    if not before:
        raise AgentError("request", "this board has no frequency governor (a virtual machine?); without --set-governor")
    guard = start_guard({path: old for path, old in before.items() if old != governor})
    try:
        for path in before:
            write_governor(path, governor)
        yield
    finally:
        guard.communicate(timeout=GUARD_S)
    if guard.returncode != 0:
        raise AgentError("request", f"the governor could not be set back; it was {'+'.join(sorted(before.values()))}")


def start_guard(before: dict[str, str]) -> subprocess.Popen[bytes]:
    """Write down what the governors were, then start what sets them back."""
    record = home() / "governor.json"
    words = [word for pair in before.items() for word in pair]
    guard = subprocess.Popen(
        ["sh", "-c", GUARD, "sh", str(record), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    boot = read_text("", "/proc/sys/kernel/random/boot_id")
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps({"boot": boot, "guard": guard.pid, "before": before}), "utf-8")
    partial.replace(record)
    return guard


def write_governor(path: str, name: str) -> None:
    """Set one core's governor.

    Raises:
        AgentError: it may not, or the kernel refuses.
    """
    try:
        Path(path).write_text(name, "utf-8")
    except OSError as exc:
        remedy = "sudo chmod a+w /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor, or go without --set-governor"
        raise AgentError("request", f"{path} cannot be set to {name}: {exc.strerror}; {remedy}") from exc


def set_back_left(root: str) -> None:
    """Set back what an agent left behind that was killed together with its guard."""
    record = home() / "governor.json"
    try:
        entry = json.loads(record.read_text("utf-8"))
        guarded = str(record) in read_text("", f"/proc/{int(entry['guard'])}/cmdline")
        same_start = entry["boot"] == read_text("", "/proc/sys/kernel/random/boot_id")
        before = dict(entry["before"])
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        guarded, same_start, before = False, False, {}
    if guarded:
        return
    governor_paths = {root + path for path in find_paths(root, GOVERNORS)}
    for path, old in before.items() if same_start else ():
        if path in governor_paths and Path(path).read_text("utf-8").strip() != old:
            write_governor(path, old)
    record.unlink(missing_ok=True)


def cool_down(request: dict[str, Any], root: str, events: Events, sleep: Callable[[float], Any] = time.sleep) -> Any:
    """Wait until the board is as cool as the request asks; gives its temperature where it did not become so in time.

    Raises:
        AgentError: the board does not tell its temperature.
    """
    limit = request.get("start_temperature_c")
    if limit is None:
        return None
    end = time.monotonic() + request["max_cooldown_s"]
    while True:
        temperature_c = read_state(root).temperature_c
        if temperature_c is None:
            raise AgentError("request", "start_temperature_c: this board does not tell its temperature; leave it out")
        if temperature_c <= limit:
            return None
        if time.monotonic() >= end:
            events.progress(
                f"still {temperature_c:.1f} C, wanted {limit:g} C: gave up after {request['max_cooldown_s']:g} s"
            )
            return temperature_c
        events.progress(f"cooling down: {temperature_c:.1f} C, wanted {limit:g} C")
        sleep(COOLING_POLL_S)
