"""Signed releases: signing here, in OpenSSH's SSHSIG format, and the keys that a board trusts.

The format is that of PROTOCOL.sshsig in OpenSSH's sources, so that a board verifies with the ssh-keygen it has.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.core.answers import text
from edgeprune.core.releasing.release import Release
from edgeprune.device.agent.client import Agent, ask_agent, understood
from edgeprune.errors import UsageError
from edgeprune.extras import comes_with

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAMESPACE = b"edgeprune-release"
"""Part of what is signed, so that a signature made for a release serves nothing else, nor another one a release."""
KIND = "ssh-ed25519"
HASH = b"sha512"
LINE_LENGTH = 70
PUBLIC = re.compile(rf"{KIND} ([A-Za-z0-9+/]{{68}})(?: (.*))?")
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.@+-]")


@dataclass(frozen=True)
class TrustedKey:
    """A public key that a board trusts; `key` is its base64 text."""

    key: str
    name: str
    fingerprint: str


def sign_release(release: Release, key: Ed25519PrivateKey) -> Release:
    """The release with its manifest signed; the manifest holds the sha256 of all else."""
    return replace(release, signature=sign(release.manifest.encode(), key))


def sign(content: bytes, key: Ed25519PrivateKey) -> str:
    """A signature of `content` as ssh-keygen writes it."""
    with comes_with("sign"):
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = base64.b64decode(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
    digest = hashlib.sha512(content).digest()
    raw_signature = key.sign(b"SSHSIG" + b"".join(map(_field, (NAMESPACE, b"", HASH, digest))))
    signature = _field(KIND.encode()) + _field(raw_signature)
    packed = b"SSHSIG" + (1).to_bytes(4, "big") + b"".join(map(_field, (public, NAMESPACE, b"", HASH, signature)))
    text = base64.b64encode(packed).decode()
    lines = [text[start : start + LINE_LENGTH] for start in range(0, len(text), LINE_LENGTH)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""])


def _field(content: bytes) -> bytes:
    """An SSH string: its length, and itself (RFC 4251)."""
    return len(content).to_bytes(4, "big") + content


def load_signing_key(path: Path, ask_passphrase: Callable[[], str]) -> Ed25519PrivateKey:
    """A private ed25519 key, in OpenSSH's format or PEM; the passphrase is asked for where it is encrypted.

    Raises:
        UsageError: it cannot be read, or is no such key.
        MissingExtra: cryptography is not installed.
    """
    with comes_with("sign"):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    try:
        content = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"{path}: cannot be read: {exc.strerror}") from exc
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in content else load_pem_private_key
    try:
        try:
            key: Any = load(content, None)
        except TypeError:  # it is encrypted
            key = load(content, ask_passphrase().encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise UsageError(f"{path}: is no private key, or the passphrase is wrong") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path}: is no ed25519 key; make one: ssh-keygen -t ed25519 -f {path.name}-ed25519")
    return key


def read_public_key(path: Path) -> tuple[str, str]:
    """A public ed25519 key as OpenSSH writes it into .pub: its base64 text and its name, of harmless letters.

    Raises:
        UsageError: it cannot be read, or is no such key.
    """
    try:
        text = path.read_text(errors="replace").strip()
    except OSError as exc:
        raise UsageError(f"{path}: cannot be read: {exc.strerror}") from exc
    match = PUBLIC.fullmatch(text)
    if match is None:
        raise UsageError(f"{path}: is no ed25519 public key; ssh-keygen writes one beside the private key, as .pub")
    return match[1], NOT_IN_NAMES.sub("_", match[2] or "")[:64]


def list_keys(agent: Agent) -> tuple[str, list[TrustedKey]]:
    """The file on a board that says whose releases it takes, empty where it takes all; and its keys."""
    return _ask(agent, {"action": "show"})


def trust_key(agent: Agent, key: str, name: str) -> list[TrustedKey]:
    """Let a board take releases that are signed by a key; gives its keys.

    Raises:
        DeviceError: its administrator says whose releases it takes, or its active release would be refused.
    """
    return _ask(agent, {"action": "add", "key": key, "name": name})[1]


def distrust_key(agent: Agent, key: str) -> list[TrustedKey]:
    """Take a key from those that a board trusts; gives those that are left, and without any it takes all releases.

    Raises:
        DeviceError: as for :func:`trust_key`.
    """
    return _ask(agent, {"action": "remove", "key": key, "name": ""})[1]


def _ask(agent: Agent, request: dict[str, Any]) -> tuple[str, list[TrustedKey]]:
    row = ask_agent(agent, {"command": "trust", **request})
    with understood(agent.transport.host, "the keys"):
        keys = [tuple(text(entry[name]) for name in ("key", "name", "fingerprint")) for entry in row["keys"]]
        return text(row["file"]), [TrustedKey(key, _plain(name), fingerprint) for key, name, fingerprint in keys]


def _plain(text: Any) -> str:
    return "".join(letter for letter in str(text)[:64] if letter.isprintable())
