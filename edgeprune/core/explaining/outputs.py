"""Two nets' outputs on the same inputs, held against each other: by class, or by the error of single inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

Numbers = NDArray[Any]

MOST_CLASSES = 50
"""More classes make a confusion that nobody reads."""
LISTED = 5
"""Classes, pairs of classes and inputs that are listed."""
QUANTILES = (0.5, 0.9, 0.95, 0.99, 1.0)


def is_by_class(outputs: Numbers, targets: Numbers) -> bool:
    """Whether there is an output for each class, and a class for each input."""
    by_row = outputs.ndim == 2 and targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)
    return by_row and outputs.shape[1] > 1 and bool((targets >= 0).all() and (targets < outputs.shape[1]).all())


def find_errors(outputs: Numbers, targets: Numbers) -> Numbers | None:
    """The error of each input `[N]`: 0 or 1 of a class, the share of wrong places where each place has a class,
    else the root of the mean square; None where outputs and targets cannot be held against each other, or where one is
    no finite number.
    """
    if is_by_class(outputs, targets):
        return np.asarray(outputs.argmax(1) != targets, np.float64)
    has_places = outputs.ndim > 2 and targets.shape == (len(outputs), *outputs.shape[2:])
    if has_places and np.issubdtype(targets.dtype, np.integer) and outputs.shape[1] > 1:
        return np.asarray((outputs.argmax(1) != targets).reshape(len(outputs), -1).mean(1))
    is_real = np.issubdtype(targets.dtype, np.floating)
    if is_real and outputs.size == targets.size and len(outputs) == len(targets):
        difference = outputs.reshape(len(outputs), -1) - targets.reshape(len(targets), -1)
        errors = np.sqrt(np.square(difference.astype(np.float64)).mean(1))
        return np.asarray(errors) if np.isfinite(errors).all() else None
    return None


def find_chance(before: Numbers, after: Numbers) -> float:
    """How likely chance alone makes at least so many of the inputs worse, of those whose errors differ: the exact sign
    test, one-sided (for right and wrong answers McNemar's, exact).
    """
    worse, better = int((after > before).sum()), int((after < before).sum())
    return float(binom.sf(worse - 1, worse + better, 0.5)) if worse + better else 1.0


def compare_classes(before: Numbers, after: Numbers, targets: Numbers, labels: Sequence[str]) -> dict[str, Any]:
    """By class: how many are right before and after, what is confused, and which classes lost most.

    `before` and `after` are outputs `[N, classes]`. Chances are multiplied by the number of classes (Bonferroni).
    """
    count = before.shape[1]
    names = list(labels) if len(labels) == count else [str(index) for index in range(count)]
    confusions = [_confuse(outputs.argmax(1), targets, count) for outputs in (before, after)]
    total = np.bincount(targets, minlength=count)
    right_before, right_after = (np.diag(confusion) for confusion in confusions)
    present = int((total > 0).sum())
    lost = [
        {
            "label": names[index],
            "points": float(100 * (right_after[index] - right_before[index]) / total[index]),
            "chance": min(1.0, present * _class_chance(before, after, targets, index)),
        }
        for index in np.argsort((right_after - right_before) / np.maximum(1, total), kind="stable")[:LISTED]
        if right_after[index] < right_before[index]
    ]
    is_small = count <= MOST_CLASSES
    return {
        "inputs": len(targets),
        "labels": names,
        "count": total.tolist(),
        "correct_before": right_before.tolist(),
        "correct_after": right_after.tolist(),
        "confusion_before": confusions[0].tolist() if is_small else None,
        "confusion_after": confusions[1].tolist() if is_small else None,
        "lost_most": lost,
        "confused_more": _find_confused(confusions[0], confusions[1], names),
    }


def _confuse(answers: Numbers, targets: Numbers, count: int) -> Numbers:
    """Counts by target and answer."""
    return np.asarray(np.bincount(targets * count + answers, minlength=count * count).reshape(count, count))


def _class_chance(before: Numbers, after: Numbers, targets: Numbers, index: int) -> float:
    own = targets == index
    wrong_before, wrong_after = (outputs[own].argmax(1) != index for outputs in (before, after))
    return find_chance(wrong_before, wrong_after)


def _find_confused(before: Numbers, after: Numbers, names: Sequence[str]) -> list[dict[str, Any]]:
    """Pairs of target and wrong answer that are taken for each other more often than before, most first."""
    growth = after - before
    np.fill_diagonal(growth, 0)
    order = np.argsort(-growth, axis=None, kind="stable")[:LISTED]
    pairs = [divmod(int(place), len(names)) for place in order]
    return [
        {
            "target": names[target],
            "answer": names[answer],
            "before": int(before[target, answer]),
            "after": int(after[target, answer]),
        }
        for target, answer in pairs
        if growth[target, answer] > 0
    ]


def compare_errors(before: Numbers, after: Numbers, unit: str) -> dict[str, Any]:
    """Quantiles of the errors of single inputs `[N]`, and the inputs that lost most."""
    order = [int(index) for index in np.argsort(before - after, kind="stable")[:LISTED] if after[index] > before[index]]
    return {
        "inputs": len(before),
        "unit": unit,
        "quantiles": [
            {"share": share, "before": float(np.quantile(before, share)), "after": float(np.quantile(after, share))}
            for share in QUANTILES
        ],
        "lost_most": [
            {"input": index, "before": float(before[index]), "after": float(after[index])} for index in order
        ],
    }


def find_excess_chance(clean: tuple[Numbers, Numbers], corrupted: tuple[Numbers, Numbers]) -> float:
    """How likely chance alone makes inputs lose more under a corruption than clean: the sign test on what each input
    loses, its error after less that before. Each pair is of errors `[N]` before and after, of the same inputs.
    """
    return find_chance(clean[1] - clean[0], corrupted[1] - corrupted[0])
