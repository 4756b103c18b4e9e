"""The keys that this user has: files, and what an agent holds; of files the public half, without any passphrase."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_KEYS = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
"""What ssh tries without an IdentityFile."""
PRIVATE = re.compile(rb"-----BEGIN OPENSSH PRIVATE KEY-----(.*?)-----END OPENSSH PRIVATE KEY-----", re.DOTALL)
MAGIC = b"openssh-key-v1\0"


@dataclass(frozen=True)
class KeyFile:
    """A file that may hold a key. `public` is its public half, empty where it cannot be told; `named` in the config."""

    path: Path
    named: bool
    public: bytes = b""
    missing: bool = False
    holds_private: bool = False

    def describe(self) -> str:
        """For messages."""
        return f"{self.path} (there is no such file)" if self.missing else str(self.path)


def list_key_files(paths: Sequence[Path]) -> list[KeyFile]:
    """The files that are named, or else the usual ones that are there."""
    if paths:
        return [read_key_file(path, True) for path in paths]
    usual = [Path.home() / ".ssh" / name for name in DEFAULT_KEYS]
    return [read_key_file(path, False) for path in usual if path.exists() or _beside(path).exists()]


def read_key_file(path: Path, named: bool) -> KeyFile:
    """What a private or public key's file says without its passphrase; its `.pub` is read where it does not say it."""
    try:
        content = path.read_bytes()
    except OSError:
        public = _read_public(_beside(path))
        return KeyFile(path, named, public, missing=not public)
    public = parse_public(content) or parse_private(content) or _read_public(_beside(path))
    return KeyFile(path, named, public, holds_private=b"PRIVATE KEY" in content)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.pub")


def _read_public(path: Path) -> bytes:
    try:
        return parse_public(path.read_bytes())
    except OSError:
        return b""


def parse_public(content: bytes) -> bytes:
    """The key of a `.pub` file, as it travels; empty where it is none."""
    words = content.split(None, 2)
    if len(words) < 2:
        return b""
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return b""
    return blob if blob[4:].startswith(words[0]) else b""


def parse_private(content: bytes) -> bytes:
    """The public half of a private key in OpenSSH's format (PROTOCOL.key), which is not encrypted; else empty."""
    match = PRIVATE.search(content)
    try:
        packed = base64.b64decode(match[1]) if match else b""
    except (binascii.Error, ValueError):
        return b""
    if not packed.startswith(MAGIC):
        return b""
    *_, rest = _strings(packed[len(MAGIC) :], 3)  # cipher, its key's making, and options of that
    return _strings(rest[4:], 1)[0]  # behind the number of keys


def _strings(content: bytes, count: int) -> list[bytes]:
    """The first strings of a packed key (RFC 4251), and what follows them."""
    strings = []
    for _ in range(count):
        length = int.from_bytes(content[:4], "big")
        strings.append(content[4 : 4 + length])
        content = content[4 + length :]
    return [*strings, content]
