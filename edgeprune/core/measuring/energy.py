"""Energy of one inference: the integral of a meter's readings above idle, or the reason why there is no figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from edgeprune.core.answers import Reader, count, describe_misfit, each, number, optional, positive, read_fields, text
from edgeprune.core.boards.neighbours import describe_taken

LEAST_SAMPLES = 20
"""Fewer new readings in a window than these are no measurement."""
MAX_GAP = 0.25
"""Nor is a window in which the meter was silent for more than this share."""
BLOCKS = 5
BLOCK_FACTOR = 2.776
"""Blocks of a window whose spread bounds its mean (batch means), and Student's t for 95 % at 4 degrees of freedom."""
NOT_MEASURABLE = "not measurable"


@dataclass(frozen=True)
class MeterClass:
    """What a kind of meter sees, and by what fraction its gain may be off."""

    sees: str
    gain_error: float
    source: str


METER_CLASSES = {
    "shunt": MeterClass(
        "what flows through the board's shunt",
        0.02,
        "INA3221 at most 0.25 % (TI SBOS576), INA219 at most 1 % (SBOS448), INA226 0.1 % (SBOS547); shunts of 1 %",
    ),
    "pmic": MeterClass(
        "the rails of the power management chip: USB, NVMe and what else draws from the 5 V input bypasses it",
        0.15,
        "sum of V*A against a wall meter: slope 1.1451, offset 0.5879 W (github.com/jfikar/RPi5-power)",
    ),
    "rapl": MeterClass(
        "processor packages and, where they are counted, memory; nothing else of the computer",
        0.05,
        "assumed after Khan et al. 2018, RAPL in Action (ACM TOMPECS 3-2), which compares it with wall power",
    ),
    "odpm": MeterClass(
        "the phone's processor and memory converters; neither display nor radio",
        0.05,
        "no figure is published; assumed",
    ),
    "battery": MeterClass(
        "everything that leaves the battery, display and radio included",
        0.1,
        "no figure is published; Android only says that the error is alike between runs (source.android.com)",
    ),
    "plug": MeterClass("what the power supply draws from the wall, its losses included", 0.03, "assumed"),
    "command": MeterClass("what the user's own meter sees", 0.0, "not known: the meter's own error comes on top"),
}
"""By the kind that a meter says it is of."""


METER: dict[str, Reader[Any]] = {
    **dict.fromkeys(("name", "kind", "unit"), text),
    **dict.fromkeys(("poll_s", "window_s"), positive),
    "fresh": bool,
    "step": number,
}
"""How each field of a `Meter` is read."""


@dataclass(frozen=True)
class Meter:
    """A power meter as it describes itself; `unit` is "W" for power or "J" for a count of energy.

    Where it is not `fresh`, only readings that changed count as samples. `step` is its resolution, in its unit.
    """

    name: str
    kind: str
    unit: str
    poll_s: float
    fresh: bool
    step: float
    window_s: float


@dataclass(frozen=True)
class Window:
    """A stretch of time in s in which a model ran `count` times; without a `name` the board rested.

    `others_cores` is the processor time that others took meanwhile, of `cores`; None where the board does not tell.
    """

    name: str
    begin_s: float
    end_s: float
    count: int
    others_cores: float | None = None
    cores: int = 0

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_s - self.begin_s


@dataclass(frozen=True)
class Readings:
    """What a meter said: times in s, strictly growing, values in its unit; `lost` says why they ended too soon."""

    meter: Meter
    times_s: np.ndarray
    values: np.ndarray
    lost: str = ""
    problem: str = ""
    """Why they cannot be believed."""


@dataclass(frozen=True)
class Energy:
    """Energy of one inference above idle, in mJ, with 95 % uncertainty; or, in `reason`, why there is no figure.

    The uncertainty holds the meter's gain and resolution, the spread in the windows and how far the idle power before
    and after lie apart. `samples` and `rate_hz` are of new readings in the window of `duration_s`.
    """

    meter: str
    kind: str
    sees: str
    energy_mj: float | None
    uncertainty_mj: float | None
    power_w: float | None
    idle_w: float | None
    duration_s: float
    inferences: int
    samples: int
    rate_hz: float
    reason: str = ""

    def describe(self) -> str:
        """For people: the meter, or why it gave no figure."""
        return self.reason or self.meter

    def without_gain(self) -> Energy:
        """The same with the uncertainty that is left between two energies by one meter, whose gain is one in both."""
        if self.energy_mj is None or self.uncertainty_mj is None:
            return self
        gain_mj = METER_CLASSES[self.kind].gain_error * abs(self.energy_mj) if self.kind in METER_CLASSES else 0.0
        return replace(self, uncertainty_mj=math.sqrt(max(0.0, self.uncertainty_mj**2 - gain_mj**2)))


