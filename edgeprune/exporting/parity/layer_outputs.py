"""What each layer of a file computes on given inputs, in real numbers, whatever precision the file holds them in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.formats import look_inside
from edgeprune.exporting.runners import fit_inputs


@dataclass(frozen=True)
class LayerOutput:
    """One layer: `output` is `[N, ...]`; `constants` are its weights and bias, `None` for each other operand.

    `node` is the same in every precision of a net; `layer` is for people.
    """

    node: str
    layer: str
    operator: str
    output: np.ndarray
    constants: tuple[np.ndarray | None, ...]


Trace = dict[str, LayerOutput]
"""Name of a tensor, the same in every precision of a net, to the layer that computes it; in order."""


def trace_file(path: Path, inputs: np.ndarray, optimised: bool = False) -> Trace:
    """Every layer's output for `inputs` `[N, ...]`, in reference kernels, row by row.

    `optimised` runs this processor's own kernels instead: of ONNX files only what is held in 8 bits and the net's
    output are read then, since to read anything else would undo the fusion that these kernels come from.

    Raises:
        ExportError: its format cannot be looked into, it does not run, or `inputs` do not fit.
    """
    trace = look_inside(path).trace
    with foreign("running layer by layer", path):
        return trace(path, fit_inputs(path, inputs), optimised)
