"""ONNX files: float export, int8 schemes, running and describing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from export_nets import ODD_SHAPE, OddNet, normal, seeded, traced
from torch import Tensor, nn

import edgeprune
from edgeprune.core.artifact import Signature
from edgeprune.errors import ExportError
from edgeprune.exporting.checks import run_torch
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.onnx.quantize import OnnxScheme, choose_onnx_scheme, quantize_onnx
from edgeprune.exporting.runners import describe_file, run_file
from edgeprune.recipes.networks import MotionCNN

SCHEMES = [
    OnnxScheme(activations, "int8", reduced, layout, "test")
    for activations in ("uint8", "int8")
    for reduced in (False, True)
    for layout in ("qdq", "qoperator")
]


@pytest.fixture(scope="module")
def odd_program() -> nn.Module:
    return traced(seeded(OddNet), torch.zeros(1, *ODD_SHAPE))


@pytest.fixture(scope="module")
def odd_file(odd_program: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "odd.onnx"
    export_onnx(odd_program, torch.zeros(1, *ODD_SHAPE), path)
    return path


def test_the_file_computes_what_the_program_computes(odd_program: nn.Module, odd_file: Path) -> None:
    inputs = normal(5, *ODD_SHAPE)
    np.testing.assert_allclose(run_file(odd_file, inputs), run_torch(odd_program, inputs), atol=1e-5)


def test_names_and_shapes_of_the_file(odd_file: Path) -> None:
    assert describe_file(odd_file) == (
        (Signature("input", (1, *ODD_SHAPE), "float32"),),
        (Signature("output", (1, 4), "float32"),),
    )


def test_one_dimensional_nets_are_exported_too(tmp_path: Path) -> None:
    program = traced(seeded(MotionCNN), torch.zeros(1, 6, 64))
    export_onnx(program, torch.zeros(1, 6, 64), tmp_path / "motion.onnx")
    inputs = normal(3, 6, 64)
    np.testing.assert_allclose(run_file(tmp_path / "motion.onnx", inputs), run_torch(program, inputs), atol=1e-5)


def test_exporting_is_silent_reproducible_and_tells_no_machine_paths(
    odd_program: nn.Module, odd_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export_onnx(odd_program, torch.zeros(1, *ODD_SHAPE), tmp_path / "again.onnx")
    quantize_onnx(odd_file, tmp_path / "int8.onnx", [normal(8, *ODD_SHAPE)], SCHEMES[0])
    quantize_onnx(odd_file, tmp_path / "int8_again.onnx", [normal(8, *ODD_SHAPE)], SCHEMES[0])
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert (tmp_path / "again.onnx").read_bytes() == odd_file.read_bytes()
    assert (tmp_path / "int8.onnx").read_bytes() == (tmp_path / "int8_again.onnx").read_bytes()
    here = str(Path(edgeprune.__file__).parents[1]).encode()
    assert not any(here in path.read_bytes() or b'File "' in path.read_bytes() for path in tmp_path.glob("*.onnx"))


def test_exporting_leaves_the_program_as_it_was(odd_program: nn.Module, tmp_path: Path) -> None:
    before = {name: (value.clone(), value.requires_grad) for name, value in odd_program.named_parameters()}
    export_onnx(odd_program, torch.zeros(1, *ODD_SHAPE), tmp_path / "odd.onnx")
    for name, value in odd_program.named_parameters():
        assert torch.equal(value, before[name][0])
        assert value.requires_grad == before[name][1]


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j1(x).flatten(1)


class Twins(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Overflow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + 1) / 0


class Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


@pytest.mark.parametrize(
    ("program", "example", "message"),
    [
        (Bessel(), torch.zeros(1, 3), r"operator prims\.bessel_j1 is not supported"),
        (Twins(), torch.zeros(1, 3), "gives a tuple; exactly one output tensor"),
        (Overflow(), torch.zeros(1, 3), "NaN or infinity in the output"),
        (Whole(), torch.zeros(1, 3), r"output of shape \[\] for a batch of one"),
        (nn.Linear(4, 2), torch.zeros(1, 3), r"fails on an input of shape \[1, 3\]"),
        (nn.Linear(3, 2), torch.zeros(2, 3), r"shape \[2, 3\]; expected a batch of one"),
    ],
)
def test_an_unfit_program_is_refused(program: nn.Module, example: Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        export_onnx(program.eval(), example, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        net[1].weight[0, 0] = float("nan")
    with pytest.raises(ExportError, match=r"NaN or infinity in 1\.weight"):
        export_onnx(net, torch.zeros(1, 3), tmp_path / "model.onnx")


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: f"{s.activations}-{s.reduce_range}-{s.layout}")
def test_every_scheme_is_what_the_file_holds(odd_file: Path, tmp_path: Path, scheme: OnnxScheme) -> None:
    target, inputs = tmp_path / "int8.onnx", normal(32, *ODD_SHAPE)
    quantize_onnx(odd_file, target, [inputs], scheme)
    graph = onnx.load(target).graph
    operators = {node.op_type for node in graph.node}
    assert ("QLinearConv" in operators) == (scheme.layout == "qoperator")
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    weights = [array for array in arrays.values() if array.dtype == np.int8 and array.ndim == 4]
    assert len(weights) == 3
    assert max(np.abs(array.astype(int)).max() for array in weights) == (64 if scheme.reduce_range else 127)
    assert _zero_point_dtype(graph, arrays) == scheme.activations
    assert {len(array) for name, array in arrays.items() if "scale" in name and array.ndim} >= {7, 5}
    np.testing.assert_allclose(run_file(target, inputs, optimised=False), run_file(odd_file, inputs), atol=0.15)


def _zero_point_dtype(graph: Any, arrays: dict[str, np.ndarray]) -> str:
    return arrays[_input_quantizer(graph).input[2]].dtype.name


def _input_quantizer(graph: Any) -> Any:
    return next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "input")


def test_ranges_span_all_calibration_rows(odd_file: Path, tmp_path: Path) -> None:
    rows = normal(40, *ODD_SHAPE)
    rows[7, 0, 0, 0] = 25.0
    quantize_onnx(odd_file, tmp_path / "int8.onnx", [rows[:30], rows[30:]], SCHEMES[0])
    graph = onnx.load(tmp_path / "int8.onnx").graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    assert arrays[_input_quantizer(graph).input[1]] == pytest.approx((25.0 - rows.min()) / 255, rel=1e-5)


@pytest.mark.parametrize(("optimised", "level"), [(True, "ORT_ENABLE_ALL"), (False, "ORT_DISABLE_ALL")])
def test_the_runtime_gets_the_threads_and_the_optimisation_asked_for(
    odd_file: Path, monkeypatch: pytest.MonkeyPatch, optimised: bool, level: str
) -> None:
    seen: list[tuple[int, str]] = []
    session = onnxruntime.InferenceSession

    def spy(path: str, options: Any, **rest: Any) -> Any:
        seen.append((options.intra_op_num_threads, options.graph_optimization_level.name))
        return session(path, options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    run_file(odd_file, normal(1, *ODD_SHAPE), optimised=optimised, threads=2)
    assert seen == [(2, level)]


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", {"avx2", "avx512f"}, ("uint8", True)),
        ("x86_64", {"avx2", "avx_vnni"}, ("uint8", False)),
        ("AMD64", {"avx512_vnni"}, ("uint8", False)),
        ("aarch64", {"asimd", "asimddp"}, ("int8", False)),
        ("aarch64", {"asimd"}, ("int8", False)),
        ("riscv64", set(), ("uint8", True)),
    ],
)
def test_the_scheme_follows_the_processor(machine: str, flags: set[str], expected: tuple[str, bool]) -> None:
    scheme = choose_onnx_scheme(machine, flags)
    assert (scheme.activations, scheme.reduce_range) == expected
    assert machine in scheme.describe()


def test_an_unknown_scheme_lists_the_valid_names() -> None:
    with pytest.raises(ExportError, match=r"layout 'qqq'; choose from qdq, qoperator"):
        OnnxScheme("int8", "int8", False, "qqq", "")


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "calibration data: empty"),
        ([np.zeros((0, *ODD_SHAPE), np.float32)], "calibration data: empty"),
        ([normal(2, *ODD_SHAPE), normal(2, 16, 16, 3)], r"batch 1: shape \[2, 16, 16, 3\]; the model takes"),
        ([normal(2, 3, 8, 8)], r"batch 0: shape \[2, 3, 8, 8\]"),
        ([(normal(2, *ODD_SHAPE), np.zeros(2))], "batch 0: is a tuple"),
        ([np.full((2, *ODD_SHAPE), np.nan, np.float32)], "batch 0: NaN or infinity"),
    ],
)
def test_unfit_calibration_data_are_refused(
    odd_file: Path, tmp_path: Path, calibration: list[Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        quantize_onnx(odd_file, tmp_path / "int8.onnx", calibration, SCHEMES[0])


def test_files_that_cannot_be_run_are_refused(odd_file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(odd_file.read_bytes()[:200])
    for path, message in [
        (tmp_path / "missing.onnx", "missing.onnx: reading"),
        (tmp_path / "broken.onnx", "broken.onnx: reading"),
        (tmp_path / "model.pb", "suffix '.pb' is none of .onnx, .tflite"),
    ]:
        with pytest.raises(ExportError, match=message):
            run_file(path, normal(1, *ODD_SHAPE))
    with pytest.raises(ExportError, match=r"shape \[2, 3, 8, 8\] float32; expected at least one row of \[3, 16, 16\]"):
        run_file(odd_file, normal(2, 3, 8, 8))
    with pytest.raises(ExportError, match="float64; expected"):
        run_file(odd_file, normal(2, *ODD_SHAPE).astype(np.float64))
