"""What int8 files are made into for code generators computes the same, and says the right versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from integer_nets import build_integer_net

from edgeprune.core.latency.layers import LayerShape
from edgeprune.errors import ExportError
from edgeprune.exporting.tflite.integers import settle_integers
from edgeprune.exporting.tflite.probes import build_tflite_probe
from edgeprune.exporting.tflite.run import describe_tflite, run_tflite
from edgeprune.exporting.tflite.schema import name_kinds, pack_tflite, unpack_tflite
from edgeprune.exporting.tflite.versions import settle_versions

ROWS = np.random.default_rng(1).integers(-128, 128, (32, 8, 8, 4)).astype(np.int8)


def read_versions(content: bytes) -> list[tuple[str, int]]:
    schema, model = unpack_tflite(content)
    kind = name_kinds(schema, model)
    operators = model.subgraphs[0].operators
    return [(kind(operator), model.operatorCodes[operator.opcodeIndex].version) for operator in operators]


def run_content(content: bytes, folder: Path, rows: np.ndarray) -> np.ndarray:
    path = folder / "net.tflite"
    path.write_bytes(content)
    return run_tflite(path, rows, optimised=False)


def test_versions_are_those_of_tflites_table_and_the_file_computes_the_same(tmp_path: Path) -> None:
    content = build_integer_net()
    settled = settle_versions(content)
    assert read_versions(settled) == [("CONV_2D", 3), ("ADD", 2), ("MEAN", 2), ("FULLY_CONNECTED", 4)]
    np.testing.assert_array_equal(run_content(settled, tmp_path, ROWS), run_content(content, tmp_path, ROWS))


@pytest.mark.parametrize(("groups", "quantized", "version"), [(1, True, 3), (2, True, 6), (1, False, 1), (8, True, 3)])
def test_version_of_a_convolution(groups: int, quantized: bool, version: int) -> None:
    shape = LayerShape("conv", 8, 16, (3, 3), (1, 1), groups, (8, 8), (1, 1))
    ((_, settled),) = read_versions(settle_versions(build_tflite_probe([(shape, quantized)])))
    assert settled == version


def test_a_matrix_that_keeps_dimensions_or_has_no_bias_has_a_version_of_its_own() -> None:
    _, model = unpack_tflite(build_integer_net())
    operator = model.subgraphs[0].operators[-1]
    operator.builtinOptions.keepNumDims = True
    assert read_versions(settle_versions(pack_tflite(model)))[-1] == ("FULLY_CONNECTED", 5)
    operator.inputs = operator.inputs[:2]
    assert read_versions(settle_versions(pack_tflite(model)))[-1] == ("FULLY_CONNECTED", 6)


def test_operators_of_old_files_are_known_by_their_old_code() -> None:
    _, model = unpack_tflite(build_integer_net())
    for code in model.operatorCodes:
        code.builtinCode = 0
    assert read_versions(settle_versions(pack_tflite(model)))[0] == ("CONV_2D", 3)


def test_float_ends_are_cut_and_the_mean_becomes_a_convolution_that_computes_the_same(tmp_path: Path) -> None:
    content = build_integer_net(ends=True)
    settled = settle_integers(content)
    kinds = [kind for kind, _ in read_versions(settled)]
    assert kinds == ["CONV_2D", "ADD", "DEPTHWISE_CONV_2D", "RESHAPE", "FULLY_CONNECTED"]
    given = run_content(settled, tmp_path, ROWS)
    (source,), (result,) = describe_tflite(tmp_path / "net.tflite")
    assert (source.dtype, result.dtype) == ("int8", "int8")
    expected = run_content(build_integer_net(), tmp_path, ROWS)
    np.testing.assert_array_equal(given, expected)


def test_open_sizes_are_settled() -> None:
    _, model = unpack_tflite(build_integer_net())
    for tensor in model.subgraphs[0].tensors:
        tensor.shapeSignature = [-1, *list(tensor.shape)[1:]]
    _, settled = unpack_tflite(settle_integers(pack_tflite(model)))
    assert all(tensor.shapeSignature is None for tensor in settled.subgraphs[0].tensors)


def test_a_float_net_is_refused() -> None:
    shape = LayerShape("conv", 4, 4, (3, 3), (1, 1), 1, (8, 8), (1, 1))
    with pytest.raises(ExportError, match=r"input is no int8; expected a net in static int8"):
        settle_integers(build_tflite_probe([(shape, False)]))
