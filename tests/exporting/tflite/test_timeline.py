"""TFLite files as steps: sizes, what is refused and in which words, and the counts of TensorFlow Lite Micro."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micro_files import MicroFile, build_residual
from places import ROOT

from edgeprune.errors import ExportError
from edgeprune.exporting.tflite.schema import pack_tflite, unpack_tflite
from edgeprune.exporting.tflite.timeline import read_memory, read_timeline

MLPERF = ROOT.parent / "shared" / "device_data" / "mlperf_tiny_models"
COUNTED = {"ad01_int8": 768, "kws_ref_model": 16_000, "vww_96_int8": 73_728, "pretrainedResnet_quant": 49_152}
"""Bytes of activations that tflite-micro 0.dev20261023182759 and mcufit 0.5.2 both count."""
RESIDUAL = build_residual()


def reduce_alone(op: str, kind: str, rank: int = 4) -> bytes:
    file = MicroFile((*[1] * (rank - 1), 64), kind)
    axes = file.add_tensor((rank - 2,), "INT32", np.arange(1, rank - 1))
    file.add(op, [0, axes], (1, 64), file.schema.ReducerOptionsT(), 2)
    return file.build()


def transpose_conv(kind: str) -> bytes:
    file = MicroFile((1, 8, 8, 4), kind)
    file.add_transposed_conv(file.add_conv(0, (4, 4), 8), (4, 4), 16)
    return file.build()


@pytest.mark.parametrize("name", COUNTED)
def test_activations_equal_the_interpreters_count(name: str) -> None:
    path = MLPERF / f"{name}.tflite"
    if not path.exists():
        pytest.skip("the files of MLPerf Tiny are not here")
    assert read_timeline(path.read_bytes(), name).arena.peak_bytes == COUNTED[name]


@pytest.mark.parametrize(
    ("content", "counted"),
    [
        (lambda: RESIDUAL, 2048),
        (lambda: build_residual("FLOAT32"), 8192),
        (lambda: reduce_alone("MEAN", "INT8"), 416),
        (lambda: reduce_alone("MEAN", "FLOAT32"), 544),
        (lambda: reduce_alone("MEAN", "FLOAT32", 5), 560),
        (lambda: reduce_alone("SUM", "INT8"), 416),
        (lambda: reduce_alone("REDUCE_MAX", "INT8"), 160),
        (lambda: transpose_conv("INT8"), 5376),
        (lambda: transpose_conv("FLOAT32"), 5120),
    ],
)
def test_buffers_of_operators_are_counted_as_the_interpreter_does(content: Callable[[], bytes], counted: int) -> None:
    """`counted` is what both builds print for these very files; test_micro.py asks them again where they are here."""
    assert read_timeline(content(), "net").arena.peak_bytes == counted


@pytest.mark.parametrize(
    "content",
    [lambda: RESIDUAL, lambda: reduce_alone("MEAN", "INT8"), lambda: transpose_conv("INT8")],
    ids=["residual", "mean", "transposed"],
)
def test_a_budget_is_planned_with_what_fit_counts(content: Callable[[], bytes], tmp_path: Path) -> None:
    """The buffers of operators too: where they were left out, a budget was held that the interpreter broke."""
    path, timeline = tmp_path / "net.tflite", read_timeline(content(), "net")
    path.write_bytes(content())
    memory = read_memory(path)
    assert memory.peak_bytes == timeline.arena.peak_bytes
    assert memory.operators == tuple(step.op for step in timeline.steps)
    ends = {buffer.name: (buffer.first, buffer.last) for buffer in memory.buffers}
    assert len(ends) == len(timeline.buffers)
    assert ends[timeline.labels[timeline.inputs[0]]][0] == 0
    assert max(last for _, last in ends.values()) == len(memory.operators)


def test_memory_is_told_of_files_that_tflm_does_not_run(tmp_path: Path) -> None:
    file = MicroFile((1, 4), "FLOAT32")
    file.add("DEQUANTIZE", [file.add_tensor((1, 4), "FLOAT16", np.zeros(4), "halves")], (1, 4))
    (tmp_path / "net.tflite").write_bytes(file.build())
    assert read_memory(tmp_path / "net.tflite").peak_bytes == 16
    (tmp_path / "net.tflite").write_bytes(b"\x00" * 64)
    with pytest.raises(ExportError, match="not a TFLite file"):
        read_memory(tmp_path / "net.tflite")


def test_steps_name_operators_and_what_they_make() -> None:
    timeline = read_timeline(RESIDUAL, "net")
    assert [step.op for step in timeline.steps] == ["CONV_2D", "CONV_2D", "CONV_2D", "ADD", "MEAN"]
    stem, total = timeline.steps[0].outputs[0], timeline.steps[3]
    assert stem in total.inputs
    assert timeline.tensors[stem].shape == (1, 8, 8, 8)
    assert all("weights" not in name for name in timeline.tensors)


def test_a_batch_that_is_open_counts_as_one() -> None:
    _, model = unpack_tflite(RESIDUAL)
    for tensor in model.subgraphs[0].tensors:
        if len(tensor.shape) == 4 and tensor.buffer == 0:
            tensor.shape = np.array([-1, *tensor.shape[1:]], np.int32)
    assert read_timeline(pack_tflite(model), "net").arena.peak_bytes == 2048


def test_tensors_of_one_name_are_told_apart() -> None:
    _, model = unpack_tflite(RESIDUAL)
    for tensor in model.subgraphs[0].tensors:
        tensor.name = b"same"
    timeline = read_timeline(pack_tflite(model), "net")
    assert (len(timeline.tensors), timeline.arena.peak_bytes) == (6, 2048)


def test_operators_that_it_lacks_are_named_with_their_steps() -> None:
    file = MicroFile((1, 8, 8, 4), "FLOAT32")
    first = file.add("GELU", [0], (1, 8, 8, 4))
    file.add("POW", [file.add("GELU", [first], (1, 8, 8, 4)), first], (1, 8, 8, 4))
    with pytest.raises(ExportError, match=r"net: TensorFlow Lite Micro has no GELU \(step 0, 1\), POW \(step 2\)"):
        read_timeline(file.build(), "net")


def test_dynamic_range_is_refused() -> None:
    file = MicroFile((1, 8, 8, 4), "FLOAT32")
    file.add_conv(0, (4, 8), 8, "INT8")
    with pytest.raises(
        ExportError, match=r"CONV_2D has float activations and weights of 8 bits .* int8 \(static\) or fp32"
    ):
        read_timeline(file.build(), "net")  # fmt: skip


def test_half_precision_is_refused() -> None:
    file = MicroFile((1, 4), "FLOAT32")
    file.add("DEQUANTIZE", [file.add_tensor((1, 4), "FLOAT16", np.zeros(4), "halves")], (1, 4))
    with pytest.raises(ExportError, match="tensor halves is FLOAT16"):
        read_timeline(file.build(), "net")


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x00" * 64, b"ONNX" * 10])
def test_what_is_no_such_file_is_told(content: bytes) -> None:
    with pytest.raises(ExportError, match="net: not a TFLite file"):
        read_timeline(content, "net")


@settings(max_examples=60, deadline=None)
@given(st.integers(8, len(RESIDUAL) - 1), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_an_error_of_ours_or_read(place: int, noise: bytes) -> None:
    for content in (RESIDUAL[:place], RESIDUAL[:place] + noise + RESIDUAL[place + len(noise) :]):
        with contextlib.suppress(ExportError):
            read_timeline(content, "net")
