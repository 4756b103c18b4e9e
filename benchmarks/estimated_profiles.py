"""Fit the estimated profiles to published latencies, write them, and print what each source is missed by when left out.

    python benchmarks/estimated_profiles.py --data FOLDER [--write] [--ncnn README] [--help-data FOLDER]

FOLDER holds the published rows (CSV). `--write` writes `hardware_profiles/*.json`; the errors go to
`benchmarks/results/estimated_profiles.json` in any case. `--ncnn` (benchmark/README.md of Tencent/ncnn) and
`--help-data` (a clone of HayeonLee/HELP) add the checks on rows that no fit sees: see `kept_aside.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import hardware_facts as facts
import numpy as np
from hardware_facts import Chip
from joint_fit import JointFit, Sample, fit_jointly
from kept_aside import check_ncnn, check_spaces
from published_rows import SOURCES, Evidence, label, start_profile

from edgeprune.core.estimating.calibrate import (
    LEAST_NETS,
    LEAST_ROWS,
    CountedRows,
    Errors,
    Measured,
    calibrate,
    measure_miss,
    score,
)
from edgeprune.core.estimating.estimate import Core, EstimatedProfile
from edgeprune.core.estimating.profiles import BoardProfiles, render_profiles
from edgeprune.core.latency.table import COVERAGE

ROOT = Path(__file__).parent.parent
ASSUMED = "no published row of ONNX Runtime on any of these boards: what all runtimes share, with wider intervals"
SHOWN = {"litert": "", "onnxruntime": ASSUMED}
"""Runtimes that profiles are written for, and what is to be said of each."""


def _evidence() -> tuple[Evidence, ...]:
    pi4, sd835, sd855 = facts.RPI4.core, facts.SNAPDRAGON_835.core, facts.SNAPDRAGON_855.core
    rk3399, little = facts.RK3399_BIG.core, facts.RK3399_LITTLE.core
    return (
        Evidence("ncnn", "rpi4", "Raspberry Pi 4", replace(pi4, clock_ghz=1.8), (1, 4)),
        Evidence("xnnpack", "rpi4", "RPi 4 (BCM2711", pi4, (4,)),
        Evidence("fbnet", "rpi4", "raspi4", pi4, relative=True),
        Evidence("ncnn", "rk3399-big", "Rockchip RK3399", rk3399, (1, 2), "2"),
        Evidence("ncnn", "rk3399-little", "Rockchip RK3399", little, (1, 4), "1"),
        Evidence("paddle", "rk3399-big", "RK3399", rk3399),
        Evidence("ncnn", "rpi3", "Raspberry Pi 3", facts.RPI3.core, (1, 4)),
        Evidence("xnnpack", "rpi3", "RPi 3+ (BCM2837B0", facts.RPI3.core, (4,)),
        Evidence("ncnn", "snapdragon-410", "Qualcomm MSM8916", facts.SNAPDRAGON_410.core, (1, 4)),
        Evidence("ncnn", "snapdragon-810", "Qualcomm MSM8994", facts.SNAPDRAGON_810.core, (1, 4), "2"),
        Evidence("ncnn", "snapdragon-835", "Qualcomm MSM8998", sd835, (1, 4), "2"),
        Evidence("paddle", "snapdragon-835", "Snapdragon 835", sd835),
        Evidence("xnnpack", "snapdragon-835", "Pixel 2", replace(sd835, clock_ghz=2.35), (1, 4)),
        Evidence("paddle", "kirin-980", "Kirin 980", facts.KIRIN_980.core),
        Evidence("paddle", "kirin-990", "Kirin 990", facts.KIRIN_990.core),
        Evidence("paddle", "snapdragon-855", "Snapdragon 855", sd855),
        Evidence("ncnn", "snapdragon-855-plus", "Qualcomm SM8150-AC", replace(sd855, clock_ghz=2.96), (1,), "2"),
        Evidence("paddle", "snapdragon-865", "Snapdragon 865", facts.SNAPDRAGON_865.core),
    )


@dataclass(frozen=True)
class Board:
    """A board that a profile is written for; `note` says what stands in for rows of its own where there are none."""

    name: str
    description: str
    chip: Chip
    note: str = ""


A76_KIN = (
    "no published row of this board among those fitted to: Cortex-A76 and A77 big cores of phones at the clock and "
    "memory bandwidth of this board; what further cores add is what it is on the other boards"
)
BOARDS = (
    Board("rpi4", "Raspberry Pi 4 Model B, Cortex-A72 at 1.5 GHz", facts.RPI4),
    Board("rpi3", "Raspberry Pi 3 Model B+, Cortex-A53 at 1.4 GHz", facts.RPI3),
    Board(
        "rpi-zero-2w",
        "Raspberry Pi Zero 2 W, Cortex-A53 at 1.0 GHz",
        facts.RPI_ZERO_2W,
        "no published row of this board among those fitted to: boards with the same cores, at the clock and memory "
        "bandwidth of this board",
    ),
    Board("rpi5", "Raspberry Pi 5, Cortex-A76 at 2.4 GHz", facts.RPI5, A76_KIN),
    Board(
        "jetson-nano",
        "NVIDIA Jetson Nano, Cortex-A57 at 1.48 GHz (CPU)",
        facts.JETSON_NANO,
        "no published row of this board among those fitted to: Snapdragon 810 (Cortex-A57) at the clock and memory "
        "bandwidth of this board",
    ),
    Board(
        "jetson-orin-nano",
        "NVIDIA Jetson Orin Nano 8GB, Cortex-A78AE at 1.51 GHz (CPU)",
        facts.JETSON_ORIN_NANO,
        A76_KIN,
    ),
    Board("snapdragon-835", "Snapdragon 835, Cortex-A73 derived big cores at 2.45 GHz", facts.SNAPDRAGON_835),
    Board("snapdragon-855", "Snapdragon 855, its one Cortex-A76 derived prime core at 2.84 GHz", facts.SNAPDRAGON_855),
    Board("snapdragon-865", "Snapdragon 865, its one Cortex-A77 derived prime core at 2.84 GHz", facts.SNAPDRAGON_865),
)


@dataclass(frozen=True)
class LeftOut:
    """A source, the profile that a fit to all others gives it, and what that misses."""

    evidence: Evidence
    profile: EstimatedProfile
    rows: list[Measured]

    @cached_property
    def misses(self) -> list[float]:
        """How far each row lies out, as a share of half its interval."""
        return [measure_miss(self.profile, row) for row in self.rows]

    def errors(self, stretch: float) -> dict[str, Any]:
        """Errors by precision and threads, with intervals of so much of their width."""
        profile, errors = replace(self.profile, stretch=stretch), {}
        for key in dict.fromkeys((row.precision, row.threads) for row in self.rows):
            rows = [row for row in self.rows if (row.precision, row.threads) == key]
            threads = f"{key[1]} thread{'s' if key[1] != 1 else ''}"
            errors[f"{key[0]}, {threads}"] = round_errors(score([(profile, row) for row in rows]))
        return errors


class Study:
    """All evidence, fitted jointly with and without each source."""

    def __init__(self, folder: Path) -> None:
        self.evidence = _evidence()
        self.rows = {evidence.name: evidence.rows(folder) for evidence in self.evidence}
        self._samples = {
            evidence.name: Sample(
                evidence.labels, CountedRows.of(evidence.profile(), self.rows[evidence.name]), evidence.relative
            )
            for evidence in self.evidence
        }

    @cached_property
    def fit(self) -> JointFit:
        """The fit to all."""
        return fit_jointly(list(self._samples.values()))

    @cached_property
    def left_out(self) -> list[LeftOut]:
        """Each source by a fit to the others; those whose conditions are not stated say nothing of a latency."""
        left_out = []
        for evidence in self.evidence:
            if not evidence.relative:
                fit = fit_jointly([sample for name, sample in self._samples.items() if name != evidence.name])
                profile = replace(evidence.profile(), parameters=fit.at(evidence.labels))
                left_out.append(LeftOut(evidence, profile, self.rows[evidence.name]))
        return left_out

    @cached_property
    def stretch(self) -> float:
        """The factor on the width of intervals with which they hold 90 % of what was left out, all sources alike, be it
        of one thread or of several."""
        return max(self._find_stretch(lambda threads: threads == 1), self._find_stretch(lambda threads: threads > 1))

    def _find_stretch(self, holds: Callable[[int], bool]) -> float:
        weighted: list[tuple[float, float]] = []
        for case in self.left_out:
            misses = [miss for miss, row in zip(case.misses, case.rows, strict=True) if holds(row.threads or 1)]
            weighted += [(miss, 1 / len(misses)) for miss in misses]
        misses, weights = np.array(sorted(weighted)).T
        reached = np.cumsum(weights) / weights.sum()
        return float(misses[np.searchsorted(reached, COVERAGE)])

    def profile(self, board: str, runtime: str, core: Core) -> EstimatedProfile:
        """A board in a runtime, at its own core."""
        parameters = self.fit.at(label(runtime, board, core))
        return replace(start_profile(board, runtime, core), parameters=parameters, stretch=self.stretch)

    def near(self, board: Board) -> list[LeftOut]:
        """Sources of the board itself, or else of boards with such cores."""
        core = label("", board.name, board.chip.core)["core"]
        own = [case for case in self.left_out if case.evidence.chip == board.name]
        return own or [case for case in self.left_out if case.evidence.labels["core"] == core]

    def describe(self, board: Board) -> BoardProfiles:
        """The board's profiles for LiteRT and, by assumption, for ONNX Runtime."""
        near, profiles = self.near(board), []
        for runtime, note in SHOWN.items():
            conditions = {
                "fitted_on": [evidence.name for evidence in self.evidence],
                "derived": "; ".join(filter(None, (board.note, note))),
                "left_out": {case.evidence.name: case.errors(self.stretch) for case in near},
            }
            profiles.append(replace(self.profile(board.name, runtime, board.chip.core), conditions=conditions))
        sources = tuple(SOURCES[name] for name in sorted({evidence.source for evidence in self.evidence}))
        return BoardProfiles(board.name, board.description, sources, board.chip.sources, tuple(profiles))


