"""What a device can do, as the stages know it. What is behind it stands in a module for each kind of device.

A new kind of device is a module with a class that has these attributes, a line in `boards.py`, and a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol as Seam

import numpy as np

from edgeprune.core.formats import RUNTIMES
from edgeprune.core.latency.breakdown import NodeTime
from edgeprune.core.measuring.energy import Energy
from edgeprune.core.measuring.measurement import DeviceFacts, Measurement, Protocol
from edgeprune.core.measuring.sustained import SustainedRun
from edgeprune.core.measuring.windows import Window
from edgeprune.core.target import Target
from edgeprune.device.transports.transport import hash_file
from edgeprune.errors import DeviceError, TargetError

Progress = Callable[[str], None]
DEEDS = {
    "time": "time files",
    "time_probes": "time single layers",
    "run": "run a file on inputs",
    "energy": "measure energy",
    "nodes": "tell what each node of a net takes",
    "sustain": "run without a pause",
    "percentiles": "tell percentiles of single runs",
}
"""What a board may be unable to do, by the name of its method, in words; percentiles are no method but a part of what
`time` tells."""


@dataclass(frozen=True)
class ModelFile:
    """A model to run on a board; `runtime` is a key of RUNTIMES."""

    name: str
    path: Path
    sha256: str
    runtime: str

    @classmethod
    def of(cls, path: Path, runtime: str, name: str | None = None) -> ModelFile:
        """Describe a file as it is now; it is called by its stem unless named."""
        return cls(name or path.stem, path, hash_file(path), runtime)

    @property
    def file(self) -> str:
        """Its name on the board."""
        return f"{self.sha256}.{RUNTIMES[self.runtime].format}"

    def to_request(self) -> dict[str, str]:
        """As the agent knows it."""
        return {"name": self.name, "file": self.file, "runtime": self.runtime}


@dataclass(frozen=True)
class ProbeSettings:
    """`rounds` windows of `window_s` of each probe, in several processes; no round begins after `budget_s` in all.

    Two rounds of each process always do. `references` are names of probes that run beside all others, so that it is
    known how fast the board was at any time.
    """

    rounds: int = 10
    processes: int = 2
    window_s: float = 0.008
    budget_s: float = 300.0
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """How a board is used while it is held.

    With `set_governor` whatever is timed there is timed under the governor "performance", set back afterwards. A board
    that others are at work on is waited for, up to `quiet_wait_s`. `shapes` are those of inputs whose sizes are open.
    `benchmark_model` is a file of this machine: TFLite's benchmark, by which the board is measured whatever it has.
    """

    set_governor: bool = False
    quiet_wait_s: float = 0.0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    benchmark_model: str | None = None


PLAIN = Session()
"""Nothing is changed there, nobody is waited for, no size is given."""


class Board(Seam):
    """One device, connected and held for this client until it is closed (`boards.open_board`).

    What it `lacks` :func:`require` refuses before anything slow. Files and inputs are brought there where they are
    missing. Every method raises DeviceError for whatever goes wrong there, RuntimeMissing
    where it lacks the runtime.
    """

    @property
    def facts(self) -> DeviceFacts:
        """What it says of itself."""
        ...

    @property
    def unit(self) -> str:
        """What it counts the cost of a file in: MS or INSTRUCTIONS of `edgeprune.core.cost`."""
        ...

    @property
    def lacks(self) -> Mapping[str, str]:
        """Methods that cannot be called, each with the reason."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether its processor is another than this machine's."""
        ...

    def runtime_version(self, runtime: str) -> str:
        """Version of a runtime there, with the provider that it is asked for; empty where it has none."""
        ...

    def check_power(self, target: Target) -> str:
        """The power meter that a target, its gates or its budget need; TargetError where there is none."""
        ...

    def time(
        self, models: Sequence[ModelFile], threads: int, protocol: Protocol, progress: Progress
    ) -> dict[str, Measurement]:
        """Latency of files by name, which take turns."""
        ...

    def time_probes(
        self, models: Sequence[ModelFile], threads: int, settings: ProbeSettings, progress: Progress
    ) -> dict[str, tuple[Window, ...]]:
        """Short windows by name, of hundreds of models of one layer."""
        ...

    def run(self, model: ModelFile, inputs: np.ndarray, progress: Progress) -> np.ndarray:
        """Outputs `[N, ...]` of a file with a batch of 1 for inputs `[N, ...]`."""
        ...

    def energy(self, models: Sequence[ModelFile], target: Target, progress: Progress) -> dict[str, Energy]:
        """Energy of one inference by name; empty where there is no power meter."""
        ...

    def nodes(self, model: ModelFile, threads: int, progress: Progress) -> tuple[NodeTime, ...]:
        """What each node of a file takes, in the order in which they run."""
        ...

    def sustain(self, model: ModelFile, target: Target, duration_s: float, progress: Progress) -> SustainedRun:
        """One file without a pause: what it takes over time."""
        ...


def name_setting(session: Session) -> str:
    """The option of a session that only boards with Python have; empty where none is asked for."""
    return "--set-governor" if session.set_governor else "--shape" if session.shapes else ""


def require(board: Board, *methods: str) -> None:
    """Refuse, before anything slow begins, what a board cannot do.

    Raises:
        DeviceError: it lacks one of these methods; says which and why.
    """
    for method in methods:
        if method in board.lacks:
            raise DeviceError(f"{board.facts.host}: cannot {DEEDS[method]}: {board.lacks[method]}")


def refuse_untimed(target: Target) -> None:
    """Refuse a kind of device that nothing here can run a file on, before anything is connected.

    Raises:
        TargetError: it is one; says what can be done for it.
    """
    if not all(RUNTIMES[runtime].needs_python for runtime in target.runtimes):
        raise TargetError(
            f"target {target.name}: nothing here runs or times files with {target.runtime} on a board; leave --host "
            "out to count instructions on its core in QEMU, where that has it; `edgeprune fit MODEL.tflite "
            f"{target.option}` says whether a file fits, `edgeprune export MODEL.tflite --format c` makes C of it, and "
            "`measure` times the net of a firmware over a serial line (docs/serial.md)"
        )
