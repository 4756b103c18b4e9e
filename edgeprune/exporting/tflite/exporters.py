"""TFLite files of a program in each precision."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from edgeprune.core.formats import MIXED
from edgeprune.core.quantizing.ranges import Range
from edgeprune.exporting.formats import Exporter, FileNotes
from edgeprune.exporting.quantizing.mixed import make_mixed
from edgeprune.exporting.quantizing.static import Static, write_tuned
from edgeprune.exporting.request import FLOAT_NCHW, Form, Source
from edgeprune.exporting.runners import fit_inputs
from edgeprune.exporting.tflite.export import export_tflite
from edgeprune.exporting.tflite.quantize import INTEGERS, LEVELS, quantize_tflite, quantize_with_ranges


def static_tflite(source: Path, precision: str = "int8", form: Form = FLOAT_NCHW) -> Static:
    """Static quantization of a float TFLite file."""

    def quantize(path: Path, ranges: Mapping[str, Range], floats: Collection[str]) -> bytes:
        return quantize_with_ranges(path, ranges, precision, floats, form)

    return Static(source, quantize, optimised=True, levels=LEVELS)


def _fp32(source: Source, target: Path) -> FileNotes:
    export_tflite(source.program, source.example, target, source.request.form)
    return FileNotes("float32")


def _uncalibrated(precision: str, scheme: str, source: Source, target: Path) -> FileNotes:
    quantize_tflite(source.float_file, target, (), precision)
    return FileNotes(f"{scheme}: float32 inputs and outputs")


def _static(precision: str, scheme: str, source: Source, target: Path) -> FileNotes:
    form, rows = source.request.form, fit_inputs(source.float_file, source.rows)
    scheme = f"{scheme}: {INTEGERS[precision] if form.integers else 'float32'} inputs and outputs"
    if source.request.tuned:
        static = static_tflite(source.float_file, precision, form)
        return FileNotes(f"{scheme}; {write_tuned(static, rows, target)}")
    quantize_tflite(source.float_file, target, [rows], precision, form)
    return FileNotes(f"{scheme}; min-max")


def _mixed(source: Source, target: Path) -> FileNotes:
    rows = fit_inputs(source.float_file, source.rows)
    scheme = "int8 x int8, per channel, static: float32 inputs and outputs"
    return make_mixed(static_tflite(source.float_file), scheme, rows, source.request.wishes, target)


EXPORTERS: dict[str, Exporter] = {
    "fp32": _fp32,
    "fp16": partial(_uncalibrated, "fp16", "float16 weights, float32 arithmetic"),
    "int8": partial(_static, "int8", "int8 x int8, per channel, static"),
    "dynamic-int8": partial(
        _uncalibrated,
        "dynamic-int8",
        "int8 x int8, per channel (fully connected: per tensor), ranges found as it runs",
    ),
    "int16x8": partial(_static, "int16x8", "int16 x int8, per channel, static"),
    MIXED: _mixed,
}
"""Precision to the function that writes such a file and says how."""
