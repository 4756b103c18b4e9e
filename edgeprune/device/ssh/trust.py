"""Accepting a board's host key, once its fingerprint was compared."""

from __future__ import annotations

import base64
from pathlib import Path

from edgeprune.device.ssh.known_hosts import find_known
from edgeprune.device.ssh.login import HostKey, read_host_key
from edgeprune.device.transports.address import AdbAddress, SerialAddress
from edgeprune.device.transports.lookup import resolve_host
from edgeprune.errors import HostKeyError, UsageError


def fetch_host_key(host: str) -> HostKey:
    """The key that the server of an address shows.

    Raises:
        ConnectionFailed: it cannot be reached.
    """
    address = resolve_host(host, host)
    if isinstance(address, AdbAddress):
        raise UsageError(f"{address}: a phone has no host key; it asks on its screen whether this machine may debug it")
    if isinstance(address, SerialAddress):
        raise UsageError(f"{address}: a serial line has no host key; what is plugged in is known by its firmware")
    if address is None:
        raise UsageError("this machine has no host key to trust; name a board: edgeprune devices trust user@host")
    return read_host_key(address)


def remember_host_key(key: HostKey) -> Path:
    """Append a host key to the user's known_hosts, unless it is there; gives the file.

    Raises:
        HostKeyError: another key of that kind is known, this one is revoked, or the file cannot be written.
    """
    known_keys, blob = find_known(key.host, [key.file]), base64.b64decode(key.base64)
    withdrawn = [line for line in known_keys.revoked if line.blob == blob]
    if withdrawn:
        raise HostKeyError(
            f"{withdrawn[0].where}: says that this key of {key.host} is @revoked; give the board a new one"
        )
    same_kind = [line for line in known_keys.keys if line.kind == key.kind]
    if any(line.blob == blob for line in same_kind):
        return key.file
    if same_kind:
        raise HostKeyError(
            f"{same_kind[0].where}: has another {key.kind} key of {key.host}; if the board was set up anew, "
            f"remove that first: ssh-keygen -f {key.file} -R '{key.host}'"
        )
    try:
        key.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key.file.touch(mode=0o600)
        text = key.file.read_bytes()
        start = "\n" if text and not text.endswith(b"\n") else ""
        with key.file.open("a") as file:
            file.write(f"{start}{key.host} {key.kind} {key.base64}\n")
    except OSError as exc:
        raise HostKeyError(f"{key.file}: cannot be written: {exc.strerror}") from exc
    return key.file
