"""The verdict in Markdown: what a comment on a change says, and that nothing in it breaks it."""

from __future__ import annotations

import copy
import html
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_run import judge_run, read_report

from edgeprune.report.markdown import MOST_GATES, escape, render_markdown

RUN = Path("runs/mine")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judge_run(tmp_path_factory.mktemp("judged") / "run")


@pytest.fixture
def report(judged: Path) -> Any:
    return copy.deepcopy(read_report(judged))


def test_the_run_has_it_and_it_says_what_matters(judged: Path) -> None:
    text = (judged / "gates.md").read_text()
    lines = text.splitlines()
    assert lines[0] == "### ✅ pass: mine on board"
    assert "| speed-up | 1 | 2.50 |" in text
    assert re.search(r"\| latency p50 \| 1\.01 ms \| 0\.404 ms \| [\d.]+ to [\d.]+ ms \|", text)
    assert "| F1 (10 inputs) | 0.8 | 0.79 |" in text
    assert "| energy above idle | 4 mJ | 4 mJ | ± 0.5 mJ |" in text
    assert "Measured in turns on desk (a CPU), onnxruntime 1.0, fp32, median of 101 inferences, 2 threads" in text
    assert r"| speedup at\_least 2 | ✅ pass |" in text
    assert lines[-2:] == [f"Next: `edgeprune release push --run {judged} --activate`", "<!-- edgeprune -->"]


def test_without_a_power_sensor_there_are_no_joules(report: Any) -> None:
    report["result"] |= {"energy": None, "energy_mj": None, "power": "no power sensor"}
    assert "mJ" not in render_markdown(report, RUN)


@pytest.mark.parametrize(
    ("verdict", "problems", "advice"),
    [
        ("pass", [], "`edgeprune release push --run runs/mine --activate`"),
        ("fail", [], "`edgeprune explain --run runs/mine`"),
        ("inconclusive", ["throttled"], "quiet, cool board: `edgeprune deploy --run runs/mine --from measure`"),
        ("inconclusive", [], "an interval holds a limit"),
    ],
)
def test_it_ends_with_what_to_do(verdict: str, problems: list[str], advice: str, report: Any) -> None:
    report |= {"verdict": verdict}
    report["result"] |= {"problems": problems}
    text = render_markdown(report, RUN)
    assert advice in text.splitlines()[-2]
    assert ("NOT VALID: throttled" in text) == bool(problems)


def test_no_gate_is_told(report: Any) -> None:
    report |= {"gates": [], "verdict": "inconclusive"}
    text = render_markdown(report, RUN)
    assert "no gate was asked for" in text
    assert "| gate |" not in text
    assert "add a gate, then `edgeprune gate --run runs/mine --gates FILE`" in text


def test_many_gates_stay_a_comment_and_what_failed_comes_first(report: Any) -> None:
    row = {"gate": "speedup at_least 2", "value": 1.0, "reason": "x" * 5000}
    report["gates"] = [{**row, "outcome": "pass"}] * 40 + [{**row, "outcome": "fail", "gate": "the bad"}]
    text = render_markdown(report, RUN)
    rows = text[text.index("| gate |") :].splitlines()
    assert "the bad" in rows[2]
    assert "<details><summary>40 gates pass</summary>" in text
    assert len(text) < 10_000
    report["gates"] = [{**row, "outcome": "fail"}] * 41
    text = render_markdown(report, RUN)
    assert f"{41 - MOST_GATES} more gates are in the report." in text
    assert len(text) < 10_000


def test_a_baseline_is_named_and_a_doubt_asks_for_turns(report: Any) -> None:
    report |= {"verdict": "inconclusive"}
    report["against"] = {"name": "the main", "title": "against baseline the main, as recorded:", "sessions": 0}
    text = render_markdown(report, RUN)
    assert "Against baseline the main, as recorded." in text.splitlines()
    assert "`edgeprune gate --run runs/mine --baseline 'the main' --interleave`" in text.splitlines()[-2]
    report["against"]["sessions"] = 3
    assert "--interleave" not in render_markdown(report, RUN)


def test_names_from_files_break_neither_table_nor_page(report: Any) -> None:
    report["gates"] = [{"gate": "a|b", "outcome": "fail", "value": None, "reason": "x\n\n| y | <img src=x> `c` \\|"}]
    report |= {"recipe": "<script>", "verdict": "fail"}
    lines = render_markdown(report, Path("runs/`rm`\n x")).splitlines()
    row = next(line for line in lines if "a\\|b" in line)
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 4
    text = "\n".join(lines[:-1])
    assert "<" not in text.replace("&lt;", "")
    assert lines[-2].count("`") == 4


@given(st.text())
def test_what_is_escaped_reads_as_it_was(text: str) -> None:
    shown = re.sub(r"\\([\\`*_{}\[\]|#~])", r"\1", escape(text))
    plain = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    assert html.unescape(shown) == html.unescape(html.escape(plain))
    assert "\n" not in escape(text)
