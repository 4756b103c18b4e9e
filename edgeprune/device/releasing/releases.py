"""Releases on a board: pushed whole or resumed, made active at one moment, gone back to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeprune.core.answers import count, describe_misfit, each, text
from edgeprune.core.artifact import parse_artifact
from edgeprune.core.progress import Count
from edgeprune.core.releasing.release import Release, ReleaseOnBoard, build_release, parse_releases, shipped_path
from edgeprune.core.target import Target
from edgeprune.device.agent.client import Agent, ask_agent, understood
from edgeprune.device.lease import describe_work, hold_lease
from edgeprune.device.transports.transport import describe_size, describe_space
from edgeprune.errors import DeviceError, NoSpace, RunError, UsageError
from edgeprune.run import look_at_run, read_json
from edgeprune.shipped import shipped_dir

SHORT_S = 60.0
PIECE_BYTES = 1 << 20
"""A model goes in pieces; one whose end was told is on the board's disk, and stays there whatever happens then."""
RECEIVE = """
import os, sys
os.umask(0o077)
try:
    with open(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb") as part:
        part.truncate(int(sys.argv[2]))
        part.seek(int(sys.argv[2]))
        part.write(sys.stdin.buffer.read())
        part.flush()
        os.fsync(part.fileno())
except OSError as exc:
    sys.exit(exc.strerror)
"""
"""Writes standard input into file $1 from byte $2 on. One that outlives its link can but write the same bytes there."""


@dataclass(frozen=True)
class Pushed:
    """What became of a push; `resumed_bytes` were there from one that broke."""

    id: str
    sent_bytes: int
    resumed_bytes: int


def read_release(directory: Path, target: Target) -> tuple[Release, bytes]:
    """The release of a run, and its model.

    Raises:
        RunError: the run did not pass, or its files are missing or not those that were measured.
        UsageError: it was made for another target.
    """
    run = look_at_run(directory)
    report = read_json(run.file("report.json"))
    try:
        path = shipped_path(report, str(directory))
        if report["target"] != target.name:
            raise UsageError(f"{directory}: was made and judged for target {report['target']}, not {target.name}")
        rows = run.result("export")["artifacts"]
        artifact = parse_artifact(next(row for row in rows if row["path"] == path))
        runner = (shipped_dir("deploy") / "runner" / "run.py").read_text()
        release = build_release(report, artifact, runner, report["conditions"]["threads"])
    except (KeyError, TypeError, StopIteration) as exc:
        remedy = f"`edgeprune report --run {directory}` writes it anew"
        raise RunError(f"{directory}: its report is not whole: {describe_misfit(exc)}; {remedy}") from exc
    return release, _read_model(run.file(path), artifact.sha256)


def _read_model(place: Path, sha256: str) -> bytes:
    try:
        content = place.read_bytes()
    except OSError as exc:
        raise RunError(f"{place}: cannot be read: {exc.strerror}") from exc
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RunError(f"{place}: is not the file that was measured (its sha256 is not {sha256[:16]}...)")
    return content


def push_release(
    agent: Agent, release: Release, model: bytes, progress: Callable[[str], None] = lambda _: None
) -> Pushed:
    """Bring a release to a board, going on where a push broke; what is active there stays.

    Raises:
        DeviceError: no space there, the link was lost, it was damaged on the way, or not signed as the board asks.
    """
    host = agent.transport.host
    row = _ask(agent, "prepare", {"id": release.id, **asdict(release)})
    with understood(host, "what it has of a release"):
        if row["there"]:
            return Pushed(release.id, 0, len(model))
        needed, free, had = (count(row[name]) for name in ("needed", "free", "had"))
        part, digest = text(row["part"]), text(row["sha256"])
    if needed > free:
        raise NoSpace(f"{host}: {describe_space(f'release {release.id}', needed, free)}")
    start = had if hashlib.sha256(model[:had]).hexdigest() == digest and had <= len(model) else 0
    for offset in range(start, len(model), PIECE_BYTES):
        end = min(offset + PIECE_BYTES, len(model))
        reason = _send_piece(agent, part, offset, model[offset:end])
        progress(Count(f"{host}: sent {end >> 10} of {len(model) >> 10} KiB"))
        if reason:
            raise DeviceError(
                f"{host}: release {release.id} cannot be written: {reason} ({describe_size(free)} were free, "
                f"{describe_size(needed)} needed); what is active stays; run the same command again to resume"
            )
    _ask(agent, "finish", {"id": release.id})
    return Pushed(release.id, len(model) - start, start)


def _send_piece(agent: Agent, part: str, offset: int, piece: bytes) -> str:
    """Write a piece of a file there, and on its disk; gives why it cannot be written, or nothing."""
    command = [agent.python, "-I", "-S", "-c", RECEIVE, part, str(offset)]
    completed = agent.transport.run(command, stdin=piece, timeout_s=SHORT_S)
    return (
        (completed.stderr.strip().splitlines() or [f"exit code {completed.exit_code}"])[-1][:300]
        if completed.exit_code
        else ""
    )


def list_releases(agent: Agent) -> list[ReleaseOnBoard]:
    """The releases on a board, the oldest first."""
    return _parse(agent, _ask(agent, "list", {}))


def activate_release(agent: Agent, release_id: str) -> str:
    """Try a release on the board and switch to it; gives the command that runs it there.

    Raises:
        DeviceError: it is damaged or does not run there; what is active stays.
    """
    return _runner_command(agent, _ask(agent, "activate", {"id": release_id}))


def roll_back(agent: Agent) -> tuple[str, str]:
    """Switch back to the release before the active one; gives its ID and the command that runs it.

    Raises:
        DeviceError: there is none, or it does not run; what is active stays.
    """
    row = _ask(agent, "rollback", {})
    with understood(agent.transport.host, "the active release"):
        (active,) = (release.id for release in _parse(agent, row) if release.current)
    return active, _runner_command(agent, row)


def prune_releases(agent: Agent, keep: int, say: Callable[[str], None]) -> list[str]:
    """Remove old releases and broken pushes; the active one, the one before and the `keep` newest others stay.

    On a full disk, which has no room for a lease, the board's leases are locked instead.

    Raises:
        DeviceError: somebody else uses or has reserved the board.
    """
    try:
        with hold_lease(agent, "release prune", say):
            return _prune(agent, {"keep": keep})
    except NoSpace:
        return _prune(agent, {"keep": keep, "instead_of_lease": describe_work(agent, "release prune")})


def _prune(agent: Agent, more: Mapping[str, Any]) -> list[str]:
    with understood(agent.transport.host, "what it removed"):
        return list(each(text)(_ask(agent, "prune", more)["removed"]))


def _runner_command(agent: Agent, row: Mapping[str, Any]) -> str:
    with understood(agent.transport.host, "where its releases lie"):
        return f"{agent.python} {text(row['folder'])}/current/run.py INPUT"


def _parse(agent: Agent, row: Mapping[str, Any]) -> list[ReleaseOnBoard]:
    with understood(agent.transport.host, "the releases"):
        return parse_releases(row["releases"])


def _ask(agent: Agent, action: str, more: Mapping[str, Any]) -> Any:
    return ask_agent(agent, {"command": "release", "action": action, **more})
