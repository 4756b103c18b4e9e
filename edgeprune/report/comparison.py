"""The comparison of runs as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from edgeprune.core.choosing.table import render_table


def render_comparison_page(document: Mapping[str, Any]) -> str:
    """HTML of a comparison's document."""
    return f"<!doctype html><meta charset=utf-8><pre>{escape(render_table(document))}</pre>\n"
