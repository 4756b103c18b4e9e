"""`compare`, `sweep` and `evaluate` as a user calls them, on recorded runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import run_command
from recorded_sweep import OPTIONS, open_lab

import edgeprune as ep

WORDS = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished sweep over 2x and 4x."""
    open_lab(monkeypatch)
    return ep.sweep(tmp_path / "sweep", lambda text: None, speedup=[2, 4], **OPTIONS).directory  # type: ignore[arg-type]


def test_a_sweep_ends_with_its_table_and_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = open_lab(monkeypatch, reach=3)
    words = ["sweep", *WORDS, "--run", tmp_path / "sweep"]
    code, printed, _ = run_command(capsys, *words, "--speedup", "2,1.5", "--dry-run")
    assert (code, lab.ran, (tmp_path / "sweep").exists()) == (0, [], False)
    assert [line.split() for line in printed.splitlines()[1:3]] == [
        ["will", "run", "speedup-1.5"],
        ["will", "run", "speedup-2"],
    ]
    code, printed, _ = run_command(capsys, *words, "--speedup", "2,1.5")
    assert (code, lab.ran) == (0, ["speedup-1.5", "speedup-2"])
    assert printed.splitlines()[-1] == f"page: {tmp_path / 'sweep' / 'comparison.html'}"
    assert max(map(len, printed.splitlines()[:-1])) <= 80
    code, printed, _ = run_command(capsys, "sweep", "--run", tmp_path / "sweep", "--json")
    assert (code, json.loads(printed)) == (0, json.loads((tmp_path / "sweep" / "comparison.json").read_text()))
    code, printed, said = run_command(capsys, "sweep", "--run", tmp_path / "sweep", "--speedup", "9")
    assert (code, "speedup-9 has no run: no widths meet it" in printed) == (3, True), said
    for text, expected in (("2,two", "expected numbers with commas"), ("", "expected numbers"), ("0.5", "no budget")):
        code, _, said = run_command(capsys, *words, "--speedup", text)
        assert (code, expected in said) == (2, True)


def test_an_interrupted_sweep_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_lab(monkeypatch, killed_at=2)
    code, _, said = run_command(capsys, "sweep", *WORDS, "--run", tmp_path / "sweep", "--speedup", "2,3")
    assert (code, f"resume with `edgeprune sweep --run {tmp_path / 'sweep'}`" in said) == (130, True)


def test_runs_are_compared_as_a_table_as_json_and_as_a_page(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    code, printed, _ = run_command(capsys, "compare", sweep / "speedup-2", sweep / "speedup-4", "--html", page)
    assert (code, printed.splitlines()[-1]) == (0, f"page: {page}")
    assert "speedup-4" in page.read_text()
    code, printed, _ = run_command(capsys, "compare", sweep, "--json", "--html", page)
    assert (code, json.loads(printed)) == (0, json.loads((sweep / "comparison.json").read_text()))
    for words, expected in (
        ([sweep, "--html", page, "--target", "local"], "--html is for runs"),
        ([sweep / "sweep.json"], "to measure two files on a board, give --target"),
        ([sweep, "--host", "a"], "--target is needed"),
    ):
        code, _, said = run_command(capsys, "compare", *words)
        assert (code, expected in said) == (2, True)


def test_a_card_is_printed_as_markdown_and_as_json(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run_command(capsys, "evaluate", "--run", sweep / "speedup-2")
    assert (code, printed.startswith("# tiny on quick\n\nF1 0.79 at ")) == (0, True)
    code, printed, _ = run_command(capsys, "evaluate", "--run", sweep / "speedup-2", "--json")
    card: dict[str, Any] = json.loads(printed)
    report = json.loads((sweep / "speedup-2" / "report.json").read_text())
    assert card["figures"]["speedup"]["value"] == report["speedup"]
    assert card["figures"]["area_under_curve"]["value"] == pytest.approx(0.79 / 0.8)
