"""The commands that look after boards: list, trust, set up, examine, lock."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.cli.options import KEY_FILE, TARGET_HELP, board_options
from edgeprune.cli.progress import say
from edgeprune.core.formats import RUNTIMES

if TYPE_CHECKING:
    from edgeprune.device.agent.client import Agent


@click.group()
def devices() -> None:
    """List, trust, set up, examine and lock boards."""


@devices.command("list")
def list_devices() -> None:
    """List the boards of devices.toml."""
    from edgeprune.core.text import render_columns
    from edgeprune.device.transports.lookup import devices_path, load_devices

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
    from edgeprune.device.transports.address import Address
    from edgeprune.device.transports.lookup import add_device, resolve_host
    from edgeprune.shipped import load_target

    kind = load_target(target).name if target is not None else None
    place = add_device(name, host, kind)
    step = "trust" if isinstance(resolve_host(name, name), Address) else "doctor"
    click.echo(f"written to {place}; next: edgeprune devices {step} {name}")


@devices.command("trust")
@click.argument("host")
@click.option("--yes", is_flag=True, help="Do not ask.")
def trust(host: str, yes: bool) -> None:
    """Accept a board's SSH host key after you have compared its fingerprint."""
    from edgeprune.device.ssh.trust import fetch_host_key, remember_host_key

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
    from edgeprune.device.preparing.setup import Order, setup_device
    from edgeprune.shipped import load_target

    kind = load_target(target)
    click.echo(setup_device(Order(kind, (runtime,) if runtime else kind.runtimes, wheels), host, say))


@devices.command("doctor")
@board_options
def doctor(target: str, host: str | None) -> None:
    """Say what is wrong with a board, and how to mend each; exit code 1 where it cannot be used as it is."""
    from edgeprune.core.boards.doctor import ERROR, render_findings
    from edgeprune.device.preparing.doctor import examine_board
    from edgeprune.shipped import load_target

    address, findings = examine_board(load_target(target), host)
    click.echo(render_findings(address, findings))
    sys.exit(any(finding.severity == ERROR for finding in findings))


@devices.command("lock")
@board_options
@click.option("--reason", required=True, help="What for; others are told.")
@click.option("--for", "duration", default="1h", show_default=True, help="How long: 30m, 2h, 1d; 7d at most.")
def lock(target: str, host: str | None, reason: str, duration: str) -> None:
    """Reserve a board for yourself: until then others are refused. Lock it again to change the time."""
    from edgeprune.core.text import describe_duration
    from edgeprune.device.lease import describe_owner, parse_duration, reserve

    seconds = parse_duration(duration)
    with open_target_agent(target, host) as agent:
        reserve(agent, reason, seconds)
        click.echo(f"{agent.transport.host}: reserved for {describe_owner()} for {describe_duration(seconds)}")


@devices.command("unlock")
@board_options
@click.option("--owner", help="End another owner's leases: user@machine, as the refusal names it.")
def unlock(target: str, host: str | None, owner: str | None) -> None:
    """End your reservation of a board, and a lease that a command of yours has left."""
    from edgeprune.device.lease import describe_owner
    from edgeprune.device.lease import unlock as end

    with open_target_agent(target, host) as agent:
        ended, remain = end(agent, owner or describe_owner())
        for lease in ended:
            click.echo(f"{agent.transport.host}: no longer {lease.describe()}")
        for lease in remain:
            click.echo(f"{agent.transport.host}: still {lease.describe()}")
        if not ended and not remain:
            click.echo(f"{agent.transport.host}: was not locked")


@devices.command("keys")
@board_options
def keys(target: str, host: str | None) -> None:
    """List the keys by which a release must be signed to run on a board."""
    from edgeprune.device.releasing.signing import list_keys

    with open_target_agent(target, host) as agent:
        file, trusted_keys = list_keys(agent)
        if not file:
            click.echo(f"{agent.transport.host}: trusts no key, and takes every release")
        for trusted_key in trusted_keys:
            click.echo(f"{trusted_key.fingerprint} {trusted_key.name}".rstrip())
        if file:
            click.echo(f"{agent.transport.host}: {file}; a release that none of them signed is refused")


@devices.command("trust-key")
@click.argument("key", type=KEY_FILE)
@board_options
@click.option("--remove", is_flag=True, help="Trust this key no more; without any key all releases are taken again.")
def trust_key(key: Path, target: str, host: str | None, remove: bool) -> None:
    """Let a board take only releases that are signed by KEY (an ed25519 .pub), or by others that it trusts already."""
    from edgeprune.device.lease import hold_lease
    from edgeprune.device.releasing.signing import distrust_key, read_public_key
    from edgeprune.device.releasing.signing import trust_key as add_key

    text, name = read_public_key(key)
    with open_target_agent(target, host) as agent, hold_lease(agent, "devices trust-key", say):
        trusted_keys = distrust_key(agent, text) if remove else add_key(agent, text, name)
        trusted = render_names(
            [f"{trusted_key.fingerprint} {trusted_key.name}".rstrip() for trusted_key in trusted_keys]
        )
        click.echo(f"{agent.transport.host}: trusts {trusted}{'' if trusted_keys else ', and takes every release'}")


def render_names(names: Sequence[str]) -> str:
    """Names with commas between, or that there are none."""
    return ", ".join(names) or "nothing"


@contextmanager
def open_target_agent(target: str, host: str | None) -> Iterator[Agent]:
    """The agent on the board of a target."""
    from edgeprune.device.connect import open_agent
    from edgeprune.shipped import load_target

    kind = load_target(target)
    with open_agent(kind.name, host, kind.python) as agent:
        yield agent


COMMANDS = (devices,)
