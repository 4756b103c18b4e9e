"""TFLite in other precisions, by ai-edge-quantizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.core.artifact import Signature
from edgeprune.core.formats import STATIC
from edgeprune.core.quantizing.ranges import Range
from edgeprune.exporting.checks import Batch, gather_calibration
from edgeprune.exporting.files import write_file
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.quantizing.observe import find_endless, is_endless, observe_extremes
from edgeprune.exporting.request import FLOAT_NCHW, Form
from edgeprune.exporting.runners import describe_file
from edgeprune.exporting.tflite.biases import fit_tflite_biases
from edgeprune.exporting.tflite.libraries import import_library
from edgeprune.exporting.tflite.versions import settle_versions


def quantize_tflite(
    source: Path,
    target: Path,
    calibration: Iterable[Batch],
    precision: str = "int8",
    form: Form = FLOAT_NCHW,
) -> None:
    """Quantize the float TFLite file `source`; inputs and outputs stay float32, unless `form.integers`.

    `precision` is "int8" or "int16x8" (int8 weights per channel; int8 or int16 activations, whose ranges are the
    minimum and maximum over all rows of `calibration`, batches `[N, ...]`: the quantizer's own default, a moving
    average, clips, 8 dB lost on a ResNet-8); or, where `calibration` is not read, "fp16" (float16 weights, made
    float32 when the file is loaded) or "dynamic-int8" (int8 weights, ranges of activations found as it runs).

    Raises:
        ExportError: ai-edge-quantizer is missing, `source` is no such file, the calibration data do not fit it, or
            the target cannot be written.
    """
    if precision not in STATIC:
        with foreign(f"{precision} quantization", source):
            content = _quantize(source.read_bytes(), RECIPES[precision]())
    else:
        (signature,), _ = describe_file(source)
        rows = gather_calibration(calibration, signature.shape, signature.dtype)
        content = quantize_with_ranges(source, observe_extremes(source, rows), precision, form=form)
    write_file(target, content)


def quantize_with_ranges(
    source: Path,
    ranges: Mapping[str, Range],
    precision: str = "int8",
    floats: Collection[str] = (),
    form: Form = FLOAT_NCHW,
) -> bytes:
    """A file in a precision of STATIC, with these ranges of its tensors; layers named in `floats` stay float, as
    do operators that read or give infinity.

    Raises:
        ExportError: `source` is no float TFLite file, or it cannot be quantized.
    """
    (signature,), _ = describe_file(source)
    with foreign(f"{precision} quantization", source):
        recipe, model = RECIPES[precision](), source.read_bytes()
        for kind in () if form.integers else (_kinds().INPUT, _kinds().OUTPUT):
            recipe.add_quantization_config(".*", kind, None, _untouched())
        for name in (*floats, *find_endless(source, ranges)):
            recipe.add_quantization_config(f"^{re.escape(name)};?$", _kinds().ALL_SUPPORTED, None, _untouched())
        statistics = _calibrate(model, signature, recipe)
        for name in statistics.keys() & {name for name, ends in ranges.items() if not is_endless(ends)}:
            low, high = ranges[name]
            statistics[name] |= {
                "min": np.full_like(statistics[name]["min"], low),
                "max": np.full_like(statistics[name]["max"], high),
            }
        return settle_versions(fit_tflite_biases(_quantize(model, recipe, statistics), source))


def _quantize(model: bytes, recipe: Any, ranges: Any = None) -> bytes:
    quantizer = import_library("ai_edge_quantizer.quantizer").Quantizer(model, recipe.get_quantization_recipe())
    result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _calibrate(model: bytes, signature: Signature, recipe: Any) -> dict[str, dict[str, Any]]:
    """What the quantizer wants to know of each tensor, as it finds it for an input of zeros."""
    calibrator = import_library("ai_edge_quantizer.calibrator").Calibrator(model, num_threads=1)
    zeros = np.zeros(signature.shape, signature.dtype)
    calibrator.calibrate({next(iter(calibrator.get_signature_list())): [{signature.name: zeros}]}, recipe)
    statistics: dict[str, dict[str, Any]] = calibrator.get_model_qsvs()
    return statistics


def _static_recipe(activations: str) -> Any:
    """Static ranges for every operator, the model's own inputs and outputs among them."""
    recipe = _recipe()
    recipe.load_quantization_recipe(getattr(import_library("ai_edge_quantizer.recipe"), f"static_wi8_{activations}")())
    return recipe


def _dynamic_recipe() -> Any:
    """A scale per channel, but one for all of a fully-connected layer: else tflite-runtime 2.14 gives garbage."""
    types, recipe = import_library("ai_edge_quantizer.qtyping"), _recipe()
    recipe.load_quantization_recipe(import_library("ai_edge_quantizer.recipe").dynamic_wi8_afp32())
    whole = types.QuantGranularity.TENSORWISE
    recipe.add_dynamic_config(".*", types.TFLOperationName.FULLY_CONNECTED, 8, granularity=whole)
    return recipe


def _half_recipe() -> Any:
    kinds = _kinds()
    casting, recipe = import_library("ai_edge_quantizer.algorithm_manager").AlgorithmName.FLOAT_CASTING, _recipe()
    weighted = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP")
    for kind in weighted:  # all that the quantizer can cast
        recipe.add_weight_only_config(".*", kinds[kind], 16, algorithm_key=casting)
    return recipe


RECIPES: dict[str, Callable[[], Any]] = {
    "fp16": _half_recipe,
    "int8": partial(_static_recipe, "ai8"),
    "dynamic-int8": _dynamic_recipe,
    "int16x8": partial(_static_recipe, "ai16"),
}
"""Precision to the function that makes the quantizer's recipe for it."""
INTEGERS = {"int8": "int8", "int16x8": "int16"}
"""What a file of such a precision takes and gives where it does so in integers."""
LEVELS = 127
"""Weights are held as integers from -LEVELS to LEVELS."""


def _kinds() -> Any:
    return import_library("ai_edge_quantizer.qtyping").TFLOperationName


def _untouched() -> Any:
    return import_library("ai_edge_quantizer.algorithm_manager").AlgorithmName.NO_QUANTIZE


def _recipe() -> Any:
    return import_library("ai_edge_quantizer.recipe_manager").RecipeManager()
