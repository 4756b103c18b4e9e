"""What a TFLite file says of itself: one metadata buffer (JSON, UTF-8)."""

from __future__ import annotations

import json

import numpy as np

from edgeprune.exporting.formats import Metadata
from edgeprune.exporting.tflite.schema import pack_tflite, unpack_tflite

ENTRY = "edgeprune"
"""Name of the buffer."""


def embed_tflite(content: bytes, metadata: Metadata) -> bytes:
    """The content of a file that says this of itself, instead of what it said before."""
    schema, model = unpack_tflite(content)
    data = np.frombuffer(json.dumps(dict(metadata)).encode(), np.uint8)
    model.metadata = model.metadata or []
    entry = next((entry for entry in model.metadata if entry.name == ENTRY.encode()), None)
    if entry is None:
        model.buffers.append(schema.BufferT())
        entry = schema.MetadataT(ENTRY.encode(), len(model.buffers) - 1)
        model.metadata.append(entry)
    model.buffers[entry.buffer].data = data
    return pack_tflite(model)


def read_tflite(content: bytes) -> dict[str, str]:
    """What :func:`embed_tflite` wrote into a file; empty where it wrote nothing."""
    _, model = unpack_tflite(content)
    for entry in model.metadata or []:
        if entry.name == ENTRY.encode():
            metadata: dict[str, str] = json.loads(bytes(model.buffers[entry.buffer].data))
            return metadata
    return {}
