"""Results of stages: what comes back of what was written, and what is refused; stages say what they read."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from line import QUICK, TINY

from edgeprune import pipeline
from edgeprune.core.planning.plan import GroupPlan, PruningPlan
from edgeprune.errors import RunError
from edgeprune.run import Run, open_run
from edgeprune.stages import job as jobs
from edgeprune.stages.results import Fitted, Result, Scored, Traced, Try, read_result, run_stage, to_document

MS = st.floats(1e-3, 1e6)
WIDTHS = st.dictionaries(st.integers(0, 512), st.floats(0, 1e6), max_size=4)
SCORES = st.dictionaries(
    st.text(min_size=1, max_size=9), st.lists(st.floats(-1e6, 1e6), max_size=4).map(tuple), max_size=3
)
LOSSES = st.dictionaries(st.text(min_size=1, max_size=9), WIDTHS, max_size=3)


@given(SCORES, LOSSES, st.integers(0, 48))
def test_scores_come_back_as_they_were(scores: Any, loss: Any, steps: int) -> None:
    result = Scored(importance="l2", scores=scores, loss=loss, steps=steps)
    written = json.loads(json.dumps(to_document(result)))
    assert msgspec.convert(written, Scored, str_keys=True) == result


@given(MS, MS, st.integers(1, 64))
def test_plans_come_back_as_they_were(predicted_ms: float, measured_ms: float, width: int) -> None:
    plan = PruningPlan((GroupPlan("conv", 64, tuple(range(width)), 0.5, "why"),), "0" * 64, predicted_ms, 2.0)
    result = Fitted(plan=plan, tries=(Try(predicted_ms=predicted_ms, measured_ms=measured_ms, share_of_budget=1.0),))
    written = json.loads(json.dumps(to_document(result)))
    assert msgspec.convert(written, Fitted, str_keys=True) == result


def test_every_stage_has_a_result_of_its_own_that_names_it() -> None:
    made = [stage.makes for stage in pipeline.STAGES]
    assert len({kind.stage for kind in made}) == len(made) == len(Result.__subclasses__())
    for kind in made:
        assert is_dataclass(kind)
        assert set(get_type_hints(kind)) >= {field.name for field in fields(kind)}


METRIC = {"name": "F1", "better": "higher", "unit": ""}
REFUSED = {
    "of another version": (
        {"version": 2, "metric": METRIC, "quality": 0.5},
        r"was made by a newer edgeprune \(found version 2, expected 1\)",
    ),
    "of no version": ({"metric": METRIC, "quality": 0.5}, r"was made by an older edgeprune \(found version None"),
    "of another type": (
        {"version": 1, "metric": METRIC, "quality": "high"},
        r"another version of edgeprune: Expected `float`, got `str`.*quality",
    ),
    "without a field": ({"version": 1, "metric": METRIC}, "missing required field `quality`"),
    "a list": ([1, 2], "version None"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_result_that_cannot_be_read_says_what_and_what_to_do(tmp_path: Path, name: str) -> None:
    document, words = REFUSED[name]
    with open_run(tmp_path / "run", {"target": "local"}) as run:
        run.begin()
        run.stage("trace", lambda: document)
        with pytest.raises(RunError, match=f"trace.json: .*{words}.* --from trace`"):
            read_result(run, Traced)


def test_a_stage_that_has_finished_is_read_and_not_computed(tmp_path: Path) -> None:
    first, second = Traced(metric=METRIC, quality=0.5), Traced(metric=METRIC, quality=0.9)
    with open_run(tmp_path / "run", {"target": "local"}) as run:
        assert run_stage(run, Traced, lambda: first) == first
        assert run_stage(run, Traced, lambda: second) == first


def test_a_stage_runs_once_in_each_scope(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {"target": "local"}) as run:
        run.begin()
        for number, quality in enumerate((0.9, 0.8), 1):
            scope = run.scope(f"rounds/{number}")
            run_stage(scope, Traced, lambda: Traced(metric=METRIC, quality=quality))  # noqa: B023
            scope.product("net.pt2").write_bytes(b"of this round")
        assert [read_result(run.scope(f"rounds/{n}"), Traced).quality for n in (1, 2)] == [0.9, 0.8]
        assert not run.finished("trace")
        run.scope("rounds/1").forget("trace")
        assert run.scope("rounds/2").finished("trace")
        assert not run.scope("rounds/1").finished("trace")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Names of the results that each stage reads, as it runs."""
    seen: dict[str, set[str]] = {}
    under_way: list[str] = []

    def spy(run: Run, kind: type[Result]) -> Result:
        if under_way and not run.finished(under_way[-1]):
            seen[under_way[-1]].add(kind.stage)
        return read_result(run, kind)

    def watched(run: Run, kind: type[Result], compute: Any) -> Result:
        under_way.append(kind.stage)
        seen[kind.stage] = set()
        return run_stage(run, kind, compute)

    monkeypatch.setattr(jobs, "read_result", spy)
    monkeypatch.setattr(pipeline, "run_stage", watched)
    return seen


@pytest.mark.slow
def test_stages_read_what_they_declare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: dict[str, set[str]]
) -> None:
    import edgeprune as ep

    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    ep.deploy(tmp_path / "run", lambda text: None, target=str(QUICK), recipe=str(TINY), host="local", allow_busy=True)
    declared = {stage.makes.stage: {kind.stage for kind in stage.reads} for stage in pipeline.STAGES}
    assert read.keys() == declared.keys()
    for stage, names in read.items():
        assert names <= declared[stage], stage
