"""Which layer of a file goes wrong first, against another precision of the same net, and why."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeprune.core.quantizing.sqnr import SQNR_LIMIT_DB, measure_sqnr_db
from edgeprune.errors import ExportError
from edgeprune.exporting.parity.causes import UNKNOWN, find_cause, find_lost_channels
from edgeprune.exporting.parity.layer_outputs import LayerOutput, Trace, trace_file
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.quantizing.static import match_equalised

LIMIT_DB = TOLERANCES["int8"].sqnr_db or 0.0
KERNELS_LIMIT_DB = TOLERANCES["kernels"].sqnr_db or 0.0
CONSTANT_LIMIT_DB = 25.0
"""Weights in 7 bits keep 30 dB and more."""


@dataclass(frozen=True)
class Spread:
    """Figures of the values on one side."""

    low: float
    high: float
    mean: float
    deviation: float

    def describe(self) -> str:
        """For people."""
        return f"[{self.low:.4g}, {self.high:.4g}], mean {self.mean:.4g}, deviation {self.deviation:.4g}"


@dataclass(frozen=True)
class LayerParity:
    """One layer's output in a file against that in the reference file; `cause` is empty within the limit."""

    layer: str
    operator: str
    sqnr_db: float
    reference: Spread
    other: Spread
    cause: str = ""

    def describe(self) -> str:
        """For people: the figures on both sides, and why."""
        why = f"; likely cause: {self.cause}" if self.cause else ""
        return (
            f"{self.layer} ({self.operator}): SQNR {self.sqnr_db:.1f} dB; reference {self.reference.describe()}; "
            f"here {self.other.describe()}{why}"
        )


@dataclass(frozen=True)
class Bisection:
    """The layers in order, and the first whose SQNR is below `limit_db`: None where all are within it."""

    layers: tuple[LayerParity, ...]
    limit_db: float

    @property
    def first(self) -> LayerParity | None:
        """The layer at fault."""
        return next((layer for layer in self.layers if layer.sqnr_db < self.limit_db), None)

    def describe(self) -> str:
        """For people: the layer at fault, or the one that is closest to it."""
        if self.first is not None:
            return f"first layer below {self.limit_db:g} dB: {self.first.describe()}"
        lowest = min(self.layers, key=lambda layer: layer.sqnr_db)
        return f"all {len(self.layers)} layers keep {self.limit_db:g} dB; the lowest: {lowest.describe()}"


def bisect_artifacts(reference: Path, other: Path, inputs: np.ndarray, limit_db: float = LIMIT_DB) -> Bisection:
    """Compare two files of one net layer by layer on `inputs` `[N, ...]`, both in their runtime's reference kernels.

    `reference` is the fp32 file, `other` one of the same format in a lower precision (not the QOperator layout, which
    has no float values between layers). The SQNR of a layer includes the noise that came with its inputs.

    Raises:
        ExportError: a file does not run on these inputs, or the two have few layers in common.
    """
    with tempfile.TemporaryDirectory() as folder:
        reference_trace = trace_file(match_equalised(reference, other, Path(folder)), inputs)
    other_trace = trace_file(other, inputs)
    shared = [name for name in reference_trace if name in other_trace]
    if len(shared) < len(reference_trace) / 3:
        raise ExportError(
            f"{other}: only {len(shared)} of {len(reference_trace)} layers in common with {reference}; compare two "
            "files of one net and one format, int8 in the QDQ layout"
        )
    return _bisect(reference_trace, other_trace, shared, limit_db)


def bisect_kernels(path: Path, inputs: np.ndarray, limit_db: float = KERNELS_LIMIT_DB) -> Bisection:
    """Compare a static int8 file's layers in this processor's optimised kernels with the reference ones.

    Raises:
        ExportError: it does not run, or is an ONNX file that holds nothing in 8 bits.
    """
    reference_trace, kernel_trace = trace_file(path, inputs), trace_file(path, inputs, optimised=True)
    if not kernel_trace:
        raise ExportError(
            f"{path}: holds nothing in 8 bits between layers; only int8 in the QDQ layout has such kernels"
        )
    return _bisect(reference_trace, kernel_trace, [name for name in reference_trace if name in kernel_trace], limit_db)


def _bisect(reference: Trace, other: Trace, shared: list[str], limit_db: float) -> Bisection:
    constants = {
        name: output.constants
        for output in reference.values()
        for name in (output.layer, output.node)
        if output.constants
    }
    layers: list[LayerParity] = []
    for place, name in enumerate(shared):
        fault = any(layer.cause for layer in layers)
        layer = _compare(reference[name], other[name], constants, None if fault else limit_db)
        vague = layer.cause.endswith(UNKNOWN) or layer.cause.startswith("output: dead")
        if vague and (lost := _find_lost(reference, other, shared[:place])):
            layer = replace(layer, cause=lost)
        layers.append(layer)
    return Bisection(tuple(layers), limit_db)


def _find_lost(reference: Trace, other: Trace, before: list[str]) -> str:
    """The last layer before a bad one that has lost channels, though on the whole it is right."""
    for name in reversed(before):
        same = reference[name].output.shape == other[name].output.shape
        if same and (lost := find_lost_channels(reference[name].output, other[name].output)):
            return f"in the output of {other[name].layer} ({other[name].operator}) before it {lost}"
    return ""


def _compare(
    reference: LayerOutput,
    other: LayerOutput,
    constants: dict[str, tuple[np.ndarray | None, ...]],
    limit_db: float | None,
) -> LayerParity:
    """Figures of one layer, with the cause where they are below a limit."""
    same = reference.output.shape == other.output.shape
    sqnr_db = measure_sqnr_db(reference.output, other.output) if same else -SQNR_LIMIT_DB
    cause = ""
    if limit_db is not None and sqnr_db < limit_db:
        cause = _explain(reference, other, constants.get(other.node) or constants.get(other.layer, ()))
    return LayerParity(
        other.layer, other.operator, sqnr_db, spread_of(reference.output), spread_of(other.output), cause
    )


def _explain(reference: LayerOutput, other: LayerOutput, constants: tuple[np.ndarray | None, ...]) -> str:
    """The weights where they are at fault, else the output."""
    for theirs, ours in zip(constants, other.constants, strict=False):
        if theirs is None or ours is None or not np.issubdtype(theirs.dtype, np.floating):
            continue
        if theirs.shape != ours.shape or measure_sqnr_db(theirs, ours) < CONSTANT_LIMIT_DB:
            kind = "weights" if theirs.ndim > 1 else "bias"
            return f"{kind}: {find_cause(theirs, ours, first_axis=0)}"
    return f"output: {find_cause(reference.output, other.output, first_axis=1)}"


def spread_of(values: np.ndarray) -> Spread:
    """Figures of some values."""
    return Spread(float(values.min()), float(values.max()), float(values.mean()), float(values.std()))
