"""Exclusive use of a board: a lease there, renewed while we work, and reservations by people.

The lease lies beside the agent, which judges it by the board's clock; without Python there it is judged here, by that
clock. It has an owner, a reason and a time to live. A lease of a client that has ended on this machine, or that was not
renewed, is taken over.
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.core.answers import number, text
from edgeprune.core.text import describe_duration
from edgeprune.device.agent.client import Agent, ask_agent, understood
from edgeprune.device.bare_lease import RESERVED, WORK, Bare, ask_shell
from edgeprune.device.transports.transport import Transport
from edgeprune.errors import DeviceError, UsageError

TTL_S = 180.0
RENEW_S = 45.0
"""A lease outlives three renewals that do not arrive."""
RETRY_S = 5.0
"""After a renewal that did not arrive the next one comes so soon."""
MARGIN_S = 5.0
"""So long before its end a lease counts as run out here: what runs on the board must have ended when it ends there."""
LOOK_S = 1.0
SHORT_S = 60.0
MACHINE_VARIABLE = "EDGEPRUNE_LEASES"
LONGEST_RESERVATION_S = 7 * 86400.0
RENEW = 'grep -qF -- "$2" "$1" 2>/dev/null || exit 3; touch -c -- "$1"'
END = 'grep -qF -- "$2" "$1" 2>/dev/null || exit 3; rm -f -- "$1"'
LOST = 3
DURATION = re.compile(r"([0-9]{1,6})([smhd])")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Keeper = Agent | Bare
"""Who keeps a board's leases there: the agent, or its shell."""

_held: dict[str, int] = {}
"""Tokens of the leases that this process holds or is about to take, and the threads that do."""


@dataclass(frozen=True)
class Lease:
    """A lease as the board tells it; `left_s` is how long it still lasts unless it is renewed."""

    name: str
    owner: str
    reason: str
    left_s: float
    token: str
    client: Mapping[str, Any]

    def describe(self) -> str:
        """For people."""
        verb = "reserved by" if self.name == RESERVED else "in use by"
        return f"{verb} {self.owner} ({self.reason})"


@contextmanager
def hold_lease(agent: Agent, reason: str, say: Callable[[str], None]) -> Iterator[Agent]:
    """Hold a board for the body, as :func:`hold_board`.

    Gives the agent that stops by itself what it does under this lease, once that is over: also where the link is dead.
    """
    with hold_board(agent, reason, say) as token:
        lease = {} if token is None else {"lease": {"token": token, **_machine(agent)}}
        yield replace(agent, settings={**agent.settings, **lease})


@contextmanager
def hold_board(keeper: Keeper, reason: str, say: Callable[[str], None]) -> Iterator[str | None]:
    """Hold a board for the body; what this thread holds already it goes on holding. Gives the token of a new lease.

    Raises:
        DeviceError: somebody else uses or has reserved the board; or the lease was lost or ran out meanwhile, so that
            the work was stopped and what was measured may have been disturbed.
    """
    token = secrets.token_hex(16)
    _held[token] = threading.get_ident()
    try:
        path = _take_work(keeper, token, reason, say)
        if path is None:
            yield None
            return
        with _held_by(keeper, path, token):
            yield token
    finally:
        del _held[token]


@contextmanager
def _held_by(keeper: Keeper, path: str, token: str) -> Iterator[None]:
    """Renew a lease that was taken while the body runs, and end it."""
    renewal = _Renewal(keeper.transport, path, token)
    try:
        with renewal:
            yield
    except DeviceError as exc:
        if renewal.gone:
            raise _lost(keeper, renewal.gone) from exc
        raise
    finally:
        if not renewal.gone:
            with suppress(DeviceError):
                keeper.transport.run(["sh", "-c", END, "sh", path, token], timeout_s=SHORT_S)
    if renewal.gone:
        raise _lost(keeper, renewal.gone)


