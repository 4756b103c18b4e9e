"""Pages and texts of a run in instructions: nothing of it is called ms or latency."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from counted_text import find_clock, strip_code
from report_page import make_evidence, make_report

from edgeprune.core.cost import INSTRUCTIONS, costs_in
from edgeprune.core.explaining.render import render_waterfall
from edgeprune.core.measuring.measurement import Measurement
from edgeprune.core.summary import render_front, render_result
from edgeprune.report.markdown import render_markdown
from edgeprune.report.page import Evidence, render_report


def count(measurement: Measurement, instructions: float) -> Measurement:
    samples = (instructions, instructions + 1000, instructions + 3000)
    bare = replace(measurement, unit=INSTRUCTIONS, samples_ms=samples, windows=(), init_ms=None, first_ms=None)
    return replace(bare, runtime="c")


@pytest.fixture
def evidence() -> Evidence:
    timed = make_evidence()
    waterfall = (
        {**timed.explanation["waterfall"], "basis": "counted", "macs_before": 2, "macs_after": 1}
        if timed.explanation
        else {}
    )
    plan: dict[str, Any] = {**(timed.explanation or {})["plan"], "groups": []}
    return replace(
        timed,
        before=count(timed.before, 33e6),
        after=count(timed.after, 21e6),
        explanation={**(timed.explanation or {}), "waterfall": waterfall, "plan": plan},
    )


@pytest.fixture
def report(evidence: Evidence) -> dict[str, Any]:
    document = make_report(evidence, unit=INSTRUCTIONS, runtime="c gcc", recipe="digits", target="qemu-cortex-m4")
    for side, measurement in (("baseline", evidence.before), ("result", evidence.after)):
        costs = {"latency": measurement.describe_latency(), "init_ms": None, "first_ms": None, "predicted_ms": 2e7}
        document[side] |= {**costs, "artifact": f"artifacts/{side}.int8.tflite"}
    files = [("original", evidence.before), ("pruned", evidence.after)]
    rows = [{**document["artifacts"][place], "latency": own.describe_latency()} for place, (_, own) in enumerate(files)]
    gates = [{"gate": "instruction_ratio at_least 1.5", "outcome": "pass", "value": 1.57, "reason": "1.57 >= 1.5"}]
    groups = [{**group, "reason": "saves 1,000 instructions"} for group in document["plan"]["groups"]]
    device = {**document["device"], "host": "qemu", "machine": "mps2-an386", "cpu": "cortex-m4"}
    tries = [{"predicted_ms": 2.1e7, "measured_ms": 2.1e7, "share_of_budget": 0.96, "loss_increase": 0.03}]
    return document | {
        "verdict": "pass", "target_runtime": "c", "gates": gates,
        "artifacts": rows, "device": device, "speedup": 33 / 21, "notes": [],
        "plan": {**document["plan"], "groups": groups}, "predicted": {"latency_ms": 2.1e7, "tries": tries},
        "budget": {"latency_ms": 2.2e7, "asked_confidence": None},
    }  # fmt: skip


def test_a_page_says_instructions_and_no_ms(report: dict[str, Any], evidence: Evidence) -> None:
    page = render_report(report, evidence)
    assert find_clock(strip_code(page)) == []
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "times fewer instructions 1.57" in text
    assert "21,001,000" in text
    assert "21,000,000 to 21,003,000" in text
    assert "Was the board hot" not in page


def test_a_comment_says_instructions_and_no_ms(report: dict[str, Any]) -> None:
    text = render_markdown(report, Path("run"))
    assert find_clock(text) == []
    assert "| instructions | 33,001,000 | 21,001,000 | 21,000,000 to 21,003,000 |" in text
    assert "Counted in QEMU (mps2-an386, cortex-m4), no time" in text
    assert "--format c --core cortex-m4" in text


def test_a_terminal_says_instructions_and_no_ms(report: dict[str, Any], evidence: Evidence) -> None:
    front = evidence.front or {}
    with costs_in(INSTRUCTIONS):
        texts = render_result(report), render_front(front), render_waterfall((evidence.explanation or {})["waterfall"])
    assert "1.57 times fewer instructions, counted in QEMU (mps2-an386, cortex-m4), no time" in texts[0]
    assert [find_clock(text) for text in texts] == [[], [], []]
