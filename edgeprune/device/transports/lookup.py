"""Where a board is: an address given, in the environment, in devices.toml, or in ~/.ssh/config."""

from __future__ import annotations

import json
import os
import re
import secrets
import tomllib
from pathlib import Path
from typing import Any

from edgeprune.core.text import suggest
from edgeprune.device.ssh.config import list_config_hosts
from edgeprune.device.transports.address import Address, AnyAddress, parse_host
from edgeprune.errors import TargetError
from edgeprune.shipped import config_dir

LOCAL = "local"
"""Both the target that is this machine, and the host that says so for any target."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
TABLES = ("devices", "groups")


def is_known(target_name: str) -> bool:
    """Whether anything says where a target's board is, without --host.

    Raises:
        TargetError: devices.toml is not valid.
    """
    is_listed = any(target_name in (name, entry.get("target")) for name, entry in load_devices().items())
    return target_name == LOCAL or bool(os.environ.get("EDGEPRUNE_HOST")) or is_listed or target_name in _ssh_hosts()


def resolve_host(target_name: str, host: str | None) -> AnyAddress | None:
    """The address of a target's board; None is this machine.

    A `host` that is given wins; then the target `local`; then $EDGEPRUNE_HOST, devices.toml and ~/.ssh/config.

    Raises:
        TargetError: no address is known, or one that is none.
    """
    entries = load_devices()
    if host is not None:
        return _find_address(host, entries, "--host")
    if target_name == LOCAL:
        return None
    if os.environ.get("EDGEPRUNE_HOST"):
        return _find_address(os.environ["EDGEPRUNE_HOST"], entries, "EDGEPRUNE_HOST")
    boards = {name: entry for name, entry in entries.items() if target_name in (name, entry.get("target"))}
    if len(boards) > 1:
        raise TargetError(f"target {target_name}: {devices_path()} has {', '.join(boards)}; choose one: --host NAME")
    if boards:
        return _find_address(next(iter(boards)), entries, "")
    if target_name in _ssh_hosts():
        return Address(target_name)
    raise TargetError(
        f"target {target_name}: no address is known; give --host user@address, set EDGEPRUNE_HOST, write "
        f'[devices.{target_name}] host = "user@address" into {devices_path()}, or a Host {target_name} '
        f"into {Path.home() / '.ssh' / 'config'}"
    )


def _find_address(text: str, entries: dict[str, dict[str, str]], where: str) -> AnyAddress | None:
    """An address, by a device's name or as it stands."""
    if text in entries:
        where, text = f"{devices_path()}: devices.{text}", entries[text]["host"]
    return None if text == LOCAL else parse_host(text, where)


def load_devices() -> dict[str, dict[str, str]]:
    """The devices of `devices.toml` by name, each with `host` and perhaps `target`; none where there is no file.

    Raises:
        TargetError: the file is not valid.
    """
    return parse_devices(_read_document(), str(devices_path()))


def _read_document() -> dict[str, Any]:
    """What `devices.toml` holds; nothing where there is no file."""
    path = devices_path()
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as exc:
        raise TargetError(f"{path}: cannot be read as TOML: {exc}") from exc


def parse_devices(document: dict[str, Any], where: str) -> dict[str, dict[str, str]]:
    """Check the tables `[devices.NAME]`.

    Raises:
        TargetError: unknown key, wrong type, or no host.
    """
    for key in document:
        if key not in TABLES:
            raise TargetError(f"{where}: unknown key {key!r}{suggest(key, TABLES)}")
    entries = document.get("devices", {})
    if not isinstance(entries, dict):
        raise TargetError(f"{where}: devices: expected tables [devices.NAME]")
    for name, entry in entries.items():
        if not isinstance(entry, dict) or "host" not in entry:
            raise TargetError(f'{where}: devices.{name}: expected a table with host = "user@address"')
        for key, value in entry.items():
            if key not in ("host", "target"):
                raise TargetError(f"{where}: devices.{name}: unknown key {key!r}{suggest(key, ['host', 'target'])}")
            if not isinstance(value, str):
                raise TargetError(f"{where}: devices.{name}: {key}: expected text, found {value!r}")
    return entries


