"""Who uses this board: leases beside the agent, judged by the board's own clock.

lease-work.json        held while a command works here; dead once it is not renewed (touched), or the board restarts
lease-reserved.json    a person's reservation; lasts until its end, over restarts too
lease.guard            locked while either is looked at or changed, so that of two clients one wins
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edgeprune_agent.board import read_text
from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.files import home

WORK, RESERVED = "work", "reserved"
GUARD_S = 10.0
SLACK_S = 2.0
"""A lease may seem to be of the future by so much."""
FIELDS: dict[str, Any] = {"token": str, "owner": str, "reason": str, "ttl_s": (int, float), "client": dict}
"""What a request says of a lease."""
WRITTEN: dict[str, Any] = {**FIELDS, "boot": str, "offset_s": (int, float)}
"""What its file says."""


class Clock(NamedTuple):
    """The board's time: `wall` since 1970 and `up` since it started, in s; `boot` names that start."""

    wall: float
    up: float
    boot: str


def read_clock() -> Clock:
    """The time now; without Linux's clock, `up` stands still with the wall clock."""
    wall = time.time()
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    up = time.clock_gettime(boottime) if boottime is not None else wall
    return Clock(wall, up, read_text("", "/proc/sys/kernel/random/boot_id"))


def seconds_left(name: str, lease: dict[str, Any], renewed: float, now: Clock) -> float:
    """How long a lease still lasts, 0 where it is dead; `renewed` is the wall clock when it was last touched.

    Where the wall clock was set since the lease was taken, its age is also counted by the clock as it was.
    """
    same_start = lease["boot"] == now.boot
    if name == WORK and not same_start:
        return 0.0
    jump = now.wall - now.up - lease["offset_s"] if same_start else 0.0
    ages = (now.wall - renewed, now.wall - jump - renewed)
    return float(max([0.0, *(lease["ttl_s"] - age for age in ages if age >= -SLACK_S)]))


def lease(request: dict[str, Any], root: str, events: Events) -> None:
    """Take, show or end a lease; the result says what came of it."""
    with guarded():
        events.emit("result", **ACTIONS[request["action"]](request))


@contextmanager
def guarded() -> Iterator[None]:
    """Nobody else looks at the leases in the body.

    Raises:
        AgentError: somebody does, for too long.
    """
    end = time.monotonic() + GUARD_S
    with (home() / "lease.guard").open("a") as guard:
        while True:
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise AgentError("disk", f"{guard.name} is locked by another process for {GUARD_S:g} s") from None
                time.sleep(0.05)
        yield


def take(request: dict[str, Any]) -> dict[str, Any]:
    """Take a lease, over a dead one or the one of `instead_of`; or say who is in the way."""
    for other in (RESERVED, WORK):
        found = look(other)
        if found is not None and blocks(found, request):
            return {"taken": False, "holder": found}
    name = request["name"]
    replaced, now = look(name), read_clock()
    lease = {field: request[field] for field in FIELDS}
    write(name, {**lease, "boot": now.boot, "offset_s": now.wall - now.up})
    return {"taken": True, "replaced": replaced, "path": str(place(name))}


def blocks(found: dict[str, Any], request: dict[str, Any]) -> bool:
    """Whether a lease keeps a request out: another owner's does, and of two that work the first."""
    if found["left_s"] <= 0 or (found["name"] == WORK and found["token"] == request.get("instead_of")):
        return False
    return bool(found["owner"] != request["owner"] or found["name"] == request["name"] == WORK)


def show(request: dict[str, Any]) -> dict[str, Any]:
    """The leases that last."""
    return {"leases": [found for found in map(look, (RESERVED, WORK)) if found is not None and found["left_s"] > 0]}


def end(request: dict[str, Any]) -> dict[str, Any]:
    """End the leases of an owner."""
    ended = [found for found in show(request)["leases"] if found["owner"] == request["owner"]]
    for found in ended:
        place(found["name"]).unlink()
    return {"ended": ended, **show(request)}


ACTIONS = {"take": take, "show": show, "end": end}


def place(name: str) -> Path:
    """The file of a lease.

    Raises:
        AgentError: there is no such lease.
    """
    if name not in (WORK, RESERVED):
        raise AgentError("request", f"{name!r} is no lease")
    return home() / f"lease-{name}.json"


def look(name: str) -> dict[str, Any] | None:
    """A lease with its `name` and `left_s`; None where there is none, or what is there is none."""
    path = place(name)
    try:
        found, renewed = json.loads(path.read_text("utf-8")), path.stat().st_mtime
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or not all(isinstance(found.get(key), kind) for key, kind in WRITTEN.items()):
        return None
    return {**found, "name": name, "left_s": seconds_left(name, found, renewed, read_clock())}


def write(name: str, lease: dict[str, Any]) -> None:
    """Write a lease whole."""
    partial = place(name).with_suffix(".partial")
    partial.write_text(json.dumps(lease), "utf-8")
    partial.replace(place(name))
