"""A board that is none: what each file takes there is said beforehand, by its hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from measured_run import FACTS, make_measurement

from edgeprune.core.measuring.measurement import DeviceFacts, Measurement
from edgeprune.device.board import ModelFile
from edgeprune.run import read_json


@dataclass
class FakeBoard:
    """A board on which each file takes as long as is said of its content; `sessions` counts how often it was asked."""

    latency_ms: Mapping[str, float]
    facts: DeviceFacts = FACTS
    lacks: Mapping[str, str] = field(default_factory=lambda: {"energy": "no power sensor"})
    problems: Sequence[str] = ()
    processes: int = 6
    sessions: int = 0

    def check_power(self, _: object) -> str:
        return ""

    def time(self, models: Sequence[ModelFile], *_: object) -> dict[str, Measurement]:
        self.sessions += 1
        return {
            model.name: replace(
                make_measurement(
                    model.name, model.sha256, self.latency_ms[model.sha256], self.problems, self.processes
                ),
                energy=None,
            )
            for model in models
        }


def shipped_hash(run: Path) -> str:
    rows = read_json(run / "report.json")["artifacts"]
    return str(next(row["sha256"] for row in rows if row["shipped"]))
