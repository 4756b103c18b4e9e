"""Sweeps whose runs are recorded in no time, on a board that gives prepared figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from line import QUICK, TINY
from measured_run import Shipped, make_measurement, record_measured_run

from edgeprune import sweeping
from edgeprune.comparing import SweepPlan
from edgeprune.core.measuring.measurement import Measurement
from edgeprune.device.board import ModelFile
from edgeprune.errors import ExportError, InfeasibleBudget
from edgeprune.stages.job import Job, open_job
from edgeprune.stages.results import Judged, Reported, run_stage
from edgeprune.stages.verdict import gate, report

OPTIONS = {"target": str(QUICK), "recipe": str(TINY), "host": "local"}


@dataclass
class Lab:
    """Runs of budgets up to `reach` pass; one of `broken` cannot be exported, one of `killed_at` ends the process.

    `ran` names the runs that were made, `sessions` the files of each session in turns.
    """

    reach: float = 10.0
    broken: tuple[float, ...] = ()
    killed_at: float | None = None
    problems: tuple[str, ...] = ()
    ran: list[str] = field(default_factory=list)
    sessions: list[list[str]] = field(default_factory=list)

    def run_budget(self, plan: SweepPlan, budget: float, say: Any) -> bool:
        """In place of the line."""
        place = plan.directory / plan.name(budget)
        if (place / "report.json").exists():
            return False
        if budget == self.killed_at:
            raise KeyboardInterrupt
        if budget > self.reach:
            raise InfeasibleBudget(f"no widths meet it; ask for --speedup {self.reach:g}")
        if budget in self.broken:
            raise ExportError("cannot be exported")
        self.ran.append(place.name)
        request = {**plan.request, "speedup": budget}
        record_measured_run(place, 0.95 / budget, request=request, shipped=Shipped(processes=6))
        with open_job(place, request, say) as job:
            run_stage(job.run, Judged, partial(gate, job))
            run_stage(job.run, Reported, partial(report, job))
        return True

    def time(self, models: Sequence[ModelFile], *_: Any) -> dict[str, Measurement]:
        """In place of a board's."""
        self.sessions.append([model.name for model in models])
        return {
            model.name: make_measurement(model.name, model.sha256, self.find_ms(model), self.problems)
            for model in models
        }

    def find_ms(self, model: ModelFile) -> float:
        return 1.0 if model.name == "unpruned" else 0.9 / float(model.name.rpartition("-")[2])


def open_lab(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Lab:
    """Let sweeps work in a lab."""
    lab = Lab(**changes)
    board = SimpleNamespace(time=lab.time, runtime_version=lambda name: "1", lacks={})
    monkeypatch.setattr(sweeping, "_run_budget", lab.run_budget)
    monkeypatch.setattr(sweeping, "_shared_until", lambda place: 0.0)
    monkeypatch.setattr(Job, "board", board)
    return lab
