"""The meters that lie beside the package as programs: what their chips say becomes lines of seconds and watts."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
from places import DEPLOY

from edgeprune.device.meters import following, parse_reading

METERS = DEPLOY / "meters"
sys.path.append(str(METERS))

FAKE = """
class PPK2_API:
    list_devices = staticmethod(lambda: ["/dev/ttyACM0"])
    said = []
    def __init__(self, port, timeout): self.port = port
    def __getattr__(self, name): return lambda *words: self.said.append((name, *words))
    def get_data(self): return b"x"
    def get_samples(self, content):
        expected = [("get_modifiers",), ("use_ampere_meter",), ("set_source_voltage", 3300)]
        assert self.said == [*expected, ("toggle_DUT_power", "ON"), ("start_measuring",)], self.said
        return [100_000.0, 300_000.0], [0, 0]
"""


@pytest.mark.parametrize(
    ("chip", "shunt", "bus", "ohm", "watts"),
    [
        ("ina219", 3200, 3000 << 3 | 0b10, 0.1, 0.32 * 12.0),  # SBOS448: 32 mV over the shunt, 12 V, a status bit set
        ("ina226", 8000, 4000, 0.002, 10.0 * 5.0),  # 20 mV over the shunt, 5 V
        ("ina226", 0x10000 - 800, 4000, 0.01, -0.2 * 5.0),
    ],
)
def test_registers_of_an_ina_are_watts(chip: str, shunt: int, bus: int, ohm: float, watts: float) -> None:
    import ina

    found = ina.find_watts(chip, shunt.to_bytes(2, "big"), bus.to_bytes(2, "big"), ohm)
    assert found == pytest.approx(watts)


def test_a_bus_that_is_not_there_is_told_in_one_line() -> None:
    command = [sys.executable, METERS / "ina.py", "--chip", "ina226", "--ohm", "0.01", "--bus", "250"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "ina.py: /dev/i2c-250, address 0x40: No such file or directory\n"


def test_samples_of_a_ppk2_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    import ppk2

    monkeypatch.setattr(ppk2.time, "sleep", lambda seconds: None)
    contents = iter([b"x", b"", b"y"])
    samples = {b"x": [100.0, 300.0], b"y": [1e6]}
    meter = SimpleNamespace(get_data=lambda: next(contents), get_samples=lambda content: (samples[content], []))
    assert list(islice(ppk2.read_watts(meter, 5000), 2)) == [pytest.approx(0.001), pytest.approx(5.0)]


def test_a_ppk2_is_followed_as_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ppk2_api").mkdir()
    (tmp_path / "ppk2_api" / "__init__.py").touch()
    (tmp_path / "ppk2_api" / "ppk2_api.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", os.fspath(tmp_path))
    command = [sys.executable, os.fspath(METERS / "ppk2.py"), "--millivolts", "3300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [parse_reading(process.stdout.readline()) for _ in range(2)]
        process.terminate()
    assert [line and line[1] for line in lines] == [pytest.approx(0.66)] * 2
    with following(command) as log:
        while len(log.readings) < 2:
            pass
    assert log.readings[1][1] == pytest.approx(0.66)
