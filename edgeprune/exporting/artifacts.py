"""All the files asked for, in one call, each with its checksum and signature."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from edgeprune.core.artifact import Artifact, Signature
from edgeprune.core.ranges import Range
from edgeprune.core.target import MIXED
from edgeprune.errors import ExportError
from edgeprune.exporting.checks import Batch, gather_calibration
from edgeprune.exporting.files import sha256_of, write_file
from edgeprune.exporting.half import halve_onnx
from edgeprune.exporting.keep_float import keep_floats
from edgeprune.exporting.metadata import embed_metadata, read_metadata
from edgeprune.exporting.mixed import Wishes, mix
from edgeprune.exporting.onnx import export_onnx
from edgeprune.exporting.quantize_onnx import (
    OnnxScheme,
    choose_onnx_scheme,
    prepare_onnx,
    quantize_onnx,
    quantize_onnx_dynamic,
    quantize_prepared,
)
from edgeprune.exporting.runners import describe_file, fit_inputs, run_onnx, run_tflite
from edgeprune.exporting.static import Static, Trials, tune
from edgeprune.exporting.tflite import (
    CALIBRATED,
    FLOAT_NCHW,
    INTEGERS,
    LEVELS,
    TfliteForm,
    export_tflite,
    quantize_tflite,
    quantize_with_ranges,
)

FOLDER = "artifacts"
"""Where the files go, within the run directory."""
ROLES = ("original", "pruned")
TOOLS = {
    "onnx": ("edgeprune", "torch", "onnx", "onnxscript", "onnxruntime"),
    "tflite": ("edgeprune", "torch", "litert-torch", "litert-converter", "ai-edge-quantizer"),
}
"""Packages whose versions a file of a format states: those that made it."""


@dataclass(frozen=True)
class ExportRequest:
    """What to export: files `artifacts/{role}.{precision}.{format}` within the run `directory`.

    Each format is made in those of `precisions` that it has. `calibration` (batches of inputs `[N, ...]`) is read
    once, and only where a precision needs it. `scheme` is the int8 scheme for ONNX; the default is right on every
    processor, :func:`choose_onnx_scheme` may give a faster one. `origin` (such as hashes of the model and the plan)
    is written into each file, beside what :func:`describe_origin` adds. `tuned`: static quantization is chosen by
    measured error (:func:`edgeprune.exporting.static.tune`), some seconds for a small net; else it is plain min-max,
    which is as fast when it runs. `form` is what files take and give, `wishes` what is asked of a file of mixed
    precision. `has_float`: the fp32 files of this program are there, as an earlier request made them.
    """

    directory: Path
    role: str
    formats: tuple[str, ...]
    precisions: tuple[str, ...]
    calibration: Iterable[Batch] = ()
    scheme: OnnxScheme = choose_onnx_scheme("unknown", ())
    origin: Mapping[str, str] = field(default_factory=dict)
    tuned: bool = False
    form: TfliteForm = FLOAT_NCHW
    wishes: Wishes = Wishes()
    has_float: bool = False


@dataclass(frozen=True)
class Source:
    """What an exporter works from: the program, its float file (made once for a format), calibration rows."""

    program: nn.Module
    example: Tensor
    float_file: Path
    rows: np.ndarray
    request: ExportRequest


@dataclass(frozen=True)
class Made:
    """How a file holds numbers, in words; what it is predicted to take, where it was chosen by that; and the most that
    any layer of a mixed one reads and writes.
    """

    scheme: str
    predicted_ms: float | None = None
    activation_bytes: int | None = None


def _onnx_fp32(source: Source, target: Path) -> Made:
    export_onnx(source.program, source.example, target, source.request.form.nhwc)
    return Made("float32")


def _onnx_int8(source: Source, target: Path) -> Made:
    rows = _fitted(source).rows
    if not source.request.tuned:
        quantize_onnx(source.float_file, target, [rows], source.request.scheme)
        return Made(f"{source.request.scheme.describe()}; min-max")
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / source.float_file.name
        prepare_onnx(source.float_file, prepared)
        tuned = _tune(static_onnx(prepared, source.request.scheme), rows, target)
        return Made(f"{source.request.scheme.describe()}; {tuned}")


def _tune(static: Static, rows: np.ndarray, target: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        tuned = tune(Trials(static, rows, Path(folder)))
    write_file(target, tuned.content)
    return tuned.describe()


def _onnx_mixed(source: Source, target: Path) -> Made:
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / source.float_file.name
        prepare_onnx(source.float_file, prepared)
        scheme = source.request.scheme
        return _mix(static_onnx(prepared, scheme), scheme.describe(), _fitted(source), target)


def _tflite_mixed(source: Source, target: Path) -> Made:
    scheme = "int8 x int8, per channel, static: float32 inputs and outputs"
    return _mix(static_tflite(source.float_file), scheme, _fitted(source), target)


def _mix(static: Static, scheme: str, source: Source, target: Path) -> Made:
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(static, source.rows, Path(folder))
        tuned = tune(trials)
        mixed = mix(trials, tuned.settings, source.request.wishes)
    write_file(target, mixed.content)
    return Made(
        f"{scheme}; {tuned.settings.describe()}; {mixed.describe()}", mixed.predicted_ms, mixed.activation_bytes
    )


def static_onnx(prepared: Path, scheme: OnnxScheme) -> Static:
    """Static int8 for a prepared ONNX file, judged in reference kernels: it may be for another processor."""

    def quantize(path: Path, ranges: Mapping[str, Range], floats: Collection[str]) -> bytes:
        content = quantize_prepared(path, ranges, scheme, floats)
        return keep_floats(content) if floats else content

    return Static(prepared, quantize, partial(run_onnx, optimised=False), scheme.levels)


def static_tflite(source: Path, precision: str = "int8", form: TfliteForm = FLOAT_NCHW) -> Static:
    """Static quantization of a float TFLite file."""

    def quantize(path: Path, ranges: Mapping[str, Range], floats: Collection[str]) -> bytes:
        return quantize_with_ranges(path, ranges, precision, floats, form)

    return Static(source, quantize, run_tflite, LEVELS)


def _tflite_fp32(source: Source, target: Path) -> Made:
    export_tflite(source.program, source.example, target, source.request.form)
    return Made("float32")


def _onnx_fp16(source: Source, target: Path) -> Made:
    halve_onnx(source.float_file, target)
    return Made("float16: float32 inputs and outputs")


def _onnx_dynamic(source: Source, target: Path) -> Made:
    quantize_onnx_dynamic(source.float_file, target, source.request.scheme)
    bits = " (7 bits)" if source.request.scheme.reduce_range else ""
    return Made(f"uint8 x int8{bits}, per channel, ranges found as it runs: {source.request.scheme.reason}")


def _tflite_quantized(precision: str, scheme: str, source: Source, target: Path) -> Made:
    if precision not in CALIBRATED:
        quantize_tflite(source.float_file, target, (), precision)
        return Made(f"{scheme}: float32 inputs and outputs")
    scheme = f"{scheme}: {INTEGERS[precision] if source.request.form.integers else 'float32'} inputs and outputs"
    fitted = _fitted(source)
    if source.request.tuned:
        static = static_tflite(source.float_file, precision, source.request.form)
        return Made(f"{scheme}; {_tune(static, fitted.rows, target)}")
    quantize_tflite(source.float_file, target, [fitted.rows], precision, source.request.form)
    return Made(f"{scheme}; min-max")


def _fitted(source: Source) -> Source:
    """With calibration rows in the layout of the float file."""
    return replace(source, rows=fit_inputs(source.float_file, source.rows))


EXPORTERS: dict[tuple[str, str], Callable[[Source, Path], Made]] = {
    ("onnx", "fp32"): _onnx_fp32,
    ("onnx", "fp16"): _onnx_fp16,
    ("onnx", "int8"): _onnx_int8,
    ("onnx", "dynamic-int8"): _onnx_dynamic,
    ("onnx", "mixed"): _onnx_mixed,
    ("tflite", "fp32"): _tflite_fp32,
    ("tflite", "fp16"): partial(_tflite_quantized, "fp16", "float16 weights, float32 arithmetic"),
    ("tflite", "int8"): partial(_tflite_quantized, "int8", "int8 x int8, per channel, static"),
    ("tflite", "dynamic-int8"): partial(
        _tflite_quantized,
        "dynamic-int8",
        "int8 x int8, per channel (fully connected: per tensor), ranges found as it runs",
    ),
    ("tflite", "int16x8"): partial(_tflite_quantized, "int16x8", "int16 x int8, per channel, static"),
    ("tflite", "mixed"): _tflite_mixed,
}
"""(format, precision) to the function that writes such a file and says how."""


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
    calibrated = set(request.precisions) & {*CALIBRATED, MIXED}
    shape, dtype = tuple(example.shape), example.numpy(force=True).dtype.name
    rows = gather_calibration(request.calibration, shape, dtype) if calibrated else np.empty((0,))
    made = []
    for format in request.formats:
        float_file = place_artifact(request.directory, request.role, format, "fp32")
        source = Source(program, example, float_file, rows, request)
        first = () if request.has_float else ("fp32",)  # the others are made from its file
        for precision in dict.fromkeys((*first, *request.precisions)):
            if (format, precision) in EXPORTERS:
                progress(f"{request.role} {format} {precision}")
                made.append(_export(source, request, format, precision))
        if first and "fp32" not in request.precisions:
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
        if not any((format, precision) in EXPORTERS for format in request.formats):
            raise ExportError(f"export: {' and '.join(request.formats)} has no {precision}; choose another precision")


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


def describe_origin(request: ExportRequest, artifact: Artifact) -> dict[str, str]:
    """What is written into a file, by key: where it came from, what it takes and gives, what made it."""
    return {
        **request.origin,
        "role": artifact.role,
        "precision": artifact.precision,
        "scheme": artifact.scheme,
        "inputs": _label(artifact.inputs),
        "outputs": _label(artifact.outputs),
        **{f"version.{tool}": found for tool in TOOLS[artifact.format] if (found := _version(tool))},
    }


def _export(source: Source, request: ExportRequest, format: str, precision: str) -> Artifact:
    path = place_artifact(request.directory, request.role, format, precision)
    made = EXPORTERS[format, precision](source, path)
    inputs, outputs = describe_file(path)
    place = path.relative_to(request.directory).as_posix()
    told = (made.scheme, made.predicted_ms, made.activation_bytes)
    artifact = Artifact(place, request.role, format, precision, 0, "", inputs, outputs, *told)
    embed_metadata(path, {**read_metadata(path), **describe_origin(request, artifact)})
    return replace(artifact, bytes=path.stat().st_size, sha256=sha256_of(path))


def _label(signatures: tuple[Signature, ...]) -> str:
    return "; ".join(f"{one.name} {one.dtype} {list(one.shape)}" for one in signatures)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _check_name(kind: str, name: str, valid: tuple[str, ...]) -> None:
    if name not in valid:
        nearest = difflib.get_close_matches(name, valid, 1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ExportError(f"export: unknown {kind} {name!r}; choose from {', '.join(valid)}{hint}")
