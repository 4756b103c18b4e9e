"""Fit prices in cycles to published results on microcontrollers, write them, and print what is missed when left out.

    python benchmarks/mcu_estimates.py --data FOLDER [--write]

FOLDER holds the published rows (CSV) and the reference models. `--write` writes `hardware_profiles/cycles/mcu.json`;
the errors go to `benchmarks/results/mcu_estimates.json` in any case. It takes 20 s, so nothing is resumed.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
from mcu_fit import fit_cycles
from mcu_rows import NEWEST, RUNTIMES, SOURCES, Row, Submission, label, list_runtimes, read_submissions

from edgeprune.core.estimating.cycles import (
    COMBINED,
    PUBLISHED,
    TERMS,
    CyclePrices,
    CycleTable,
    render_cycles,
)
from edgeprune.core.estimating.estimate import NORMAL_90
from edgeprune.core.latency.table import COVERAGE

ROOT = Path(__file__).parent.parent
Key = Callable[[Submission, Row], str]
WAYS: dict[str, tuple[str, Key]] = {
    "submission": ("the submission (round, organisation, system)", lambda one, _: one.labels["submission"]),
    "board and version": (
        "all of that board in that version of the runtime, by whoever submitted it",
        lambda one, _: one.labels["board"] + one.labels["version"],
    ),
    "core and runtime": ("all of that core in that runtime", lambda one, _: one.labels["pair"]),
    "net": (
        "that net on that core in that runtime, by whoever submitted it",
        lambda one, row: one.labels["pair"] + row.net,
    ),
}
"""What is left out together when a result is predicted."""
FEW = 8
"""Results below which a runtime is too little known for a spread of its own."""
UNSTATED = 0.5
"""Spread of what a runtime moves a core by, where the one that was measured there is not stated."""
ESP = ("ESP32-S3",)
ESP_RUNTIMES = ("tflm-esp-nn", "esp-dl")


@dataclass(frozen=True)
class Miss:
    """A result and the logarithm of predicted by measured cycles."""

    submission: Submission
    net: str
    miss: float


def leave_out(submissions: Sequence[Submission], key: Key) -> list[Miss]:
    """Every result of MLPerf Tiny, predicted by a fit without all that have its key."""
    mlperf = [one for one in submissions if one.source == "mlperf"]
    misses = []
    for group in dict.fromkeys(key(one, row) for one in mlperf for row in one.rows):
        kept = [replace(one, rows=[row for row in one.rows if key(one, row) != group]) for one in submissions]
        fit = fit_cycles([one for one in kept if one.rows])
        for one in mlperf:
            prices = fit.at(one.labels)
            values = np.array([prices[term] for term in TERMS])
            rows = [row for row in one.rows if key(one, row) == group]
            misses += [Miss(one, row.net, float(np.log(row.work @ values / row.cycles))) for row in rows]
    return misses


def describe(misses: Sequence[Miss]) -> dict[str, float]:
    """Relative errors as fractions."""
    errors = [abs(exp(one.miss) - 1) for one in misses]
    return {
        "count": len(errors),
        "median": round(float(np.median(errors)), 4),
        "mean": round(float(np.mean(errors)), 4),
        "worst": round(max(errors), 4),
        "within_10_percent": round(float(np.mean([error <= 0.1 for error in errors])), 4),
    }


def split(misses: Sequence[Miss], key: Callable[[Miss], str]) -> dict[str, dict[str, float]]:
    """The errors by a key."""
    return {name: describe([one for one in misses if key(one) == name]) for name in sorted(set(map(key, misses)))}


def summarize(misses: Sequence[Miss]) -> dict[str, Any]:
    """All errors, and by net, runtime and board."""
    chosen = [one for one in misses if one.submission.labels["board"][:4] in ("L4R5", "H7A3")]
    return {
        "all": describe(misses),
        "by net": split(misses, lambda one: one.net),
        "by runtime": split(misses, lambda one: one.submission.runtime),
        "by core": split(misses, lambda one: one.submission.core),
        "by net on L4R5 and H7A3": split(chosen, lambda one: f"{one.submission.labels['board'][:4]} {one.net}"),
        "by runtime on L4R5 and H7A3": split(chosen, lambda one: one.submission.labels["board"]),
    }


def measure_width(misses: Sequence[Miss]) -> float:
    """The standard deviation whose 90 % interval holds 90 % of what was left out."""
    return float(np.quantile([abs(one.miss) for one in misses], COVERAGE) / NORMAL_90)


def find_net_spread(misses: Sequence[Miss], runtime: str) -> float:
    """What another net is missed by in a runtime: of one with few results, no less than in such runtimes together."""
    counts = Counter(one.submission.runtime for one in misses)
    own = [one for one in misses if one.submission.runtime == runtime]
    if len(own) >= FEW:
        return measure_width(own)
    return measure_width([one for one in misses if counts[one.submission.runtime] < FEW])


def find_pair_spread(misses: Sequence[Miss]) -> float:
    """What a core is missed by in a runtime that was published on others only, of cores with other runtimes."""
    runtimes = {one.submission.core: set[str]() for one in misses}
    for one in misses:
        runtimes[one.submission.core].add(one.submission.runtime)
    return measure_width([one for one in misses if len(runtimes[one.submission.core]) > 1])


def build_table(submissions: Sequence[Submission], misses: dict[str, list[Miss]]) -> CycleTable:
    """Prices of every core in every runtime for such cores."""
    fit = fit_cycles(submissions)
    entries = []
    for core in dict.fromkeys(one.core for one in submissions):
        for runtime in list_runtimes(submissions):
            names = tuple(one.name for one in submissions if (one.core, one.runtime) == (core, runtime))
            if (core in ESP) != (runtime in ESP_RUNTIMES) and not names:
                continue
            version = NEWEST.get(runtime, "")
            basis = PUBLISHED if names else COMBINED
            spread = find_net_spread(misses["net"], runtime)
            if basis == COMBINED:
                spread = float(np.hypot(spread, find_pair_spread(misses["core and runtime"])))
            if all(one.source == "m85" for one in submissions if one.core == core):
                spread = float(np.hypot(spread, UNSTATED))
            prices = fit.at(label(core, runtime, version))
            entries.append(CyclePrices(core, runtime, prices, round(spread, 4), basis, names))
    left_out = {way: describe(rows) for way, rows in misses.items()}
    return CycleTable(tuple(SOURCES.values()), RUNTIMES, tuple(entries), left_out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "device_data")
    parser.add_argument("--write", action="store_true", help="write hardware_profiles/cycles/mcu.json")
    options = parser.parse_args(arguments)
    submissions = read_submissions(options.data)
    misses = {way: leave_out(submissions, key) for way, (_, key) in WAYS.items()}
    document: dict[str, Any] = {"rows": sum(len(one.rows) for one in submissions), "submissions": len(submissions)}
    for way, (text, _) in WAYS.items():
        document[way] = {"left out": text} | summarize(misses[way])
        print(f"left out: {text}\n{json.dumps(document[way]['all'])}")
        for name, errors in document[way]["by runtime"].items():
            print(f"  {name:20} {json.dumps(errors)}")
    table = build_table(submissions, misses)
    if options.write:
        path = ROOT / "hardware_profiles" / "cycles" / "mcu.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(render_cycles(table))
    path = ROOT / "benchmarks" / "results" / "mcu_estimates.json"
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
