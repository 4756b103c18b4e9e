"""From the unpruned net's ms to the pruned one's: what the cut MACs would save, and what was lost of it on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeprune.core.cost import find_cost_unit

PLACEMENT, STAIRCASE, LAYER_OVERHEAD, LAYERS = "placement", "staircase", "layer_overhead", "layers"
JOINS, BESIDE, CACHE, OVERHEAD = "joins", "beside", "cache", "overhead"
PARTS = (PLACEMENT, STAIRCASE, LAYER_OVERHEAD, LAYERS, JOINS, BESIDE, CACHE, OVERHEAD)
"""Parts of a net's predicted ms; LAYERS is what cannot be told into STAIRCASE and LAYER_OVERHEAD."""
LEVEL, CHANGE = "level", "change"
MEASURED, PREDICTED, ESTIMATED, COUNTED, REMAINDER = "measured", "predicted", "estimated", "counted", "remainder"
UNPRUNED, PRECISION, MACS, BY_MACS = "unpruned", "precision", "macs", "by_macs"
UNEXPLAINED, OTHER_FILE, END = "unexplained", "other_file", "pruned"
ROUNDING = 1e-12
"""Share of a level below which a change is arithmetic, not time."""
TEXTS = {
    PLACEMENT: "cut where MACs cost more or less than average",
    STAIRCASE: "staircase: widths as slow as wider ones",
    LAYER_OVERHEAD: "what layers take whatever their channels",
    LAYERS: "staircase and overhead of layers, not told apart",
    JOINS: "layouts converted between layers",
    BESIDE: "sums, pooling, activations: no MACs in them",
    CACHE: "weights and tensors that caches do not hold",
    OVERHEAD: "of a whole net, whatever its widths",
}


@dataclass(frozen=True)
class Times:
    """Latencies in ms that a waterfall runs between, all at the speed of one session.

    `baseline_precision`: what `unpruned_fp32_ms` is of, where there is no fp32.
    `unpruned_fp32_ms` and `unpruned_ms`: the whole net in fp32, and as the plan is for; `planned_ms`: the cut net as
    the plan is for; `shipped_ms`: what ships, which may be another file. `speed`: how much slower that session was than
    the one that the predictions are of. `origin`: "measured" or "estimated"; `planned_origin`: that of `planned_ms`.
    """

    unpruned_fp32_ms: float
    unpruned_ms: float
    planned_ms: float
    shipped_ms: float
    speed: float = 1.0
    origin: str = MEASURED
    planned_origin: str = MEASURED
    end: str = "the shipped file"
    baseline_precision: str = "fp32"


@dataclass(frozen=True)
class Step:
    """A level, or a change from one to the next; `after_ms` is the level after it. All in ms."""

    name: str
    kind: str
    ms: float
    after_ms: float
    origin: str
    text: str


def build_waterfall(parts: Mapping[str, Any], times: Times) -> list[Step]:
    """The steps from the unpruned net to what ships; `parts` as :class:`Parts` has them. The changes between the first
    level and the last add up to their difference.
    """
    rest = parts["macs_after"] / parts["macs_before"]
    predicted = ESTIMATED if times.origin == ESTIMATED else PREDICTED
    rows = [(PRECISION, times.unpruned_ms - times.unpruned_fp32_ms, times.origin, "another precision or runtime")]
    rows += [
        (MACS, -times.unpruned_ms * (1 - rest), COUNTED, f"if {find_cost_unit()} fell as MACs did, by {1 - rest:.1%}")
    ]
    whole = f"unpruned, {times.baseline_precision}"
    steps = [Step(UNPRUNED, LEVEL, times.unpruned_fp32_ms, times.unpruned_fp32_ms, times.origin, whole)]
    steps += _add(times.unpruned_fp32_ms, rows, keep=(MACS,))
    steps.append(Step(BY_MACS, LEVEL, steps[-1].after_ms, steps[-1].after_ms, COUNTED, "what the MACs promise"))
    lost = [(name, parts["lost_ms"].get(name, 0.0) * times.speed, predicted, TEXTS[name]) for name in PARTS]
    steps += _add(steps[-1].after_ms, lost)
    last = [
        (UNEXPLAINED, times.planned_ms - steps[-1].after_ms, REMAINDER, "error of the prediction, and of sessions"),
        (OTHER_FILE, times.shipped_ms - times.planned_ms, MEASURED, "another file ships than was planned for"),
    ]
    steps += _add(steps[-1].after_ms, last)
    return [*steps, Step(END, LEVEL, times.shipped_ms, times.shipped_ms, times.planned_origin, times.end)]


def _add(level_ms: float, rows: list[tuple[str, float, str, str]], keep: tuple[str, ...] = ()) -> list[Step]:
    """Changes one after the other; those of nothing, but for rounding, are left out, but for some."""
    steps, least_ms = [], ROUNDING * level_ms
    for name, ms, origin, text in rows:
        if abs(ms) > least_ms or name in keep:
            level_ms += ms
            steps.append(Step(name, CHANGE, ms, level_ms, origin, text))
    return steps


def describe_waterfall(parts: Mapping[str, Any], times: Times, basis: str, valid: bool) -> dict[str, Any]:
    """The document (docs/explain.md): `basis` says where and how the ms were taken, `valid` whether they may be
    believed.
    """
    return {
        "macs_before": parts["macs_before"],
        "macs_after": parts["macs_after"],
        "basis": basis,
        "valid": valid,
        "steps": [asdict(step) for step in build_waterfall(parts, times)],
    }
