"""Fit the estimated profiles to published latencies, write them, and print what each source is missed by when left out.

    python benchmarks/estimated_profiles.py --data FOLDER [--write]

FOLDER holds the published rows (CSV). `--write` writes `hardware_profiles/*.json`; the errors go to
`benchmarks/results/estimated_profiles.json` in any case.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import hardware_facts as facts
import numpy as np
from hardware_facts import PEAK, Chip
from published_rows import SOURCES, Evidence

from edgeprune.core.calibrate import LEAST_ROWS, Errors, Measured, calibrate, fit_profile, score, widen
from edgeprune.core.estimate import PARAMETERS, SHORT_SUM, Core, EstimatedProfile, Parameter
from edgeprune.core.profiles import BoardProfiles, render_profiles

ROOT = Path(__file__).parent.parent
PRIOR = {
    "conv3x3": (0.6, 0.5),
    "conv": (0.4, 0.5),
    "pointwise": (0.55, 0.4),
    "depthwise": (0.5, 0.5),
    "grouped": (0.6, 0.5),
    "depth3x3": (32.0, 0.3),
    "linear": (0.5, 0.5),
    "memory": (0.35, 0.3),
    "cache": (2.0, 0.7),
    "overhead_us": (12.0, 0.8),
    "parallel": (0.7, 0.3),
    "speed": (1.0, 0.05),
}
"""What is assumed before any row: value and spread of the logarithm."""
BETWEEN_SOURCES = dict.fromkeys(PARAMETERS, 0.3) | {"memory": 0.15, "speed": 0.15}
"""Spread added when the next source is of another runtime or board: kernels differ."""
BETWEEN_BOARDS = dict.fromkeys(PARAMETERS, 0.15) | {"parallel": 0.3}
"""Spread added when no row is of the board itself."""
UNSEEN_RUNTIME = dict.fromkeys(PARAMETERS, 0.3) | {"memory": 0.0, "depthwise": 0.5, "grouped": 0.5}
"""Spread added for ONNX Runtime, of which no row was published for any of these boards."""
ANY_SPEED, SAME_CALL = 0.7, 0.1
NO_TRANSFORM = (
    "3x3 convolutions as others: neither XNNPACK nor MLAS has the Winograd transform that ncnn and Paddle-Lite use"
)
LAYER_SPREAD = 0.35
"""A single layer or block is missed by more than a net: the FBNet blocks on Raspberry Pi 4."""


def _evidence() -> dict[str, Evidence]:
    pi4 = facts.RPI4.core
    sd835, little = facts.SNAPDRAGON_835.core, facts.RK3399_LITTLE.core
    rk3399, boosted = facts.RK3399_BIG.core, replace(pi4, clock_ghz=1.8)
    return {
        "ncnn rpi4": Evidence("ncnn", "Raspberry Pi 4", boosted, (1, 4)),
        "xnnpack rpi4": Evidence("xnnpack", "RPi 4 (BCM2711", pi4, (4,)),
        "fbnet rpi4": Evidence("fbnet", "raspi4", pi4, relative=True),
        "ncnn rk3399 big": Evidence("ncnn", "Rockchip RK3399", rk3399, (1, 2), "2"),
        "ncnn rk3399 little": Evidence("ncnn", "Rockchip RK3399", little, (1, 4), "1"),
        "paddle rk3399 big": Evidence("paddle", "RK3399", rk3399),
        "ncnn rpi3": Evidence("ncnn", "Raspberry Pi 3", facts.RPI3.core, (1, 4)),
        "xnnpack rpi3": Evidence("xnnpack", "RPi 3+ (BCM2837B0", facts.RPI3.core, (4,)),
        "ncnn snapdragon-410": Evidence("ncnn", "Qualcomm MSM8916", facts.SNAPDRAGON_410.core, (1, 4)),
        "ncnn snapdragon-810": Evidence("ncnn", "Qualcomm MSM8994", facts.SNAPDRAGON_810.core, (1, 4), "2"),
        "ncnn snapdragon-835": Evidence("ncnn", "Qualcomm MSM8998", sd835, (1, 4), "2"),
        "paddle snapdragon-835": Evidence("paddle", "Snapdragon 835", sd835),
        "xnnpack snapdragon-835": Evidence("xnnpack", "Pixel 2", replace(sd835, clock_ghz=2.35), (1, 4)),
        "paddle kirin-980": Evidence("paddle", "Kirin 980", facts.KIRIN_980.core),
        "paddle kirin-990": Evidence("paddle", "Kirin 990", facts.KIRIN_990.core),
        "paddle snapdragon-855": Evidence("paddle", "Snapdragon 855", facts.SNAPDRAGON_855.core),
        "paddle snapdragon-865": Evidence("paddle", "Snapdragon 865", facts.SNAPDRAGON_865.core),
    }


EVIDENCE = _evidence()


@dataclass(frozen=True)
class Board:
    """A board: its chip, what to fit to (in order), and what to check a transfer on.

    `checks` are rows of other boards with such cores, predicted by scaling clock and memory alone.
    """

    name: str
    description: str
    chip: Chip
    fit: tuple[str, ...]
    checks: tuple[str, ...] = ()
    note: str = ""

    @property
    def own(self) -> bool:
        """Whether rows of the board itself were published."""
        return not self.note


A72_ROWS = ("fbnet rpi4", "ncnn rpi4", "xnnpack rpi4")
"""In the order of how much they say of LiteRT today: FBNet's conditions are not stated, XNNPACK is LiteRT's own."""
A76_ROWS = ("paddle kirin-980", "paddle kirin-990", "paddle snapdragon-855")
BOARDS = (
    Board(
        "rpi4",
        "Raspberry Pi 4 Model B, Cortex-A72 at 1.5 GHz",
        facts.RPI4,
        A72_ROWS,
    ),
    Board(
        "rpi3",
        "Raspberry Pi 3 Model B+, Cortex-A53 at 1.4 GHz",
        facts.RPI3,
        ("ncnn rpi3", "xnnpack rpi3"),
    ),
    Board(
        "rpi-zero-2w",
        "Raspberry Pi Zero 2 W, Cortex-A53 at 1.0 GHz",
        facts.RPI_ZERO_2W,
        ("ncnn rpi3", "xnnpack rpi3"),
        ("ncnn snapdragon-410", "ncnn rk3399 little"),
        "no published row of this board: Raspberry Pi 3 B+ (same cores) at the clock and memory bandwidth of "
        "this board",
    ),
    Board(
        "rpi5",
        "Raspberry Pi 5, Cortex-A76 at 2.4 GHz",
        facts.RPI5,
        A76_ROWS,
        (*A76_ROWS, "paddle snapdragon-865"),
        "no published row of this board: the Cortex-A76 big cores of Kirin 980, Kirin 990 and Snapdragon 855 at the "
        "clock and memory bandwidth of this board; what further cores add is assumed, not measured",
    ),
    Board(
        "jetson-nano",
        "NVIDIA Jetson Nano, Cortex-A57 at 1.48 GHz (CPU)",
        facts.JETSON_NANO,
        ("fbnet rpi4", "ncnn snapdragon-810", "ncnn rpi4", "xnnpack rpi4"),
        ("ncnn snapdragon-810",),
        "no published row of this board: Snapdragon 810 (Cortex-A57) and Raspberry Pi 4 (Cortex-A72, the same "
        "multiply-accumulates a cycle) at the clock and memory bandwidth of this board",
    ),
    Board(
        "jetson-orin-nano",
        "NVIDIA Jetson Orin Nano 8GB, Cortex-A78AE at 1.51 GHz (CPU)",
        facts.JETSON_ORIN_NANO,
        (*A76_ROWS, "paddle snapdragon-865"),
        (*A76_ROWS, "paddle snapdragon-865"),
        "no published row of this board: Cortex-A76 and A77 big cores of phones (the same multiply-accumulates a "
        "cycle) at the clock and memory bandwidth of this board; what further cores add is assumed, not measured",
    ),
    Board(
        "snapdragon-835",
        "Snapdragon 835, Cortex-A73 derived big cores at 2.45 GHz",
        facts.SNAPDRAGON_835,
        ("ncnn snapdragon-835", "paddle snapdragon-835", "xnnpack snapdragon-835"),
    ),
    Board(
        "snapdragon-855",
        "Snapdragon 855, its one Cortex-A76 derived prime core at 2.84 GHz",
        facts.SNAPDRAGON_855,
        A76_ROWS,
    ),
    Board(
        "snapdragon-865",
        "Snapdragon 865, its one Cortex-A77 derived prime core at 2.84 GHz",
        facts.SNAPDRAGON_865,
        (*A76_ROWS, "paddle snapdragon-865"),
    ),
)


class Fitter:
    """Fits chains of evidence, one precision at a time, and remembers those that were fitted before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[tuple[tuple[str, ...], str], EstimatedProfile] = {}

    def rows(self, name: str, precision: str) -> list[Measured]:
        """The rows of one piece of evidence."""
        return EVIDENCE[name].rows(self.folder, precision)

    def fit(self, chain: tuple[str, ...], precision: str) -> EstimatedProfile:
        """The prior, fitted to each piece of evidence in turn, its spreads widened before each."""
        if not chain:
            parameters = {name: Parameter(*pair) for name, pair in PRIOR.items()}
            nowhere = Core("none", 1, 1, 1, 1, 1)
            return EstimatedProfile("none", "litert", precision, 1, nowhere, parameters, LAYER_SPREAD, 0.3)
        if (chain, precision) not in self._known:
            before, rows = self.fit(chain[:-1], precision), self.rows(chain[-1], precision)
            if precision == "int8":
                before = self._call_as_fp32(before, chain)
            self._known[chain, precision] = self._step(before, EVIDENCE[chain[-1]], rows) if rows else before
        return self._known[chain, precision]

    def _call_as_fp32(self, before: EstimatedProfile, chain: tuple[str, ...]) -> EstimatedProfile:
        """What a call of a layer costs hardly depends on the precision: taken from the rows in fp32, which are more."""
        overhead = Parameter(self.fit(chain, "fp32").parameters["overhead_us"].value, SAME_CALL)
        return replace(before, parameters={**before.parameters, "overhead_us": overhead})

    def _step(self, before: EstimatedProfile, evidence: Evidence, rows: list[Measured]) -> EstimatedProfile:
        start = replace(widen(before, BETWEEN_SOURCES), core=evidence.at(before.precision))
        if not evidence.relative:
            return fit_profile(start, rows)
        fitted = fit_profile(widen(start, {"speed": ANY_SPEED}), rows)
        return replace(
            fitted,
            parameters={**fitted.parameters, "speed": start.parameters["speed"]},
            net_spread=before.net_spread,
        )

    def transfer(
        self, chain: tuple[str, ...], core: Core, precision: str, spread: dict[str, float]
    ) -> EstimatedProfile:
        """A fitted chain moved to another core."""
        peak = PEAK[core.name][precision]
        return widen(replace(self.fit(chain, precision), core=replace(core, macs_per_cycle=peak)), spread)

    def leave_out(self, board: Board, precision: str) -> dict[str, Errors]:
        """Errors on each piece of evidence of the board (or of boards like it) by a fit to the others."""
        found = {}
        own = [name for name in board.fit if name.endswith(f" {board.name}")]
        for name in own if board.own else board.checks:
            chain = tuple(other for other in board.fit if other != name)
            rows = self.rows(name, precision)
            if rows and any(self.rows(other, precision) for other in chain):
                profile = self.transfer(chain, EVIDENCE[name].core, precision, BETWEEN_SOURCES)
                found[name] = score([(profile, row) for row in rows])
        return found

    def profiles(self, board: Board) -> tuple[EstimatedProfile, ...]:
        """The board's profiles for LiteRT and, by assumption, for ONNX Runtime."""
        made = []
        for precision in ("fp32", "int8"):
            errors = self.leave_out(board, precision)
            profile = self.transfer(board.fit, board.chip.core, precision, {} if board.own else BETWEEN_BOARDS)
            used = [name for name in board.fit if self.rows(name, precision)]
            conditions = {
                "fitted_on": used,
                "derived": "; ".join(filter(None, (board.note, NO_TRANSFORM))),
                "left_out": {name: _round(asdict(one)) for name, one in errors.items()},
            }
            profile = replace(as_matrix_products(profile), board=board.name, conditions=conditions)
            unseen = "no published row of ONNX Runtime on any of these boards: as LiteRT, with wider intervals"
            derived = f"{conditions['derived']}; {unseen}"
            onnx = replace(
                widen(profile, UNSEEN_RUNTIME), runtime="onnxruntime", conditions={**conditions, "derived": derived}
            )
            made += [profile, onnx]
        return tuple(made)


