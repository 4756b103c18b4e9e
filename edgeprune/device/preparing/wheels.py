"""Wheels on this machine: read, checked, and chosen for a board."""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from edgeprune.device.transports.transport import hash_file
from edgeprune.errors import UsageError

WHEEL_NAME = re.compile(r"[A-Za-z0-9_.+!]+(-[A-Za-z0-9_.+!]+){4,5}\.whl")


@dataclass(frozen=True)
class Wheel:
    """A wheel that is whole. `distribution` is its name as pip compares it; sizes are in bytes."""

    path: Path
    distribution: str
    version: str
    sha256: str
    packed_bytes: int
    unpacked_bytes: int


def read_wheel(path: Path) -> Wheel:
    """What a wheel says of itself, once all of it was read and its check sums compared.

    Raises:
        UsageError: it cannot be read, is damaged, or is no wheel.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            broken = packed.testzip()
            if broken is not None:
                raise UsageError(f"{path}: is damaged (at {broken}); fetch it again")
            (name,) = (entry for entry in packed.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", entry))
            metadata = HeaderParser().parsestr(packed.read(name).decode("utf-8", "replace"))
            unpacked = sum(entry.file_size for entry in packed.infolist())
    except OSError as exc:
        raise UsageError(f"{path}: cannot be read: {exc.strerror}") from exc
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, zlib.error) as exc:
        raise UsageError(f"{path}: is damaged or no wheel: {exc}; fetch it again") from exc
    if not metadata["Name"] or not metadata["Version"]:
        raise UsageError(f"{path}: is no wheel, as it tells neither name nor version; fetch it again")
    return Wheel(
        path, plain_name(metadata["Name"]), metadata["Version"], hash_file(path), path.stat().st_size, unpacked
    )


def plain_name(name: str) -> str:
    """A distribution's name as pip compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def fits(name: str, machine: str) -> bool:
    """Whether a wheel's name is one, and its platform may be this machine's."""
    platform = name.removesuffix(".whl").rpartition("-")[2]
    return WHEEL_NAME.fullmatch(name) is not None and (platform == "any" or platform.endswith(machine))


def name_set(wheels: Sequence[Wheel]) -> str:
    """A name for these wheels and no others: by what is in them."""
    rows = sorted(f"{wheel.path.name} {wheel.sha256}" for wheel in wheels)
    return f"wheels-{hashlib.sha256(chr(10).join(rows).encode()).hexdigest()[:16]}"


def wheel_platforms(machine: str, glibc: str) -> tuple[str, ...]:
    """The platform tags of wheels that a Linux of this glibc takes, the newest first (PEP 600)."""
    match = re.fullmatch(r"2\.(\d{1,3})", glibc)
    newest = int(match.group(1)) if match else 17
    return (*(f"manylinux_2_{minor}_{machine}" for minor in range(newest, 16, -1)), f"manylinux2014_{machine}")
