"""The main job on a causal net: dilated convolutions behind uneven padding, and a transposed one."""

from pathlib import Path

import pytest
from line import FOLDER, deploy

from edgeprune.core.latency.layers import TRANSPOSED
from edgeprune.core.latency.table import parse_table


@pytest.mark.slow
def test_dilated_and_transposed_layers_are_measured_as_they_are(tmp_path: Path) -> None:
    report, _ = deploy(tmp_path / "run", tmp_path / "cache", "--recipe", FOLDER / "recipes" / "dilated.py")
    text = (tmp_path / "run" / "latency_table.json").read_text()
    shapes = [point.shape for point in parse_table(text, "table").points]
    windows = {(shape.kernel, shape.dilation, shape.size, shape.output_size) for shape in shapes if shape.op == "conv"}
    assert {((3,), (), (16,), (16,)), ((3,), (4,), (16,), (16,)), ((3,), (2,), (16,), (12,))} <= windows
    turned = {(shape.stride, shape.size, shape.output_size) for shape in shapes if shape.op == TRANSPOSED}
    assert turned == {((2,), (12,), (24,))}
    made = {(row["format"], row["precision"]) for row in report["artifacts"] if row["role"] == "pruned"}
    assert made == {(form, precision) for form in ("onnx", "tflite") for precision in ("fp32", "fp16", "int8")}
    assert report["result"]["parameters"] < report["baseline"]["parameters"]
