"""The commands that look after boards and what is released to them; mounted by cli.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.core.formats import RUNTIMES
from edgeprune.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from edgeprune.core.release import Release
    from edgeprune.core.target import Target
    from edgeprune.device.agent import Agent

TARGET_HELP = "Kind of board: a name (`edgeprune targets`) or a .toml file."
BUSY_HELP = "Go on though others are at work on the board; no latency measured so passes a gate."
HOST_HELP = "Address of the board: user@host, adb:SERIAL, a name of devices.toml, or a Host of ~/.ssh/config."
HOSTS_HELP = "Several boards at once: names, groups of devices.toml and addresses, with commas between."
RUN = click.Path(path_type=Path, exists=True, file_okay=False)
KEY_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def board_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which board."""
    command = click.option("--host", help=HOST_HELP)(command)
    return click.option("--target", required=True, help=TARGET_HELP)(command)


def _say(text: str) -> None:
    """Progress; where nobody takes it any more, what it is about goes on."""
    with suppress(OSError):
        click.echo(text, err=True)


@click.group()
def devices() -> None:
    """List, trust, set up, examine and lock boards."""


@devices.command("list")
def list_devices() -> None:
    """List the boards of devices.toml."""
    from edgeprune.core.summary import render_columns
    from edgeprune.device.lookup import devices_path, load_devices

    rows = [(name, entry.get("target", "-"), entry["host"]) for name, entry in load_devices().items()]
    if rows:
        click.echo(render_columns([("device", "target", "host"), *rows]))
    else:
        click.echo(f"{devices_path()}: no devices yet; `edgeprune devices add NAME --host user@address`")


@devices.command("add")
@click.argument("name")
@click.option("--host", required=True, help="Address: user@host, user@host:port, or a Host of ~/.ssh/config.")
@click.option("--target", help=TARGET_HELP)
def add(name: str, host: str, target: str | None) -> None:
    """Write a board into devices.toml, so that --host NAME, or its target alone, finds it."""
    from edgeprune.device.address import Address
    from edgeprune.device.lookup import add_device, resolve_host

    kind = _load_target(target).name if target is not None else None
    place = add_device(name, host, kind)
    step = "trust" if isinstance(resolve_host(name, name), Address) else "doctor"
    click.echo(f"written to {place}; next: edgeprune devices {step} {name}")


@devices.command("trust")
@click.argument("host")
@click.option("--yes", is_flag=True, help="Do not ask.")
def trust(host: str, yes: bool) -> None:
    """Accept a board's SSH host key after you have compared its fingerprint."""
    from edgeprune.device.trust import fetch_host_key, remember_host_key

    key = fetch_host_key(host)
    click.echo(f"{key.host}: {key.kind} {key.fingerprint}")
    if yes or click.confirm("Is this the fingerprint that the board itself shows?", default=False):
        click.echo(f"written to {remember_host_key(key)}")


@devices.command("setup")
@board_options
@click.option("--runtime", type=click.Choice(list(RUNTIMES)), help="Runtime to install, if not the target's.")
@click.option(
    "--wheels", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Install these wheels alone."
)
def setup(target: str, host: str | None, runtime: str | None, wheels: Path | None) -> None:
    """Make a venv on the board and install the target's runtime there."""
    from edgeprune.device.setup import Order, setup_device

    chosen = _load_target(target)
    click.echo(setup_device(Order(chosen, (runtime,) if runtime else chosen.runtimes, wheels), host, _say))


@devices.command("doctor")
@board_options
def doctor(target: str, host: str | None) -> None:
    """Say what is wrong with a board, and how to mend each; exit code 1 where it cannot be used as it is."""
    from edgeprune.core.doctor import ERROR, render_findings
    from edgeprune.device.doctor import examine_board

    address, findings = examine_board(_load_target(target), host)
    click.echo(render_findings(address, findings))
    sys.exit(any(one.severity == ERROR for one in findings))


