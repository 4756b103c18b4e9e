"""ONNX files whose weights lie beside them, as torch writes them by default: made one file, which can be sent away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.exporting.files import write_file
from edgeprune.exporting.foreign import foreign

MOST_BYTES = 2**31 - 1
"""No protobuf message, and so no ONNX file with its weights inside, is larger."""


def contain(path: Path, folder: Path) -> Path:
    """The file itself where all of it is in there; else a copy of the same name in `folder`, with the weights inside.

    Raises:
        UsageError: weights are not where the file says, or all of it would be larger than an ONNX file can be.
        ExportError: it is no ONNX file, or the copy cannot be written.
    """
    if path.suffix != ".onnx":
        return path
    with foreign("reading", path):
        import onnx

        model = onnx.load(path, load_external_data=False)
        beside = _find_beside(model)
        if not beside:
            return path
        _check_beside(path, beside)
        content = onnx.load(path).SerializeToString()
    write_file(folder / path.name, content)
    return folder / path.name


def _find_beside(model: Any) -> list[str]:
    """Names of the files that hold weights, as the model has them."""
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    tensors = [tensor for tensor in _get_all_tensors(model) if uses_external_data(tensor)]
    return list(dict.fromkeys(ExternalDataInfo(tensor).location for tensor in tensors))


def _check_beside(path: Path, names: list[str]) -> None:
    places = [path.parent / name for name in names]
    missing = [place for place in places if not place.is_file()]
    if missing:
        raise UsageError(
            f"{path}: its weights lie in {missing[0].name}, which is not in {missing[0].parent}; put it there, or "
            "export with torch.onnx.export(..., external_data=False)"
        )
    size = path.stat().st_size + sum(place.stat().st_size for place in places)
    if size > MOST_BYTES:
        raise UsageError(
            f"{path}: with the weights beside it {size:,} bytes, and a file that is sent to a board holds "
            f"{MOST_BYTES:,} at most; make the net smaller, or store its weights in float16 or int8"
        )