def parse_groups(document: dict[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    """Check the table `[groups]`: names of devices, or addresses, by the name of a group.

    Raises:
        TargetError: wrong type, a group that is empty, or has the name of a device.
    """
    groups = document.get("groups", {})
    if not isinstance(groups, dict):
        raise TargetError(f"{where}: groups: expected a table [groups]")
    devices = parse_devices(document, where)
    for name, members in groups.items():
        texts = isinstance(members, list) and all(isinstance(member, str) for member in members)
        if not texts or not members:
            raise TargetError(f'{where}: groups.{name}: expected names of devices, such as ["bench-1", "bench-2"]')
        if name in devices:
            raise TargetError(f"{where}: groups.{name}: is a device's name too")
        for member in members:
            if member in groups:
                raise TargetError(f"{where}: groups.{name}: {member} is a group; expected devices")
            _find_address(member, devices, f"{where}: groups.{name}")
    return {name: tuple(members) for name, members in groups.items()}


def resolve_boards(text: str) -> tuple[str, ...]:
    """The boards of `--hosts`: names of devices, groups and addresses, with commas between; each board once.

    Raises:
        TargetError: none, one that is no address, the same board by two names, or devices.toml is not valid.
    """
    document, where = _read_document(), str(devices_path())
    devices, groups = parse_devices(document, where), parse_groups(document, where)
    names = [name.strip() for name in text.split(",") if name.strip()]
    boards = tuple(dict.fromkeys(board for name in names for board in groups.get(name, (name,))))
    if not boards:
        raise TargetError(f"--hosts: {text!r} names no board; expected for example bench-1,bench-2 or a group")
    boards_by_address: dict[AnyAddress | None, str] = {}
    for board in boards:
        address = _find_address(board, devices, "--hosts")
        if address in boards_by_address:
            raise TargetError(f"--hosts: {boards_by_address[address]} and {board} are the same board")
        boards_by_address[address] = board
    return boards


def add_device(name: str, host: str, target: str | None) -> Path:
    """Append a device to `devices.toml`; gives the file.

    Raises:
        TargetError: no such name or address can be, the name is taken, or the file is not valid or cannot be written.
    """
    path = devices_path()
    if not NAME.fullmatch(name) or name == LOCAL:
        raise TargetError(f"{name!r} cannot be a device's name; use letters, digits, - and _, and not {LOCAL!r}")
    parse_host(host, "--host")
    document = _read_document()
    devices, groups = parse_devices(document, str(path)), parse_groups(document, str(path))
    if name in devices or name in groups:
        kind = "device" if name in devices else "group"
        raise TargetError(f"{path}: has a {kind} {name} already; change it there, or take another name")
    lines = [f"[devices.{name}]", f"host = {json.dumps(host, ensure_ascii=False)}"]
    lines += [f"target = {json.dumps(target)}"] if target is not None else []
    try:
        text = path.read_text() if path.exists() else ""
        start = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        text += start + "\n".join(lines) + "\n"
        parse_devices(tomllib.loads(text), str(path))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = path.resolve()  # a link stays one
        partial = place.with_name(f"{place.name}.{secrets.token_hex(4)}.partial")
        partial.write_text(text)
        partial.replace(place)
    except (ValueError, RecursionError) as exc:
        raise TargetError(f"{path}: cannot be added to: {exc}; write [devices.{name}] there by hand") from exc
    except OSError as exc:
        raise TargetError(f"{path}: cannot be written: {exc.strerror}") from exc
    return path


def devices_path() -> Path:
    """The user's list of devices."""
    return config_dir() / "devices.toml"


def _ssh_hosts() -> set[str]:
    """Hosts that ~/.ssh/config names."""
    return list_config_hosts()