def round_errors(errors: Errors) -> dict[str, float]:
    """As they are written down."""
    return {name: round(value, 4) for name, value in asdict(errors).items()}


def transfer_study(study: Study) -> dict[str, dict[str, dict[str, float]]]:
    """Few-shot transfer: what a fit to all other sources gives a source, calibrated to its nets."""
    figures = {}
    for case in study.left_out:
        if len(case.rows) >= LEAST_ROWS and len({row.layers for row in case.rows}) >= LEAST_NETS:
            calibration = calibrate(replace(case.profile, stretch=study.stretch), case.rows)
            figures[case.evidence.name] = {
                "before": round_errors(calibration.before),
                "after": round_errors(calibration.after),
            }
    return figures


def _show(title: str, errors: Mapping[str, float]) -> None:
    shares = f"within 10 % {errors['within_10_percent']:5.1%}  in interval {errors['coverage']:5.1%}"
    middle = f"mean {errors['mean']:6.1%}  median {errors['median']:6.1%}  worst {errors['worst']:6.1%}"
    print(f"{title:56s} {errors['count']:4.0f} rows  {middle}  {shares}")


def _mean(errors: Sequence[Mapping[str, float]], name: str) -> float:
    return round(float(np.mean([row[name] for row in errors])), 4)


def summarize(study: Study, transfer: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Means over sources, however many rows each has."""
    whole = [
        round_errors(score([(replace(case.profile, stretch=study.stretch), row) for row in case.rows]))
        for case in study.left_out
    ]
    after = [pair["after"] for pair in transfer.values()]
    names = {"mean": "mean_error", "within_10_percent": "within_10_percent", "coverage": "coverage"}
    left_out = {f"left_out_{long}": _mean(whole, short) for short, long in names.items()}
    return left_out | {f"calibrated_{long}": _mean(after, short) for short, long in names.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "device_data")
    parser.add_argument("--write", action="store_true", help="write hardware_profiles/*.json")
    parser.add_argument("--ncnn", type=Path, help="benchmark/README.md of Tencent/ncnn")
    parser.add_argument("--help-data", type=Path, help="a clone of HayeonLee/HELP")
    options = parser.parse_args(arguments)
    study = Study(options.data)
    for board in BOARDS:
        profiles = study.describe(board)
        if options.write:
            (ROOT / "hardware_profiles" / f"{board.name}.json").write_text(render_profiles(profiles))
    left_out = {case.evidence.name: case.errors(study.stretch) for case in study.left_out}
    for name, parts in left_out.items():
        for part, errors in parts.items():
            _show(f"{name} left out: {part}", errors)
    transfer = transfer_study(study)
    for name, pair in transfer.items():
        _show(f"{name} calibrated, cross-validated", pair["after"])
    kept_aside = check_ncnn(options.ncnn, study.profile) if options.ncnn else {}
    kept_aside |= check_spaces(options.help_data, study.profile) if options.help_data else {}
    for name, errors in kept_aside.items():
        _show(name, errors)
    summary = summarize(study, transfer) | {"stretch": round(study.stretch, 4)}
    document = {"summary": summary, "left_out": left_out, "calibration": transfer, "kept_aside": kept_aside}
    path = ROOT / "benchmarks" / "results" / "estimated_profiles.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