def find_energies(readings: Readings, windows: Sequence[Window]) -> dict[str, Energy]:
    """Energy of one inference by model name; each window of a model lies between two of rest."""
    return {
        window.name: find_energy(readings, window, (windows[at - 1], windows[at + 1]))
        for at, window in enumerate(windows)
        if window.name
    }


def find_energy(readings: Readings, busy: Window, rests: tuple[Window, Window]) -> Energy:
    """Energy of one inference: the integral over the window, less idle power before and after times its length."""
    samples = count_samples(readings, busy)
    reason = _doubt(readings, busy, rests)
    if reason:
        return _describe(readings, busy, samples, reason=reason)
    power_w, idle_w, error_w = _powers(readings, busy, rests)
    above_w = power_w - idle_w
    if above_w <= error_w:
        reason = (
            f"{NOT_MEASURABLE}: {above_w:.3g} W above idle is within the uncertainty of {readings.meter.name}, "
            f"{error_w:.2g} W"
        )
        return _describe(readings, busy, samples, (power_w, idle_w), reason=reason)
    scale = busy.seconds / busy.count * 1e3
    return _describe(readings, busy, samples, (power_w, idle_w), (above_w * scale, error_w * scale))


def _powers(readings: Readings, busy: Window, rests: tuple[Window, Window]) -> tuple[float, float, float]:
    """Mean power, idle power, and the 95 % uncertainty of their difference, in W."""
    (before, spread_before), (after, spread_after) = (_mean_power(readings, rest) for rest in rests)
    power_w, spread = _mean_power(readings, busy)
    idle_w = (before + after) / 2
    gain_w = METER_CLASSES[readings.meter.kind].gain_error * abs(power_w - idle_w)
    parts = (gain_w, spread, math.hypot(spread_before, spread_after) / 2, abs(after - before) / 2)
    return power_w, idle_w, math.hypot(*parts)


def _mean_power(readings: Readings, window: Window) -> tuple[float, float]:
    """Mean power in a window and its 95 % uncertainty, in W."""
    edges = np.linspace(window.begin_s, window.end_s, BLOCKS + 1)
    blocks = [_integrate(readings, start, stop) for start, stop in pairwise(edges)]
    powers = np.asarray(blocks) / np.diff(edges)
    spread = BLOCK_FACTOR * float(np.std(powers, ddof=1)) / math.sqrt(BLOCKS)
    return float(np.mean(powers)), math.hypot(spread, _resolution_w(readings, window))


def _resolution_w(readings: Readings, window: Window) -> float:
    """Uncertainty from the meter's steps, in W; readings that move by more than half a step average it out."""
    step = readings.meter.step
    if readings.meter.unit == "J":
        return step / window.seconds
    inside = readings.values[_inside(readings, window)]
    return 2 * step / math.sqrt(12) if float(np.std(inside)) < step / 2 else 0.0


def _integrate(readings: Readings, begin_s: float, end_s: float) -> float:
    """Joules between two times: trapezoids under power, or the difference of a count."""
    times, values = readings.times_s, readings.values
    if readings.meter.unit == "J":
        start, stop = np.interp([begin_s, end_s], times, values)
        return float(stop - start)
    inside = (times > begin_s) & (times < end_s)
    at = np.concatenate([[begin_s], times[inside], [end_s]])
    watts = np.interp(at, times, values)
    return float(np.sum((watts[1:] + watts[:-1]) / 2 * np.diff(at)))


def _inside(readings: Readings, window: Window) -> np.ndarray:
    return (readings.times_s >= window.begin_s) & (readings.times_s <= window.end_s)


def count_samples(readings: Readings, window: Window) -> int:
    """New readings in a window: all of a meter that is always fresh, else those that changed."""
    values = readings.values[_inside(readings, window)]
    if readings.meter.fresh:
        return int(values.size)
    return int(np.count_nonzero(np.diff(values)))


