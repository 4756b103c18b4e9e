"""Timing files on a job's device, in turns: whole nets quickly, and models of one layer or two."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain
from pathlib import Path
from typing import TypeVar

from edgeprune.core.layers import LayerShape, join_ends
from edgeprune.core.measurement import Protocol
from edgeprune.core.shipping import FORMAT_RUNTIMES
from edgeprune.device.measure import ModelFile, ProbeSettings, measure_models, measure_probes
from edgeprune.stages.job import Job

QUICK = Protocol(min_samples=60, min_duration_s=0.5, rounds=8, max_warmup_s=0.5)
"""Enough to compare nets interleaved; the final figures are taken by the target's own protocol."""
EMPTY = LayerShape("linear", 1, 1)
"""A layer that costs next to nothing: what its model takes is the call."""
LEAST_MS = 1e-4
"""No layer is said to take less."""

Key = TypeVar("Key")


def time_nets(job: Job, files: Mapping[str, Path]) -> dict[str, tuple[float, ...]]:
    """Samples in ms of whole nets by name.

    Raises:
        DeviceError: the device cannot be reached or does not run them.
    """
    models = [ModelFile.of(path, FORMAT_RUNTIMES[path.suffix[1:]], name) for name, path in files.items()]
    measured = measure_models(job.device, models, job.target.threads, QUICK, lambda _: None)
    return {name: one.samples_ms for name, one in measured.items()}


def time_probes(job: Job, files: Mapping[Key, Path], settings: ProbeSettings) -> dict[Key, tuple[float, ...]]:
    """Medians in ms of each window of each probe.

    Raises:
        DeviceError: the device cannot be reached or does not run them.
    """
    models = {key: ModelFile.of(path, FORMAT_RUNTIMES[path.suffix[1:]]) for key, path in files.items()}
    windows = measure_probes(job.device, list(models.values()), job.target.threads, settings, job.detail)
    return {key: windows[model.name] for key, model in models.items()}


def shapes_alone(layers: Collection[LayerShape], joins: Collection[LayerShape]) -> set[LayerShape]:
    """What has to be timed alone to know layers and joins: these, both ends of each join, and the call."""
    return {EMPTY, *layers, *chain.from_iterable(map(join_ends, joins))}
