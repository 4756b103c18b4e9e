"""The keys whose releases this board takes: shown, added, removed. See signatures.py for their files."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from edgeprune_agent.errors import AgentError
from edgeprune_agent.events import Events
from edgeprune_agent.files import home
from edgeprune_agent.releases import MANIFEST, SIGNATURE, find_current, read_file
from edgeprune_agent.signatures import IDENTITY, NAMESPACE, OWN, SYSTEM, check_signature, find_signers

KIND = "ssh-ed25519"
KEY = re.compile(r"[A-Za-z0-9+/]{68}")
"""51 bytes: the name of the kind and 32 bytes, each behind its length."""
NAME = re.compile(r"[A-Za-z0-9_.@+-]{0,64}")
LINE = re.compile(rf"[^#].*\b{KIND} ({KEY.pattern})(?: (.*))?")


def trust(request: dict[str, Any], root: str, events: Events) -> None:
    """Show the keys, after one was added or removed."""
    folder = home() / "releases"
    if request["action"] != "show":
        folder.mkdir(exist_ok=True)
        change(folder, request)
    signers = find_signers(folder)
    rows = [
        {"key": match[1], "name": match[2] or "", "fingerprint": fingerprint(match[1])}
        for match in map(LINE.fullmatch, read_lines(signers) if signers else [])
        if match
    ]
    events.emit("result", keys=rows, file=str(signers or ""))


def change(folder: Path, request: dict[str, Any]) -> None:
    """Add or remove one key; the file goes with its last line.

    Raises:
        AgentError: it is no such key, the administrator says whose releases are taken, or the active release would be
            refused.
    """
    key, name, path = request["key"], request["name"], folder / OWN
    if not KEY.fullmatch(key) or not NAME.fullmatch(name) or not is_ed25519(key):
        raise AgentError("request", "that is no ed25519 public key")
    if find_signers(folder) == SYSTEM:
        raise AgentError("request", f"the administrator of this board says in {SYSTEM} whose releases it takes")
    lines = [line for line in read_lines(path) if key not in line.split()]
    if request["action"] == "add":
        lines.append(f'{IDENTITY} namespaces="{NAMESPACE}" {KIND} {key} {name}'.rstrip())
    if not lines:
        path.unlink(missing_ok=True)
        return
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n", "utf-8")
    try:
        check_active(folder, partial)
    except AgentError:
        partial.unlink()
        raise
    partial.replace(path)


def check_active(folder: Path, signers: Path) -> None:
    """Require that the active release, if any, was signed by one of the keys: it shall not stop working.

    Raises:
        AgentError: it was not.
    """
    active = find_current(folder)
    if active is None:
        return
    place = folder / active
    try:
        check_signature(read_file(place / MANIFEST), read_file(place / SIGNATURE), signers)
    except AgentError as exc:
        raise AgentError(
            "signature",
            f"the active release {active} would not run any more, as it {exc}; first push it again with --sign",
        ) from exc


def read_lines(path: Path) -> list[str]:
    """Lines of a file; none where there is no file."""
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def is_ed25519(key: str) -> bool:
    """Whether base64 text is such a key."""
    content = base64.b64decode(key)
    return content[:19] == b"\0\0\0\x0b" + KIND.encode() + b"\0\0\0\x20" and len(content) == 51


def fingerprint(key: str) -> str:
    """As OpenSSH says it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(key)).digest()).decode().rstrip("=")
