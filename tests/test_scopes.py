"""Another budget on a run: a scope of its own, with what no budget changes taken over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recorded import record_run

from edgeprune.deployment import REQUEST, settle_request
from edgeprune.errors import RunError
from edgeprune.run import look_at_run, open_run, read_json
from edgeprune.scopes import begin_scope, find_scope

ASKED = {**dict.fromkeys(REQUEST), "target": "local", "recipe": "mine.py", "speedup": 2.0}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run for 2x that went as far as its plan."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / "original.fp32.onnx").write_text("a net")
    (folder / "original.pt2").write_text("a graph")
    stages = {name: {"of": name} for name in ("trace", "profile", "score", "plan")}
    made = {"trace": ["original.pt2"], "profile": ["artifacts/original.fp32.onnx"], "plan": []}
    record_run(folder, ASKED, stages, made)
    return folder


def ask(**more: Any) -> dict[str, Any]:
    return {**dict.fromkeys(REQUEST), **more}


@pytest.mark.parametrize(
    ("asked", "name", "budget"),
    [
        ({"speedup": 3.0}, "speedup-3", (None, 3.0, None)),
        ({"latency_ms": 4.5}, "latency-4.5", (4.5, None, None)),
        ({"confidence": 0.95}, "speedup-2-confidence-0.95", (None, 2.0, 0.95)),
        ({"speedup": 3.0, "confidence": 0.9}, "speedup-3-confidence-0.9", (None, 3.0, 0.9)),
    ],
)
def test_another_budget_is_a_scope(
    run: Path, asked: dict[str, float], name: str, budget: tuple[float | None, ...]
) -> None:
    place, request = settle_request(run, ask(**asked))
    assert place == run / "budgets" / name
    assert (request["latency_ms"], request["speedup"], request["confidence"]) == budget
    assert (request["target"], request["recipe"]) == ("local", "mine.py")
    assert not place.exists()


@pytest.mark.parametrize("asked", [{}, {"speedup": 2.0}, {"allow_busy": True}])
def test_the_same_budget_is_the_run_itself(run: Path, asked: dict[str, Any]) -> None:
    place, request = settle_request(run, ask(**asked))
    assert place == run
    with open_run(place, request) as opened:
        assert opened.request["speedup"] == 2.0


def test_a_scope_takes_over_what_no_budget_changes(run: Path) -> None:
    place, request = settle_request(run, ask(speedup=3.0))
    assert begin_scope(place, run) == ("trace", "profile", "score")
    with open_run(place, request) as opened:
        opened.begin()
        assert [opened.finished(name) for name in ("trace", "profile", "score", "plan")] == [True, True, True, False]
        assert opened.result("profile") == {"of": "profile"}
        assert opened.file("artifacts/original.fp32.onnx").read_text() == "a net"
        assert opened.request["speedup"] == 3.0
    assert begin_scope(place, run) == ()
    assert look_at_run(run).result("plan") == {"of": "plan"}
    again, _ = settle_request(run, ask(speedup=3.0))
    beside, _ = settle_request(place, ask(speedup=4.0))
    back, request = settle_request(place, ask(speedup=2.0))
    assert (again, beside, back) == (place, run / "budgets" / "speedup-4", run)
    assert request["speedup"] == 2.0


def test_a_run_that_was_changed_is_not_taken_over(run: Path) -> None:
    (run / "original.pt2").write_text("another graph")
    place, _ = find_scope(run, ask(speedup=3.0))
    with pytest.raises(RunError, match=r"original\.pt2: is not what it was"):
        begin_scope(place, run)


def test_a_run_that_has_not_come_far_gives_what_it_has(run: Path) -> None:
    for name in ("stages/profile.json", "record/profile.json"):
        (run / name).unlink()
    place, _ = find_scope(run, ask(speedup=3.0))
    assert begin_scope(place, run) == ("trace",)
    assert sorted(path.name for path in (place / "stages").iterdir()) == ["trace.json"]
    assert json.loads((place / "record" / "trace.json").read_text()) == read_json(run / "record" / "trace.json")


def test_another_target_is_still_another_run(run: Path) -> None:
    place, request = settle_request(run, ask(target="rpi4"))
    with pytest.raises(RunError, match="was made with target = 'local', not 'rpi4'"), open_run(place, request):
        pass


@pytest.mark.parametrize(("name", "value"), [("target", "rpi4"), ("recipe", "other.py"), ("precision", "int8")])
def test_a_scope_differs_in_its_budget_alone(run: Path, name: str, value: str) -> None:
    """Else it would take over what another recipe's net, or another board, had said."""
    with pytest.raises(RunError, match=f"was made with {name} = .*, not '.*{value}'"):
        settle_request(run, ask(speedup=3.0, **{name: value}))
