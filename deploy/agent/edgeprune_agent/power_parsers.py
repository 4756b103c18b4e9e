"""What power meters say: pure parsers of their files and of what their commands print."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

TOTAL_RAILS = ("POM_5V_IN", "VDD_IN")
"""Rails of Jetson modules that carry everything (Nano; TX2, Xavier NX, Orin NX and Orin Nano)."""
FED_BY = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}
"""A rail that draws from another measured one (Jetson AGX Orin: memory, off the module's 5 V input)."""
NOT_SUMMED = ("EXT5V", "BATT")
"""The input and the clock's battery of a Raspberry Pi 5: what the other rails draw from, not beside them."""
PMIC_LINE = re.compile(r"\s*(\w+)_([AV])\s*(?:\w+\([0-9]+\)\s*)?=\s*([0-9]{1,4}(?:\.[0-9]{1,12})?)([AV])\s*")
ODPM_LINE = re.compile(r"CH[0-9]+\(T=[0-9]+\)\[(\w+)\],\s*([0-9]{1,19})\s*")
MICRO = 20000
"""A phone draws less than so many mA and, awake, more than so many uA: which of the two a figure is in."""
MICROVOLTS = 100000
MAX_WATTS = 50.0
"""No phone draws more from its battery."""


def pick_rails(labels: Sequence[str]) -> list[str]:
    """The rail that carries everything, else all that are connected: never a rail beside one that feeds it."""
    for total in TOTAL_RAILS:
        if total in labels:
            return [total]
    connected = {label for label in labels if label not in ("", "NC") and "sum of" not in label}
    return sorted(label for label in connected if FED_BY.get(label) not in connected)


def parse_pmic(text: str) -> float | None:
    """Watts over the rails of `vcgencmd pmic_read_adc`, paired by name, in either of its formats.

    `VDD_CORE_A current(7)=0.75012000A` and `VDD_CORE_A=0.7501A`; None where no rail has both figures.
    """
    figures: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in text.splitlines():
        match = PMIC_LINE.fullmatch(line)
        if match and match.group(2) == match.group(4):
            figures[match.group(2)][match.group(1)] = float(match.group(3))
    rails = [rail for rail in figures["A"] if rail in figures["V"] and rail not in NOT_SUMMED]
    return sum(figures["A"][rail] * figures["V"][rail] for rail in rails) if rails else None


def parse_odpm(text: str) -> dict[str, int]:
    """Microjoules by rail of a Pixel's `energy_value`."""
    matches = (ODPM_LINE.fullmatch(line) for line in text.splitlines())
    return {match.group(1): int(match.group(2)) for match in matches if match}


def is_buck(rail: str) -> bool:
    """Whether a Pixel's rail is a step-down converter's (S2M_VDD_CPUCL2): processors and memory.

    The linear regulators (L2S_...) draw from these; what is named VSYS_PWR_... is display and radio.
    """
    return re.match(r"S[0-9]+[A-Z]_", rail) is not None


def battery_watts(current: int, voltage: int) -> float:
    """Watts that leave a battery, from figures of either sign in uA or mA, and in uV or mV.

    Linux counts uA and a discharge as negative (Documentation/ABI/testing/sysfs-class-power); phones differ in both.

    Raises:
        ValueError: no phone draws so much, so the unit cannot be told.
    """
    amperes = abs(current) / (1e6 if abs(current) >= MICRO else 1e3)
    volts = abs(voltage) / (1e6 if abs(voltage) >= MICROVOLTS else 1e3)
    if amperes * volts > MAX_WATTS:
        raise ValueError(f"a battery current of {current} at {voltage} is no phone's: its unit cannot be told")
    return amperes * volts


def parse_reading(line: str) -> tuple[float, float] | None:
    """Seconds and watts of a line `12.50,3.41`; what follows a second comma does not matter; None for other lines."""
    try:
        seconds, watts = (float(text) for text in line.split(",")[:2])
    except ValueError:
        return None
    return (seconds, watts) if math.isfinite(seconds) and math.isfinite(watts) else None


def count_up(before: int, after: int, limit: int | None) -> int:
    """How far a counter moved that begins again at zero after `limit`."""
    return after - before if after >= before or not limit else after - before + limit
