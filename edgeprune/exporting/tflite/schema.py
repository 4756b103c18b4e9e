"""A TFLite file as a tree of its schema's objects, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgeprune.exporting.tflite.libraries import import_library

_ALIGNMENT = 16
"""Bytes: what the TFLite schema asks of tensor data (`force_align`)."""


def unpack_tflite(content: bytes) -> tuple[Any, Any]:
    """The schema module, and a TFLite model as a tree of its objects.

    Raises:
        MissingExtra: ai-edge-litert is not installed. What the schema raises passes through.
    """
    schema = import_library("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for buffer in model.buffers:
        _bring_in_(buffer, content)
    return schema, model


def _bring_in_(buffer: Any, content: bytes) -> None:
    """Take up data that lie behind the tree of objects, at an offset in the file, as ai-edge-quantizer writes them."""
    if buffer.offset > 1:  # 1 stands for data that are still to be placed
        buffer.data = np.frombuffer(content, np.uint8, int(buffer.size), int(buffer.offset))
        buffer.offset, buffer.size = 0, 0


def pack_tflite(model: Any) -> bytes:
    """The file of a tree of schema objects, tensor data aligned as the schema demands."""
    import flatbuffers  # type: ignore[import-untyped]

    class Aligned(flatbuffers.Builder):  # type: ignore[misc]  # its base is untyped
        def StartVector(self, size: int, count: int, alignment: int) -> Any:
            return super().StartVector(size, count, _ALIGNMENT if size == 1 else alignment)

    builder = Aligned(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def name_values(enumeration: Any) -> dict[int, str]:
    """The names of an enumeration of the schema by their number."""
    return {value: name for name, value in vars(enumeration).items() if name.isupper()}


def name_kinds(schema: Any, model: Any) -> Callable[[Any], str]:
    """What gives the name of an operator's kind, as "CONV_2D"; old files have its code in another field."""
    names = name_values(schema.BuiltinOperator)

    def name_kind(operator: Any) -> str:
        code = model.operatorCodes[operator.opcodeIndex]
        return names[max(code.builtinCode, code.deprecatedBuiltinCode)]

    return name_kind
