"""What a TFLite file takes and gives, read from its bytes: held against what LiteRT says of the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from device_models import CONV, LINEAR, make_model
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.tflite_ends import End, parse_ends
from edgeprune.errors import ExportError


@pytest.mark.parametrize("shape", [CONV, LINEAR], ids=LayerShape.describe)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_ends_are_those_that_litert_tells(shape: LayerShape, precision: str, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    path = make_model(tmp_path, "litert", shape, precision).path
    source, results = parse_ends(path.read_bytes())
    interpreter = Interpreter(model_path=str(path))
    for end, detail in (
        (source, interpreter.get_input_details()[0]),
        (results[0], interpreter.get_output_details()[0]),
    ):
        assert (end.shape, np.dtype(end.dtype)) == (tuple(detail["shape"]), np.dtype(detail["dtype"]))
        assert (end.scale, end.zero_point) == pytest.approx(detail["quantization"])
    assert len(results) == 1


def test_floats_become_the_whole_numbers_of_the_scale_and_back() -> None:
    end = End((1, 4), "int8", scale=0.5, zero_point=10)
    content = end.encode(np.array([[-100.0, 0.0, 1.26, 100.0]], np.float32))
    assert np.frombuffer(content, np.int8).tolist() == [-128, 10, 13, 127]
    assert end.decode(content, is_float=True).tolist() == [[-69.0, 0.0, 1.5, 58.5]]
    assert end.decode(content, is_float=False).tolist() == [[-128, 10, 13, 127]]


@pytest.mark.parametrize(
    ("end", "row", "said"),
    [
        (
            End((1, 2), "float32"),
            np.zeros((1, 3), np.float32),
            r"has 12 bytes; the file takes \[1, 2\] float32",
        ),
        (End((1, 2), "int8"), np.zeros((1, 2), np.float32), "inputs are float32, but the file takes int8"),
        (End((1, 2), "float32"), np.zeros((1, 2), np.int64), "inputs are int64, but the file takes float32"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(end: End, row: np.ndarray, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        end.encode(row)


@given(st.data())
def test_a_damaged_file_is_an_error_of_ours(tiny_file: bytes, data: st.DataObject) -> None:
    content = bytearray(tiny_file)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        parse_ends(cut)
    except ExportError as exc:
        assert "TFLite file" in str(exc) or "a file with one input" in str(exc)  # noqa: PT017


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_model(tmp_path_factory.mktemp("tiny"), "litert", LINEAR, "int8").path.read_bytes()
