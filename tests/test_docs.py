"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "hardware_profiles" / "README.md",
    *(ROOT / "docs").rglob("*.md"),
]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


def test_every_word_of_the_glossary_stands_where_it_says() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| .* \| `([\w/.]+)` \|$", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    assert len(rows) > 20
    for word, place in rows:
        path = ROOT / "edgeprune" / place
        assert path.exists(), place
        assert word.split()[0] in path.read_text().lower(), (word, place)
