"""Releases as they are named, found and listed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeprune.core.artifact import Artifact, Signature
from edgeprune.core.metric import Metric
from edgeprune.core.releasing.release import (
    Release,
    ReleaseOnBoard,
    build_release,
    find_release,
    parse_releases,
    render_releases,
    shipped_path,
)
from edgeprune.errors import RunError, UsageError

RMSE = Metric("RMSE", better="lower", unit="K")
REPORT: dict[str, Any] = {
    "version": 2, "verdict": "pass", "target": "rpi4", "recipe": "mine", "created": "2026-11-21T10:00:00+00:00",
    "edgeprune": "0.1.0", "runtime": "litert 2.3.0", "metric": RMSE.to_dict(),
    "device": {"fingerprint": "0" * 16, "cpu": "a CPU"},
    "result": {"artifact": "a.tflite", "quality": 0.331, "latency": {"p50_ms": 1.25, "p95_ms": 1.5}},
}  # fmt: skip
ARTIFACT = Artifact(
    "a.tflite", "pruned", "tflite", "int8", 99, "f" * 64, (Signature("x", (1, 3), "float32"),), (), "int8"
)


def board(name: str, **changes: Any) -> ReleaseOnBoard:
    fields: dict[str, Any] = {"whole": True, "current": False, "previous": False, "bytes": 1234, "manifest": {}}
    return ReleaseOnBoard(name, **{**fields, **changes})


def cells(*releases: ReleaseOnBoard) -> list[list[str]]:
    """The table's rows, by what stands between its columns."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in render_releases(releases).splitlines()
    ]


def test_a_manifest_says_what_was_measured_in_the_recipes_own_metric() -> None:
    release = build_release(REPORT, ARTIFACT, "runner", 2)
    manifest = json.loads(release.manifest)
    assert manifest["measured"]["quality"] == 0.331
    assert manifest["measured"]["metric"] == {"name": "RMSE", "better": "lower", "unit": "K"}
    assert (manifest["runtime"], manifest["threads"], manifest["precision"]) == ("litert", 2, "int8")
    assert manifest["model"] == {"file": "model.tflite", "sha256": "f" * 64, "bytes": 99}
    assert manifest["inputs"] == [{"name": "x", "shape": [1, 3], "dtype": "float32"}]
    row = cells(board(release.id, manifest=manifest, current=True))[-1]
    assert row == [
        release.id,
        "active",
        "rpi4",
        "mine",
        "int8",
        "1.250",
        "RMSE 0.331 K",
        REPORT["created"],
        "1,234",
        "none",
    ]


def test_a_release_is_named_by_its_content_and_not_by_its_signature() -> None:
    first = build_release(REPORT, ARTIFACT, "runner", 2)
    assert first.id == build_release(dict(REPORT), ARTIFACT, "runner", 2).id
    assert len(first.id) == 16
    assert first.id != build_release(REPORT, ARTIFACT, "runner", 1).id
    assert first.id != build_release(REPORT, ARTIFACT, "other runner", 2).id
    assert first.id == Release(first.manifest, "runner", "signed").id


@pytest.mark.parametrize(
    "measured",
    [
        None,
        [],
        {"quality": "0.3", "metric": {"name": "F1"}},
        {"quality": None, "metric": {"name": "F1", "unit": ""}},
        {"quality": 0.3},
        {"quality": 0.3, "metric": "F1"},
    ],
)
def test_what_a_board_holds_of_quality_may_be_anything(measured: object) -> None:
    (row,) = cells(board("a", manifest={"measured": measured}, current=True))[2:]
    assert row[6] == "-"


def test_control_characters_of_a_board_are_not_shown() -> None:
    manifest = {"target": "\x1b[2Jrpi4", "measured": {"quality": 1, "metric": {"name": "F\x1b1", "unit": "\n"}}}
    (row,) = cells(board("a", manifest=manifest, current=True))[2:]
    assert (row[2], row[6]) == ("[2Jrpi4", "F1 1")


@pytest.mark.parametrize(
    ("changes", "state"),
    [({"current": True}, "active"), ({"previous": True}, "previous"), ({"whole": False}, "not whole")],
)
def test_the_state_of_a_release_is_shown(changes: dict[str, bool], state: str) -> None:
    assert cells(board("a", **changes))[-1][1] == state


def test_a_release_is_found_by_its_first_digits() -> None:
    there = [board("abcd1111"), board("abcd2222"), board("ffff0000", whole=False)]
    assert find_release("abcd1", there, "board") == "abcd1111"
    for prefix, said in (
        ("abcd", "begins so with abcd1111, abcd2222"),
        ("ffff", "is none of those there: abcd1111, abcd2222"),
        ("abc", "is too short, 4 digits at least"),
        ("", "is too short, 4 digits at least"),
    ):
        with pytest.raises(UsageError, match=f"board: release '{prefix}' {said}"):
            find_release(prefix, there, "board")
    assert find_release("abcd", [board("abcd1111")], "board") == "abcd1111"
    with pytest.raises(UsageError, match="those there: none"):
        find_release("abcd", [], "board")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 1}, "report version 1; expected 2"),
        ({"verdict": "inconclusive"}, "the verdict is 'inconclusive'; only a run that passed"),
        ({"verdict": None}, "the verdict is None"),
    ],
)
def test_only_what_passed_ships(changes: dict[str, Any], said: str) -> None:
    assert shipped_path(REPORT, "run") == "a.tflite"
    with pytest.raises(RunError, match=f"run: {said}"):
        shipped_path(REPORT | changes, "run")


def test_releases_are_read_as_a_board_tells_them() -> None:
    row = {"id": "a", "whole": 1, "current": 0, "previous": 1, "bytes": 3, "manifest": "damaged", "signature": "none"}
    assert parse_releases([row]) == [board("a", bytes=3, previous=True)]
    for spoilt in ({"bytes": -1}, {"id": 3}, {"signature": None}):
        with pytest.raises((TypeError, ValueError)):
            parse_releases([row | spoilt])
    assert render_releases([]) == "no releases there"


def test_a_manifest_has_no_percentile_of_means() -> None:
    report = {**REPORT, "result": {**REPORT["result"], "latency": {"p50_ms": 1.25, "p95_ms": None}}}
    measured = json.loads(build_release(report, ARTIFACT, "runner", 2).manifest)["measured"]
    assert (measured["latency_p50_ms"], measured["latency_p95_ms"]) == (1.25, None)
