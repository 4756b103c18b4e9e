"""TFLite: conversion by litert-torch, static int8 by ai-edge-quantizer. Both are an extra, imported when used."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
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


def quantize_tflite(source: Path, target: Path, calibration: Iterable[Batch]) -> None:
    """Quantize the float TFLite file `source`: int8 weights (per channel) and int8 activations.

    Inputs and outputs stay float32, quantized and dequantized inside, so that the same float input runs on every
    artifact. Activation ranges are the minimum and maximum over all rows of `calibration` (batches `[N, ...]`): the
    quantizer's own default, a moving average, clips (8 dB lost on a ResNet-8).

    Raises:
        ExportError: ai-edge-quantizer is missing, `source` is no such file, the calibration data do not fit it, or
            the target cannot be written.
    """
    (signature,), _ = describe_file(source)
    rows = gather_calibration(calibration, signature.shape, signature.dtype)
    with foreign("int8 quantization", source):
        content = _quantize(source.read_bytes(), signature.name, rows)
    write_file(target, content)


def _quantize(model: bytes, name: str, rows: np.ndarray) -> bytes:
    recipe = _static_recipe()
    calibrator = _import("ai_edge_quantizer.calibrator").Calibrator(
        model, num_threads=1, qsv_update_func=_import("ai_edge_quantizer.utils.qsv_utils").min_max_update
    )
    signature = calibrator.get_signature_list()
    calibrator.calibrate({next(iter(signature)): [{name: row[None]} for row in rows]}, recipe)
    quantizer = _import("ai_edge_quantizer.quantizer").Quantizer(model, recipe.get_quantization_recipe())
    result = quantizer.quantize(calibrator.get_model_qsvs(), enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _static_recipe() -> Any:
    """Static int8 for every operator but the model's own inputs and outputs."""
    kinds = _import("ai_edge_quantizer.qtyping").TFLOperationName
    untouched = _import("ai_edge_quantizer.algorithm_manager").AlgorithmName.NO_QUANTIZE
    recipe = _import("ai_edge_quantizer.recipe_manager").RecipeManager()
    recipe.load_quantization_recipe(_import("ai_edge_quantizer.recipe").static_wi8_ai8())
    for kind in (kinds.INPUT, kinds.OUTPUT):
        recipe.add_quantization_config(".*", kind, None, untouched)
    return recipe


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        package = module.partition(".")[0].replace("_", "-")
        raise ExportError(f"TFLite: {package} cannot be imported; run: pip install 'edgeprune[tflite]'") from exc
