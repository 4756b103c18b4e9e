"""All the files asked for, in one call, each with its checksum and signature."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from edgeprune.core.artifact import Artifact, Signature
from edgeprune.core.formats import FORMATS, MIXED, STATIC, list_precisions
from edgeprune.errors import ExportError
from edgeprune.exporting.checks import gather_calibration
from edgeprune.exporting.files import sha256_of
from edgeprune.exporting.formats import find_format
from edgeprune.exporting.metadata import embed_metadata, read_metadata
from edgeprune.exporting.request import ExportRequest, Source
from edgeprune.exporting.runners import describe_file
from edgeprune.exporting.sram import count_sram
from edgeprune.versions import find_version

FOLDER = "artifacts"
"""Where the files go, within the run directory."""
ROLES = ("original", "pruned")


def place_artifact(directory: Path, role: str, file_format: str, precision: str) -> Path:
    """Where a file goes, given the run directory."""
    return directory / FOLDER / f"{role}.{precision}.{file_format}"


def build_artifacts(
    program: nn.Module, example: Tensor, request: ExportRequest, progress: Callable[[str], None] = lambda _: None
) -> tuple[Artifact, ...]:
    """Export `program` (eval mode; `example` has a batch of 1) to every format in every precision of `request`.

    `progress` is told what is being made, such as "pruned onnx int8".

    Raises:
        ExportError: unknown names, calibration data that do not fit, or whatever an exporter raises.
    """
    check_request(request)
    calibrated = set(request.precisions) & {*STATIC, MIXED}
    shape, dtype = tuple(example.shape), example.numpy(force=True).dtype.name
    rows = gather_calibration(request.calibration, shape, dtype) if calibrated else np.empty((0,))
    artifacts = []
    for format in request.formats:
        float_file = place_artifact(request.directory, request.role, format, "fp32")
        source = Source(program, example, float_file, rows, request)
        first = () if request.has_float else ("fp32",)  # the others are made from its file
        for precision in dict.fromkeys((*first, *request.precisions)):
            if precision in FORMATS[format].precisions:
                progress(f"{request.role} {format} {precision}")
                artifacts.append(_export(source, request, format, precision))
        if first and "fp32" not in request.precisions:
            float_file.unlink()
    return tuple(artifact for artifact in artifacts if artifact.precision in request.precisions)


def check_request(request: ExportRequest) -> None:
    """Require a known role, and at least one format and one precision, known too.

    Raises:
        ExportError: nothing asked for, or an unknown name; lists the valid ones and the nearest.
    """
    if not (request.formats and request.precisions):
        raise ExportError("export: no format or no precision given; name at least one of each")
    _check_name("role", request.role, ROLES)
    for format in request.formats:
        _check_name("format", format, tuple(FORMATS))
    for precision in request.precisions:
        _check_name("precision", precision, list_precisions())
        if not any(precision in FORMATS[format].precisions for format in request.formats):
            raise ExportError(f"export: {' and '.join(request.formats)} has no {precision}; choose another precision")


def check_artifact(artifact: Artifact, directory: Path) -> Path:
    """The artifact's file within the run `directory`, required to be the one that was exported.

    Raises:
        ExportError: it is missing, or its content has changed since.
    """
    path = directory / artifact.path
    if (digest := sha256_of(path)) != artifact.sha256:
        raise ExportError(
            f"{path}: stale: sha256 {digest[:12]}..., recorded {artifact.sha256[:12]}...; export {artifact.name} again"
        )
    return path


def describe_origin(request: ExportRequest, artifact: Artifact) -> dict[str, str]:
    """What is written into a file, by key: where it came from, what it takes and gives, what made it."""
    return {
        **request.origin,
        "role": artifact.role,
        "precision": artifact.precision,
        "scheme": artifact.scheme,
        "inputs": _label(artifact.inputs),
        "outputs": _label(artifact.outputs),
        **{
            f"version.{tool}": version for tool in find_format(artifact.format).tools if (version := find_version(tool))
        },
    }


def _export(source: Source, request: ExportRequest, format: str, precision: str) -> Artifact:
    path = place_artifact(request.directory, request.role, format, precision)
    notes = find_format(format).exporters[precision](source, path)
    inputs, outputs = describe_file(path)
    place = path.relative_to(request.directory).as_posix()
    figures = (notes.scheme, notes.predicted_ms, notes.activation_bytes)
    artifact = Artifact(place, request.role, format, precision, 0, "", inputs, outputs, *figures)
    embed_metadata(path, {**read_metadata(path), **describe_origin(request, artifact)})
    sram = count_sram(path)
    if sram is not None:
        artifact = replace(artifact, sram_bytes=sram.bytes, sram_counted=sram.counted_by)
    return replace(artifact, bytes=path.stat().st_size, sha256=sha256_of(path))


def _label(signatures: tuple[Signature, ...]) -> str:
    return "; ".join(f"{signature.name} {signature.dtype} {list(signature.shape)}" for signature in signatures)


def _check_name(kind: str, name: str, valid: tuple[str, ...]) -> None:
    if name not in valid:
        nearest = difflib.get_close_matches(name, valid, 1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ExportError(f"export: unknown {kind} {name!r}; choose from {', '.join(valid)}{hint}")
