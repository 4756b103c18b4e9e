"""TFLite, float: conversion by litert-torch."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from edgeprune.exporting.checks import check_image, check_program
from edgeprune.exporting.files import write_file
from edgeprune.exporting.foreign import foreign
from edgeprune.exporting.request import FLOAT_NCHW, Form
from edgeprune.exporting.tflite.libraries import import_library
from edgeprune.exporting.tflite.run import check_tflite


def export_tflite(program: nn.Module, example: Tensor, path: Path, form: Form = FLOAT_NCHW) -> None:
    """Write `program`, in eval mode, as a float32 TFLite file with a static batch of 1.

    Input and output keep the program's own layout ([N, C, H, W] stays so); the converter transposes inside. With
    `form.nhwc` the input is [N, H, W, C].

    Raises:
        ExportError: litert-torch is missing, the program is unfit (:func:`check_program`), an operator has no
            counterpart or no kernel in the runtime, the disk is full.
    """
    check_program(program, example)
    with foreign("TFLite export", path):
        converter = import_library("litert_torch")
        if form.nhwc:
            check_image(example, path)
            program = converter.to_channel_last_io(program, args=[0])
            program.training = False  # eval() would call that of an exported graph, which has none
            example = example.moveaxis(1, -1).contiguous()
        content = converter.convert(program, (example,)).model_content()
        check_tflite(bytes(content))
    write_file(path, bytes(content))
