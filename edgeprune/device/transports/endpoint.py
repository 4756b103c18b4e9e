"""Everything needed to connect to an address: itself, and what the SSH configuration adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeprune.device.ssh.config import Query, Settings, config_path, read_settings
from edgeprune.device.ssh.known_hosts import DEFAULT_PORT, known_name
from edgeprune.device.transports.address import Address
from edgeprune.errors import ConnectionFailed

GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
USER_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"


@dataclass(frozen=True)
class Endpoint:
    """`label` is for messages; `key_host` is the name that known_hosts has; `agent` is its socket, None for the usual.

    `keys` are those that the configuration names; without any, the usual files are tried.
    """

    label: str
    host: str
    port: int
    user: str
    key_host: str
    keys: tuple[Path, ...]
    identities_only: bool
    agent: str | None
    jumps: tuple[str, ...]
    known_hosts: tuple[Path, ...]

    @property
    def known_name(self) -> str:
        """As known_hosts writes it."""
        return known_name(self.key_host, self.port)


def find_endpoint(address: Address, jumps: tuple[str, ...] | None = None) -> Endpoint:
    """Look an address up in ~/.ssh/config and the system's; `jumps`, where given, replace its ProxyJump.

    Raises:
        ConnectionFailed: the configuration says something that cannot be honoured.
    """
    settings = read_settings(Query(address.host, address.user))
    try:
        return _build(address, settings, jumps)
    except ValueError as exc:
        raise ConnectionFailed(f"{config_path()}: Host {address.host}: {exc}") from exc


def _build(address: Address, settings: Settings, jumps: tuple[str, ...] | None) -> Endpoint:
    port = address.port or _parse_port(settings.first("port", str(DEFAULT_PORT)))

    def expand(text: str) -> str:
        return settings.expand(text, port)

    return Endpoint(
        label=str(address),
        host=settings.host,
        port=port,
        user=settings.user,
        key_host=settings.first("hostkeyalias", settings.host),
        keys=tuple(Path(expand(name)) for name in settings.values.get("identityfile", ()) if name.lower() != "none"),
        identities_only=settings.first("identitiesonly", "no").lower() in ("yes", "true"),
        agent=_find_agent(settings.first("identityagent"), expand),
        jumps=_find_jumps(settings, expand) if jumps is None else jumps,
        known_hosts=_find_files(settings, "userknownhostsfile", USER_KNOWN_HOSTS, expand)
        + _find_files(settings, "globalknownhostsfile", GLOBAL_KNOWN_HOSTS, expand),
    )


def _parse_port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:6]) < 65536:
        raise ValueError(f"Port {text}: expected a number from 1 to 65535")
    return int(text)


def _find_jumps(settings: Settings, expand: Callable[[str], str]) -> tuple[str, ...]:
    """The jumps before the host, the first one first.

    Raises:
        ValueError: the way is by a ProxyCommand.
    """
    keywords = [name for name in settings.values if name in ("proxyjump", "proxycommand")]
    first = keywords[0] if keywords else ""  # the first line that applies rules out the other
    value = settings.first(first, "none")
    if value.lower() == "none":
        return ()
    if first == "proxycommand":
        raise ValueError("ProxyCommand is not supported; use ProxyJump")
    return tuple(expand(part.strip()) for part in value.split(","))


def _find_agent(value: str, expand: Callable[[str], str]) -> str | None:
    if not value or value == "SSH_AUTH_SOCK":
        return None
    return "" if value.lower() == "none" else expand(f"${{{value[1:]}}}" if value.startswith("$") else value)


def _find_files(settings: Settings, keyword: str, default: str, expand: Callable[[str], str]) -> tuple[Path, ...]:
    names = settings.values.get(keyword) or default.split()
    return tuple(Path(expand(name)) for name in names if name.lower() != "none")
