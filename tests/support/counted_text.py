"""Words of a board with a clock, in texts of a run that counted instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

CLOCK = re.compile(r"\b(ms|latency|latencies|milliseconds?|speed-?up)\b|_ms\b|\bp(50|9[059])\b", re.IGNORECASE)
CODE = re.compile(r"<style[^>]*>.*?</style>|<script(?![^>]*json)[^>]*>.*?</script>", re.DOTALL)
SAID_TO_LACK = re.compile(r"no speed-up is known|--speedup [0-9.]+|asked[_ ]speedup")
"""What is told of a clock: that there is none, and the option as it was asked for."""


def find_clock(text: str) -> list[str]:
    """Pieces of a text that say something of a clock."""
    said = SAID_TO_LACK.sub("", text)
    return [said[max(0, found.start() - 60) : found.end() + 40] for found in CLOCK.finditer(said)]


def strip_code(page: str) -> str:
    """A page without its styles and programs; what charts show is kept."""
    return CODE.sub("", page)


def list_keys(document: Any) -> Iterator[str]:
    """Names of fields that hold something, however deep."""
    for item in document if isinstance(document, list) else []:
        yield from list_keys(item)
    for key, value in document.items() if isinstance(document, dict) else []:
        yield from [] if value is None else [key]
        yield from list_keys(value)
