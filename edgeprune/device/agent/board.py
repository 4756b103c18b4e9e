"""A device with Python: this machine, or one behind SSH or adb, by the agent that is pushed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.core.cost import MS
from edgeprune.core.latency.breakdown import NodeTime
from edgeprune.core.measuring.energy import Energy
from edgeprune.core.measuring.measurement import DeviceFacts, Measurement, Protocol
from edgeprune.core.measuring.sustained import SustainedRun
from edgeprune.core.measuring.windows import Window
from edgeprune.core.target import Target
from edgeprune.device.agent.energy import check_meter, measure_energy
from edgeprune.device.agent.measure import evaluate_model, measure_models, measure_probes, sustain_model
from edgeprune.device.agent.nodes import profile_nodes
from edgeprune.device.board import ModelFile, ProbeSettings, Progress
from edgeprune.device.connect import Device


@dataclass(frozen=True)
class AgentBoard:
    """A :class:`Board` by its agent."""

    device: Device
    unit: str = MS

    @property
    def lacks(self) -> Mapping[str, str]:
        """An agent can do all of it."""
        return {}

    @property
    def facts(self) -> DeviceFacts:
        """What the board says of itself."""
        return self.device.facts

    @property
    def is_remote(self) -> bool:
        """Whether it is another machine."""
        return self.facts.is_remote

    def runtime_version(self, runtime: str) -> str:
        """Version of a runtime, with its provider."""
        return self.device.runtime_version(runtime)

    def check_power(self, target: Target) -> str:
        """The power meter that is needed."""
        return check_meter(self.device, target)

    def time(
        self, models: Sequence[ModelFile], threads: int, protocol: Protocol, progress: Progress
    ) -> dict[str, Measurement]:
        """Latency of files by name."""
        return measure_models(self.device, models, threads, protocol, progress)

    def time_probes(
        self, models: Sequence[ModelFile], threads: int, settings: ProbeSettings, progress: Progress
    ) -> dict[str, tuple[Window, ...]]:
        """Short windows of single layers by name."""
        return measure_probes(self.device, models, threads, settings, progress)

    def run(self, model: ModelFile, inputs: np.ndarray, progress: Progress) -> np.ndarray:
        """Outputs of a file."""
        return evaluate_model(self.device, model, inputs, progress)

    def energy(self, models: Sequence[ModelFile], target: Target, progress: Progress) -> dict[str, Energy]:
        """Energy of one inference by name."""
        return measure_energy(self.device, models, target, progress)

    def nodes(self, model: ModelFile, threads: int, progress: Progress) -> tuple[NodeTime, ...]:
        """What each node takes."""
        return profile_nodes(self.device, model, threads, progress)

    def sustain(self, model: ModelFile, target: Target, duration_s: float, progress: Progress) -> SustainedRun:
        """One file without a pause."""
        return sustain_model(self.device, model, target, duration_s, progress)
