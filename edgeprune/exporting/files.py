"""Files written whole or not at all, and their checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeprune.disk import describe_os_error
from edgeprune.errors import ExportError


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically, making its folder where needed.

    Raises:
        ExportError: it cannot be written (full disk, permissions); nothing is left behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as exc:
        raise ExportError(f"{path}: cannot write {len(content):,} bytes: {describe_os_error(exc, path)}") from exc


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        ExportError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise ExportError(f"{path}: cannot read: {exc.strerror}; export the model again") from exc
