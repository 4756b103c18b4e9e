"""What a budget of energy means in milliseconds: a net's energy is its latency times the power that it draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeprune.device.board import ModelFile, require
from edgeprune.errors import DeviceError
from edgeprune.stages.job import Job


def learn_power(job: Job, files: Mapping[str, Path], latency_ms: Mapping[str, float]) -> float | None:
    """Energy above idle by latency, mJ a ms, of three nets from the slowest to the fastest: the highest, in W.

    None where the target has no budget of energy. One power for all nets of a kind is what lets a budget in mJ be
    planned in ms; what ships is measured, and its energy gated.

    Raises:
        DeviceError: the board's meter gave no figure; says why.
        TargetError: the meter that the target names cannot be read.
    """
    if job.target.budget.energy_mj is None:
        return None
    names = list(files)
    names = [names[0], names[len(names) // 2], names[-1]]
    models = [ModelFile.of(files[name], job.planned.runtime, name) for name in names]
    require(job.board, "energy")
    energies = job.board.energy(models, job.target, job.detail)
    powers = [energy.energy_mj / latency_ms[name] for name, energy in energies.items() if energy.energy_mj is not None]
    if len(powers) < len(models):
        reason = next((energy.reason for energy in energies.values() if energy.reason), "the meter told nothing")
        raise DeviceError(f"{job.board.facts.host}: a budget of energy_mj, but no energy: {reason}")
    job.detail(f"running nets draw {min(powers):.3g} to {max(powers):.3g} W above idle")
    return max(powers)
