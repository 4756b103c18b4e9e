"""What TensorFlow Lite Micro counts: equal to the plan, by the best counter here, never without a source."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
from micro_files import MicroFile, build_residual

from edgeprune.core.memory.fit import COUNTED_32, COUNTED_64, PLANNED
from edgeprune.core.memory.timeline import Timeline
from edgeprune.errors import ExportError, MissingExtra
from edgeprune.exporting.tflite import micro
from edgeprune.exporting.tflite.micro import count_32_bit, count_64_bit, count_arena
from edgeprune.exporting.tflite.timeline import read_timeline

HAS_64 = importlib.util.find_spec("tflite_micro") is not None
HAS_32 = importlib.util.find_spec("mcufit") is not None and shutil.which("node") is not None
counts_64 = pytest.mark.skipif(not HAS_64, reason="tflite-micro is not installed")
counts_32 = pytest.mark.skipif(not HAS_32, reason="mcufit or node is not here")

TABLE = """
[[ Table ]]: Arena
        Arena   Bytes   % Arena
        Total | 24908 |   100.00
NonPersistent | 16000 |    64.24
   Persistent |  8908 |    35.76
"""
ALLOCATIONS = """
[RecordingMicroAllocator] Arena allocation head 768 bytes
[RecordingMicroAllocator] Arena allocation tail 3216 bytes
[RecordingMicroAllocator] 'TfLiteEvalTensor data' used 744 bytes with alignment overhead (requested 744 bytes)
[RecordingMicroAllocator] 'Persistent TfLiteTensor data' used 128 bytes with alignment overhead
[RecordingMicroAllocator] 'Persistent TfLiteTensor quantization data' used 64 bytes with alignment overhead
[RecordingMicroAllocator] 'Persistent buffer data' used 832 bytes with alignment overhead (requested 736 bytes)
[RecordingMicroAllocator] 'NodeAndRegistration struct' used 640 bytes with alignment overhead
"""


def transpose_conv(kind: str) -> bytes:
    file = MicroFile((1, 8, 8, 4), kind)
    file.add_transposed_conv(file.add_conv(0, (4, 4), 8), (4, 4), 16)
    return file.build()


@pytest.fixture
def net(tmp_path: Path) -> tuple[Path, Timeline]:
    path = tmp_path / "net.tflite"
    path.write_bytes(build_residual())
    return path, read_timeline(path.read_bytes(), "net")


@pytest.mark.parametrize("kind", ["INT8", "FLOAT32"])
@pytest.mark.parametrize(
    "count", [pytest.param(count_32_bit, marks=counts_32), pytest.param(count_64_bit, marks=counts_64)]
)
def test_the_interpreter_takes_what_is_planned(count: object, kind: str, tmp_path: Path) -> None:
    for number, content in enumerate((build_residual(kind), transpose_conv(kind))):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(content)
        timeline = read_timeline(content, "net")
        counted = count(path, timeline)  # type: ignore[operator]
        assert counted.activation_bytes == timeline.arena.peak_bytes
        assert counted.persistent_bytes > 500


@counts_64
def test_what_the_interpreter_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    file = MicroFile((1, 64))
    file.add("SOFTMAX", [0], (1, 64), file.schema.SoftmaxOptionsT(), 2)  # its output must begin at -128
    path = tmp_path / "net.tflite"
    path.write_bytes(file.build())
    with pytest.raises(ExportError, match=r"net\.tflite: TensorFlow Lite Micro does not run it: .*softmax"):
        count_arena(path, read_timeline(path.read_bytes(), "net"))


def test_the_table_of_the_32_bit_build_is_read(net: tuple[Path, Timeline], monkeypatch: pytest.MonkeyPatch) -> None:
    if not HAS_32:
        pytest.skip("mcufit or node is not here")
    monkeypatch.setattr(micro, "_run", lambda *_: TABLE)
    count = count_32_bit(*net)
    assert (count.activation_bytes, count.persistent_bytes, count.counted_by) == (16_000, 8908, COUNTED_32)


@counts_64
def test_entries_with_pointers_are_made_smaller(net: tuple[Path, Timeline], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro, "_run", lambda *_: ALLOCATIONS)
    count = count_64_bit(*net)
    assert count.persistent_bytes == 3216 - 744 // 2 - 640 // 2 - 128 * 3 // 8 - 64 * 3 // 8
    assert (count.activation_bytes, count.counted_by) == (768, COUNTED_64)


@counts_64
def test_without_node_the_other_counter_is_taken(net: tuple[Path, Timeline], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    count, notes = count_arena(*net)
    assert count.counted_by == COUNTED_64
    assert "no program `node`" in notes[0]


def test_without_any_counter_the_plan_says_that_it_is_one(
    net: tuple[Path, Timeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MissingExtra("not here; run: pip install 'edgeprune[mcu]'")

    monkeypatch.setattr(micro, "count_32_bit", refuse)
    monkeypatch.setattr(micro, "count_64_bit", refuse)
    count, notes = count_arena(*net)
    assert (count.activation_bytes, count.persistent_bytes, count.counted_by) == (2048, None, PLANNED)
    assert len(notes) == 2


@counts_64
def test_an_interpreter_that_hangs_is_ended(net: tuple[Path, Timeline], monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: object, **options: float) -> None:
        raise subprocess.TimeoutExpired("tflm", options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(ExportError, match="did not end within 120 s"):
        count_64_bit(*net)
