"""What a net for a microcontroller takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import ExportError
from edgeprune.exporting.tflite.schema import unpack_tflite


@dataclass(frozen=True)
class End:
    """An input or output: its shape with the batch, and the quantization of its int8 values."""

    shape: tuple[int, ...]
    scale: float
    zero_point: int

    @property
    def bytes(self) -> int:
        """What its values take."""
        return int(np.prod(self.shape))


def read_ends(tflite: Path) -> tuple[End, End]:
    """The input and the output of a file.

    Raises:
        ExportError: it has several of one, or one that is not int8.
    """
    schema, model = unpack_tflite(tflite.read_bytes())
    graph = model.subgraphs[0]
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ExportError(
            f"{tflite}: a net of {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; expected one of each"
        )
    source, result = (_read_end(schema, graph.tensors[index], tflite) for index in (graph.inputs[0], graph.outputs[0]))
    if source.shape[0] != 1:
        raise ExportError(f"{tflite}: takes {source.shape[0]} inputs at once; expected a batch of 1")
    return source, result


def _read_end(schema: Any, tensor: Any, tflite: Path) -> End:
    quantization = tensor.quantization
    if tensor.type != schema.TensorType.INT8 or quantization is None or quantization.scale is None:
        name = tensor.name.decode() if isinstance(tensor.name, bytes) else tensor.name
        raise ExportError(
            f'{tflite}: {name} is not int8; expected int8 at both ends: export with io = "integer" in the target'
        )
    return End(tuple(map(int, tensor.shape)), float(quantization.scale[0]), int(quantization.zeroPoint[0]))
