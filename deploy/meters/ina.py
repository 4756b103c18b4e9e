"""Power by an INA219 or INA226 over I2C, on the machine that it is wired to: lines `seconds,watts` until it is ended.

    python3 ina.py --chip ina226 --bus 1 --address 0x40 --ohm 0.01

In a target: meter = "command", command = ["ssh", "pi@meter", "python3", "ina.py", "--chip", "ina226", "--ohm", "0.01"].
The shunt lies in the supply of the board that is measured. Needs Python 3.8 and read and write access to /dev/i2c-N
(group `i2c`), no package. Where Linux has a driver for the chip (hwmon), use that: both cannot use it at once.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import time
from collections.abc import Callable

I2C_SLAVE = 0x0703
"""ioctl that says which chip on the bus is meant (linux/i2c-dev.h)."""
SHUNT, BUS = 0x01, 0x02
CHIPS = {"ina219": (10e-6, 4e-3, 3), "ina226": (2.5e-6, 1.25e-3, 0)}
"""V per step over the shunt, V per step of the bus, and bits to drop of it: TI SBOS448, SBOS547, register maps."""
PERIOD_S = 0.02


def find_watts(chip: str, shunt: bytes, bus: bytes, ohm: float) -> float:
    """Watts from the two registers, the high byte first; a current that flows backwards is below zero."""
    shunt_step, bus_step, drop = CHIPS[chip]
    amperes = int.from_bytes(shunt, "big", signed=True) * shunt_step / ohm
    return amperes * (int.from_bytes(bus, "big") >> drop) * bus_step


def open_chip(bus: int, address: int) -> Callable[[int], bytes]:
    """What reads a register of a chip on a bus."""
    device = os.open(f"/dev/i2c-{bus}", os.O_RDWR)
    fcntl.ioctl(device, I2C_SLAVE, address)

    def read(register: int) -> bytes:
        os.write(device, bytes([register]))
        return os.read(device, 2)

    return read


def main() -> None:
    """Print readings; they end with whoever reads them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", choices=sorted(CHIPS), required=True)
    parser.add_argument("--ohm", type=float, required=True, help="the shunt's resistance")
    parser.add_argument("--bus", type=int, default=1)
    parser.add_argument("--address", type=lambda text: int(text, 0), default=0x40)
    options = parser.parse_args()
    try:
        read = open_chip(options.bus, options.address)
        while True:
            print(
                f"{time.monotonic():.6f},{find_watts(options.chip, read(SHUNT), read(BUS), options.ohm):.6f}",
                flush=True,
            )
            time.sleep(PERIOD_S)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as exc:
        sys.exit(f"ina.py: /dev/i2c-{options.bus}, address {options.address:#x}: {exc.strerror}")


if __name__ == "__main__":
    main()
