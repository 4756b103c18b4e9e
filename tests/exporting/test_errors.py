"""What cannot be exported or quantized is refused, with the reason and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_nets import ODD_SHAPE, OddNet, normal, seeded
from torch import nn

from edgeprune.errors import ExportError
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.onnx.quantize import choose_onnx_scheme, quantize_onnx
from edgeprune.exporting.request import ExportRequest
from edgeprune.exporting.runners import run_file

SCHEME = choose_onnx_scheme("x86_64", {"avx2"})
EXAMPLE = torch.zeros(1, *ODD_SHAPE)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "fp32.onnx"
    export_onnx(seeded(OddNet).eval(), EXAMPLE, path)
    return path


def test_weights_beside_the_file_are_read_and_brought_in(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "apart.onnx"
    onnx.save(onnx.load(source), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    quantize_onnx(path, tmp_path / "int8.onnx", [normal(8, *ODD_SHAPE)], SCHEME)
    (tmp_path / "weights.bin").rename(tmp_path / "moved.bin")
    assert run_file(tmp_path / "int8.onnx", normal(2, *ODD_SHAPE)).shape == (2, 4)


def test_weights_that_are_missing_beside_the_file_are_named(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "apart.onnx"
    onnx.save(onnx.load(source), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ExportError, match=r"apart\.onnx: .*weights\.bin"):
        quantize_onnx(path, tmp_path / "int8.onnx", [normal(8, *ODD_SHAPE)], SCHEME)


def test_a_size_left_open_is_refused(source: Path, tmp_path: Path) -> None:
    model = onnx.load(source)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "open.onnx")
    with pytest.raises(ExportError, match=r"open\.onnx: input has no fixed shape; export it with a batch of 1"):
        quantize_onnx(tmp_path / "open.onnx", tmp_path / "int8.onnx", [normal(8, *ODD_SHAPE)], SCHEME)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "calibration data: empty"),
        ([normal(2, 3, 16, 15)], r"batch 0: shape \[2, 3, 16, 15\]; the model takes \['N', 3, 16, 16\]"),
        ([normal(4, *ODD_SHAPE), normal(4, *ODD_SHAPE)[0]], "batch 1: shape"),
        ([np.full((2, *ODD_SHAPE), np.nan, np.float32)], "batch 0: NaN or infinity"),
        ([(normal(2, *ODD_SHAPE), 1)], "batch 0: is a tuple; expected an array"),
    ],
)
def test_calibration_data_that_do_not_fit_are_refused(
    calibration: list[np.ndarray], message: str, tmp_path: Path
) -> None:
    asked = ExportRequest(tmp_path, "pruned", ("onnx",), ("mixed",), calibration, tuned=True)
    with pytest.raises(ExportError, match=message):
        build_artifacts(seeded(OddNet).eval(), EXAMPLE, asked)


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    net = seeded(OddNet).eval()
    with torch.no_grad():
        net.point.bias[2] = torch.inf
    with pytest.raises(ExportError, match=r"NaN or infinity in point\.bias"):
        build_artifacts(net, EXAMPLE, ExportRequest(tmp_path, "pruned", ("onnx",), ("fp32",)))


class Determinant(nn.Module):
    """No format here has its operator."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(x[:, 0] @ x[:, 0].mT)


def test_an_operator_without_counterpart_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"eigh.* is not supported there"):
        export_onnx(Determinant().eval(), torch.ones(1, *ODD_SHAPE), tmp_path / "net.onnx")
