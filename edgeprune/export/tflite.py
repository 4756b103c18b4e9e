"""TFLite: conversion by litert-torch, other precisions by ai-edge-quantizer. Both are an extra, imported when used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from edgeprune.errors import ExportError
from edgeprune.export.checks import Batch, check_program, gather_calibration
from edgeprune.export.files import write_file
from edgeprune.export.foreign import foreign
from edgeprune.export.runners import check_tflite, describe_file


def export_tflite(program: nn.Module, example: Tensor, path: Path) -> None:
    """Write `program`, in eval mode, as a float32 TFLite file with a static batch of 1.

    Input and output keep the program's own layout ([N, C, H, W] stays so); the converter transposes inside.

    Raises:
        ExportError: litert-torch is missing, the program is unfit (:func:`check_program`), an operator has no
            counterpart or no kernel in the runtime, the disk is full.
    """
    check_program(program, example)
    with foreign("TFLite export", path):
        content = _import("litert_torch").convert(program, (example,)).model_content()
        check_tflite(bytes(content))
    write_file(path, bytes(content))


def quantize_tflite(source: Path, target: Path, calibration: Iterable[Batch], precision: str = "int8") -> None:
    """Quantize the float TFLite file `source`; inputs and outputs stay float32, whatever is inside.

    `precision` is "int8" or "int16x8" (int8 weights per channel; int8 or int16 activations, whose ranges are the
    minimum and maximum over all rows of `calibration`, batches `[N, ...]`: the quantizer's own default, a moving
    average, clips, 8 dB lost on a ResNet-8); or, where `calibration` is not read, "fp16" (float16 weights, made
    float32 when the file is loaded) or "dynamic-int8" (int8 weights, ranges of activations found as it runs).

    Raises:
        ExportError: ai-edge-quantizer is missing, `source` is no such file, the calibration data do not fit it, or
            the target cannot be written.
    """
    (signature,), _ = describe_file(source)
    calibrated = precision in CALIBRATED
    rows = gather_calibration(calibration, signature.shape, signature.dtype) if calibrated else None
    with foreign(f"{precision} quantization", source):
        content = _quantize(source.read_bytes(), signature.name, rows, RECIPES[precision]())
    write_file(target, content)


def _quantize(model: bytes, name: str, rows: np.ndarray | None, recipe: Any) -> bytes:
    ranges = None if rows is None else _calibrate(model, name, rows, recipe)
    quantizer = _import("ai_edge_quantizer.quantizer").Quantizer(model, recipe.get_quantization_recipe())
    result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _calibrate(model: bytes, name: str, rows: np.ndarray, recipe: Any) -> Any:
    calibrator = _import("ai_edge_quantizer.calibrator").Calibrator(
        model, num_threads=1, qsv_update_func=_import("ai_edge_quantizer.utils.qsv_utils").min_max_update
    )
    signature = calibrator.get_signature_list()
    calibrator.calibrate({next(iter(signature)): [{name: row[None]} for row in rows]}, recipe)
    return calibrator.get_model_qsvs()


def _static_recipe(activations: str) -> Any:
    """Static ranges for every operator but the model's own inputs and outputs."""
    kinds = _import("ai_edge_quantizer.qtyping").TFLOperationName
    untouched = _import("ai_edge_quantizer.algorithm_manager").AlgorithmName.NO_QUANTIZE
    recipe = _recipe()
    recipe.load_quantization_recipe(getattr(_import("ai_edge_quantizer.recipe"), f"static_wi8_{activations}")())
    for kind in (kinds.INPUT, kinds.OUTPUT):
        recipe.add_quantization_config(".*", kind, None, untouched)
    return recipe


def _dynamic_recipe() -> Any:
    """A scale per channel, but one for all of a fully-connected layer: else tflite-runtime 2.14 gives garbage."""
    types, recipe = _import("ai_edge_quantizer.qtyping"), _recipe()
    recipe.load_quantization_recipe(_import("ai_edge_quantizer.recipe").dynamic_wi8_afp32())
    whole = types.QuantGranularity.TENSORWISE
    recipe.add_dynamic_config(".*", types.TFLOperationName.FULLY_CONNECTED, 8, granularity=whole)
    return recipe


def _half_recipe() -> Any:
    kinds = _import("ai_edge_quantizer.qtyping").TFLOperationName
    casting, recipe = _import("ai_edge_quantizer.algorithm_manager").AlgorithmName.FLOAT_CASTING, _recipe()
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
CALIBRATED = ("int8", "int16x8")
"""Precisions whose activation ranges are fixed beforehand."""


def _recipe() -> Any:
    return _import("ai_edge_quantizer.recipe_manager").RecipeManager()


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        package = module.partition(".")[0].replace("_", "-")
        raise ExportError(f"TFLite: {package} cannot be imported; run: pip install 'edgeprune[tflite]'") from exc
