"""What went wrong with a file or a disk of this machine, in words: which one, and what to do."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from edgeprune.shipped import cache_dir

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_BYTES = 1 << 20
"""A disk with less than this counts as full where an error does not say which one is."""
REMEDIES = {
    errno.EROFS: "it is on a disk that is mounted read-only; choose another place",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EMFILE: "too many files are open: ulimit -n 4096",
    errno.EIO: "is the disk failing?",
}


def describe_os_error(exc: OSError, path: Path | None = None) -> str:
    """What happened to `path`, or to the file that the error names, or to a disk that is full; with what to do."""
    reason = exc.strerror or str(exc)
    place = str(path or exc.filename or "")
    if exc.errno in FULL:
        full = [str(folder) for folder in find_full() if not place or not Path(place).is_relative_to(folder)]
        where = place or " or ".join(full) or "a file"
        also = f" (full too: {', '.join(full)})" if place and full else ""
        return f"{where}: {reason}{also}; make room there{_hint(where)}, and run the same command again"
    remedy = REMEDIES.get(exc.errno or 0, "check the path, its permissions and the disk")
    return f"{place or 'a file'}: {reason}; {remedy}"


def _hint(where: str) -> str:
    inside = Path(where).is_relative_to(tempfile.gettempdir())
    return ", or set TMPDIR to a folder on another disk" if inside else ""


def find_full() -> list[Path]:
    """Of the folders that work is done in those whose disk is full, each disk once."""
    folders: dict[int, Path] = {}
    for place in (Path(tempfile.gettempdir()), Path.cwd(), cache_dir(), Path.home()):
        try:
            if shutil.disk_usage(place).free < FULL_BYTES:
                folders.setdefault(os.stat(place).st_dev, place)  # noqa: PTH116
        except OSError:
            continue
    return list(folders.values())
