"""An exported file and what it expects and gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

COUNTED = "counted by TFLM"
"""How `sram_counted` begins where the interpreter has counted itself; else it says what was left out."""


@dataclass(frozen=True)
class Signature:
    """One input or output: `shape` has a batch of 1; `dtype` is a numpy name such as "float32" or "int8"."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Artifact:
    """An exported model file.

    `role` is "original" (the unpruned net) or "pruned"; `format` and `precision` are those of
    `core.formats.FORMATS`; `path` is relative to the run directory; `predicted_ms` is what it is predicted to
    take on the device, where it was chosen by that; `activation_bytes` the most that any one layer of a file of mixed
    precision reads and writes; `sram_bytes` what its interpreter needs as memory, where that lays
    tensors out by fixed rules, and `sram_counted` by what that was counted.
    """

    path: str
    role: str
    format: str
    precision: str
    bytes: int
    sha256: str
    inputs: tuple[Signature, ...]
    outputs: tuple[Signature, ...]
    scheme: str = ""
    predicted_ms: float | None = None
    activation_bytes: int | None = None
    sram_bytes: int | None = None
    sram_counted: str = ""

    @property
    def name(self) -> str:
        """Short and unique within a run: `pruned-onnx-int8`."""
        return name_artifact(self.role, self.format, self.precision)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def name_artifact(role: str, file_format: str, precision: str) -> str:
    """The name of an artifact, within its run."""
    return f"{role}-{file_format}-{precision}"


def parse_artifact(row: dict[str, Any]) -> Artifact:
    """Read back what :meth:`Artifact.to_dict` gave."""
    sides = {
        side: tuple(
            Signature(signature["name"], tuple(signature["shape"]), signature["dtype"]) for signature in row[side]
        )
        for side in ("inputs", "outputs")
    }
    return Artifact(**{**row, **sides})
