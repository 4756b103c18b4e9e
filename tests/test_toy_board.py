"""A device of another kind in one file, taken through the whole line: how to add one.

The toy device counts: a file takes what its multiply-accumulates say. What a real one needs beside this is a line in
`edgeprune/device/boards.py` that says by which address it is found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from line import QUICK, TINY

import edgeprune as ep
from edgeprune.core.cost import MS
from edgeprune.core.measuring.measurement import NO_POWER_SENSOR, Conditions, DeviceFacts, Measurement, Protocol
from edgeprune.core.measuring.validity import find_problems
from edgeprune.core.measuring.windows import Window
from edgeprune.core.target import Target
from edgeprune.device import boards
from edgeprune.device.board import ModelFile, ProbeSettings, Progress
from edgeprune.errors import DeviceError
from edgeprune.exporting.formats import look_inside
from edgeprune.exporting.runners import run_file

FACTS = DeviceFacts("toy", "toy", "A toy", "a toy", 1, (), 1, "", "", "", {"onnxruntime": "1"}, host_key="toy serial 1")
COLD_MS, MACS_PER_MS = 0.002, 2e6


@dataclass(frozen=True)
class ToyBoard:
    """It runs ONNX files in reference kernels here, and says what they would take there."""

    facts: DeviceFacts = FACTS
    unit: str = MS
    lacks: Mapping[str, str] = field(default_factory=dict)
    is_remote: bool = True

    def runtime_version(self, runtime: str) -> str:
        return self.facts.runtimes.get(runtime, "")

    def check_power(self, target: Target) -> str:
        return NO_POWER_SENSOR

    def latency_ms(self, model: ModelFile) -> float:
        shapes = look_inside(model.path).read_shapes(model.path)
        return COLD_MS + sum(shape.macs for shape in shapes) / MACS_PER_MS

    def windows(self, model: ModelFile, processes: int = 4) -> tuple[Window, ...]:
        """Ten in each process; processes differ by a thousandth."""
        taken = self.latency_ms(model)
        pairs = [(process, number) for process in range(processes) for number in range(10)]
        return tuple(
            Window(process, process + number / 10, taken * (1 + process / 1000), 10, 1000.0, 1.0, 0.0)
            for process, number in pairs
        )

    def time(
        self, models: Sequence[ModelFile], threads: int, protocol: Protocol, progress: Progress
    ) -> dict[str, Measurement]:
        found = {}
        for model in models:
            windows = self.windows(model)
            samples = tuple(window.p50_ms for window in windows for _ in range(window.count))
            one = Measurement(
                model.name, model.sha256, model.runtime, "1", self.facts.fingerprint, Conditions(threads), 1.0, 1.0, 1,
                samples, None, windows=windows,
            )  # fmt: skip
            found[model.name] = replace(one, problems=find_problems(one, protocol))
        return found

    def time_probes(
        self, models: Sequence[ModelFile], threads: int, settings: ProbeSettings, progress: Progress
    ) -> dict[str, tuple[Window, ...]]:
        return {model.name: self.windows(model, settings.processes) for model in models}

    def run(self, model: ModelFile, inputs: np.ndarray, progress: Progress) -> np.ndarray:
        return run_file(model.path, inputs, optimised=False)

    def refuse(self, *_: Any) -> NoReturn:
        raise AssertionError("the line asked for what the board said that it lacks")

    energy = nodes = sustain = refuse


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[ToyBoard]:
    """Boards that the line finds, whatever the host; those that were opened."""
    held: list[ToyBoard] = []

    @contextmanager
    def open_board(target: Target, host: str | None, *_: Any) -> Iterator[ToyBoard]:
        held.append(ToyBoard(lacks={"energy": "it has no meter", **LACKS}))
        yield held[-1]

    monkeypatch.setattr(boards, "open_board", open_board)
    monkeypatch.setattr(boards, "reach_board", lambda target, host, say, session: "toy")
    monkeypatch.setattr(boards, "describe_address", lambda target, host: "toy")
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    LACKS.clear()
    return held


LACKS: dict[str, str] = {}


@pytest.mark.slow
def test_a_device_that_counts_goes_through_the_line(opened: list[ToyBoard], tmp_path: Path) -> None:
    said: list[str] = []
    report = ep.deploy(
        tmp_path / "run", said.append, target=str(QUICK), recipe=str(TINY), host="toy", speedup=2.0
    ).report
    assert len(opened) == 1
    assert report["device"]["host"] == "toy"
    assert report["verdict"] == "pass"
    assert report["result"]["macs"] < report["baseline"]["macs"] / 1.9
    before, after = (COLD_MS + report[side]["macs"] / MACS_PER_MS for side in ("baseline", "result"))
    assert report["result"]["latency"]["p50_ms"] == pytest.approx(after * 1.0015, rel=0.02)
    assert report["speedup"] == pytest.approx(before / after, rel=0.02)
    assert report["speedup"] >= 2.0
    assert report["result"]["energy_mj"] is None
    assert any("litert is not installed on the device" in note for note in report["notes"])
    assert any("toy answers" in text for text in said)
    noted = json.loads((tmp_path / "run" / "sources.json").read_text())
    assert (list(noted["trace"]), list(noted["gate"])) == ([str(TINY)], [str(QUICK)])


def test_what_a_device_lacks_is_refused_before_anything_is_measured(opened: list[ToyBoard], tmp_path: Path) -> None:
    LACKS["time_probes"] = "it is too small for them"
    with pytest.raises(DeviceError, match="toy: cannot time single layers: it is too small for them"):
        ep.deploy(tmp_path / "run", lambda text: None, target=str(QUICK), recipe=str(TINY), host="toy", speedup=2.0)
    assert not (tmp_path / "run" / "latency_table.json").exists()


def test_a_ready_file_is_measured_there(opened: list[ToyBoard], tmp_path: Path) -> None:
    LACKS["time_probes"] = LACKS["run"] = "it is too small for them"
    net = ep.trace(*small_net())
    (artifact,) = ep.export(net, tmp_path)
    measured = ep.measure(tmp_path / artifact.path, target=str(QUICK), host="toy")
    assert (measured.device, measured.problems) == (FACTS.fingerprint, ())
    assert measured.latency.p50_ms == pytest.approx(COLD_MS + net.macs / MACS_PER_MS, rel=0.01)


def small_net() -> tuple[Any, Any]:
    import torch

    return torch.nn.Conv2d(3, 8, 3).eval(), torch.randn(1, 3, 16, 16)
