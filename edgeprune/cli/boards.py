"""The commands that look after boards: list, trust, set up, examine, lock."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import KEY_FILE, TARGET_HELP, board_options
from edgeprune.cli.output import json_option, print_result, wants_json
from edgeprune.cli.progress import say
from edgeprune.core.formats import list_board_runtimes

if TYPE_CHECKING:
    from edgeprune.device.agent.client import Agent
    from edgeprune.device.lease import Lease
    from edgeprune.device.releasing.signing import TrustedKey


@click.group()
def devices() -> None:
    """List, trust, set up, examine and lock boards."""


@devices.command("list")
@json_option
def list_devices() -> None:
    """List the boards of devices.toml."""
    from edgeprune.core.text import render_columns
    from edgeprune.device.transports.lookup import devices_path, load_devices

    entries = load_devices()
    rows = [(name, entry.get("target", "-"), entry["host"]) for name, entry in entries.items()]
    nothing = f"{devices_path()}: no devices yet; `edgeprune devices add NAME --host user@address`"
    print_result(
        {
            "file": devices_path(),
            "devices": [
                {"name": name, "target": entry.get("target"), "host": entry["host"]} for name, entry in entries.items()
            ],
        },
        render_columns([("device", "target", "host"), *rows]) if rows else nothing,
    )


@devices.command("add")
@click.argument("name")
@click.option("--host", required=True, help="Address: user@host, user@host:port, or a Host of ~/.ssh/config.")
@click.option("--target", help=TARGET_HELP)
@json_option
def add(name: str, host: str, target: str | None) -> None:
    """Write a board into devices.toml, so that --host NAME, or its target alone, finds it."""
    from edgeprune.device.transports.address import Address
    from edgeprune.device.transports.lookup import add_device, resolve_host
    from edgeprune.shipped import load_target

    kind = load_target(target).name if target is not None else None
    place = add_device(name, host, kind)
    step = "trust" if isinstance(resolve_host(name, name), Address) else "doctor"
    print_result(
        {"file": place, "name": name, "host": host, "target": kind},
        f"written to {place}; next: edgeprune devices {step} {name}",
    )


@devices.command("trust")
@click.argument("host")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def trust(host: str, yes: bool) -> None:
    """Accept a board's SSH host key after you have compared its fingerprint."""
    from edgeprune.device.ssh.trust import fetch_host_key, remember_host_key

    key = fetch_host_key(host)
    shown = f"{key.host}: {key.kind} {key.fingerprint}"
    click.echo(shown, err=wants_json())
    question = "Is this the fingerprint that the board itself shows?"
    if yes or click.confirm(question, default=False, err=wants_json()):
        file = remember_host_key(key)
        document = {"host": key.host, "kind": key.kind, "fingerprint": key.fingerprint, "file": file}
        print_result(document, f"written to {file}")
    elif wants_json():
        print_result({"host": key.host, "kind": key.kind, "fingerprint": key.fingerprint, "file": None}, "")


@devices.command("setup")
@board_options
@click.option("--runtime", type=click.Choice(list_board_runtimes()), help="Runtime to install, if not the target's.")
@click.option(
    "--wheels", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Install these wheels alone."
)
@json_option
def setup(target: str, host: str | None, runtime: str | None, wheels: Path | None) -> None:
    """Make a venv on the board and install the target's runtime there."""
    from edgeprune.device.preparing.setup import Order, setup_device
    from edgeprune.shipped import load_target

    kind = load_target(target)
    runtimes = (runtime,) if runtime else kind.runtimes
    text = setup_device(Order(kind, runtimes, wheels), host, say)
    print_result({"target": kind.name, "host": host, "runtimes": runtimes, "summary": text}, text)


