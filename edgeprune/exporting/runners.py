"""Run an exported file in its own runtime on this machine, and read what it takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeprune.errors import ExportError
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.formats import Signatures, format_of


def run_file(path: Path, inputs: np.ndarray, optimised: bool = True, threads: int = 1) -> np.ndarray:
    """Outputs `[N, ...]` of a file for `inputs` `[N, ...]`, row by row as files have a batch of 1.

    Floats given to a file that takes integers are quantized by its scale, and what it gives becomes float again.
    `optimised=False` runs slow reference arithmetic without fused or saturating kernels.

    Raises:
        ExportError: no runtime is installed, the file cannot be loaded or run, or `inputs` do not fit it.
    """
    inputs, run = fit_inputs(path, inputs), format_of(path).run
    with foreign("running", path):
        return run(path, inputs, optimised, threads)


def fit_inputs(path: Path, inputs: np.ndarray) -> np.ndarray:
    """Inputs `[N, ...]` in the layout that a file takes: with channels last where they fit only so.

    Raises:
        ExportError: they fit in neither layout.
    """
    if inputs.ndim == 4:
        (signature, *_), _ = describe_file(path)
        if inputs.shape[1:] != signature.shape[1:] == channels_last(inputs.shape)[1:]:
            inputs = np.ascontiguousarray(np.moveaxis(inputs, 1, -1))
    _check_inputs(path, inputs)
    return inputs


def channels_last(shape: Sequence[int]) -> tuple[int, ...]:
    """`[N, C, H, W]` as `[N, H, W, C]`."""
    return (shape[0], *shape[2:], shape[1])


def describe_file(path: Path) -> tuple[Signatures, Signatures]:
    """The inputs and the outputs of an exported file, by its suffix.

    Raises:
        ExportError: unknown suffix, unreadable file, or a shape that is not fixed.
    """
    describe = format_of(path).describe
    with foreign("reading", path):
        return describe(path)


def _check_inputs(path: Path, inputs: np.ndarray) -> None:
    signatures, _ = describe_file(path)
    if len(signatures) != 1:
        raise ExportError(f"{path}: has {len(signatures)} inputs; a file with exactly one can be run")
    signature = signatures[0]
    quantized = signature.dtype in ("int8", "int16") and inputs.dtype == np.float32
    typed = inputs.dtype == signature.dtype or quantized
    fits = len(inputs) > 0 and inputs.shape[1:] == signature.shape[1:] and typed
    if not fits:
        expected = f"at least one row of {list(signature.shape[1:])} {signature.dtype}"
        raise ExportError(f"{path}: inputs of shape {list(inputs.shape)} {inputs.dtype}; expected {expected}")
