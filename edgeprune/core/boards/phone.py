"""What a phone says: pure parsers of `dumpsys` and of TFLite's native `benchmark_model`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""android.os.PowerManager.THERMAL_STATUS_*, 0 to 6: developer.android.com/reference/android/os/PowerManager."""
CPU_SENSOR = 0
"""mType of a Temperature: android.os.Temperature, TYPE_CPU; 3 is the skin (AOSP, Temperature.java)."""
POWERED = re.compile(r"^\s*(AC|USB|Wireless|Dock) powered: true\s*$", re.MULTILINE)
TEMPERATURE = re.compile(r"Temperature\{mValue=(-?[0-9]{1,4}(?:\.[0-9]{1,6})?), mType=(-?[0-9]{1,3}), mName=")
NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?(?:e[+-]?[0-9]{1,2})?)"
TIMINGS = re.compile(
    rf"Inference timings in us: Init: {NUMBER}, First inference: {NUMBER}, "
    rf"Warmup \(avg\): {NUMBER}, Inference \(avg\): {NUMBER}"
)
COUNT = re.compile(
    rf"count=([0-9]{{1,9}}) (?:first={NUMBER} curr={NUMBER} min={NUMBER} max={NUMBER} avg=|curr=){NUMBER}"
)
SPREAD = re.compile(rf"count=[0-9]{{1,9}} [^\n]*?avg={NUMBER} std={NUMBER}")
PEAK = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {NUMBER}")
FOOTPRINT = re.compile(
    rf"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): .*overall={NUMBER}"
)


@dataclass(frozen=True)
class PhoneState:
    """What decides a phone's speed beside its chip; None where it does not tell."""

    screen: str | None = None
    power: str | None = None
    battery_percent: int | None = None
    thermal_status: int | None = None
    cpu_c: float | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """For the conditions of a measurement."""
        notes = [f"screen {self.screen}" if self.screen else "", self.power or ""]
        notes += [f"battery {self.battery_percent} %" if self.battery_percent is not None else ""]
        notes += [f"thermal status {self.thermal_name}" if self.thermal_status is not None else ""]
        return tuple(text for text in notes if text)

    @property
    def thermal_name(self) -> str:
        """The thermal status by its name; empty where it is not told."""
        status = self.thermal_status
        return "" if status is None else THERMAL_STATUS[status] if status < len(THERMAL_STATUS) else str(status)

    @property
    def throttled(self) -> tuple[str, ...]:
        """What of it makes a measurement invalid: from "light" on, clocks may be lowered."""
        return (f"thermal status {self.thermal_name}",) if self.thermal_status else ()


@dataclass(frozen=True)
class Benchmark:
    """What one call of `benchmark_model` measured; `inference_us` is the mean of `count` runs."""

    init_us: float
    first_us: float
    warmup_us: float
    inference_us: float
    count: int
    peak_mib: float | None


def parse_battery(text: str) -> tuple[str | None, int | None]:
    """Whether `dumpsys battery` says that the phone is powered, and its charge in percent."""
    level = re.search(r"^\s*level: ([0-9]{1,3})\s*$", text, re.MULTILINE)
    sources = POWERED.findall(text)
    supply = re.search(r"^\s*\w+ powered: (?:true|false)\s*$", text, re.MULTILINE)
    power = f"powered by {'+'.join(sources)}" if sources else "on battery" if supply else None
    return power, int(level.group(1)) if level else None


def parse_screen(text: str) -> str | None:
    """ "on" or "off", from `dumpsys power`."""
    display = re.search(r"Display Power: state=(\w+)", text)
    if display:
        return "on" if display.group(1) == "ON" else "off"
    awake = re.search(r"mWakefulness=(\w+)", text)
    return None if awake is None else "on" if awake.group(1) == "Awake" else "off"


def parse_thermal(text: str) -> tuple[int | None, float | None]:
    """The status and the hottest CPU sensor, from `dumpsys thermalservice`: the current readings, else the cached."""
    status = re.search(r"^\s*Thermal Status: ([0-9]{1,2})\s*$", text, re.MULTILINE)
    cached, _, current = text.partition("Current temperatures from HAL:")
    for part in (current.partition("Current cooling devices")[0], cached):
        values = [float(value) for value, kind in TEMPERATURE.findall(part) if int(kind) == CPU_SENSOR]
        sane = [value for value in values if 0 < value < 150]
        if sane:
            return int(status.group(1)) if status else None, max(sane)
    return int(status.group(1)) if status else None, None


def parse_phone(sections: Mapping[str, str]) -> PhoneState:
    """The state from what `dumpsys battery`, `power` and `thermalservice` print."""
    power, level = parse_battery(sections.get("battery", ""))
    status, cpu_c = parse_thermal(sections.get("thermal", ""))
    return PhoneState(parse_screen(sections.get("power", "")), power, level, status, cpu_c)


def parse_benchmark(text: str) -> Benchmark | None:
    """What `benchmark_model` printed, of any version; None where it gave no timings."""
    timings, counts = TIMINGS.search(text), COUNT.findall(text)
    if timings is None or not counts:
        return None
    peak = PEAK.search(text) or FOOTPRINT.search(text)
    init, first, warmup, inference = (float(figure) for figure in timings.groups())
    return Benchmark(init, first, warmup, inference, int(counts[-1][0]), float(peak.group(1)) if peak else None)


def parse_spread(text: str) -> float | None:
    """The standard deviation of the runs of a call, as a fraction of their mean; None where it is not told: it is
    printed in whole microseconds, so that 0 is anything below one (xla/tsl/util/stats_calculator.h)."""
    rows = SPREAD.findall(text)
    mean, deviation = (float(figure) for figure in rows[-1]) if rows else (0.0, 0.0)
    return deviation / mean if mean and deviation else None


def pick_fastest(clocks: Mapping[int, int], count: int) -> tuple[int, ...]:
    """Numbers of the fastest cores, by the highest clock of each; of equal ones the last."""
    fastest = sorted(((khz, core) for core, khz in clocks.items()), reverse=True)[:count]
    return tuple(sorted(core for _, core in fastest))


def core_mask(cores: tuple[int, ...]) -> str:
    """The mask that Android's `taskset` takes: hexadecimal, a bit a core."""
    return f"{sum(1 << core for core in cores):x}"
