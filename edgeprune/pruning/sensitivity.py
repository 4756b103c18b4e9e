"""Measured loss sensitivity: how much the calibration loss rises when one group alone is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.core.progress import Count
from edgeprune.errors import EdgepruneError
from edgeprune.graph.surgery import apply_plan
from edgeprune.pruning.evidence import Batch, Evidence, Scores
from edgeprune.pruning.importance import keep_best
from edgeprune.pruning.pairs import merge_singles
from edgeprune.pruning.recalibrate import mean_loss, recalibrate_

Progress = Callable[[str], None]
TRIED = 5
"""Widths of a group that are tried: the rise is smooth, and lies between them where it was not measured."""


def measure_sensitivity(
    evidence: Evidence,
    scores: Mapping[str, Scores],
    widths: Mapping[str, Sequence[int]],
    train_: Callable[[GraphModule], bool],
    progress: Progress,
) -> dict[str, dict[int, float]]:
    """The rise of the calibration loss at each width of each group, its least important channels cut and nothing else.

    Every net is really cut, its batch-norm statistics are measured anew on the first batch, `train_` trains it a
    little (as it does the original that it is compared with) and tells whether it did, and the loss is the mean over
    all batches, the one before that training where it did harm. Noise is repaired: of a group, a narrower width never
    costs less, and no cut pays.
    """
    reference = _loss_after(evidence, {}, train_)
    rises = {}
    for number, (group, choices) in enumerate(widths.items(), 1):
        size = evidence.analysis.group(group).size
        raw = {
            width: _loss_after(evidence, {group: keep_best(scores[group], width)}, train_) - reference
            for width in tried_widths(choices, size)
        }
        curve = repair(raw) | {size: 0.0}
        rises[group] = dict(zip(choices, np.interp(choices, list(curve), list(curve.values())).tolist(), strict=True))
        progress(Count(f"sensitivity: {group} ({number} of {len(widths)})"))
    return rises


def tried_widths(choices: Sequence[int], size: int) -> list[int]:
    """Up to `TRIED` widths below `size`, evenly over those on offer, the narrowest and the widest among them."""
    below = sorted(width for width in choices if width < size)
    places = np.linspace(0, len(below) - 1, min(TRIED, len(below))).round().astype(int)
    return [below[place] for place in places]


def repair(rises: Mapping[int, float]) -> dict[int, float]:
    """The nearest rises (least squares) that are not negative and do not grow with the width."""
    ordered = sorted(rises)
    if not ordered:
        return {}
    fitted = isotonic_regression([rises[width] for width in ordered], increasing=False).x
    return {width: max(0.0, float(rise)) for width, rise in zip(ordered, fitted, strict=True)}


def label_batches(
    program: GraphModule, batches: Iterable[tuple[Tensor, Tensor | None]], least: int = 512
) -> tuple[Batch, ...]:
    """Calibration batches up to `least` inputs, none of a single one where there are more.

    Where targets are missing, they are the program's own class probabilities.
    """
    pairs: list[Batch] = []
    with torch.no_grad():
        labelled = ((inputs, program(inputs).softmax(1) if targets is None else targets) for inputs, targets in batches)
        for pair in merge_singles(labelled):
            pairs.append(pair)
            if sum(len(inputs) for inputs, _ in pairs) >= least:
                break
    if not pairs:
        raise EdgepruneError("calibration data are empty; expected at least one batch")
    return tuple(pairs)


def _loss_after(evidence: Evidence, keep: Mapping[str, Sequence[int]], train_: Callable[[GraphModule], bool]) -> float:
    pruned = apply_plan(evidence.program, evidence.analysis, keep)
    recalibrate_(pruned, evidence.batches[:1])
    untrained = mean_loss(pruned, evidence.batches, evidence.loss)
    return min(untrained, mean_loss(pruned, evidence.batches, evidence.loss)) if train_(pruned) else untrained
