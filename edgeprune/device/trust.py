"""Accepting a board's host key, once its fingerprint was compared."""

from __future__ import annotations

from pathlib import Path

from edgeprune.device.address import AdbAddress
from edgeprune.device.lookup import resolve_host
from edgeprune.device.ssh import HostKey, find_known_keys, read_host_key
from edgeprune.errors import HostKeyError, UsageError


def fetch_host_key(host: str) -> HostKey:
    """The key that the server of an address shows.

    Raises:
        ConnectionFailed: it cannot be reached.
    """
    address = resolve_host(host, host)
    if isinstance(address, AdbAddress):
        raise UsageError(f"{address}: a phone has no host key; it asks on its screen whether this machine may debug it")
    if address is None:
        raise UsageError("this machine has no host key to trust; name a board: edgeprune devices trust user@host")
    return read_host_key(address)


def remember_host_key(key: HostKey) -> Path:
    """Append a host key to the user's known_hosts, unless it is there; gives the file.

    Raises:
        HostKeyError: another key of that kind is known, or the file cannot be written.
    """
    known = find_known_keys(key.host, [key.file])
    if known.get(key.kind) == key.base64:
        return key.file
    if key.kind in known:
        raise HostKeyError(
            f"{key.file}: has another {key.kind} key of {key.host}; if the board was set up anew, "
            f"remove that first: ssh-keygen -f {key.file} -R '{key.host}'"
        )
    try:
        key.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key.file.touch(mode=0o600)
        text = key.file.read_text()
        start = "\n" if text and not text.endswith("\n") else ""
        with key.file.open("a") as file:
            file.write(f"{start}{key.host} {key.kind} {key.base64}\n")
    except OSError as exc:
        raise HostKeyError(f"{key.file}: cannot be written: {exc.strerror}") from exc
    return key.file
