"""What a TFLite file takes and gives, read from its bytes alone: for boards whose runtime takes raw bytes.

The tables are FlatBuffers (flatbuffers.dev, "FlatBuffer Internals"), by the schema of TFLite (schema.fbs).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from edgeprune.errors import ExportError

DTYPES = {
    **{0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"},
    **{10: "float64", 12: "uint64", 15: "uint32", 16: "uint16"},
}
"""TensorType of the schema, as far as numpy has such numbers."""
MODEL_SUBGRAPHS, SUBGRAPH_TENSORS, SUBGRAPH_INPUTS, SUBGRAPH_OUTPUTS = 2, 0, 1, 2
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_QUANTIZATION = 0, 1, 4
QUANTIZATION_SCALE, QUANTIZATION_ZERO_POINT = 2, 3


@dataclass(frozen=True)
class End:
    """An input or output of a file; `scale` is 0 where its numbers stand for themselves."""

    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    @property
    def size_bytes(self) -> int:
        """What one holds."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def encode(self, row: np.ndarray) -> bytes:
        """One row `[...]` as the file takes it: floats by its scale where it takes whole numbers.

        Raises:
            ExportError: of another size or type.
        """
        values, dtype = row, np.dtype(self.dtype)
        if row.dtype != dtype:
            if dtype.kind not in "iu" or row.dtype.kind != "f" or not self.scale:
                raise ExportError(f"inputs are {row.dtype}, but the file takes {dtype}")
            bounds = np.iinfo(dtype)
            values = np.clip(np.rint(row / self.scale) + self.zero_point, bounds.min, bounds.max).astype(dtype)
        content = np.ascontiguousarray(values).tobytes()
        if len(content) != self.size_bytes:
            raise ExportError(f"an input has {len(content)} bytes; the file takes {list(self.shape)} {self.dtype}")
        return content

    def decode(self, content: bytes, is_float: bool) -> np.ndarray:
        """One output `[1, ...]`; whole numbers as floats by its scale where floats came in."""
        values = np.frombuffer(content, self.dtype).reshape(self.shape)
        if values.dtype.kind not in "iu" or not is_float or not self.scale:
            return values
        return np.asarray((values.astype(np.float32) - self.zero_point) * np.float32(self.scale), np.float32)


def parse_ends(content: bytes) -> tuple[End, tuple[End, ...]]:
    """The only input of a file, and its outputs in order.

    Raises:
        ExportError: no TFLite file, several inputs, or an open or unknown size or type.
    """
    try:
        model = _Table(content, _read("<I", content, 0))
        graph = model.tables(MODEL_SUBGRAPHS)[0]
        tensors = graph.tables(SUBGRAPH_TENSORS)
        ends = [
            [_describe(tensors[int(index)]) for index in graph.numbers(field, "i")]
            for field in (SUBGRAPH_INPUTS, SUBGRAPH_OUTPUTS)
        ]
    except (struct.error, IndexError, KeyError, ValueError) as exc:
        raise ExportError(f"this is no TFLite file that can be read: {exc!r}") from exc
    (inputs, outputs) = ends
    if len(inputs) != 1 or not outputs:
        raise ExportError(f"a file with one input can be run; this has {len(inputs)}, and {len(outputs)} outputs")
    return inputs[0], tuple(outputs)


def _describe(tensor: _Table) -> End:
    quantization = tensor.table(TENSOR_QUANTIZATION)
    scales = quantization.numbers(QUANTIZATION_SCALE, "f") if quantization else ()
    zero_points = quantization.numbers(QUANTIZATION_ZERO_POINT, "q") if quantization else ()
    shape = tuple(int(size) for size in tensor.numbers(TENSOR_SHAPE, "i"))
    return End(
        shape,
        DTYPES[tensor.byte(TENSOR_TYPE)],
        float(scales[0]) if len(scales) == 1 else 0.0,
        int(zero_points[0]) if len(zero_points) == 1 else 0,
    )


def _read(code: str, content: bytes, place: int) -> int:
    if place < 0:
        raise IndexError("a place before the beginning")
    return int(struct.unpack_from(code, content, place)[0])


class _Table:
    """A table of a FlatBuffer at a place in its bytes."""

    def __init__(self, content: bytes, place: int) -> None:
        self.content, self.place = content, place
        self.fields = place - _read("<i", content, place)

    def find(self, field: int) -> int:
        """Where a field lies; 0 where it has its default."""
        at = 4 + 2 * field
        if at + 2 > _read("<H", self.content, self.fields):
            return 0
        offset = _read("<H", self.content, self.fields + at)
        return self.place + offset if offset else 0

    def byte(self, field: int) -> int:
        at = self.find(field)
        return _read("<b", self.content, at) if at else 0

    def table(self, field: int) -> _Table | None:
        at = self.find(field)
        return _Table(self.content, at + _read("<I", self.content, at)) if at else None

    def _vector(self, field: int) -> tuple[int, int]:
        """Where the elements of a vector begin, and how many they are."""
        at = self.find(field)
        if not at:
            return 0, 0
        start = at + _read("<I", self.content, at)
        return start + 4, _read("<I", self.content, start)

    def numbers(self, field: int, code: str) -> tuple[float, ...]:
        start, count = self._vector(field)
        if start + count * struct.calcsize(code) > len(self.content):
            raise IndexError("a vector beyond the end")
        return struct.unpack_from(f"<{count}{code}", self.content, start) if count else ()

    def tables(self, field: int) -> list[_Table]:
        start, count = self._vector(field)
        places = [start + 4 * index for index in range(min(count, len(self.content) // 4))]
        return [_Table(self.content, place + _read("<I", self.content, place)) for place in places]
