"""Targets: what is refused in a document, and in which words."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.core.target import parse_target
from edgeprune.errors import TargetError


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"description": "x", "memory": {"sram_bytes": 1}}, "memory: 'flash_bytes' is missing"),
        ({"description": "x", "memory": {}}, "memory: 'sram_bytes' is missing"),
        ({"description": "x", "memory": 4}, "memory: expected a table"),
        ({"description": "x", "memory": {"sram_bytes": "48 kg", "flash_bytes": 1}}, "sram_bytes: '48 kg' is no number"),
        ({"description": "x", "memory": {"sram_bytes": 0, "flash_bytes": 1}}, "sram_bytes: 0 must be above zero"),
        ({"description": "x", "memory": {"sram": 1}}, "unknown key 'sram'"),
        ({"description": "x", "theads": 1}, "unknown key 'theads'; did you mean 'threads'"),
        (
            {"description": "x", "runtime": "onnxruntim"},
            "runtime: 'onnxruntim' is not known; did you mean 'onnxruntime'",
        ),
        ({"description": "x", "threads": 0}, "threads: 0 must be above zero"),
        ({"description": "x", "threads": True}, "threads: True has the wrong type"),
        ({}, "'description' is missing"),
        ({"description": "x", "gates": [{"metric": "latency_p50", "at_most": 1}]}, "did you mean 'latency_p50_ms'"),
        ({"description": "x", "gates": [{"metric": "speedup"}]}, "exactly one of"),
        ({"description": "x", "gates": [{"metric": "speedup", "atmost": 1}]}, "did you mean 'at_most'"),
        ({"description": "x", "gates": [{"metric": "speedup", "at_least": math.nan}]}, "must be finite"),
        (
            {"description": "x", "gates": [{"metric": "latency_p50_ms", "at_least": 1}]},
            "latency_p50_ms: lower is better: at_least would pass the worst; write at_most",
        ),
        (
            {"description": "x", "gates": [{"metric": "accuracy_percent", "at_most": 90}]},
            "accuracy_percent: higher is better: at_most would pass the worst; write at_least",
        ),
        (
            {"description": "x", "gates": [{"metric": "speedup", "max_regression": 0.1}]},
            "speedup: is held against the original already; write at_least",
        ),
        (
            {"description": "x", "gates": [{"metric": "quality_drop", "max_regression": 0.1}]},
            "quality_drop: is held against the original already; write at_most",
        ),
        (
            {"description": "x", "gates": [{"metric": "file_bytes", "max_regression": 5}]},
            "max_regression: 5 is no fraction; 5 % is 0.05",
        ),
        ({"description": "x", "gates": {"metric": "speedup"}}, r"write each as \[\[gates\]\]"),
        ({"description": "x", "baseline": {"metric": "macs"}}, r"write each as \[\[baseline\]\]"),
        ({"description": "x", "baseline": [{"metric": "speedup", "floor": 1}]}, "unknown metric 'speedup'"),
        ({"description": "x", "baseline": [{"metric": "energy_m", "floor": 1}]}, "did you mean 'energy_mj'"),
        ({"description": "x", "baseline": [{"metric": "macs"}]}, "no limit; write max_regression"),
        ({"description": "x", "baseline": [{"metric": "macs", "floor": -1}]}, "floor: -1 is below zero"),
        ({"description": "x", "baseline": [{"metric": "macs", "floor": "1"}]}, "wrong type"),
        ({"description": "x", "baseline": [{"metric": "macs", "floor": math.inf}]}, "must be finite"),
        ({"description": "x", "baseline": [{"metric": "macs", "max_regression": 5}]}, "5 is no fraction; 5 % is 0.05"),
        (
            {"description": "x", "baseline": [{"metric": "macs", "floor": 1, "over": "most"}]},
            "over: 'most' is not known",
        ),
        ({"description": "x", "baseline": [{"metric": "macs", "at_most": 1}]}, "unknown key 'at_most'"),
        ({"description": "x", "baseline": [{"metric": "macs", "floor": 1}] * 2}, "macs has two rows"),
        ({"description": "x", "budget": {"speedup": 2, "latency_ms": 1}}, "not both"),
        (
            {"description": "x", "budget": {"sram_bytes": "48 KiBs"}},
            "budget: sram_bytes: '48 KiBs' is no number of bytes",
        ),
        ({"description": "x", "budget": {"flash_bytes": "0KiB"}}, "flash_bytes: 0 must be above zero"),
        ({"description": "x", "budget": {"flash_bytes": 1.5}}, "wrong type"),
        ({"description": "x", "hardware": {"cpu": {"value": "A72"}}}, "every fact has a source"),
        ({"description": "x", "protocol": {"min_samples": 2.5}}, "wrong type"),
    ],
)
def test_target_errors_say_where_and_what(document: dict[str, object], message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        parse_target(document, "board", "targets/board.toml")
    assert str(caught.value).startswith("targets/board.toml")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["description", "runtime", "threads", "step", "budget", "gates", "baseline", "protocol", "hardware"]
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(keys, values))
def test_any_document_is_a_target_or_a_clear_error(document: dict[str, object]) -> None:
    with contextlib.suppress(TargetError):
        target = parse_target(document, "board", "board.toml")
        assert target.threads > 0


def test_a_budget_of_bytes_may_have_a_unit() -> None:
    table = {"sram_bytes": "48KiB", "flash_bytes": "0.5 MB"}
    budget = parse_target({"description": "x", "budget": table}, "board", "here").budget
    assert (budget.sram_bytes, budget.flash_bytes) == (49152, 500_000)
    assert budget.is_sized
    assert not budget.is_timed


def test_sizes_of_memory_are_numbers_or_have_units() -> None:
    document = {"description": "x", "runtime": "tflm", "memory": {"sram_bytes": "48KiB", "flash_bytes": 1000}}
    memory = parse_target(document, "board", "file").memory
    assert memory is not None
    assert (memory.sram_bytes, memory.flash_bytes) == (49_152, 1000)
    assert parse_target({"description": "x"}, "board", "file").memory is None
