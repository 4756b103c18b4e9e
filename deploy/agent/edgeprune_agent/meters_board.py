"""Power meters on boards and computers: Jetson INA3221, other INA2xx, Raspberry Pi 5, x86 RAPL."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Tuple

from edgeprune_agent.board import find_paths, read_numbers, read_text
from edgeprune_agent.errors import AgentError
from edgeprune_agent.meter import POLL_S, Meter, read_number
from edgeprune_agent.power_parsers import count_up, parse_pmic, pick_rails

INA3221_OLD = "/sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_[0-9]"
INA3221_NEW = "/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in[123]_label"
SHUNT_LSB_UV = 40.0
USUAL_SHUNT_UOHM = 5000
"""Resolution of the INA3221 over its shunt (TI SBOS576), and the shunt of most Jetson modules."""
INA_CHIP = re.compile(r"ina2[0-9]{2}")
PMIC_POLL_S = 0.1
PMIC_STEP_W = 0.03
"""`vcgencmd` is a process each time; VDD_CORE's current comes in steps of about 0.03 A at 0.9 V."""
RAPL_ZONES = "/sys/class/powercap/intel-rapl:[0-9]*"
"""Not intel-rapl-mmio, which shows the same counter again."""


def find_jetson(root: str, sensor: str) -> Meter | None:
    """The total input rail of a Jetson's INA3221, or the sum of its rails, in either layout of its driver."""
    old = find_paths(root, INA3221_OLD)
    read_rail = read_old_rail if old else read_new_rail
    paths = {read_text(root, path): path for path in old or find_paths(root, INA3221_NEW)}
    paths = {label: path for label, path in paths.items() if can_read(root, read_rail, path)}
    rails = pick_rails(list(paths))
    if not rails:
        return None
    steps = [rail_step(root, paths[rail], read_rail) for rail in rails]
    return Meter(
        "INA3221 " + "+".join(rails),
        "shunt",
        "W",
        lambda: sum(read_rail(root, paths[rail]) for rail in rails),
        poll_s=max(read_interval(root, str(Path(paths[rail]).parent)) for rail in rails),
        step=math.hypot(*steps),
    )


def read_old_rail(root: str, path: str) -> float:
    """Watts of the rail that `rail_name_N` names: `in_powerN_input` is in mW."""
    return read_number(root, f"{Path(path).parent}/in_power{path[-1]}_input") / 1e3


def read_new_rail(root: str, path: str) -> float:
    """Watts of the rail that `inN_label` names, from mV and mA. `in4` to `in7` are over shunts, in uV: no power."""
    folder, number = Path(path).parent, Path(path).name[2]
    return read_number(root, f"{folder}/in{number}_input") * read_number(root, f"{folder}/curr{number}_input") / 1e6


def can_read(root: str, read: Callable[[str, str], float], path: str) -> bool:
    """Whether a channel is switched on."""
    try:
        read(root, path)
    except OSError:
        return False
    return True


def rail_step(root: str, path: str, read: Callable[[str, str], float]) -> float:
    """Watts that one step over the shunt stands for, at 5 V or what the rail has."""
    folder, number = Path(path).parent, Path(path).name[2]
    if read is read_old_rail:
        millivolts = read_numbers(root, f"{folder}/in_voltage{path[-1]}_input")
        shunts: list[int] = []
    else:
        millivolts = read_numbers(root, f"{folder}/in{number}_input")
        shunts = read_numbers(root, f"{folder}/shunt{number}_resistor")
    shunt = (shunts[0] if shunts else 0) or USUAL_SHUNT_UOHM
    return SHUNT_LSB_UV / shunt * (millivolts[0] if millivolts else 5000) / 1e3


def read_interval(root: str, folder: str) -> float:
    """Seconds between two conversions, where the driver says; never less than POLL_S."""
    return max([POLL_S, *(millis / 1e3 for millis in read_numbers(root, f"{folder}/update_interval"))])


class Sensor(NamedTuple):
    """One `powerN_input` of hwmon; the number in its path changes over reboots, the rest of this does not."""

    chip: str
    address: str
    label: str
    path: str

    @property
    def title(self) -> str:
        """What it is called."""
        return " ".join(part for part in (self.chip, self.address, self.label) if part)


