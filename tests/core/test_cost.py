"""The unit of costs in texts and documents."""

from __future__ import annotations

import json
from pathlib import Path

from edgeprune.core.cost import INSTRUCTIONS, MS, costs_in, name_costs, read_costs, say_cost, say_ratio, show_cost
from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey, parse_table, render_table
from edgeprune.core.planning.plan import GroupPlan, PruningPlan, parse_plan
from edgeprune.run import read_json, write_json

SHAPE = LayerShape("linear", 4, 8)
KEY = TableKey("f", "c", "gcc 12", "int8", 1)
DOCUMENT = {
    "unit": INSTRUCTIONS,
    "latency": {"p50_ms": 10.0, "median_low_ms": 9.0},
    "latency_ms": 5.0,
    "steps": [{"ms": 1, "after_ms": 2, "ms_before": 3}],
    "costs": {"macs": 4},
    "speedup": 1.5,
}


def test_costs_are_said_in_the_unit_of_the_board() -> None:
    assert (say_cost(1.23456), show_cost(-0.5, "+.3g"), say_ratio(1.5)) == ("1.235 ms", "-0.5", "speed-up 1.50")
    with costs_in(INSTRUCTIONS):
        assert (say_cost(1234567.4), show_cost(-1234.0, "+.3g")) == ("1,234,567 instructions", "-1,234")
        assert say_ratio(1.5) == "1.50 times fewer instructions"
    assert say_cost(1.0) == "1 ms"


def test_a_document_in_instructions_has_names_that_say_so_and_is_read_back(tmp_path: Path) -> None:
    named = name_costs(DOCUMENT)
    assert named == {
        "unit": INSTRUCTIONS,
        "cost": {"p50_instructions": 10.0, "median_low_instructions": 9.0},
        "cost_instructions": 5.0,
        "steps": [{"counted": 1, "after_instructions": 2, "instructions_before": 3}],
        "costs": {"macs": 4},
        "instruction_ratio": 1.5,
    }
    assert read_costs(named) == DOCUMENT
    write_json(tmp_path / "a.json", {"inner": DOCUMENT, "latency_ms": 1.0})
    assert "p50_instructions" in (tmp_path / "a.json").read_text()
    assert read_json(tmp_path / "a.json") == {"inner": DOCUMENT, "latency_ms": 1.0}


def test_a_document_in_ms_is_left_as_it_is() -> None:
    document = {**DOCUMENT, "unit": MS}
    assert name_costs(document) == document


def test_a_table_of_instructions_says_so_and_is_read_back() -> None:
    point = LatencyPoint(SHAPE, 120.0, 120.0, 120.0, (120.0,))
    table = LatencyTable(KEY, (point,), unit=INSTRUCTIONS)
    text = render_table(table)
    assert "_ms" not in text
    assert parse_table(text, "here") == table
    assert parse_table(render_table(LatencyTable(KEY, (point,))), "here").unit == MS


def test_a_plan_of_instructions_says_so_and_is_read_back() -> None:
    plan = PruningPlan((GroupPlan("a", 2, (0,)),), "", 100.0, 120.0, unit=INSTRUCTIONS)
    assert "_ms" not in plan.to_json()
    assert parse_plan(read_costs(json.loads(plan.to_json()))) == plan
