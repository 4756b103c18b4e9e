"""Signs that a net was cut too far. They decide nothing: gates do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeprune.core.metric import HIGHER, Metric
from edgeprune.core.planning.plan import BRANCH

FEW_SHARE = 0.25
"""A group with this share of its channels, or less, is a bottleneck; the planner offers no less than an eighth."""
DEEP_SHARE = 0.5
"""Of the residual branches: once half are cut, what is left is another architecture."""
HALF = 0.5
"""The metric before fine-tuning, beside the original's: below, a cut net has inherited so little that training it from
scratch does as well (Liu et al., "Rethinking the Value of Network Pruning", 2019)."""
CLASS_POINTS, CORRUPTION_POINTS, CORRUPTION_SHARE = 5.0, 2.0, 0.1
"""What a class may lose, and what a corruption may take off beyond the clean loss, in points; of other metrics, as a
share of the original's figure under the same corruption."""
CHANCE = 0.05
"""How likely chance may explain a loss that is warned of, over all classes or corruptions together."""


@dataclass(frozen=True)
class Sign:
    """A sign of over-pruning: its kind (docs/explain.md), where, in words, and the figure beside its threshold."""

    kind: str
    where: str
    text: str
    value: float | None
    threshold: float


def warn_of_plan(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of the groups of an explained plan: few channels left, and much of the depth gone."""
    warnings = [_warn_of_width(row) for row in groups if row["kind"] != BRANCH and not row["gone_with"]]
    branches = [row for row in groups if row["kind"] == BRANCH]
    cut = sum(row["width"] == 0 for row in branches)
    deep = None
    if branches and cut / len(branches) >= DEEP_SHARE:
        text = f"{cut} of {len(branches)} residual branches are cut"
        deep = Sign("deep_cut", "the net", text, cut / len(branches), DEEP_SHARE)
    return [asdict(warning) for warning in (*warnings, deep) if warning is not None]


def _warn_of_width(row: Mapping[str, Any]) -> Sign | None:
    """One that the recipe fixes is its own affair."""
    share = row["width"] / row["size"]
    if row["width"] == row["size"] or row["bound_by"] == ["recipe"]:
        return None
    if row["at_narrowest"]:
        text = f"{row['width']} of {row['size']} channels: the narrowest width on offer"
    elif share <= FEW_SHARE:
        text = f"{row['width']} of {row['size']} channels are left"
    else:
        return None
    return Sign("few_channels", row["group"], text, share, FEW_SHARE)


def warn_of_training(metric: Metric, original: float, cut: float | None) -> list[dict[str, Any]]:
    """Of the quality that was left before fine-tuning; `cut` is None where it was no finite number."""
    is_finite = cut is not None and math.isfinite(cut)
    if is_finite and not _is_half(metric, original, cut or 0.0):
        return []
    text = f"{metric.name} before fine-tuning: {metric.describe(cut) if is_finite else 'no finite number'}"
    text += f", {metric.describe(original)} unpruned"
    share = None if not is_finite or not original else (cut or 0.0) / original
    return [asdict(Sign("before_finetuning", "the net", text, share, HALF if metric.better == HIGHER else 1 / HALF))]


def _is_half(metric: Metric, original: float, cut: float) -> bool:
    """Half as good or worse; nothing is said where the figure is not above zero, as shares then mean nothing."""
    if original <= 0:
        return False
    return cut <= HALF * original if metric.better == HIGHER else cut >= original / HALF


def warn_of_classes(classes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of classes that lost much, and not by chance; `chance` of a class is already multiplied by their number."""
    return [
        asdict(
            Sign(
                "class_loss",
                str(row["label"]),
                f"class {row['label']}: {row['points']:+.1f} points",
                row["points"],
                -CLASS_POINTS,
            )
        )
        for row in classes["lost_most"]
        if row["points"] <= -CLASS_POINTS and row["chance"] < CHANCE
    ]


def warn_of_corruptions(metric: Metric, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of corruptions that took off more than clean inputs show, each at the mildest severity that tells it; the first
    row is the clean one.
    """
    warnings = dict[str, dict[str, Any]]()
    clean, *corrupted = rows
    for row in corrupted:
        is_told = None not in (row["drop"], clean["drop"])
        excess = row["drop"] - max(0.0, clean["drop"]) if is_told else 0.0
        threshold = CORRUPTION_POINTS if metric.unit == "%" else CORRUPTION_SHARE * abs(row["before"] or math.inf)
        if excess >= threshold and (row["chance"] is None or row["chance"] < CHANCE):
            where = f"{row['corruption']} of severity {row['severity']}"
            text = (
                f"{where}: {metric.name} {metric.describe(row['before'])} to {metric.describe(row['after'])}, "
                f"{metric.describe(clean['before'])} to {metric.describe(clean['after'])} without"
            )
            warnings.setdefault(row["corruption"], asdict(Sign("robustness", where, text, excess, threshold)))
    return list(warnings.values())
