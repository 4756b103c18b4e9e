"""Who uses this board: leases beside the agent, judged by the board's own clock.

lease-work.json        held while a command works here; dead once it is not renewed (touched), or the board restarts
lease-reserved.json    a person's reservation; lasts until its end, over restarts too
lease.guard            locked while either is looked at or changed, so that of two clients one wins

Where a machine measures itself, they lie in a folder that all its users share: /var/tmp/edgeprune-leases, or the one
that the request names. Everybody may write there: nothing is followed, and nothing is written but under a new name.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from edgeprune_agent.board import read_text
from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.files import home

WORK, RESERVED = "work", "reserved"
SHARED, SHARED_NAME = (Path("/var/tmp"), Path("/tmp")), "edgeprune-leases"
"""Where every user of a machine may write, and what is there outlives a restart."""
REMEDY = "set EDGEPRUNE_LEASES to a folder that all who measure here may write to"
MOST_BYTES = 1 << 16
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
    with guarded(request):
        events.emit("result", **ACTIONS[request["action"]](request))


@contextmanager
def guarded(request: dict[str, Any]) -> Iterator[None]:
    """Nobody else looks at the leases in the body.

    Raises:
        AgentError: somebody does, for too long.
    """
    path, end = find_folder(request) / "lease.guard", time.monotonic() + GUARD_S
    guard = open_guard(path)
    try:
        while True:
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise AgentError("disk", f"{path} is locked by another process for {GUARD_S:g} s") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(guard)


def open_guard(path: Path) -> int:
    """A descriptor of the file that is locked; made where it is missing, for everybody who may enter its folder."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        guard = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        os.fchmod(guard, mode_of(path))
        return guard


def mode_of(path: Path) -> int:
    """Who may read a file among the leases: everybody where they are the whole machine's."""
    return 0o600 if path.parent == home() else 0o644


def find_folder(request: dict[str, Any]) -> Path:
    """Where the leases lie that a request is about: beside the agent, or where the whole machine has them.

    Raises:
        AgentError: the machine's folder cannot be used.
    """
    machine = request.get("machine")
    if machine is None:
        return home()
    folder = Path(machine) if machine else next(place for place in SHARED if place.is_dir()) / SHARED_NAME
    try:
        usual = os.umask(0)
        try:
            folder.mkdir(0o777, exist_ok=True)
        finally:
            os.umask(usual)
        status = folder.lstat()
    except OSError as exc:
        raise AgentError(
            "disk", f"{folder}: the leases of this machine cannot lie there: {exc.strerror}; {REMEDY}"
        ) from exc
    if not stat.S_ISDIR(status.st_mode) or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        what = "is a link" if stat.S_ISLNK(status.st_mode) else "is no folder that this user may write to"
        raise AgentError("disk", f"{folder}: {what}, so the leases of this machine cannot lie there; {REMEDY}")
    return folder


def take(request: dict[str, Any]) -> dict[str, Any]:
    """Take a lease, over a dead one or the one of `instead_of`; or say who is in the way."""
    holder = find_holder(request)
    if holder is not None:
        return {"taken": False, "holder": holder}
    path = place(request)
    replaced, now = look(path), read_clock()
    lease = {field: request[field] for field in FIELDS}
    write(path, {**lease, "boot": now.boot, "offset_s": now.wall - now.up})
    return {"taken": True, "replaced": replaced, "path": str(path)}


def find_holder(request: dict[str, Any]) -> dict[str, Any] | None:
    """The lease that keeps a request out, if there is one."""
    leases = [look(place({**request, "name": name})) for name in (RESERVED, WORK)]
    return next((holder for holder in leases if holder is not None and blocks(holder, request)), None)


def require_held(request: dict[str, Any]) -> None:
    """Require that the lease under which a request came is still its own.

    Raises:
        AgentError: it ended, ran out, or is somebody else's.
    """
    claim = request["lease"]
    holder = look(place({**claim, "name": WORK}))
    if holder is None or holder["token"] != claim["token"] or holder["left_s"] <= 0:
        raise AgentError("request", "the lease of this command is over: it was ended, or not renewed in time")


def blocks(holder: dict[str, Any], request: dict[str, Any]) -> bool:
    """Whether a lease keeps a request out: another owner's does, and of two that work the first."""
    if holder["left_s"] <= 0 or (holder["name"] == WORK and holder["token"] == request.get("instead_of")):
        return False
    return bool(holder["owner"] != request["owner"] or holder["name"] == request["name"] == WORK)


def show(request: dict[str, Any]) -> dict[str, Any]:
    """The leases that last."""
    leases = [look(place({**request, "name": name})) for name in (RESERVED, WORK)]
    return {"leases": [lease for lease in leases if lease is not None and lease["left_s"] > 0]}


def end(request: dict[str, Any]) -> dict[str, Any]:
    """End the leases of an owner."""
    ended = [lease for lease in show(request)["leases"] if lease["owner"] == request["owner"]]
    for lease in ended:
        place({**request, "name": lease["name"]}).unlink()
    return {"ended": ended, **show(request)}


ACTIONS = {"take": take, "show": show, "end": end}


def place(request: dict[str, Any]) -> Path:
    """The file of the lease that a request names.

    Raises:
        AgentError: there is no such lease.
    """
    name = request["name"]
    if name not in (WORK, RESERVED):
        raise AgentError("request", f"{name!r} is no lease")
    return find_folder(request) / f"lease-{name}.json"


def look(path: Path) -> dict[str, Any] | None:
    """A lease with its `name` and `left_s`; None where there is none, or what is there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        try:
            content = json.loads(file.read(MOST_BYTES)) if stat.S_ISREG(status.st_mode) else None
        except (OSError, ValueError, RecursionError):
            return None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in WRITTEN.items()):
        return None
    name = path.stem[len("lease-") :]
    return {**content, "name": name, "left_s": seconds_left(name, content, status.st_mtime, read_clock())}


def write(path: Path, lease: dict[str, Any]) -> None:
    """Write a lease whole."""
    partial = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode_of(path))
            file.write(json.dumps(lease))
        partial.replace(path)
    except OSError as exc:
        with suppress(OSError):
            partial.unlink()
        raise OSError(exc.errno, exc.strerror, str(path)) from exc
