"""Fronts: no run of one is beaten, all else is beaten or says why it is on none, and settings stay apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_documents import ACCURACY, RMSE, FinishedRun

from edgeprune.core.choosing.fronts import choose_run, find_equal, find_fronts
from edgeprune.core.choosing.points import Interval, Point, read_point
from edgeprune.core.latency.table import ESTIMATED

FIGURES = st.tuples(st.sampled_from([0.2, 0.3, 0.4, 0.5]), st.sampled_from([90.0, 91.0, 92.0, 93.0]))


def make_points(places: list[tuple[float, float]], metric: dict[str, str] = ACCURACY) -> list[Point]:
    return [
        read_point(f"run{number}", FinishedRun(p50_ms, quality, metric=metric).report())
        for number, (p50_ms, quality) in enumerate(places)
    ]


@given(st.lists(FIGURES, min_size=1, max_size=8), st.sampled_from([ACCURACY, RMSE]), st.randoms())
def test_a_front_is_what_no_run_beats_in_whatever_order(
    places: list[tuple[float, float]], metric: dict[str, str], random: object
) -> None:
    points = make_points(places, metric)
    (front,) = find_fronts(points)
    sign = 1 if metric is ACCURACY else -1
    by_name = {f"run{number}": (p50_ms, -sign * quality) for number, (p50_ms, quality) in enumerate(places)}

    def beats(first: tuple[float, float], second: tuple[float, float]) -> bool:
        return first != second and all(left <= right for left, right in zip(first, second, strict=True))

    best = {point.name for point in front.best}
    for name, place in by_name.items():
        assert (name in best) == (not any(beats(other, place) for other in by_name.values()))
    for name, dominator in front.dominators.items():
        assert dominator in best
        assert beats(by_name[dominator], by_name[name])
    random.shuffle(points)  # type: ignore[attr-defined]
    (again,) = find_fronts(points)
    assert (again.points, again.dominators) == (front.points, front.dominators)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"verdict": "fail"}, "failed its gates"),
        ({"problems": ("throttled",)}, "not valid"),
        ({"origin": ESTIMATED}, "estimated, not measured"),
        ({"quality": None}, "no figure of quality"),
        ({"setting": None}, "not measured"),
    ],
)
def test_a_run_that_may_not_be_on_a_front_is_not_and_beats_none(changes: dict[str, object], reason: str) -> None:
    slow, fast = make_points([(0.5, 90.0), (0.2, 99.0)])
    doubtful = replace(fast, **changes)  # type: ignore[arg-type]
    assert doubtful.exclusion == reason
    front = find_fronts([slow, doubtful])[0]
    assert front.best == (slow,)
    assert doubtful.name not in front.dominators


def test_an_inconclusive_run_with_valid_figures_is_on_the_front_and_is_not_chosen() -> None:
    slow, fast = make_points([(0.5, 90.0), (0.2, 89.0)])
    fronts = find_fronts([slow, replace(fast, verdict="inconclusive")])
    assert [point.name for point in fronts[0].best] == ["run1", "run0"]
    assert choose_run(fronts).name == "run0"


@pytest.mark.parametrize(
    "changes",
    [{"device": "bb"}, {"threads": 2}, {"runtime": "litert 2"}, {"metric": RMSE}],
    ids=lambda changes: next(iter(changes)),
)
def test_each_setting_has_a_front_of_its_own(changes: dict[str, object]) -> None:
    first = read_point("first", FinishedRun(0.5, 90.0).report())
    other = read_point("other", FinishedRun(0.2, 99.0, **changes).report())  # type: ignore[arg-type]
    fronts = find_fronts([first, other])
    assert [[point.name for point in front.best] for front in fronts] == [["other"], ["first"]]
    assert choose_run(fronts).name is None


@pytest.mark.parametrize("name", ["affinity", "governor"])
def test_conditions_keep_runs_apart(name: str) -> None:
    first = FinishedRun(0.5).report()
    other = {**first, "conditions": {**first["conditions"], name: [3] if name == "affinity" else "performance"}}
    assert len(find_fronts([read_point("first", first), read_point("other", other)])) == 2


def test_runs_whose_intervals_overlap_are_equal_in_that_and_the_better_is_chosen() -> None:
    fast = read_point("fast", FinishedRun(0.500, 93.0, spread=0.02).report())
    near = read_point("near", FinishedRun(0.505, 95.0, spread=0.02).report())
    far = read_point("far", FinishedRun(0.60, 96.0, spread=0.02).report())
    points = [fast, near, far]
    assert find_equal(fast, points, "latency") == ("near",)
    assert find_equal(fast, points, "quality") == ()
    doubtful = replace(near, problems=("throttled",))
    assert find_equal(fast, [doubtful, far], "latency") == find_equal(doubtful, points, "latency") == ()
    wide = replace(fast, quality=Interval(93.0, 91.0, 95.0))
    assert find_equal(wide, points, "quality") == ("near",)
    choice = choose_run(find_fronts(points))
    assert (choice.name, "as fast as fast" in choice.reason) == ("near", True)
    assert choose_run(find_fronts([replace(near, problems=("throttled",)), fast, far])).name == "fast"


def test_a_run_that_passed_and_lost_its_quality_is_not_chosen() -> None:
    kept = read_point("kept", FinishedRun(0.5, 95.0).report())
    lost = read_point("lost", FinishedRun(0.2, 50.0, accurate=False).report())
    assert choose_run(find_fronts([kept, lost])).name == "kept"
    assert choose_run(find_fronts([lost])).name is None
    assert choose_run(()).name is None


def test_of_errors_the_lower_one_is_chosen_among_equally_fast() -> None:
    fast = read_point("fast", FinishedRun(0.500, 2.0, spread=0.02, metric=RMSE).report())
    near = read_point("near", FinishedRun(0.505, 1.0, spread=0.02, metric=RMSE).report())
    assert choose_run(find_fronts([fast, near])).name == "near"
