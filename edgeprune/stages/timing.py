"""Timing files on a job's device, in turns: whole nets quickly, and models of one layer or two."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from edgeprune.core.latency.layers import LayerShape, join_ends
from edgeprune.core.measuring.measurement import Measurement, Protocol
from edgeprune.core.measuring.validity import find_neighbours
from edgeprune.core.measuring.windows import SteadyLatency, Window, fit_common_speed
from edgeprune.device.board import ModelFile, ProbeSettings
from edgeprune.errors import ProfileError
from edgeprune.stages.job import Job

QUICK = Protocol(min_samples=60, min_duration_s=0.5, rounds=60, processes=4, max_warmup_s=0.5)
"""Enough to compare nets that take turns; the final figures are taken by the target's own protocol.

A target that asks for less of something gets that."""
TWIN = "twin"
"""The first of the nets once more: what it seems to take more or less is how far figures may be off."""
TWIN_TOLERANCE = 0.02
SESSIONS = 3
"""Nets are measured in so many sessions at most, until the twins agree."""
EMPTY = LayerShape("linear", 1, 1)
"""A layer that costs next to nothing: what its model takes is the call."""
LEAST_MS = 1e-4
"""No layer is said to take less."""

Key = TypeVar("Key")


@dataclass(frozen=True)
class NetTimes:
    """What nets that took turns were found to take.

    `twin_gap` is how far apart two measurements of the first net lie, as a fraction. `problems` say what else than the
    nets may have taken time.
    """

    latency_ms: Mapping[str, float]
    twin_gap: float
    problems: tuple[str, ...] = ()


def time_nets(job: Job, nets: Sequence[ModelFile]) -> NetTimes:
    """Latency in ms of whole nets by name, of untrained ones too; the first is measured twice. Instructions, which are
    the same each time, are counted once.

    Raises:
        DeviceError: the device cannot be reached or does not run them.
        ProfileError: the same net, measured twice, is not the same, and the run does not allow a busy board.
    """
    if job.is_counted:
        counted = job.board.time(nets, job.target.threads, job.target.protocol, job.detail)
        return NetTimes({name: measurement.latency.p50_ms for name, measurement in counted.items()}, 0.0)
    models = [*nets, replace(nets[0], name=TWIN)]
    windows: dict[str, tuple[Window, ...]] = {model.name: () for model in models}
    problems: tuple[str, ...] = ()
    protocol = _shorten(job.target.protocol)
    for number in range(SESSIONS):
        measurements = job.board.time(models, job.target.threads, protocol, job.detail)
        windows = {name: windows[name] + _number(measurements[name], number) for name in windows}
        problems += tuple(find_neighbours(measurements[TWIN].conditions))
        steady = fit_common_speed(windows)
        gap = abs(steady[TWIN].latency_ms / steady[nets[0].name].latency_ms - 1)
        if gap <= TWIN_TOLERANCE:
            break
        job.detail(f"the same net twice in turn: {gap:.1%} apart; measuring on")
    if gap > TWIN_TOLERANCE and not job.allows_busy:
        raise ProfileError(
            f"{job.board.facts.host}: the same net, measured twice in turn, is {gap:.1%} apart after {SESSIONS} "
            f"sessions ({TWIN_TOLERANCE:.0%} at most): something else works on the board; stop it and run the same "
            "command again, or add --allow-busy"
        )
    return NetTimes({net.name: steady[net.name].latency_ms for net in nets}, gap, tuple(dict.fromkeys(problems)))


def _shorten(protocol: Protocol) -> Protocol:
    names = ("min_samples", "min_duration_s", "rounds", "processes", "max_warmup_s")
    return replace(QUICK, **{name: min(getattr(QUICK, name), getattr(protocol, name)) for name in names})


def _number(measurement: Measurement, session: int) -> tuple[Window, ...]:
    """The windows of a session, their processes numbered on from those of the sessions before."""
    return tuple(replace(window, process=window.process + session * QUICK.processes) for window in measurement.windows)


def time_probes(
    job: Job, files: Mapping[Key, Path], settings: ProbeSettings, references: Sequence[Key]
) -> dict[Key, SteadyLatency]:
    """Latency of each probe at the common speed of the board, which the references, timed beside all, tell.

    Raises:
        DeviceError: the device cannot be reached or does not run them.
    """
    models = {key: ModelFile.of(path, job.planned.runtime) for key, path in files.items()}
    with_references = replace(settings, references=tuple({models[key].name for key in references}))
    windows = job.board.time_probes(list(models.values()), job.target.threads, with_references, job.detail)
    steady = _take_counts(windows) if job.is_counted else fit_common_speed(windows)
    return {key: steady[model.name] for key, model in models.items()}


def _take_counts(windows: Mapping[str, tuple[Window, ...]]) -> dict[str, SteadyLatency]:
    """Instructions as they were counted: no speed of a board is in them."""
    return {name: SteadyLatency(own[0].p50_ms, own) for name, own in windows.items()}


def choose_references(shapes: Collection[LayerShape]) -> tuple[LayerShape, ...]:
    """Layers that are timed beside all others: the call alone, and one of middling work."""
    by_work = sorted((shape for shape in shapes if shape.macs), key=lambda shape: (shape.macs, shape))
    return (EMPTY, by_work[len(by_work) // 2]) if by_work else (EMPTY,)


def shapes_alone(layers: Collection[LayerShape], joins: Collection[LayerShape]) -> set[LayerShape]:
    """What has to be timed alone to know layers and joins: these, both ends of each join, and the call."""
    return {EMPTY, *layers, *chain.from_iterable(map(join_ends, joins))}