@devices.command("lock")
@board_options
@click.option("--reason", required=True, help="What for; others are told.")
@click.option("--for", "duration", default="1h", show_default=True, help="How long: 30m, 2h, 1d; 7d at most.")
def lock(target: str, host: str | None, reason: str, duration: str) -> None:
    """Reserve a board for yourself: until then others are refused. Lock it again to change the time."""
    from edgeprune.device.lease import describe_duration, describe_owner, parse_duration, reserve

    seconds = parse_duration(duration)
    with _open_agent(target, host) as agent:
        reserve(agent, reason, seconds)
        click.echo(f"{agent.transport.host}: reserved for {describe_owner()} for {describe_duration(seconds)}")


@devices.command("unlock")
@board_options
@click.option("--owner", help="End another owner's leases: user@machine, as the refusal names it.")
def unlock(target: str, host: str | None, owner: str | None) -> None:
    """End your reservation of a board, and a lease that a command of yours has left."""
    from edgeprune.device.lease import describe_owner
    from edgeprune.device.lease import unlock as end

    with _open_agent(target, host) as agent:
        ended, remain = end(agent, owner or describe_owner())
        for one in ended:
            click.echo(f"{agent.transport.host}: no longer {one.describe()}")
        for one in remain:
            click.echo(f"{agent.transport.host}: still {one.describe()}")
        if not ended and not remain:
            click.echo(f"{agent.transport.host}: was not locked")


@devices.command("keys")
@board_options
def keys(target: str, host: str | None) -> None:
    """List the keys by which a release must be signed to run on a board."""
    from edgeprune.device.signing import list_keys

    with _open_agent(target, host) as agent:
        file, found = list_keys(agent)
        if not file:
            click.echo(f"{agent.transport.host}: trusts no key, and takes every release")
        for one in found:
            click.echo(f"{one.fingerprint} {one.name}".rstrip())
        if file:
            click.echo(f"{agent.transport.host}: {file}; a release that none of them signed is refused")


@devices.command("trust-key")
@click.argument("key", type=KEY_FILE)
@board_options
@click.option("--remove", is_flag=True, help="Trust this key no more; without any key all releases are taken again.")
def trust_key(key: Path, target: str, host: str | None, remove: bool) -> None:
    """Let a board take only releases that are signed by KEY (an ed25519 .pub), or by others that it trusts already."""
    from edgeprune.device.lease import hold_lease
    from edgeprune.device.signing import distrust_key, read_public_key
    from edgeprune.device.signing import trust_key as add_key

    text, name = read_public_key(key)
    with _open_agent(target, host) as agent, hold_lease(agent, "devices trust-key", _say):
        left = distrust_key(agent, text) if remove else add_key(agent, text, name)
        trusted = _list([f"{one.fingerprint} {one.name}".rstrip() for one in left])
        click.echo(f"{agent.transport.host}: trusts {trusted}{'' if left else ', and takes every release'}")


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
def push(directory: Path, key: Path | None, activated: bool, **where: Any) -> None:
    """Bring what a run ships to a board, or to many; resumes where a push broke. Without --activate it rests there."""
    from edgeprune.device.fleet import ask_boards
    from edgeprune.device.releases import read_release
    from edgeprune.device.signing import load_signing_key, sign_release

    target, host, hosts = _find_boards(directory, where)
    content, model = read_release(directory, target)
    if key is not None:
        content = sign_release(content, load_signing_key(key, _ask_passphrase))
    if not hosts:
        click.echo(_push(target, host, content, model, activated))
        return
    failed = 0
    for answer in ask_boards(hosts, lambda host: _push(target, host, content, model, activated), where["at_once"]):
        click.echo(answer.value if answer.error is None else f"failed: {' '.join(str(answer.error).split())}")
        failed += answer.error is not None
    if failed:
        raise DeviceError(f"{failed} of {len(hosts)} boards do not have it; run the same command again to resume")


def _push(target: Target, host: str | None, content: Release, model: bytes, activated: bool) -> str:
    from edgeprune.device.connect import open_agent
    from edgeprune.device.lease import hold_lease
    from edgeprune.device.releases import activate_release, push_release

    with open_agent(target.name, host, target.python) as agent, hold_lease(agent, "release push", _say):
        done = push_release(agent, content, model)
        resumed = f", {done.resumed_bytes:,} were there" if done.resumed_bytes else ""
        text = f"{agent.transport.host}: release {done.id}: {done.sent_bytes:,} bytes sent{resumed}"
        if not activated:
            return f"{text}; next: edgeprune release activate {done.id}"
        return f"{text}; active; there: {activate_release(agent, done.id)}"


