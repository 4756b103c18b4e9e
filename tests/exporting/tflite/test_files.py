"""TFLite files: float export, static int8, and what is said where the extra is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from export_nets import ODD_SHAPE, OddNet, normal, seeded, traced
from torch import Tensor, nn

from edgeprune.core.artifact import Signature
from edgeprune.errors import ExportError, MissingExtra
from edgeprune.exporting.checks import run_torch
from edgeprune.exporting.parity.chain import compare_outputs
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.runners import describe_file, run_file
from edgeprune.exporting.tflite.export import export_tflite
from edgeprune.exporting.tflite.quantize import quantize_tflite

pytest.importorskip("litert_torch", reason="the extra `edgeprune[tflite]` is not installed")


@pytest.fixture(scope="module")
def odd_program() -> nn.Module:
    return traced(seeded(OddNet), torch.zeros(1, *ODD_SHAPE))


@pytest.fixture(scope="module")
def odd_file(odd_program: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tflite") / "odd.tflite"
    export_tflite(odd_program, torch.zeros(1, *ODD_SHAPE), path)
    return path


def test_the_file_computes_what_the_program_computes(odd_program: nn.Module, odd_file: Path) -> None:
    inputs = normal(5, *ODD_SHAPE)
    np.testing.assert_allclose(run_file(odd_file, inputs), run_torch(odd_program, inputs), atol=1e-5)


def test_int8_keeps_float_inputs_and_outputs(odd_file: Path, tmp_path: Path) -> None:
    target, inputs = tmp_path / "int8.tflite", normal(64, *ODD_SHAPE)
    quantize_tflite(odd_file, target, [inputs[:40], inputs[40:]])
    (source,), (result,) = describe_file(target)
    assert source == Signature("args_0", (1, *ODD_SHAPE), "float32")
    assert (result.shape, result.dtype) == ((1, 4), "float32")
    figures = compare_outputs("int8", run_file(odd_file, inputs), run_file(target, inputs), TOLERANCES["int8"])
    assert figures.sqnr_db > 30
    assert figures.max_error > 1e-4  # it is int8 indeed


def test_a_rare_large_input_is_not_clipped(odd_file: Path, tmp_path: Path) -> None:
    rows = normal(64, *ODD_SHAPE)
    rows[3] *= 8
    quantize_tflite(odd_file, tmp_path / "int8.tflite", [rows])
    large = rows[3:4]
    figures = compare_outputs(
        "large", run_file(odd_file, large), run_file(tmp_path / "int8.tflite", large), TOLERANCES["int8"]
    )
    assert figures.sqnr_db > 30


def test_exporting_is_silent_and_reproducible(
    odd_program: nn.Module, odd_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again, first, second = (tmp_path / f"{name}.tflite" for name in ("again", "first", "second"))
    export_tflite(odd_program, torch.zeros(1, *ODD_SHAPE), again)
    for target in (first, second):
        quantize_tflite(odd_file, target, [normal(8, *ODD_SHAPE)])
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert again.read_bytes() == odd_file.read_bytes()
    assert first.read_bytes() == second.read_bytes()


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j1(x)


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x, -1)[0]


@pytest.mark.parametrize(
    ("program", "operator"), [(Bessel(), r"aten\.special_bessel_j1\.default"), (Sorted(), "STABLEHLO_SORT")]
)
def test_an_operator_without_lowering_or_kernel_is_named(program: nn.Module, operator: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"operator {operator} is not supported"):
        export_tflite(program.eval(), torch.zeros(1, 8), tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_say_what_to_install(odd_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install = r"pip install 'edgeprune\[tflite\]'"
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(MissingExtra, match=f"litert_torch .*; run: {install}"):
        export_tflite(nn.Linear(3, 2).eval(), torch.zeros(1, 3), tmp_path / "model.tflite")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(MissingExtra, match=f"tflite_runtime.*; run: {install}"):
        run_file(odd_file, normal(1, *ODD_SHAPE))


def test_broken_files_and_unfit_data_are_refused(odd_file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.tflite").write_bytes(b"not a flatbuffer")
    with pytest.raises(ExportError, match=r"broken\.tflite: reading"):
        run_file(tmp_path / "broken.tflite", normal(1, *ODD_SHAPE))
    with pytest.raises(ExportError, match=r"batch 0: shape \[2, 6, 64\]"):
        quantize_tflite(odd_file, tmp_path / "int8.tflite", [normal(2, 6, 64)])
