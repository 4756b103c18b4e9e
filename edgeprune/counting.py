"""Counting what a ready file takes on a microcontroller that QEMU emulates: instructions, never milliseconds."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from edgeprune.core.target import Target
from edgeprune.device.mcu.board import core_of
from edgeprune.device.mcu.counting import Counts, count_project
from edgeprune.exporting.c.generate import MODEL, generate_c
from edgeprune.exporting.tflite.run import run_tflite
from edgeprune.exporting.vectors import make_vectors


def count_file(path: Path, target: Target) -> tuple[Counts, int]:
    """What one inference of a static int8 TFLite file takes in QEMU, and by how many steps of int8 its worst output
    misses LiteRT's reference kernels there.

    Raises:
        TargetError: the target names no core that C is generated for.
        ExportError: the file is no static int8 net that the generator knows.
        DeviceError: a tool is missing, or the firmware does not run.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        net = generate_c(path, folder, core_of(target).name)
        inputs = make_vectors(tuple(net.facts["input_shape"]))
        counts = count_project(folder, core_of(target).name, inputs)
        expected = run_tflite(folder / MODEL, inputs, optimised=False)
        return counts, int(np.abs(counts.outputs.astype(int) - expected.astype(int)).max())