def _take_work(keeper: Keeper, token: str, reason: str, say: Callable[[str], None]) -> str | None:
    """Take the lease to work, over one that is dead; gives its file, None where this thread has the lease already."""
    request = _request(WORK, token, reason, TTL_S)
    row, ended = _take(keeper, request), set[str]()
    while not row["taken"]:
        holder = _holder(keeper, row)
        thread = _held.get(holder.token)
        if thread == threading.get_ident():
            return None
        if holder.name == RESERVED or holder.token in ended or thread is not None or not _has_ended(holder.client):
            raise _busy(keeper, holder)
        ended.add(holder.token)
        row = _take(keeper, {**request, "instead_of": holder.token})
    if row["replaced"]:
        old = parse_lease(row["replaced"], keeper.transport.host)
        cause = "its process has ended" if old.left_s > 0 else "it was not renewed"
        say(f"{keeper.transport.host}: took over the lease of {old.owner} ({old.reason}): {cause}")
    return str(row["path"])


def _take(keeper: Keeper, request: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for a lease; `taken` says whether we have it, `replaced` whose it was, `holder` else whose it is."""
    row = _ask(keeper, request)
    with understood(keeper.transport.host, "a lease"):
        names = ("taken", "replaced", "path") if row["taken"] else ("taken", "holder")
        return {name: row[name] for name in names}


def _holder(keeper: Keeper, row: Mapping[str, Any]) -> Lease:
    return parse_lease(row["holder"], keeper.transport.host)


class _Renewal:
    """Renews a lease in a thread of its own; goes on trying until the lease's own time is over.

    `gone` says why it is no longer ours: somebody else has it, or it could not be renewed in time. Then the link is
    closed, which ends what runs there.
    """

    def __init__(self, transport: Transport, path: str, token: str) -> None:
        self.gone = ""
        self._transport = transport
        self._command = ["sh", "-c", RENEW, "sh", path, token]
        self._renewed_s = read_clock_s()
        self._trouble = ""
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._keep, self._watch)]

    def __enter__(self) -> _Renewal:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._threads[1].join()
        self._threads[0].join(LOOK_S if self.gone else None)

    def _keep(self) -> None:
        wait_s = RENEW_S
        while not self._stop.wait(wait_s):
            wait_s = RENEW_S if self._renew() else RETRY_S

    def _renew(self) -> bool:
        begun_s = read_clock_s()
        try:
            completed = self._transport.run(self._command, timeout_s=SHORT_S)
        except DeviceError as exc:
            self._trouble = str(exc)
            return False
        if completed.exit_code == LOST:
            self._give_up("somebody ended it or took it over")
        elif completed.exit_code == 0:
            self._renewed_s = begun_s
        else:
            self._trouble = completed.stderr.strip()[-200:] or f"exit code {completed.exit_code}"
        return completed.exit_code == 0

    def _watch(self) -> None:
        """End the work when the lease ends, also while a renewal hangs, or after this machine has slept."""
        while not self.gone and not self._stop.wait(LOOK_S):
            if read_clock_s() - self._renewed_s > TTL_S - MARGIN_S:
                trouble = f": {self._trouble}" if self._trouble else ""
                self._give_up(f"it could not be renewed for {TTL_S - MARGIN_S:.0f} s{trouble}")

    def _give_up(self, why: str) -> None:
        if not self.gone and not self._stop.is_set():
            self.gone = why
            self._transport.close()


def read_clock_s() -> float:
    """A clock that only goes forward, and goes on while this machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def reserve(keeper: Keeper, reason: str, seconds: float) -> Lease | None:
    """Reserve a board for this user on this machine; gives the reservation that this one replaces.

    Raises:
        DeviceError: somebody else uses or has reserved it.
    """
    row = _take(keeper, _request(RESERVED, secrets.token_hex(16), reason, seconds))
    if not row["taken"]:
        raise _busy(keeper, _holder(keeper, row))
    return parse_lease(row["replaced"], keeper.transport.host) if row["replaced"] else None


def unlock(keeper: Keeper, owner: str) -> tuple[list[Lease], list[Lease]]:
    """End the leases of an owner; gives those that ended and those that remain."""
    row = _ask(keeper, {"action": "end", "owner": owner})
    return _parse_leases(keeper, row, "ended"), _parse_leases(keeper, row, "leases")


def list_leases(keeper: Keeper) -> list[Lease]:
    """The leases that last on a board."""
    return _parse_leases(keeper, _ask(keeper, {"action": "show"}), "leases")


def _parse_leases(keeper: Keeper, row: Mapping[str, Any], name: str) -> list[Lease]:
    with understood(keeper.transport.host, "its leases"):
        return [parse_lease(entry, keeper.transport.host) for entry in row[name]]


def describe_owner() -> str:
    """Who we are, for other people: user@machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def parse_duration(duration: str) -> float:
    """Read `90s`, `30m`, `2h` or `1d`, in seconds.

    Raises:
        UsageError: it is none of these, or too long.
    """
    match = DURATION.fullmatch(duration)
    seconds = int(match[1]) * UNITS_S[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_RESERVATION_S:
        raise UsageError(f"{duration!r} is not a time; expected for example 30m, 2h or 1d, and 7d at most")
    return float(seconds)


def parse_lease(row: Any, host: str) -> Lease:
    """A lease from what the agent says; texts of others are shown without control characters.

    Raises:
        RemoteError: it is none.
    """
    with understood(host, "a lease"):
        texts = {key: _printable(text(row[key])) for key in ("name", "owner", "reason", "token")}
        return Lease(**texts, left_s=number(row["left_s"]), client=dict(row["client"]))


def _printable(letters: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in letters[:200])


def _request(name: str, token: str, reason: str, seconds: float) -> dict[str, Any]:
    client = {"place": _find_place(), "pid": os.getpid()}
    lease = {"token": token, "owner": describe_owner(), "reason": reason, "ttl_s": seconds, "client": client}
    return {"action": "take", "name": name, **lease}


def describe_work(agent: Agent, reason: str) -> dict[str, Any]:
    """The request for a lease to work, as the agent knows it."""
    return {**_machine(agent), **_request(WORK, secrets.token_hex(16), reason, TTL_S)}


def _ask(keeper: Keeper, request: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(keeper, Bare):
        return ask_shell(keeper.transport, request)
    return ask_agent(keeper, {"command": "lease", **_machine(keeper), **request})


def _machine(agent: Agent) -> dict[str, str]:
    """Where the leases lie, if not beside the agent: those of this machine belong to all its users, not to a home."""
    return {"machine": os.environ.get(MACHINE_VARIABLE, "")} if agent.transport.name == "local" else {}


def _has_ended(client: Mapping[str, Any]) -> bool:
    """Whether the process that took a lease was one of this machine and is no more, or is this one and let it go."""
    pid = client.get("pid")
    if client.get("place") != _find_place() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return pid == os.getpid()


def _find_place() -> str:
    """This start of this machine and its process numbers, so that a number says which process it was.

    Where that cannot be told it is this process alone: names of machines are not unique.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return _PROCESS


_PROCESS = f"a process {secrets.token_hex(16)}"


def _busy(keeper: Keeper, holder: Lease) -> DeviceError:
    remaining = describe_duration(holder.left_s)
    until = (
        f"for another {remaining}" if holder.name == RESERVED else f"now (free in {remaining} if its command is dead)"
    )
    return DeviceError(
        f"{keeper.transport.host}: {holder.describe()} {until}; ask them, try again later, or end it: "
        f"edgeprune devices unlock --target TARGET --host {keeper.transport.host} --owner {holder.owner}"
    )


def _lost(keeper: Keeper, why: str) -> DeviceError:
    return DeviceError(
        f"{keeper.transport.host}: lost the lease: {why}, so that somebody else may use the board now; the work there "
        "was stopped, and what was measured since may be disturbed; run the same command again"
    )
