"""Change points of series whose changes are known, and of series without any."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edgeprune.core.measuring.change_points import find_change_points
from edgeprune.core.measuring.trend import Point, Trend

SERIES = 300


def draw(random: np.random.Generator, *levels: tuple[float, int]) -> np.ndarray:
    """Levels with heavy-tailed noise of a fiftieth, and an outlier of several times each level."""
    parts = [level * (1 + 0.02 * random.standard_t(3, count)) for level, count in levels]
    for part in parts:
        part[part.size // 3] *= 4
    return np.concatenate(parts)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (((10, 20), (9, 20)), (20,)),
        (((10, 20), (9, 25), (9.6, 20)), (20, 45)),
        (((10, 20), (11, 20), (10, 20)), (20, 40)),
        (((1, 15), (2, 15), (1, 15), (2, 15)), (15, 30, 45)),
    ],
    ids=["down", "down and half back", "up and back", "up and down"],
)
def test_changes_are_seen_where_they_are(levels: tuple[tuple[float, int], ...], expected: tuple[int, ...]) -> None:
    random, right = np.random.default_rng(1), 0
    for _ in range(20):
        cuts = find_change_points(draw(random, *levels))
        right += len(cuts) == len(expected) and all(abs(cut - at) <= 3 for cut, at in zip(cuts, expected, strict=True))
    assert right >= 17


@pytest.mark.parametrize("count", [10, 30, 100])
@pytest.mark.parametrize("noise", ["normal", "heavy", "skew", "steps"])
def test_series_without_a_change_are_cut_as_rarely_as_is_said(count: int, noise: str) -> None:
    random = np.random.default_rng(2)
    draws = {
        "normal": lambda: random.normal(10, 1, count),
        "heavy": lambda: random.standard_t(1.5, count),
        "skew": lambda: random.lognormal(0, 1, count),
        "steps": lambda: random.integers(0, 3, count).astype(float),
    }
    cut = sum(bool(find_change_points(draws[noise]())) for _ in range(SERIES))
    assert cut <= 9  # of 300 at 1 %: more has a chance of under 1 in 500


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 50, list(range(5)), [1.0] * 4 + [2.0] * 5])
def test_too_little_or_nothing_at_all_is_no_change(values: list[float]) -> None:
    assert find_change_points(values) == ()


def test_the_same_series_always_has_the_same_changes() -> None:
    series = draw(np.random.default_rng(3), (10, 30), (9.8, 30))
    assert find_change_points(series) == find_change_points(series)


def test_a_trend_tells_its_changes_by_valid_figures_alone() -> None:
    begin = datetime(2026, 11, 1, tzinfo=UTC)
    values = [10.0 + 0.01 * (number % 3) for number in range(12)] + [8.0 + 0.01 * (number % 3) for number in range(12)]
    points = [Point(begin + timedelta(days=number), value) for number, value in enumerate(values)]
    points += [Point(begin + timedelta(days=30 + number), 99.0, valid=False) for number in range(20)]
    (change,) = Trend("a file", tuple(points)).changes
    assert change.at == begin + timedelta(days=12)
    assert change.describe() == "10.01 to 8.01 (-20.0%)"
