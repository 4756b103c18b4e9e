"""Leases of a board without Python: the files that the agent keeps, read and written by its shell and judged here.

Both kinds of client see each other: one that measures by the agent, and one that measures by benchmark_model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edgeprune.core.answers import number, text
from edgeprune.device.transports.commands import SHORT_S, cannot_write
from edgeprune.device.transports.transport import Transport
from edgeprune.errors import RemoteError

REMOTE_WORKSPACE = ".cache/edgeprune/board"
"""Where the agent and the leases lie on a board, from its home on."""
WORK, RESERVED = "work", "reserved"
SLACK_S = 2.0
TRIES = 5
FASTER = 3
LOOK = """
umask 077
mkdir -p -- "$1" && cd -- "$1" || exit 1
echo "clock=$(date +%s) $(cut -d ' ' -f 1 /proc/uptime) $(cat /proc/sys/kernel/random/boot_id)"
for name in reserved work; do
    file=lease-$name.json
    [ -f "$file" ] || continue
    echo "$name=$(date -r "$file" +%s) $(sha256sum < "$file" | cut -c 1-64) $(cat "$file")"
done
"""
"""Says the board's clocks, and of each lease in folder $1 when it was touched, its hash and what it says."""
TAKE = """
cd -- "$1" || exit 1
umask 077
(
    flock 9 2>/dev/null; locked=$?
    [ "$(cat "lease-$2.json" 2>/dev/null | sha256sum | cut -c 1-64)" = "$4" ] || exit 3
    cat > "lease-$2.$3.partial" && mv -f -- "lease-$2.$3.partial" "lease-$2.json" || exit 1
    [ "$locked" = 0 ] || sleep 1
) 9>>lease.guard || exit $?
grep -qF -- "$3" "lease-$2.json" || exit 3
"""
"""Writes lease $2 with token $3 in folder $1, unless it is no longer what had the hash $4. The agent locks the same
guard. Where there is no `flock`, two may write in the same moment: after a second the lease is the last one's alone."""
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The sha256 of nothing, as of a lease that is not there."""
CLOCK = re.compile(r"clock=([0-9]{1,12}) ([0-9]{1,12}(?:\.[0-9]{1,9})?) (\S*)")
ROW = re.compile(r"(work|reserved)=([0-9]{1,12}) ([0-9a-f]{64}) (.*)")


@dataclass(frozen=True)
class Bare:
    """A board that has no Python, so that its shell keeps the leases."""

    transport: Transport


@dataclass(frozen=True)
class _Look:
    """What lies on a board, leases and hashes by name. `wall` is its time since 1970 and `up` since it started, in s;
    `boot` names that start."""

    wall: float
    up: float
    boot: str
    leases: Mapping[str, dict[str, Any]]
    hashes: Mapping[str, str]


def ask_shell(transport: Transport, request: Mapping[str, Any]) -> dict[str, Any]:
    """Take, show or end leases, with the answers that the agent gives (deploy/agent/edgeprune_agent/lease.py).

    Raises:
        DeviceError: the board cannot keep them, or its clock cannot be read.
    """
    if request["action"] == "take":
        return _take(transport, request)
    leases = _lasting(_look(transport))
    ended = [lease for lease in leases if request["action"] == "end" and lease["owner"] == request["owner"]]
    if ended:
        paths = [_place(lease["name"]) for lease in ended]
        transport.run(["rm", "-f", "--", *paths], timeout_s=SHORT_S)
    return {"ended": ended, "leases": [lease for lease in leases if lease not in ended]}


def _take(transport: Transport, request: Mapping[str, Any]) -> dict[str, Any]:
    """Take a lease, over a dead one or that of `instead_of`; or say who is in the way."""
    name = request["name"]
    for _ in range(TRIES):
        look = _look(transport)
        holder = next((lease for lease in _lasting(look) if blocks(lease, request)), None)
        if holder is not None:
            return {"taken": False, "holder": holder}
        if _write(transport, request, look):
            return {"taken": True, "replaced": look.leases.get(name), "path": _place(name)}
    raise RemoteError(f"{transport.host}: its lease changes again and again; run the same command again")


def _write(transport: Transport, request: Mapping[str, Any], look: _Look) -> bool:
    """Write a lease; whether nobody else was faster."""
    lease = {name: request[name] for name in ("token", "owner", "reason", "ttl_s", "client")}
    content = json.dumps({**lease, "boot": look.boot, "offset_s": look.wall - look.up}).encode()
    name = request["name"]
    words = ["sh", "-c", TAKE, "sh", REMOTE_WORKSPACE, name, request["token"], look.hashes.get(name, EMPTY)]
    completed = transport.run(words, stdin=content, timeout_s=SHORT_S)
    if completed.exit_code not in (0, FASTER):
        raise cannot_write(transport.host, _place(name), completed.stderr)
    return completed.exit_code == 0


def _place(name: str) -> str:
    return f"{REMOTE_WORKSPACE}/lease-{name}.json"


def _look(transport: Transport) -> _Look:
    completed = transport.run(["sh", "-c", LOOK, "sh", REMOTE_WORKSPACE], timeout_s=SHORT_S)
    if completed.exit_code != 0:
        raise cannot_write(transport.host, REMOTE_WORKSPACE, completed.stderr)
    lines = completed.stdout.decode(errors="replace").splitlines()
    clock = next(filter(None, map(CLOCK.fullmatch, lines)), None)
    if clock is None:
        raise RemoteError(f"{transport.host}: its clock cannot be read: {completed.stderr[-200:]}")
    rows = [row for row in map(ROW.fullmatch, lines) if row]
    look = _Look(float(clock[1]), float(clock[2]), clock[3], {}, {row[1]: row[3] for row in rows})
    leases = {row[1]: lease for row in rows if (lease := _parse(row, look)) is not None}
    return _Look(look.wall, look.up, look.boot, leases, look.hashes)


def _parse(row: re.Match[str], look: _Look) -> dict[str, Any] | None:
    """A lease with its `name` and `left_s`; None where the file holds none."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        lease = json.loads(row[4])
        fields: dict[str, Any] = {name: text(lease[name]) for name in ("token", "owner", "reason", "boot")}
        fields |= {name: number(lease[name]) for name in ("ttl_s", "offset_s")}
        fields |= {"client": dict(lease["client"]), "name": row[1]}
        return {**fields, "left_s": seconds_left(fields, float(row[2]), look.wall, look.up, look.boot)}
    return None


def seconds_left(lease: Mapping[str, Any], renewed: float, wall: float, up: float, boot: str) -> float:
    """How long a lease still lasts, 0 where it is dead: the agent's rule, by the board's clocks."""
    same_start = lease["boot"] == boot
    if lease["name"] == WORK and not same_start:
        return 0.0
    jump = wall - up - lease["offset_s"] if same_start else 0.0
    ages = (wall - renewed, wall - jump - renewed)
    return float(max([0.0, *(lease["ttl_s"] - age for age in ages if age >= -SLACK_S)]))


def _lasting(look: _Look) -> list[dict[str, Any]]:
    return [lease for lease in look.leases.values() if lease["left_s"] > 0]


def blocks(holder: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    """Whether a lease that lasts keeps a request out: another owner's does, and of two that work the first."""
    if holder["name"] == WORK and holder["token"] == request.get("instead_of"):
        return False
    return bool(holder["owner"] != request["owner"] or holder["name"] == request["name"] == WORK)