@devices.command("doctor")
@board_options
@json_option
def doctor(target: str, host: str | None) -> None:
    """Say what is wrong with a board, and how to mend each; exit code 1 where it cannot be used as it is."""
    from edgeprune.core.boards.doctor import ERROR, render_findings
    from edgeprune.device.preparing.doctor import examine_board
    from edgeprune.shipped import load_target

    address, findings = examine_board(load_target(target), host)
    document = {"host": address, "findings": [asdict(finding) for finding in findings]}
    print_result(document, render_findings(address, findings))
    sys.exit(any(finding.severity == ERROR for finding in findings))


@devices.command("lock")
@board_options
@click.option("--reason", required=True, help="What for; others are told.")
@click.option("--for", "duration", default="1h", show_default=True, help="How long: 30m, 2h, 1d; 7d at most.")
@json_option
def lock(target: str, host: str | None, reason: str, duration: str) -> None:
    """Reserve a board for yourself: until then others are refused. Lock it again to change the time."""
    from edgeprune.core.text import describe_duration
    from edgeprune.device.connect import open_keeper
    from edgeprune.device.lease import describe_owner, parse_duration, reserve
    from edgeprune.shipped import load_target

    seconds = parse_duration(duration)
    with open_keeper(load_target(target), host) as keeper:
        reserve(keeper, reason, seconds)
        owner, board = describe_owner(), keeper.transport.host
        print_result(
            {"host": board, "owner": owner, "reason": reason, "duration_s": seconds},
            f"{board}: reserved for {owner} for {describe_duration(seconds)}",
        )


@devices.command("unlock")
@board_options
@click.option("--owner", help="End another owner's leases: user@machine, as the refusal names it.")
@json_option
def unlock(target: str, host: str | None, owner: str | None) -> None:
    """End your reservation of a board, and a lease that a command of yours has left."""
    from edgeprune.device.connect import open_keeper
    from edgeprune.device.lease import describe_owner
    from edgeprune.device.lease import unlock as end
    from edgeprune.shipped import load_target

    with open_keeper(load_target(target), host) as keeper:
        ended, remain = end(keeper, owner or describe_owner())
        board = keeper.transport.host
    lines = [f"{board}: no longer {lease.describe()}" for lease in ended]
    lines += [f"{board}: still {lease.describe()}" for lease in remain]
    document = {"host": board, "ended": list(map(_lease_row, ended)), "remain": list(map(_lease_row, remain))}
    print_result(document, "\n".join(lines) or f"{board}: was not locked")


def _lease_row(lease: Lease) -> dict[str, Any]:
    return {"name": lease.name, "owner": lease.owner, "reason": lease.reason, "left_s": lease.left_s}


@devices.command("keys")
@board_options
@json_option
def keys(target: str, host: str | None) -> None:
    """List the keys by which a release must be signed to run on a board."""
    from edgeprune.device.releasing.signing import list_keys

    with open_target_agent(target, host) as agent:
        file, trusted_keys = list_keys(agent)
        board = agent.transport.host
    lines = [] if file else [f"{board}: trusts no key, and takes every release"]
    lines += [f"{trusted_key.fingerprint} {trusted_key.name}".rstrip() for trusted_key in trusted_keys]
    lines += [f"{board}: {file}; a release that none of them signed is refused"] if file else []
    print_result({"host": board, "file": file or None, "keys": _key_rows(trusted_keys)}, "\n".join(lines))


def _key_rows(trusted_keys: Sequence[TrustedKey]) -> list[dict[str, str]]:
    return [{"fingerprint": trusted_key.fingerprint, "name": trusted_key.name} for trusted_key in trusted_keys]


@devices.command("trust-key")
@click.argument("key", type=KEY_FILE)
@board_options
@click.option("--remove", is_flag=True, help="Trust this key no more; without any key all releases are taken again.")
@json_option
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
        ending = "" if trusted_keys else ", and takes every release"
        board = agent.transport.host
        print_result({"host": board, "keys": _key_rows(trusted_keys)}, f"{board}: trusts {trusted}{ending}")


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
