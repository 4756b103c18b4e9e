"""Power by a Nordic Power Profiler Kit II on this machine's USB: lines `seconds,watts` until it is ended.

    python3 ppk2.py --millivolts 3300            ampere meter: the board has its own supply of so many mV
    python3 ppk2.py --millivolts 3300 --source   it supplies the board, 5000 mV and 1 A at most

In a target: meter = "command", command = ["python3", "ppk2.py", "--millivolts", "3300"]. It measures the current only:
watts are right where the voltage is. Needs `pip install ppk2-api`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

PERIOD_S = 0.02
"""It samples 100,000 times a second; the mean of so long is one reading."""


def read_watts(meter: Any, millivolts: int) -> Iterator[float]:
    """The mean power of all samples since the last one, in W; nothing where none came."""
    while True:
        time.sleep(PERIOD_S)
        content = meter.get_data()
        samples = meter.get_samples(content)[0] if content else []
        if samples:
            yield sum(samples) / len(samples) * 1e-6 * millivolts * 1e-3


def begin(meter: Any, millivolts: int, source: bool) -> None:
    """Set it up and let it measure; as a source it goes on supplying the board when this ends."""
    meter.get_modifiers()
    if source:
        meter.use_source_meter()
    else:
        meter.use_ampere_meter()
    meter.set_source_voltage(millivolts)
    meter.toggle_DUT_power("ON")
    meter.start_measuring()


def main() -> None:
    """Print readings; they end with whoever reads them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millivolts", type=int, required=True)
    parser.add_argument("--source", action="store_true", help="let it supply the board")
    parser.add_argument("--port", help="where several are plugged in")
    options = parser.parse_args()
    try:
        from ppk2_api.ppk2_api import PPK2_API
    except ImportError:
        sys.exit("ppk2.py: ppk2-api is not installed; run: pip install ppk2-api")
    ports = [options.port] if options.port else PPK2_API.list_devices()
    if len(ports) != 1:
        sys.exit(f"ppk2.py: {len(ports)} power profilers are plugged in ({', '.join(ports)}); choose one: --port")
    meter = PPK2_API(ports[0], timeout=1)
    begin(meter, options.millivolts, options.source)
    try:
        for watts in read_watts(meter, options.millivolts):
            print(f"{time.monotonic():.6f},{watts:.6f}", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
