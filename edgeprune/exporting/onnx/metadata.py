"""What an ONNX file says of itself: properties of the model."""

from __future__ import annotations

from edgeprune.exporting.formats import Metadata

ENTRY = "edgeprune."
"""Prefix of the keys."""


def embed_onnx(content: bytes, metadata: Metadata) -> bytes:
    """The content of a file that says this of itself, instead of what it said before."""
    import onnx

    model = onnx.load_from_string(content)
    other_props = [(prop.key, prop.value) for prop in model.metadata_props if not prop.key.startswith(ENTRY)]
    own = [(ENTRY + key, value) for key, value in metadata.items()]
    onnx.helper.set_model_props(model, dict(other_props + own))
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def read_onnx(content: bytes) -> dict[str, str]:
    """What :func:`embed_onnx` wrote into a file; empty where it wrote nothing."""
    import onnx

    props = onnx.load_from_string(content).metadata_props
    return {prop.key.removeprefix(ENTRY): prop.value for prop in props if prop.key.startswith(ENTRY)}
