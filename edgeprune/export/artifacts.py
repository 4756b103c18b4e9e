"""All the files asked for, in one call, each with its checksum and signature."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from edgeprune.core.artifact import Artifact
from edgeprune.errors import ExportError
from edgeprune.export.checks import Batch, gather_calibration
from edgeprune.export.files import sha256_of
from edgeprune.export.onnx import export_onnx
from edgeprune.export.quantize_onnx import OnnxScheme, choose_onnx_scheme, quantize_onnx
from edgeprune.export.runners import describe_file
from edgeprune.export.tflite import export_tflite, quantize_tflite

FOLDER = "artifacts"
"""Where the files go, within the run directory."""
ROLES = ("original", "pruned")


@dataclass(frozen=True)
class ExportRequest:
    """What to export: files `artifacts/{role}.{precision}.{format}` within the run `directory`.

    `calibration` (batches of inputs `[N, ...]`) is read once, and only where a precision needs it. `scheme` is the
    int8 scheme for ONNX; the default is right on every processor, :func:`choose_onnx_scheme` may give a faster one.
    """

    directory: Path
    role: str
    formats: tuple[str, ...]
    precisions: tuple[str, ...]
    calibration: Iterable[Batch] = ()
    scheme: OnnxScheme = choose_onnx_scheme("unknown", ())


@dataclass(frozen=True)
class Source:
    """What an exporter works from: the program, its float file (made once for a format), calibration rows, scheme."""

    program: nn.Module
    example: Tensor
    float_file: Path
    rows: np.ndarray
    scheme: OnnxScheme


def _onnx_fp32(source: Source, target: Path) -> str:
    export_onnx(source.program, source.example, target)
    return "float32"


def _onnx_int8(source: Source, target: Path) -> str:
    quantize_onnx(source.float_file, target, [source.rows], source.scheme)
    return source.scheme.describe()


def _tflite_fp32(source: Source, target: Path) -> str:
    export_tflite(source.program, source.example, target)
    return "float32"


def _tflite_int8(source: Source, target: Path) -> str:
    quantize_tflite(source.float_file, target, [source.rows])
    return "int8 x int8, per channel, static min-max: float32 inputs and outputs"


EXPORTERS: dict[tuple[str, str], Callable[[Source, Path], str]] = {
    ("onnx", "fp32"): _onnx_fp32,
    ("onnx", "int8"): _onnx_int8,
    ("tflite", "fp32"): _tflite_fp32,
    ("tflite", "int8"): _tflite_int8,
}
"""(format, precision) to the function that writes such a file and says its scheme in words."""


def build_artifacts(
    program: nn.Module, example: Tensor, request: ExportRequest, progress: Callable[[str], None] = lambda _: None
) -> tuple[Artifact, ...]:
    """Export `program` (eval mode; `example` has a batch of 1) to every format in every precision of `request`.

    `progress` is told what is being made, such as "pruned onnx int8".

    Raises:
        ExportError: unknown names, calibration data that do not fit, or whatever an exporter raises.
    """
    check_request(request)
    folder = request.directory / FOLDER
    calibrated = set(request.precisions) - {"fp32"}
    shape, dtype = tuple(example.shape), example.numpy(force=True).dtype.name
    rows = gather_calibration(request.calibration, shape, dtype) if calibrated else np.empty((0,))
    made = []
    for format in request.formats:
        float_file = folder / f"{request.role}.fp32.{format}"
        source = Source(program, example, float_file, rows, request.scheme)
        for precision in dict.fromkeys(("fp32", *request.precisions)):  # the others are made from its file
            progress(f"{request.role} {format} {precision}")
            target = folder / f"{request.role}.{precision}.{format}"
            scheme = EXPORTERS[format, precision](source, target)
            made.append(_describe(target, request, format, precision, scheme))
        if "fp32" not in request.precisions:
            float_file.unlink()
    return tuple(artifact for artifact in made if artifact.precision in request.precisions)


def check_request(request: ExportRequest) -> None:
    """Require a known role, and at least one format and one precision, known too.

    Raises:
        ExportError: nothing asked for, or an unknown name; lists the valid ones and the nearest.
    """
    if not (request.formats and request.precisions):
        raise ExportError("export: no format or no precision given; name at least one of each")
    _check_name("role", request.role, ROLES)
    formats, precisions = (tuple(dict.fromkeys(names)) for names in zip(*EXPORTERS, strict=True))
    for format in request.formats:
        _check_name("format", format, formats)
    for precision in request.precisions:
        _check_name("precision", precision, precisions)


def check_artifact(artifact: Artifact, directory: Path) -> Path:
    """The artifact's file within the run `directory`, required to be the one that was exported.

    Raises:
        ExportError: it is missing, or its content has changed since.
    """
    path = directory / artifact.path
    if (found := sha256_of(path)) != artifact.sha256:
        raise ExportError(
            f"{path}: stale: sha256 {found[:12]}..., recorded {artifact.sha256[:12]}...; export {artifact.name} again"
        )
    return path


def _describe(path: Path, request: ExportRequest, format: str, precision: str, scheme: str) -> Artifact:
    inputs, outputs = describe_file(path)
    return Artifact(
        path=path.relative_to(request.directory).as_posix(),
        role=request.role,
        format=format,
        precision=precision,
        bytes=path.stat().st_size,
        sha256=sha256_of(path),
        inputs=inputs,
        outputs=outputs,
        scheme=scheme,
    )


def _check_name(kind: str, name: str, valid: tuple[str, ...]) -> None:
    if name not in valid:
        nearest = difflib.get_close_matches(name, valid, 1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ExportError(f"export: unknown {kind} {name!r}; choose from {', '.join(valid)}{hint}")
