"""ONNX files of a program in each precision."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from edgeprune.core.formats import MIXED
from edgeprune.core.quantizing.ranges import Range
from edgeprune.exporting.formats import Exporter, FileNotes
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.onnx.half import halve_onnx
from edgeprune.exporting.onnx.keep_float import keep_floats
from edgeprune.exporting.onnx.quantize import (
    OnnxScheme,
    prepare_onnx,
    quantize_onnx,
    quantize_onnx_dynamic,
    quantize_prepared,
)
from edgeprune.exporting.onnx.schemes import find_scheme
from edgeprune.exporting.quantizing.mixed import make_mixed
from edgeprune.exporting.quantizing.static import Static, write_tuned
from edgeprune.exporting.request import Source
from edgeprune.exporting.runners import fit_inputs


def static_onnx(prepared: Path, scheme: OnnxScheme) -> Static:
    """Static int8 for a prepared ONNX file, judged in reference kernels: it may be for another processor."""

    def quantize(path: Path, ranges: Mapping[str, Range], floats: Collection[str]) -> bytes:
        content = quantize_prepared(path, ranges, scheme, floats)
        return keep_floats(content) if floats else content

    return Static(prepared, quantize, optimised=False, levels=scheme.levels)


def _fp32(source: Source, target: Path) -> FileNotes:
    export_onnx(source.program, source.example, target, source.request.form.nhwc)
    return FileNotes("float32")


def _fp16(source: Source, target: Path) -> FileNotes:
    halve_onnx(source.float_file, target)
    return FileNotes("float16: float32 inputs and outputs")


def _int8(source: Source, target: Path) -> FileNotes:
    rows, scheme = fit_inputs(source.float_file, source.rows), _scheme(source)
    if not source.request.tuned:
        quantize_onnx(source.float_file, target, [rows], scheme)
        return FileNotes(f"{scheme.describe()}; min-max")
    with tempfile.TemporaryDirectory() as folder:
        prepared = _prepare(source, folder)
        return FileNotes(f"{scheme.describe()}; {write_tuned(static_onnx(prepared, scheme), rows, target)}")


def _dynamic(source: Source, target: Path) -> FileNotes:
    scheme = _scheme(source)
    quantize_onnx_dynamic(source.float_file, target, scheme)
    bits = " (7 bits)" if scheme.reduce_range else ""
    return FileNotes(f"uint8 x int8{bits}, per channel, ranges found as it runs: {scheme.reason}")


def _mixed(source: Source, target: Path) -> FileNotes:
    rows, scheme = fit_inputs(source.float_file, source.rows), _scheme(source)
    with tempfile.TemporaryDirectory() as folder:
        static = static_onnx(_prepare(source, folder), scheme)
        return make_mixed(static, scheme.describe(), rows, source.request.wishes, target)


def _prepare(source: Source, folder: str) -> Path:
    prepared = Path(folder) / source.float_file.name
    prepare_onnx(source.float_file, prepared)
    return prepared


def _scheme(source: Source) -> OnnxScheme:
    processor = source.request.processor
    return find_scheme(source.request.int8_scheme, processor.machine, processor.flags)


EXPORTERS: dict[str, Exporter] = {
    "fp32": _fp32,
    "fp16": _fp16,
    "int8": _int8,
    "dynamic-int8": _dynamic,
    MIXED: _mixed,
}
"""Precision to the function that writes such a file and says how."""