def find_hwmon(root: str, sensor: str) -> Meter | None:
    """The sensor named by its chip, I2C address or label; without a name the only INA2xx.

    Raises:
        AgentError: several answer to the name.
    """
    sensors = sorted(find_sensors(root))
    if sensor:
        matches = [
            candidate
            for candidate in sensors
            if sensor in (candidate.chip, candidate.address, candidate.label, candidate.title)
        ]
    else:
        matches = [candidate for candidate in sensors if INA_CHIP.fullmatch(candidate.chip)]
    if len(matches) > 1:
        names = ", ".join(f"{candidate.title!r}" for candidate in matches)
        raise AgentError("meter", f"several power sensors: {names}; name the board's input: [power] sensor = ...")
    if not matches:
        return None
    path = matches[0].path
    poll_s = read_interval(root, str(Path(path).parent))
    return Meter(f"hwmon {matches[0].title}", "shunt", "W", lambda: read_number(root, path) / 1e6, poll_s=poll_s)


def find_sensors(root: str) -> list[Sensor]:
    """Every readable power sensor of hwmon; power is in uW there."""
    sensors = []
    for path in find_paths(root, "/sys/class/hwmon/hwmon*/power[0-9]*_input"):
        folder = str(Path(path).parent)
        address = os.path.basename(os.path.realpath(f"{root}{folder}/device"))  # noqa: PTH119
        label = read_text(root, path.replace("_input", "_label"))
        if read_numbers(root, path):
            bus_address = address if re.fullmatch(r"[0-9]+-[0-9a-f]{4}", address) else ""
            sensors.append(Sensor(read_text(root, f"{folder}/name"), bus_address, label, path))
    return sensors


def find_rpi5(root: str, sensor: str) -> Meter | None:
    """The power management chip of a Raspberry Pi 5: the sum over its rails, without what bypasses it (USB, NVMe)."""
    command = shutil.which("vcgencmd", path=f"{root}/usr/bin" if root else None)
    if command is None or run_pmic(command) is None:
        return None
    program: str = command

    def read() -> float:
        watts = run_pmic(program)
        if watts is None:
            raise OSError("vcgencmd pmic_read_adc gives no rails any more")
        return watts

    return Meter("Raspberry Pi 5 PMIC", "pmic", "W", read, poll_s=PMIC_POLL_S, step=PMIC_STEP_W)


def run_pmic(command: str) -> float | None:
    """Watts that `vcgencmd pmic_read_adc` shows, if it does."""
    try:
        process = subprocess.run([command, "pmic_read_adc"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_pmic(process.stdout)


def find_rapl(root: str, sensor: str) -> Meter | None:
    """The packages of x86 RAPL and their memory; `core` and `uncore` are parts of a package, `psys` holds them all."""
    zones = {zone: read_text(root, f"{zone}/name") for zone in find_paths(root, RAPL_ZONES)}
    chosen = [
        zone
        for zone, name in zones.items()
        if (name == "dram" or name.startswith("package")) and read_numbers(root, f"{zone}/energy_uj")
    ]
    if not any(zones[zone].startswith("package") for zone in chosen):
        return None
    read = accumulate([wrapping(root, zone) for zone in chosen])
    return Meter("RAPL " + "+".join(zones[zone] for zone in chosen), "rapl", "J", read, fresh=False)


Counter = Tuple[Callable[[], int], Optional[int]]
"""How a counter in uJ is read, and after what it begins again."""


def wrapping(root: str, zone: str) -> Counter:
    """The counter of a RAPL zone."""
    limits = read_numbers(root, f"{zone}/max_energy_range_uj")
    return lambda: read_number(root, f"{zone}/energy_uj"), limits[0] if limits else None


def accumulate(counters: Sequence[Counter]) -> Callable[[], float]:
    """Joules that all counters together moved since the first reading; each may begin again on its own."""
    last: list[int] = []
    total = [0]

    def read() -> float:
        now = [read_counter() for read_counter, _ in counters]
        for at, (_, limit) in enumerate(counters):
            total[0] += count_up((last or now)[at], now[at], limit)
        last[:] = now
        return total[0] / 1e6

    return read
