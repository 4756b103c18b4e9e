"""What an artifact says of itself, inside the file: where it came from, what it takes and gives."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeprune.errors import ExportError
from edgeprune.exporting.files import write_file
from edgeprune.exporting.foreign import foreign

Metadata = Mapping[str, str]
ENTRY = "edgeprune"
"""Prefix of the keys in an ONNX file, and name of the one metadata buffer (JSON, UTF-8) in a TFLite file."""
_ALIGNMENT = 16
"""Bytes: what the TFLite schema asks of tensor data (`force_align`)."""


def embed_metadata(path: Path, metadata: Metadata) -> None:
    """Write `metadata` into an ONNX or TFLite file, in place of what this function wrote there before.

    Same file and metadata, same bytes. The network itself is not touched.

    Raises:
        ExportError: the file is neither of the two, cannot be read, or cannot be written.
    """
    with foreign("writing metadata", path):
        content = _choose(path, {".onnx": _embed_onnx, ".tflite": _embed_tflite})(path.read_bytes(), metadata)
    write_file(path, content)


def read_metadata(path: Path) -> dict[str, str]:
    """What :func:`embed_metadata` wrote into a file; empty where it wrote nothing.

    Raises:
        ExportError: the file is neither ONNX nor TFLite, or cannot be read.
    """
    with foreign("reading metadata", path):
        return dict(_choose(path, {".onnx": _read_onnx, ".tflite": _read_tflite})(path.read_bytes()))


def _choose(path: Path, by_suffix: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    if path.suffix not in by_suffix:
        raise ExportError(f"{path}: suffix {path.suffix!r} is none of {', '.join(by_suffix)}")
    return by_suffix[path.suffix]


def _embed_onnx(content: bytes, metadata: Metadata) -> bytes:
    import onnx

    model = onnx.load_from_string(content)
    kept = [(prop.key, prop.value) for prop in model.metadata_props if not prop.key.startswith(f"{ENTRY}.")]
    own = [(f"{ENTRY}.{key}", value) for key, value in metadata.items()]
    onnx.helper.set_model_props(model, dict(kept + own))
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def _read_onnx(content: bytes) -> dict[str, str]:
    import onnx

    props = onnx.load_from_string(content).metadata_props
    return {prop.key.removeprefix(f"{ENTRY}."): prop.value for prop in props if prop.key.startswith(f"{ENTRY}.")}


def _embed_tflite(content: bytes, metadata: Metadata) -> bytes:
    import numpy as np

    schema, model = unpack_tflite(content)
    data = np.frombuffer(json.dumps(dict(metadata)).encode(), np.uint8)
    model.metadata = model.metadata or []
    entry = next((one for one in model.metadata if one.name == ENTRY.encode()), None)
    if entry is None:
        model.buffers.append(schema.BufferT())
        entry = schema.MetadataT(ENTRY.encode(), len(model.buffers) - 1)
        model.metadata.append(entry)
    model.buffers[entry.buffer].data = data
    return pack_tflite(model)


def _read_tflite(content: bytes) -> dict[str, str]:
    _, model = unpack_tflite(content)
    for entry in model.metadata or []:
        if entry.name == ENTRY.encode():
            found: dict[str, str] = json.loads(bytes(model.buffers[entry.buffer].data))
            return found
    return {}


def unpack_tflite(content: bytes) -> tuple[Any, Any]:
    """The schema module, and a TFLite model as a tree of its objects.

    Raises:
        ExportError: ai-edge-litert is not installed. What the schema raises passes through.
    """
    try:
        schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError as exc:
        raise ExportError("TFLite: ai-edge-litert cannot be imported; run: pip install 'edgeprune[tflite]'") from exc
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for buffer in model.buffers:
        _bring_in_(buffer, content)
    return schema, model


def _bring_in_(buffer: Any, content: bytes) -> None:
    """Take up data that lie behind the tree of objects, at an offset in the file, as ai-edge-quantizer writes them."""
    import numpy as np

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
