"""A recipe's metric: its name, direction and unit, written and read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeprune.core.metric import TOP1, Metric, parse_metric
from edgeprune.errors import RecipeError

F1 = Metric("F1", better="higher")
RMSE = Metric("RMSE", better="lower", unit="K")


@pytest.mark.parametrize("metric", [TOP1, F1, RMSE])
def test_a_metric_survives_json_without_its_function(metric: Metric) -> None:
    again = parse_metric(json.loads(json.dumps(metric.to_dict())))
    assert again == metric
    with pytest.raises(RecipeError, match="has no function to compute it by"):
        again(None, None)


@pytest.mark.parametrize(
    "words",
    [
        {"name": " ", "better": "higher"},
        {"name": "a\nb", "better": "higher"},
        {"name": 3, "better": "higher"},
        {"name": "F1", "better": "more"},
        {"name": "F1", "better": "lower", "unit": 5},
        {"name": "F1", "better": "lower", "unit": "\n"},
    ],
)
def test_a_metric_that_cannot_be_meant_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Metric"):
        Metric(**words)


def test_metrics_with_other_functions_are_the_same_metric() -> None:
    assert Metric("F1", max, better="higher") == F1
    assert Metric("F1", max, better="higher")(1, 2) == 2
    assert F1.unit == ""
    assert F1.label == "F1"
    assert RMSE.label == "RMSE in K"


def test_a_metric_that_was_read_back_is_the_one_that_was_written() -> None:
    """Without its function, which no file holds."""
    given = Metric("RMSE", lambda outputs, targets: 0.0, better="lower", unit="K")
    assert Metric("RMSE", better="lower", unit="K") == given
    assert "lambda" not in repr(given)
