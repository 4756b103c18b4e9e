"""Power meters of boards, and energy over a window."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edgeprune_agent.board import find_paths, read_numbers, read_text
from edgeprune_agent.parsers import count_up, pick_rails

INTERVAL_S = 0.02
RAPL_ZONE = "/sys/class/powercap/intel-rapl:0"


class Meter(NamedTuple):
    """A source of power in W, or a counter of energy in uJ that begins again after `limit`."""

    name: str
    read_watts: Callable[[], float] | None = None
    read_microjoules: Callable[[], int] | None = None
    limit: int | None = None


class Energy:
    """Energy in mJ and time in s over a window, filled in when the window closes."""

    millijoules = 0.0
    seconds = 0.0


def find_meter(root: str) -> Meter | None:
    """The first meter that can be read: Jetson INA3221, x86 RAPL, any hwmon power sensor."""
    return find_jetson_meter(root) or find_rapl_meter(root) or find_hwmon_meter(root)


def find_jetson_meter(root: str) -> Meter | None:
    """The total rail of a Jetson's INA3221, or the sum of its rails, in mW (L4T 32) or mV and mA (newer)."""
    old = find_paths(root, "/sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_[0-9]")
    new = find_paths(root, "/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in[123]_label")
    labels = {read_text(root, path): path for path in old or new}
    rails = pick_rails(list(labels))
    if not rails:
        return None

    def read_rail(path: str) -> float:
        folder, label = str(Path(path).parent), Path(path).name
        if old:
            return read_number(root, f"{folder}/in_power{label[-1]}_input") / 1e3
        millivolts = read_number(root, f"{folder}/{label[:3]}_input")
        return millivolts * read_number(root, f"{folder}/curr{label[2]}_input") / 1e6

    return Meter("INA3221 " + "+".join(rails), lambda: sum(read_rail(labels[rail]) for rail in rails))


def find_rapl_meter(root: str) -> Meter | None:
    """The package counter of x86 RAPL, where it may be read."""
    if not read_numbers(root, RAPL_ZONE + "/energy_uj"):
        return None
    limits = read_numbers(root, RAPL_ZONE + "/max_energy_range_uj")
    counter = RAPL_ZONE + "/energy_uj"
    return Meter("RAPL package", None, lambda: read_number(root, counter), limits[0] if limits else None)


def find_hwmon_meter(root: str) -> Meter | None:
    """The first hwmon power sensor by the name of its chip, as numbers change over reboots."""
    paths = find_paths(root, "/sys/class/hwmon/hwmon*/power[0-9]*_input")
    sensors = sorted((read_text(root, f"{Path(path).parent}/name"), path) for path in paths)
    if not sensors:
        return None
    name, path = sensors[0]
    return Meter(f"hwmon {name}", lambda: read_number(root, path) / 1e6)


def read_number(root: str, path: str) -> int:
    """One whole number.

    Raises:
        OSError: it went away since the meter was found.
    """
    numbers = read_numbers(root, path)
    if not numbers:
        raise OSError(f"{path} cannot be read any more")
    return numbers[0]


@contextmanager
def metered(meter: Meter) -> Iterator[Energy]:
    """Measure energy over the body: by the counter, or by power sampled on a thread of its own."""
    energy, begun = Energy(), time.perf_counter()
    if meter.read_microjoules is not None:
        before = meter.read_microjoules()
        yield energy
        energy.millijoules = count_up(before, meter.read_microjoules(), meter.limit) / 1e3
        energy.seconds = time.perf_counter() - begun
        return
    watts: list[float] = []
    done = threading.Event()
    sampler = threading.Thread(target=sample_power, args=(meter, watts, done), daemon=True)
    sampler.start()
    try:
        yield energy
    finally:
        done.set()
        sampler.join()
    energy.seconds = time.perf_counter() - begun
    energy.millijoules = statistics.mean(watts) * energy.seconds * 1e3 if watts else float("nan")


def sample_power(meter: Meter, watts: list[float], done: threading.Event) -> None:
    """Read watts until told to stop or the meter goes away, at least once."""
    try:
        while meter.read_watts is not None:
            watts.append(meter.read_watts())
            if done.wait(INTERVAL_S):
                return
    except OSError:
        return
