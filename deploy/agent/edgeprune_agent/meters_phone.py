"""Power meters in phones: the battery's fuel gauge, and the rails of Pixels (ODPM)."""

from __future__ import annotations

from edgeprune_agent.board import find_paths, read_numbers, read_text
from edgeprune_agent.meter import Meter, read_number
from edgeprune_agent.power_parsers import battery_watts, is_buck, parse_odpm

BATTERY = "/sys/class/power_supply/battery"
ODPM = "/sys/bus/iio/devices/iio:device*/energy_value"
GAUGE_POLL_S = 0.1
GAUGE_WINDOW_S = 30.0
"""Fuel gauges take a new reading about once a second or less often; only those that changed count."""
ODPM_POLL_S = 0.05


def find_battery(root: str, sensor: str) -> Meter | None:
    """The battery: what leaves it, so only while nothing charges it."""
    if not read_numbers(root, f"{BATTERY}/current_now") or not read_numbers(root, f"{BATTERY}/voltage_now"):
        return None

    def read() -> float:
        status = read_text(root, f"{BATTERY}/status")
        if status != "Discharging":
            raise OSError(f"the battery is {status.lower() or 'in an unknown state'}, not discharging; unplug it")
        return battery_watts(read_number(root, f"{BATTERY}/current_now"), read_number(root, f"{BATTERY}/voltage_now"))

    return Meter("battery", "battery", "W", read, poll_s=GAUGE_POLL_S, fresh=False, least_s=GAUGE_WINDOW_S)


def find_odpm(root: str, sensor: str) -> Meter | None:
    """The step-down converters of a Pixel: processors and memory, without display and radio."""
    if not read_bucks(root):
        return None
    first: dict[str, int] = {}

    def read() -> float:
        now = read_bucks(root)
        first.update({rail: value for rail, value in now.items() if rail not in first})
        if not now:
            raise OSError("the energy counters cannot be read any more")
        return sum(now[rail] - first[rail] for rail in now) / 1e6

    return Meter("ODPM " + "+".join(sorted(read_bucks(root))), "odpm", "J", read, poll_s=ODPM_POLL_S, fresh=False)


def read_bucks(root: str) -> dict[str, int]:
    """Microjoules by step-down converter, over all its meters."""
    texts = [read_text(root, path) for path in find_paths(root, ODPM)]
    return {rail: value for text in texts for rail, value in parse_odpm(text).items() if is_buck(rail)}
