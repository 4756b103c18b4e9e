"""Host keys that the user knows, read line by line as OpenSSH reads them (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PORT = 22
AUTHORITY, REVOKED = "@cert-authority", "@revoked"
HASHED = re.compile(r"\|1\|([A-Za-z0-9+/=]+)\|([A-Za-z0-9+/=]+)")
SPACE = " \t"
KNOWN, CHANGED, UNKNOWN, WITHDRAWN = "known", "changed", "unknown", "withdrawn"


@dataclass(frozen=True)
class KnownKey:
    """One line: `hosts` as it stands there, `blob` the key as it travels, `where` for messages, as FILE:NUMBER."""

    marker: str
    hosts: str
    kind: str
    blob: bytes
    where: str


@dataclass(frozen=True)
class KnownKeys:
    """What is known of one host. `unreadable` are files that could not be read, with why.

    `portless` are keys that are known without its port: they count where they are right, as with OpenSSH.
    """

    keys: tuple[KnownKey, ...] = ()
    portless: tuple[KnownKey, ...] = ()
    authorities: tuple[KnownKey, ...] = ()
    revoked: tuple[KnownKey, ...] = ()
    unreadable: tuple[str, ...] = ()


def parse_line(line: str, where: str = "") -> KnownKey | None:
    """A line of known_hosts; None for comments, and for what OpenSSH skips too: broken ones, and keys of version 1."""
    rest = line.strip(SPACE + "\r\n")
    if not rest or rest.startswith("#"):
        return None
    marker = ""
    if rest.startswith("@"):
        marker, rest = _split(rest)
        if marker not in (AUTHORITY, REVOKED):
            return None
    hosts, rest = _split(rest)
    kind, rest = _split(rest)
    blob = _decode(_split(rest)[0])
    if not hosts or not kind or _kind_of(blob) != kind:
        return None
    return KnownKey(marker, hosts, kind, blob, where)


def _split(text: str) -> tuple[str, str]:
    """The first word, and what follows the space behind it."""
    word = re.split(f"[{SPACE}]", text, maxsplit=1)[0]
    return word, text[len(word) :].lstrip(SPACE)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _kind_of(blob: bytes) -> str:
    """The name of its kind that a key begins with (RFC 4253, section 6.6)."""
    length = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + length].decode("ascii", "replace") if len(blob) > 4 + length else ""


def matches(hosts: str, name: str) -> bool:
    """Whether the first field of a line means a host, by the name that :func:`known_name` gives."""
    name = name.lower()
    hashed = HASHED.fullmatch(hosts)
    if hashed:
        digest = hmac.new(_decode(hashed[1]), name.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(digest, _decode(hashed[2]))
    if hosts.startswith("|"):
        return False
    return match_patterns(name, hosts.lower().split(","))


def match_patterns(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns matches, and none behind a `!` does; `*` is any text, `?` any letter."""
    hit = False
    for pattern in patterns:
        if _match_pattern(name, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            hit = True
    return hit


def _match_pattern(name: str, pattern: str) -> bool:
    parts = (".*" if letter == "*" else "." if letter == "?" else re.escape(letter) for letter in pattern)
    return re.fullmatch("".join(parts), name, re.DOTALL) is not None


def known_name(host: str, port: int) -> str:
    """A host as known_hosts writes it."""
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def find_known(name: str, files: Sequence[Path]) -> KnownKeys:
    """What the files know of a host, by the name that :func:`known_name` gives; a file may be missing."""
    lines: list[KnownKey] = []
    unreadable: list[str] = []
    for file in files:
        try:
            lines += _read(file)
        except FileNotFoundError:
            continue
        except OSError as exc:
            unreadable.append(f"{file}: {exc.strerror}")
    bare = re.sub(r"^\[(.*)\]:[0-9]+$", r"\1", name)
    exact = [line for line in lines if matches(line.hosts, name)]
    portless = [line for line in lines if bare != name and matches(line.hosts, bare)]
    withdrawn = [line.blob for line in portless if line.marker == REVOKED]
    return KnownKeys(
        keys=tuple(line for line in exact if not line.marker),
        portless=tuple(line for line in portless if not line.marker and line.blob not in withdrawn),
        authorities=tuple(line for line in exact if line.marker == AUTHORITY),
        revoked=tuple(line for line in exact if line.marker == REVOKED),
        unreadable=tuple(unreadable),
    )


def judge_key(known_keys: KnownKeys, blob: bytes) -> str:
    """What a key that a server shows is: KNOWN, CHANGED (another one of its kind is known), UNKNOWN or WITHDRAWN."""
    if any(line.blob == blob for line in known_keys.revoked):
        return WITHDRAWN
    if any(line.blob == blob for line in known_keys.keys):
        return KNOWN
    if any(line.kind == _kind_of(blob) for line in known_keys.keys):
        return CHANGED
    return KNOWN if any(line.blob == blob for line in known_keys.portless) else UNKNOWN


def _read(file: Path) -> Iterator[KnownKey]:
    text = file.read_bytes().decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        key = parse_line(line, f"{file}:{number}")
        if key is not None:
            yield key
