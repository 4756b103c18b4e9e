"""What a pruned net may cost, as a target or a user says."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from edgeprune.core.measuring.spread import CONFIDENCE


@dataclass(frozen=True)
class Budget:
    """What the pruned net may cost; of latency, instructions and speedup one may be set.

    `instructions` are those of an inference, for boards that count them; there `speedup` is a ratio of instructions.
    `confidence` is the probability that the latency is met, 0.5 to 1. `file_bytes` is for the precision that ships;
    `activation_bytes` limits the input and output of each layer together, at batch 1.
    """

    latency_ms: float | None = None
    speedup: float | None = None
    confidence: float | None = None
    parameters: int | None = None
    file_bytes: int | None = None
    macs: int | None = None
    activation_bytes: int | None = None
    sram_bytes: int | None = None
    """Of the interpreter's arena; files of an interpreter that lays tensors out by fixed rules have one."""
    flash_bytes: int | None = None
    """Of the model file, which lies there as it is; the runtime's code and the application come on top."""
    energy_mj: float | None = None
    """Of one inference, above idle, in mJ; the board needs a power meter."""
    instructions: int | None = None

    @property
    def most_file_bytes(self) -> int | None:
        """The most that the file may take, by whatever limits it."""
        return min((limit for limit in (self.file_bytes, self.flash_bytes) if limit is not None), default=None)

    @property
    def is_sized(self) -> bool:
        """Whether there is a budget of bytes on a microcontroller, by which a net can be pruned without one of time."""
        return self.sram_bytes is not None or self.flash_bytes is not None

    @property
    def is_timed(self) -> bool:
        """Whether there is a budget of time or instructions, or of energy, which goes by time."""
        limits = (self.latency_ms, self.instructions, self.speedup, self.energy_mj)
        return any(limit is not None for limit in limits)

    @property
    def gate_confidence(self) -> float:
        """Confidence of the two-sided intervals that gates on latency look at: 95 %, or more, so that a limit is met as
        surely as is asked for.
        """
        return max(CONFIDENCE, 2 * (self.confidence or 0.5) - 1)

    def limit_ms(self, baseline_ms: float, power_w: float | None) -> float:
        """The most that the net may take, the unpruned one taking `baseline_ms`; it draws `power_w` above idle.

        In instructions where the board counts these. Infinite where the budget says nothing of either.
        """
        limits = [self.latency_ms, self.instructions, self.speedup and baseline_ms / self.speedup]
        limits.append(self.energy_mj and power_w and self.energy_mj / power_w)
        return min((limit for limit in limits if limit), default=inf)
