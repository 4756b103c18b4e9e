"""Libraries of an extra: imported where they are used, and asked for by the extra's name where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgeprune.errors import MissingExtra


@contextmanager
def comes_with(extra: str) -> Iterator[None]:
    """Import what an extra brings.

    Raises:
        MissingExtra: it cannot be imported; says what to install.
    """
    try:
        yield
    except ImportError as exc:
        raise MissingExtra(f"{exc}; run: pip install 'edgeprune[{extra}]'") from exc