def _doubt(readings: Readings, busy: Window, rests: tuple[Window, Window]) -> str:
    """Why the readings are no measurement of this window; empty where they are one."""
    if readings.problem:
        return f"{NOT_MEASURABLE}: {readings.meter.name}: {readings.problem}"
    lost = f" ({readings.lost})" if readings.lost else ""
    for where, windows in (("while the model ran", (busy,)), ("at rest", rests)):
        for window in windows:
            if disturbance := describe_taken("others took", window.others_cores, window.cores):
                return f"{NOT_MEASURABLE}: {disturbance} {where}"
        samples = sum(count_samples(readings, window) for window in windows)
        seconds = sum(window.seconds for window in windows)
        if samples < LEAST_SAMPLES:
            needed = math.ceil(1.5 * LEAST_SAMPLES * busy.seconds / max(samples, 1))
            remedy = lost or f"; [protocol] min_duration_s = {needed} may do"
            return (
                f"{NOT_MEASURABLE}: {samples} new readings of {readings.meter.name} in {seconds:.3g} s {where}, "
                f"at least {LEAST_SAMPLES} are needed{remedy}"
            )
    for window in (busy, *rests):
        gap = _longest_gap(readings, window)
        if gap > MAX_GAP * window.seconds:
            silent = f"{readings.meter.name} was silent for {gap:.2g} s of {window.seconds:.3g} s"
            return f"{NOT_MEASURABLE}: {silent}{lost}"
    return ""


def _longest_gap(readings: Readings, window: Window) -> float:
    inside = readings.times_s[_inside(readings, window)]
    return float(np.max(np.diff(np.concatenate([[window.begin_s], inside, [window.end_s]]))))


def _describe(
    readings: Readings,
    busy: Window,
    samples: int,
    powers: tuple[float, float] | None = None,
    energy: tuple[float, float] | None = None,
    *,
    reason: str = "",
) -> Energy:
    meter = readings.meter
    return Energy(
        meter=meter.name,
        kind=meter.kind,
        sees=METER_CLASSES[meter.kind].sees,
        energy_mj=energy[0] if energy else None,
        uncertainty_mj=energy[1] if energy else None,
        power_w=powers[0] if powers else None,
        idle_w=powers[1] if powers else None,
        duration_s=busy.seconds,
        inferences=busy.count,
        samples=samples,
        rate_hz=samples / busy.seconds,
        reason=reason,
    )


WINDOW: dict[str, Reader[Any]] = {
    "name": text,
    **dict.fromkeys(("begin_s", "end_s"), number),
    **dict.fromkeys(("count", "cores"), count),
    "others_cores": optional(number),
}
"""How each field of a `Window` is read."""


def parse_windows(rows: Sequence[Mapping[str, Any]]) -> tuple[Window, ...]:
    """Windows as an agent gives them.

    Raises:
        ValueError: not windows of models, each between two of rest.
    """
    try:
        windows = tuple(Window(**read_fields(row, WINDOW)) for row in rows)
    except (KeyError, TypeError) as exc:
        raise ValueError(f"not an energy window: {describe_misfit(exc)}") from exc
    rests = all(bool(window.name) == bool(at % 2) for at, window in enumerate(windows))
    complete = all(0 < window.seconds < math.inf and (window.count > 0 or not window.name) for window in windows)
    if len(windows) % 2 == 0 or not rests or not complete:
        raise ValueError("energy windows that are not models between rests")
    return windows


def make_readings(meter: Meter, rows: Sequence[Sequence[float]], lost: str = "", problem: str = "") -> Readings:
    """Readings from pairs of time and value, in order of time; of two at one time the later counts.

    `problem` says why they cannot be believed.

    Raises:
        ValueError: not pairs of finite numbers, or a kind or unit of meter that is unknown.
    """
    if meter.kind not in METER_CLASSES or meter.unit not in ("W", "J"):
        raise ValueError(f"a meter of kind {meter.kind!r} in {meter.unit!r} is unknown")
    pairs = np.asarray([each(number)(row) for row in rows], dtype=float).reshape(-1, 2)
    latest = dict(sorted((float(at), float(value)) for at, value in pairs))
    return Readings(meter, np.asarray(list(latest)), np.asarray(list(latest.values())), lost, problem)
