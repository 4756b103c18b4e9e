"""Which rows of the history are meant: filters, as a condition in SQL whose texts are parameters only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from edgeprune.errors import UsageError

LARGEST = 2**63 - 1
CONDITIONS = {
    "recipe": "recipe = :recipe",
    "target": "target = :target",
    "device": "(device = :device OR host = :device)",
    "artifact": "artifact = :artifact",
    "stage": "stage = :stage",
    "since": "created >= :since",
}
"""The condition that each filter stands for."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Rows that agree with all that is said; `device` is a fingerprint or a host, `since` a time as :func:`parse_since`
    gives it, and of what agrees the newest `limit` are meant."""

    recipe: str | None = None
    target: str | None = None
    device: str | None = None
    artifact: str | None = None
    stage: str | None = None
    since: str | None = None
    limit: int | None = None


def build_query(filters: Filters) -> tuple[str, dict[str, str | int]]:
    """What stands behind `SELECT ... FROM measurements`, newest first, and its parameters."""
    texts = {name: getattr(filters, name) for name in CONDITIONS if getattr(filters, name) is not None}
    where = " AND ".join(CONDITIONS[name] for name in texts) or "1"
    limit = LARGEST if filters.limit is None else filters.limit
    return f"WHERE {where} ORDER BY created DESC, key DESC LIMIT :limit", {**texts, "limit": limit}


def parse_since(text: str) -> str:
    """A day or a time in ISO 8601, in UTC unless it names its zone, as the column `created` has it.

    Raises:
        UsageError: it is none.
    """
    try:
        return format_time(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as exc:
        raise UsageError(f"--since {text}: expected a date as 2026-11-21, or a time as 2026-11-21T10:00") from exc


def format_time(moment: datetime) -> str:
    """A time in UTC to the second, such that texts are in order of time."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="seconds")