def as_matrix_products(profile: EstimatedProfile) -> EstimatedProfile:
    """The profile of a runtime that computes 3x3 convolutions as it does others (XNNPACK: Dukhan 2019)."""
    own = profile.parameters["conv"]
    plain = {"conv3x3": own, "depth3x3": Parameter(SHORT_SUM / 9, 0.7)}
    return replace(profile, parameters={**profile.parameters, **plain})


def _round(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def transfer_study(fitter: Fitter) -> dict[str, dict[str, dict[str, float]]]:
    """Few-shot transfer: the profile of Raspberry Pi 4 calibrated to every other chip's nets."""
    found = {}
    for precision in ("fp32", "int8"):
        start = fitter.fit(A72_ROWS, precision)
        for name in EVIDENCE:
            rows = fitter.rows(name, precision)
            if name in A72_ROWS or len({row.layers for row in rows}) < LEAST_ROWS:
                continue
            core = EVIDENCE[name].at(precision)
            done = calibrate(replace(start, core=core), rows)
            found[f"{name} {precision}"] = {
                "before": _round(asdict(done.before)),
                "after": _round(asdict(done.after)),
            }
    return found


def _show(title: str, errors: dict[str, float]) -> None:
    rest = f"within 10 % {errors['within_10_percent']:5.1%}  in interval {errors['coverage']:5.1%}"
    middle = f"mean {errors['mean']:6.1%}  median {errors['median']:6.1%}  worst {errors['worst']:6.1%}"
    print(f"{title:56s} {errors['count']:4.0f} rows  {middle}  {rest}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "device_data")
    parser.add_argument("--write", action="store_true", help="write hardware_profiles/*.json")
    options = parser.parse_args(arguments)
    fitter, results = Fitter(options.data), {}
    for board in BOARDS:
        profiles = fitter.profiles(board)
        used = {EVIDENCE[name].source for name in board.fit}
        sources = tuple(SOURCES[name] for name in sorted(used))
        described = BoardProfiles(board.name, board.description, sources, board.chip.sources, profiles)
        if options.write:
            (ROOT / "hardware_profiles" / f"{board.name}.json").write_text(render_profiles(described))
        for profile in profiles[::2]:
            results[f"{board.name} {profile.precision}"] = profile.conditions["left_out"]
            for name, errors in profile.conditions["left_out"].items():
                _show(f"{board.name} {profile.precision}: {name} left out", errors)
    study = transfer_study(fitter)
    for name, pair in study.items():
        _show(f"rpi4 to {name}, before", pair["before"])
        _show("   calibrated, cross-validated", pair["after"])
    means = [errors["mean"] for found in results.values() for errors in found.values()]
    summary = {
        "mean_left_out_error": round(float(np.mean(means)), 4),
        "calibrated_mean_error": round(float(np.mean([pair["after"]["mean"] for pair in study.values()])), 4),
    }
    document = {"summary": summary, "left_out": results, "calibration": study}
    path = ROOT / "benchmarks" / "results" / "estimated_profiles.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
