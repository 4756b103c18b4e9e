"""A run on many boards, each held against the baseline of its kind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from fake_board import FakeBoard, shipped_hash
from measured_run import FACTS, Shipped, record_measured_run

from edgeprune.errors import ConnectionFailed
from edgeprune.run import read_json

STEADY = Shipped(processes=6, energy=None)
FAST = replace(FACTS, cpu="a faster CPU")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPRUNE_HISTORY", "")
    for name, facts, size in (("old", FACTS, 1000), ("fast-old", FAST, 1020), ("new", FACTS, 1010)):
        record_measured_run(tmp_path / name, shipped=replace(STEADY, facts=facts, size=size))
        assert call("gate", "--run", name)[0] == 0
    return tmp_path


def measure(
    monkeypatch: pytest.MonkeyPatch, boards: Mapping[str, FakeBoard], *options: str
) -> tuple[int, dict[str, Any], str]:
    @contextmanager
    def open_board(_: object, host: str, *__: object) -> Iterator[FakeBoard]:
        yield boards[host]

    monkeypatch.setattr("edgeprune.stages.fleet.open_board", open_board)
    code, printed, said = call("fleet", "--run", "new", "--hosts", ",".join(boards), *options)
    assert code in (0, 3, 4), said
    return code, read_json(Path("new/fleet.json")), printed


def latencies(new_ms: float, old_ms: float) -> dict[str, float]:
    own = {shipped_hash(Path("new")): new_ms, shipped_hash(Path("old")): old_ms, shipped_hash(Path("fast-old")): old_ms}
    rows = read_json(Path("new/report.json"))["artifacts"]
    return own | {row["sha256"]: 1.0 for row in rows if row["path"].startswith("artifacts/original")}


def test_each_board_is_held_against_its_kind_and_the_worst_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    call("baseline", "set", "main", "--run", "old")
    call("baseline", "set", "main", "--run", "fast-old")
    same, slower = latencies(0.4, 0.4), latencies(0.23, 0.2)
    boards = {"pi@a": FakeBoard(same), "pi@b": FakeBoard(slower, facts=FAST), "pi@c": FakeBoard(same)}
    code, document, printed = measure(monkeypatch, boards, "--baseline", "main")
    deciding = {row["metric"]: (row["host"], row["outcome"]) for row in document["against"]["rows"]}
    assert (code, deciding["latency_p50_ms"]) == (3, ("pi@b", "fail"))
    assert deciding["file_bytes"][1] == "pass"
    assert "fail         latency_p50_ms" in printed
    own = {row["host"]: row["against"]["place"] for row in document["boards"]}
    assert own["pi@a"] == own["pi@c"] != own["pi@b"]
    assert "earlier" in read_json(Path("new/fleet.samples.json"))["pi@a"]
    assert measure(monkeypatch, boards, "--baseline", "main", "--percentile", "60")[0] == 0
    assert measure(monkeypatch, boards)[1]["against"] is None


def test_a_comment_names_the_board_that_decides_and_those_that_were_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    call("baseline", "set", "main", "--run", "old")
    call("baseline", "set", "main", "--run", "fast-old")
    boards = {"pi@a": FakeBoard(latencies(0.4, 0.4)), "pi@b": FakeBoard(latencies(0.23, 0.2), facts=FAST)}
    monkeypatch.setattr(boards["pi@a"], "time", lose_link)
    measure(monkeypatch, boards, "--baseline", "main")
    text = Path("new/fleet.md").read_text()
    assert text.startswith("### ❌ fail: mine on 2 boards of board\n")
    assert "| pi@a | - | - | - | not measured: pi@a: link lost |" in text
    assert re.search(r"\| pi@b \| 0\.23\d* ms \| [\d.]+ to [\d.]+ ms \| 4\.\d+ \|", text)
    assert re.search(r"\| latency\\_p50\\_ms against main \(pi@b\) \| ❌ fail \|", text)
    assert (tmp_path / "summary.md").read_text() == f"{text}\n"


def test_a_file_that_was_edited_since_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("new/board.toml").write_text(Path("new/board.toml").read_text() + "# edited")
    monkeypatch.setattr("edgeprune.cli.releases.say", print)
    _, _, printed = measure(monkeypatch, {"pi@a": FakeBoard(latencies(0.4, 0.4))})
    assert "board.toml: was changed since this run used it; gate stays as made then" in printed


def lose_link(*_: object) -> None:
    raise ConnectionFailed("pi@a: link lost")


def test_a_board_whose_kind_has_none_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    call("baseline", "set", "main", "--run", "old")
    call("baseline", "set", "main", "--run", "fast-old")
    same = latencies(0.4, 0.4)
    boards = {"pi@a": FakeBoard(same), "pi@b": FakeBoard(same, facts=replace(FACTS, cores=8))}
    code, document, _ = measure(monkeypatch, boards, "--baseline", "main")
    assert code == 4
    assert {row["host"] for row in document["against"]["rows"]} == {"pi@b"}
    assert "none for this kind of device" in document["boards"][1]["against"]


def test_a_limit_says_which_board_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    call("baseline", "set", "main", "--run", "old")
    board = Path("new/board.toml")
    names = ("latency_p50_ms", "latency_p90_ms", "latency_p95_ms", "latency_p99_ms")
    rows = [f'[[baseline]]\nmetric = "{name}"\nmax_regression = 0.02\nover = "median"\n' for name in names]
    board.write_text(board.read_text() + "".join(rows))
    same, slower = latencies(0.4, 0.4), latencies(0.46, 0.4)
    boards = {"pi@a": FakeBoard(same), "pi@b": FakeBoard(slower), "pi@c": FakeBoard(same)}
    code, document, _ = measure(monkeypatch, boards, "--baseline", "main")
    assert (code, document["against"]["rows"][0]["outcome"]) == (0, "pass")
    board.write_text(board.read_text().replace("median", "worst"))
    assert measure(monkeypatch, boards, "--baseline", "main", "--percentile", "50")[0] == 3


def test_no_such_baseline_is_refused_before_boards_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.stages.fleet.open_board", None)
    code, _, said = call("fleet", "--run", "new", "--hosts", "pi@a", "--baseline", "nothing")
    assert (code, "no baseline 'nothing'" in said) == (1, True)
