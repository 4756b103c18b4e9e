"""A phone or board without Python: TFLite's native benchmark times and runs files there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from edgeprune.core.cost import MS
from edgeprune.core.measuring.measurement import NO_POWER_SENSOR, DeviceFacts, Measurement, Protocol
from edgeprune.core.measuring.windows import Window
from edgeprune.core.target import Target
from edgeprune.device.board import ModelFile, ProbeSettings, Progress, Session, name_setting
from edgeprune.device.phone.benchmark import (
    NATIVE_RUNTIME,
    RUNTIME,
    describe_phone,
    find_cores,
    measure_native,
    require_tflite,
)
from edgeprune.device.phone.binary import Binary, find_binary, own_folder
from edgeprune.device.phone.calls import base_words
from edgeprune.device.phone.files import push_files, remove_folder
from edgeprune.device.phone.outputs import run_inputs
from edgeprune.device.phone.probes import ProbeRun, call_flags, describe_models, name_record, time_all
from edgeprune.device.phone.state import collect
from edgeprune.device.transports.transport import Transport
from edgeprune.errors import DeviceError, TargetError, UsageError
from edgeprune.shipped import cache_dir

NEEDS_PYTHON = "that needs Python there (docs/phones.md); benchmark_model can time and run .tflite files"
TELLS_MEANS = "benchmark_model tells the mean of the runs of a call, and no single run (docs/phones.md)"
TOO_OLD = "this benchmark_model knows no --output_filepath; give a newer one by --benchmark-model FILE"
EVALUATION_THREADS = 1
SWEEP = 'rm -rf -- "$1"/run-* "$1"/incoming-* "$1"/probes/incoming-*'
"""What commands have left whose link was lost; nobody else is at work there."""


@dataclass(frozen=True)
class NativeBoard:
    """A :class:`Board` by `benchmark_model`."""

    transport: Transport
    target: Target
    facts: DeviceFacts
    binary: Binary
    unit: str = MS

    @classmethod
    def of(cls, transport: Transport, target: Target, session: Session) -> NativeBoard:
        """What a phone or board says of itself.

        Raises:
            UsageError: the governor is to be set, or sizes of inputs are given.
            RuntimeMissing: there is no benchmark_model that answers.
            DeviceError: it runs no commands.
        """
        if option := name_setting(session):
            raise UsageError(f"{transport.host}: {option} needs Python there; leave it out")
        binary = find_binary(transport, session.benchmark_model)
        transport.run(["sh", "-c", SWEEP, "sh", own_folder(transport)], timeout_s=60)
        return cls(transport, target, describe_phone(transport, binary.sha256), binary)

    @property
    def lacks(self) -> Mapping[str, str]:
        """What benchmark_model does not do, and what an old one does not yet."""
        lacking = dict.fromkeys(("energy", "nodes", "sustain"), NEEDS_PYTHON) | {"percentiles": TELLS_MEANS}
        return lacking if self.binary.saves_outputs else {**lacking, "run": TOO_OLD}

    @property
    def is_remote(self) -> bool:
        """It is never this machine."""
        return True

    def runtime_version(self, runtime: str) -> str:
        """The benchmark runs TFLite files, and tells no version; with the provider, where it is not the CPU."""
        if runtime != NATIVE_RUNTIME:
            return ""
        return RUNTIME if self.target.provider == "cpu" else f"{RUNTIME}+{self.target.provider}"

    def check_power(self, target: Target) -> str:
        """There is no power meter that could be read.

        Raises:
            TargetError: one is needed.
        """
        if target.budget.energy_mj is not None or any(gate.metric == "energy_mj" for gate in target.gates):
            raise TargetError(
                f"target {target.name}: a limit on energy_mj, but {self.facts.host} has {NO_POWER_SENSOR}: "
                f"{NEEDS_PYTHON}"
            )
        return NO_POWER_SENSOR

    def time(
        self, models: Sequence[ModelFile], threads: int, protocol: Protocol, progress: Progress
    ) -> dict[str, Measurement]:
        """Latency of files by name: each sample is the mean of the runs of one call."""
        target = replace(self.target, threads=threads, protocol=protocol)
        return measure_native(self.transport, self.binary, models, target, progress)

    def time_probes(
        self, models: Sequence[ModelFile], threads: int, settings: ProbeSettings, progress: Progress
    ) -> dict[str, tuple[Window, ...]]:
        """Windows by name: each is one call, and its figure the mean of its runs."""
        if not models:
            return {}
        require_tflite(self.facts.host, models)
        folder = f"{own_folder(self.transport)}/probes"
        words = self._words(threads)
        push_files(self.transport, folder, {model.file: model.path.read_bytes() for model in models})
        parts: dict[str, Any] = {"host": self.transport.host_key, "binary": self.binary.sha256, "words": words}
        parts |= {"models": describe_models(models), "pace": call_flags(settings), "references": settings.references}
        record = name_record(cache_dir() / "native", parts)
        graphs = {model.name: f"{folder}/{model.file}" for model in models}
        windows = time_all(ProbeRun(self.transport, words, graphs, self.target, settings, record), progress)
        remove_folder(self.transport, folder)
        return windows

    def run(self, model: ModelFile, inputs: np.ndarray, progress: Progress) -> np.ndarray:
        """Outputs `[N, ...]` of a file for inputs `[N, ...]`: a call for each."""
        require_tflite(self.facts.host, [model])
        remote = f"{own_folder(self.transport)}/{model.file}"
        self.transport.put(model.path, remote)
        words = [*self._words(EVALUATION_THREADS), f"--graph={remote}"]
        return run_inputs(self.transport, model, words, self.target, inputs, progress)

    def _words(self, threads: int) -> list[str]:
        """What every call begins with."""
        cores = find_cores(self.facts.host, self.target, collect(self.transport))
        return base_words(self.facts.host, self.binary, self.target, cores, threads)

    def _refuse(self, *_: Any) -> NoReturn:
        raise DeviceError(f"{self.facts.host}: {NEEDS_PYTHON}")

    energy = nodes = sustain = _refuse