def _find_boards(directory: Path, where: Mapping[str, Any]) -> tuple[Target, str | None, tuple[str, ...]]:
    """The target, the one board's address (the run's unless given), and those of several instead of it."""
    from edgeprune.device.lookup import resolve_boards
    from edgeprune.run import look_at_run

    if where["host"] is not None and where["hosts"] is not None:
        raise UsageError("give --host or --hosts, not both")
    request = look_at_run(directory).request if where["target"] is None else {}
    target = _load_target(where["target"] or request["target"])
    hosts = resolve_boards(where["hosts"]) if where["hosts"] is not None else ()
    return target, where["host"] or request.get("host"), hosts


def _ask_passphrase() -> str:
    return str(click.prompt("Passphrase of the key", hide_input=True, err=True))


@release.command("list")
@board_options
def list_(target: str, host: str | None) -> None:
    """List the releases on a board, the oldest first."""
    from edgeprune.core.release import render_releases
    from edgeprune.device.releases import list_releases

    with _open_agent(target, host) as agent:
        click.echo(render_releases(list_releases(agent)))


@release.command("activate")
@click.argument("release_id", metavar="RELEASE")
@board_options
def activate(release_id: str, target: str, host: str | None) -> None:
    """Let RELEASE (its first 4 digits or more) run once on the board, then switch to it."""
    from edgeprune.core.release import find_release
    from edgeprune.device.lease import hold_lease
    from edgeprune.device.releases import activate_release, list_releases

    with _open_agent(target, host) as agent, hold_lease(agent, "release activate", _say):
        found = find_release(release_id, list_releases(agent), agent.transport.host)
        command = activate_release(agent, found)
        click.echo(f"{agent.transport.host}: release {found} is active; there: {command}")


@release.command("rollback")
@board_options
def rollback(target: str, host: str | None) -> None:
    """Switch back to the release that was active before."""
    from edgeprune.device.lease import hold_lease
    from edgeprune.device.releases import roll_back

    with _open_agent(target, host) as agent, hold_lease(agent, "release rollback", _say):
        found, command = roll_back(agent)
        click.echo(f"{agent.transport.host}: release {found} is active again; there: {command}")


@release.command("prune")
@board_options
@click.option("--keep", type=click.IntRange(0), default=1, show_default=True, help="Newest others to keep.")
def prune(target: str, host: str | None, keep: int) -> None:
    """Remove old releases and broken pushes; the active release and the one before it always stay."""
    from edgeprune.device.releases import prune_releases

    with _open_agent(target, host) as agent:
        removed = prune_releases(agent, keep, _say)
        click.echo(f"{agent.transport.host}: removed {_list(removed)}")


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
def fleet(directory: Path, hosts: str, at_once: int, percentile: int, allow_busy: bool | None) -> None:
    """Measure what a run ships on many boards at once; judge by the worst, and name those unlike others of their kind.

    Writes fleet.json and fleet.samples.json into the run.
    """
    from edgeprune.core.fleet import render_fleet
    from edgeprune.core.gate import EXIT_CODES
    from edgeprune.device.lookup import resolve_boards
    from edgeprune.run import look_at_run
    from edgeprune.stages.fleet import Fleet, measure_fleet
    from edgeprune.stages.job import open_job

    boards = resolve_boards(hosts)
    request = look_at_run(directory).request
    with open_job(directory, {**dict.fromkeys(request), "allow_busy": allow_busy}, _say) as job:
        document = measure_fleet(job, Fleet(boards, percentile, at_once))
    click.echo(render_fleet(document))
    click.echo(f"written to {directory / 'fleet.json'}")
    sys.exit(EXIT_CODES[document["verdict"]])


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def _load_target(name: str) -> Target:
    from edgeprune.shipped import load_target

    return load_target(name)


@contextmanager
def _open_agent(target: str, host: str | None) -> Iterator[Agent]:
    """The agent on the board of a target."""
    from edgeprune.device.connect import open_agent

    chosen = _load_target(target)
    with open_agent(chosen.name, host, chosen.python) as agent:
        yield agent
