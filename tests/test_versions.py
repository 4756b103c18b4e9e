"""Versions: what was tried together is what the package allows, and what differs from it is told."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path

import pytest
from places import ROOT

from edgeprune import versions
from edgeprune.cli import root
from edgeprune.versions import DECIDING, PINNED, describe_untried, find_constraints

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_versions_that_were_tried_are_told_apart_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = dict(PINNED.findall(find_constraints().read_text()))
    assert set(DECIDING) <= set(tried)
    monkeypatch.setattr(versions, "version", lambda name: f"{tried[name]}+cpu")
    assert describe_untried() == ""
    monkeypatch.setattr(versions, "version", lambda name: "1.0" if name == "torch" else tried[name])
    assert describe_untried().startswith(f"versions that were not tried: torch 1.0 (tried: {tried['torch']}); pip")
    monkeypatch.setattr(versions, "find_constraints", lambda: Path("/nowhere"))
    assert describe_untried() == ""


def test_an_unexpected_error_names_versions_that_were_not_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(versions, "version", lambda name: "0.1")
    with pytest.raises(SystemExit):
        root._fail(ZeroDivisionError("by zero"), 1, [])
    told = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: by zero" in told
    assert "versions that were not tried: torch 0.1 (tried: " in told


def list_bounds(extras: Collection[str]) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """Each package that is asked for, with its lower bound and, where it has one, its upper."""
    for text in chain(PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)):
        name, limits = re.fullmatch(r"([\w-]+)(.*)", text).groups()  # type: ignore[union-attr]
        yield name, [read_numbers(part) for part in limits.split(",")]


def read_numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def test_what_was_tried_lies_within_what_the_package_allows() -> None:
    tried = dict(PINNED.findall((ROOT / "constraints.txt").read_text()))
    for name, numbers in list_bounds(PROJECT["optional-dependencies"].keys() - {"all", "dev"}):
        own = read_numbers(tried[name])
        assert own >= numbers[0], name
        assert len(numbers) == 1 or own < numbers[1], name


def test_the_lowest_that_were_tried_are_the_lower_bounds() -> None:
    lowest = dict(PINNED.findall((ROOT / "constraints-lowest.txt").read_text()))
    for name, (least, *_) in list_bounds(PROJECT["optional-dependencies"].keys() - {"all", "dev", "tflite"}):
        own = read_numbers(lowest[name])
        assert own[: len(least)] == least or name == "torch", name
        assert not any(own[len(least) :]), name
