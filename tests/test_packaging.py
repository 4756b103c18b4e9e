"""What ships says whose it is, and the page of a package index leads nowhere wrong."""

from __future__ import annotations

import json
import re
import tomllib

import pytest
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTICE = (ROOT / "NOTICE").read_text()
CHECKPOINTS = sorted((ROOT / "edgeprune" / "recipes" / "checkpoints").iterdir())
PROFILES = sorted((ROOT / "hardware_profiles").rglob("*.json"))


def test_the_notice_ships() -> None:
    assert set(PROJECT["license-files"]) == {"LICENSE", "NOTICE"}


@pytest.mark.parametrize("name", [path.name for path in CHECKPOINTS])
def test_every_checkpoint_is_in_the_notice(name: str) -> None:
    assert re.search(rf"\b{re.escape(name)}\b", NOTICE)


def test_every_source_of_an_estimated_profile_is_in_the_notice() -> None:
    sources = {source for path in PROFILES for source in json.loads(path.read_text())["sources"]}
    titles = {re.split(r" \((?=\w)|: ", source)[0] for source in sources}
    assert len(titles) >= 4
    assert [title for title in titles if title not in NOTICE] == []


def test_the_page_of_a_package_index_has_no_relative_links_and_every_extra() -> None:
    page = (ROOT / PROJECT["readme"]).read_text()
    assert [link for link in re.findall(r"\]\(([^)]+)\)", page) if not link.startswith("https://")] == []
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == set(PROJECT["optional-dependencies"]) - {
        "all",
        "dev",
    }
