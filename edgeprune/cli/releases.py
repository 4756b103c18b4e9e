"""The commands that bring what a run ships to boards, and measure it on many."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.boards import open_target_agent, render_names
from edgeprune.cli.judging import append_summary
from edgeprune.cli.options import BUSY_HELP, HOST_HELP, HOSTS_HELP, KEY_FILE, RUN, TARGET_HELP, board_options
from edgeprune.cli.output import json_option, print_result
from edgeprune.cli.progress import say
from edgeprune.core.progress import Count
from edgeprune.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from edgeprune.core.releasing.release import Release
    from edgeprune.core.target import Target


@click.group()
def release() -> None:
    """Bring what a run ships to a board, and switch between releases there.

    A release is a folder named by its content: the model, its manifest, and run.py that runs it. `current` leads to the
    active one and is switched at one moment; whatever fails, the release that was active stays so.
    """


@release.command("push")
@click.option("--run", "directory", required=True, type=RUN, help="A run that passed its gates.")
@click.option("--target", help=f"{TARGET_HELP} Default: the run's.")
@click.option("--host", help=f"{HOST_HELP} Default: the run's.")
@click.option("--hosts", help=HOSTS_HELP)
@click.option("--at-once", type=click.IntRange(1), default=4, show_default=True, help="Boards at work at once.")
@click.option("--sign", "key", type=KEY_FILE, help="Private ed25519 key (OpenSSH or PEM) to sign the release with.")
@click.option("--activate", "activated", is_flag=True, help="Make it active too, once it has run there.")
@json_option
def push(directory: Path, key: Path | None, activated: bool, **options: Any) -> None:
    """Bring what a run ships to a board, or to many; resumes where a push broke. Without --activate it rests there."""
    from edgeprune.device.fleet import ask_boards
    from edgeprune.device.releasing.releases import read_release
    from edgeprune.device.releasing.signing import load_signing_key, sign_release

    target, host, hosts = _find_boards(directory, options)
    content, model = read_release(directory, target)
    if key is not None:
        content = sign_release(content, load_signing_key(key, _ask_passphrase))
    if not hosts:
        row = _push(target, host, content, model, activated)
        print_result({"release": row["release"], "boards": [row]}, _describe_push(row))
        return
    rows = []
    answers = ask_boards(hosts, lambda host: _push(target, host, content, model, activated), options["at_once"])
    for number, answer in enumerate(answers, 1):
        error = None if answer.error is None else " ".join(str(answer.error).split())
        rows.append(answer.value if answer.value is not None else {"host": answer.host, "error": error})
        say(Count(f"boards: {number} of {len(hosts)}"))
    print_result({"release": content.id, "boards": rows}, "\n".join(map(_describe_push, rows)))
    if failed := sum(bool(row["error"]) for row in rows):
        say(f"edgeprune: {failed} of {len(hosts)} boards do not have it; run the same command again to resume")
        sys.exit(DeviceError.exit_code)


def _push(target: Target, host: str | None, content: Release, model: bytes, activated: bool) -> dict[str, Any]:
    """What became of one board."""
    from edgeprune.device.connect import open_agent
    from edgeprune.device.lease import hold_lease
    from edgeprune.device.releasing.releases import activate_release, push_release

    with open_agent(target.name, host, target.python) as agent, hold_lease(agent, "release push", say):
        pushed = push_release(agent, content, model, say)
        command = activate_release(agent, pushed.id) if activated else None
        sent = {"sent_bytes": pushed.sent_bytes, "resumed_bytes": pushed.resumed_bytes}
        return {"host": agent.transport.host, "release": pushed.id, **sent, "command": command, "error": None}


def _describe_push(row: Mapping[str, Any]) -> str:
    if row["error"]:
        return f"failed: {row['error']}"
    resumed = f", {row['resumed_bytes']:,} were there" if row["resumed_bytes"] else ""
    text = f"{row['host']}: release {row['release']}: {row['sent_bytes']:,} bytes sent{resumed}"
    if row["command"] is None:
        return f"{text}; next: edgeprune release activate {row['release']}"
    return f"{text}; active; there: {row['command']}"


def _find_boards(directory: Path, options: Mapping[str, Any]) -> tuple[Target, str | None, tuple[str, ...]]:
    """The target, the one board's address (the run's unless given), and those of several instead of it."""
    from edgeprune.device.transports.lookup import resolve_boards
    from edgeprune.run import look_at_run
    from edgeprune.shipped import load_target

    if options["host"] is not None and options["hosts"] is not None:
        raise UsageError("give --host or --hosts, not both")
    request = look_at_run(directory).request if options["target"] is None else {}
    target = load_target(options["target"] or request["target"])
    hosts = resolve_boards(options["hosts"]) if options["hosts"] is not None else ()
    return target, options["host"] or request.get("host"), hosts


def _ask_passphrase() -> str:
    return str(click.prompt("Passphrase of the key", hide_input=True, err=True))


@release.command("list")
@board_options
@json_option
def list_(target: str, host: str | None) -> None:
    """List the releases on a board, the oldest first."""
    from edgeprune.core.releasing.release import render_releases
    from edgeprune.device.releasing.releases import list_releases

    with open_target_agent(target, host) as agent:
        releases, board = list_releases(agent), agent.transport.host
    rows = [asdict(release) for release in releases]
    print_result({"host": board, "releases": rows}, render_releases(releases))


@release.command("activate")
@click.argument("release_id", metavar="RELEASE")
@board_options
@json_option
def activate(release_id: str, target: str, host: str | None) -> None:
    """Let RELEASE (its first 4 digits or more) run once on the board, then switch to it."""
    from edgeprune.core.releasing.release import find_release
    from edgeprune.device.lease import hold_lease
    from edgeprune.device.releasing.releases import activate_release, list_releases

    with open_target_agent(target, host) as agent, hold_lease(agent, "release activate", say):
        full_id = find_release(release_id, list_releases(agent), agent.transport.host)
        command = activate_release(agent, full_id)
    _tell_active(agent.transport.host, full_id, "active", command)


def _tell_active(host: str, release_id: str, state: str, command: str) -> None:
    document = {"host": host, "release": release_id, "command": command}
    print_result(document, f"{host}: release {release_id} is {state}; there: {command}")


@release.command("rollback")
@board_options
@json_option
def rollback(target: str, host: str | None) -> None:
    """Switch back to the release that was active before."""
    from edgeprune.device.lease import hold_lease
    from edgeprune.device.releasing.releases import roll_back

    with open_target_agent(target, host) as agent, hold_lease(agent, "release rollback", say):
        active_id, command = roll_back(agent)
    _tell_active(agent.transport.host, active_id, "active again", command)


@release.command("prune")
@board_options
@click.option("--keep", type=click.IntRange(0), default=1, show_default=True, help="Newest others to keep.")
@json_option
def prune(target: str, host: str | None, keep: int) -> None:
    """Remove old releases and broken pushes; the active release and the one before it always stay."""
    from edgeprune.device.releasing.releases import prune_releases

    with open_target_agent(target, host) as agent:
        removed = prune_releases(agent, keep, say)
        board = agent.transport.host
    print_result({"host": board, "removed": removed}, f"{board}: removed {render_names(removed)}")


@click.command()
@click.option("--run", "directory", required=True, type=RUN, help="A run that was measured.")
@click.option("--hosts", required=True, help=HOSTS_HELP)
@click.option("--at-once", type=click.IntRange(1), default=4, show_default=True, help="Boards at work at once.")
@click.option(
    "--percentile",
    type=click.IntRange(1, 100),
    default=100,
    show_default=True,
    help="The board that decides, from the best to the worst (nearest rank).",
)
@click.option("--allow-busy", is_flag=True, default=None, help=BUSY_HELP)
@click.option(
    "--baseline", metavar="NAME|DIR|FILE", default="", help="Measure its file in turns too, each kind of device's own."
)
@json_option
def fleet(directory: Path, hosts: str, at_once: int, percentile: int, allow_busy: bool | None, baseline: str) -> None:
    """Measure what a run ships on many boards at once; judge by the worst, and name those unlike others of their kind.

    Writes fleet.json, fleet.samples.json, fleet.junit.xml and fleet.md into the run.
    """
    from edgeprune.core.releasing.fleet import render_fleet
    from edgeprune.core.releasing.gate import EXIT_CODES
    from edgeprune.device.transports.lookup import resolve_boards
    from edgeprune.run import look_at_run
    from edgeprune.stages.fleet import MARKDOWN, Fleet, measure_fleet
    from edgeprune.stages.job import open_job

    boards = resolve_boards(hosts)
    request = look_at_run(directory).request
    with open_job(directory, {**dict.fromkeys(request), "allow_busy": allow_busy}, say) as job:
        document = measure_fleet(job, Fleet(boards, percentile, at_once, baseline))
    file, markdown = directory / "fleet.json", directory / MARKDOWN
    append_summary(markdown)
    print_result(
        {"run": directory, "verdict": document["verdict"], "file": file, "markdown": markdown, "fleet": document},
        f"{render_fleet(document)}\nwritten to {file}",
    )
    sys.exit(EXIT_CODES[document["verdict"]])


COMMANDS = (release, fleet)
