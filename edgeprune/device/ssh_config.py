"""What ~/.ssh/config says of a host, as far as it is honoured here."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.device.address import Address

DEFAULT_PORT = 22
GLOBAL_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")


@dataclass(frozen=True)
class Endpoint:
    """Everything needed to connect. `label` is for messages; `key_host` is the name that known_hosts has."""

    label: str
    host: str
    port: int
    user: str
    key_host: str
    keys: tuple[Path, ...]
    identities_only: bool
    jumps: tuple[str, ...]
    proxy_command: str
    known_hosts: tuple[Path, ...]

    @property
    def known_name(self) -> str:
        """As known_hosts writes it."""
        return self.key_host if self.port == DEFAULT_PORT else f"[{self.key_host}]:{self.port}"


def config_path() -> Path:
    """The user's SSH configuration."""
    return Path.home() / ".ssh" / "config"


def build_endpoint(address: Address, entry: Mapping[str, Any], jumps: tuple[str, ...] | None) -> Endpoint:
    """An address with what the configuration adds; `jumps`, where given, replace its ProxyJump."""
    host = str(entry.get("hostname", address.host))
    port = address.port or int(entry.get("port", DEFAULT_PORT))
    user = address.user or str(entry.get("user") or getpass.getuser())
    named = entry.get("userknownhostsfile", "")
    files = [Path(name).expanduser() for name in named.split()] or [Path.home() / ".ssh" / "known_hosts"]
    jump = str(entry.get("proxyjump", "none"))
    if jumps is None:
        jumps = () if jump.lower() == "none" else tuple(part.strip() for part in jump.split(","))
    command = str(entry.get("proxycommand", "none"))
    return Endpoint(
        label=str(address),
        host=host,
        port=port,
        user=user,
        key_host=str(entry.get("hostkeyalias", host)),
        keys=tuple(Path(name).expanduser() for name in entry.get("identityfile", ())),
        identities_only=str(entry.get("identitiesonly", "no")).lower() == "yes",
        jumps=jumps,
        proxy_command="" if command.lower() == "none" else command,
        known_hosts=(*files, GLOBAL_KNOWN_HOSTS),
    )
