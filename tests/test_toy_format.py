"""A file format and a runtime in one file, taken through the whole line: how to add one.

The toy format is ONNX behind four letters, and its runtime is ONNX Runtime. What a real one needs beside this is a
package in `edgeprune/exporting/` in place of `TOY`, and a module in `deploy/agent/` in place of `AGENT_MODULE`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from line import TINY
from torch import nn

import edgeprune as ep
from edgeprune.core import formats as core
from edgeprune.errors import ExportError, TargetError
from edgeprune.exporting import formats
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.files import write_file
from edgeprune.exporting.onnx.export import export_onnx
from edgeprune.exporting.onnx.format import FORMAT as ONNX
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.probing.probes import Layers, write_probes
from edgeprune.exporting.request import ExportRequest, Source
from edgeprune.exporting.runners import run_file
from edgeprune.shipped import load_target

pytestmark = pytest.mark.alone

MARK = b"TOY1"
TARGET = """
description = "This machine in the toy runtime"
runtime = "toyrt"
step = 8

[budget]
speedup = 1.3

[protocol]
min_samples = 20
min_duration_s = 0.1
rounds = 4
processes = 2
max_warmup_s = 0.2
"""
AGENT_MODULE = """
from edgeprune_agent import runtime_onnxruntime

FORMAT = "toy"
PACKAGES = {"onnxruntime": "onnxruntime"}


def load(ort, model, request):
    content = model if isinstance(model, bytes) else open(model, "rb").read()
    assert content[:4] == b"TOY1", content[:4]
    return runtime_onnxruntime.load(ort, content[4:], request)
"""


def unwrapped(path: Path, folder: str) -> Path:
    """The ONNX file that a toy file holds."""
    content = path.read_bytes()
    assert content[: len(MARK)] == MARK
    inner = Path(folder) / f"{path.stem}.onnx"
    inner.write_bytes(content[len(MARK) :])
    return inner


def export(source: Source, target: Path) -> formats.FileNotes:
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder) / "net.onnx"
        export_onnx(source.program, source.example, inner)
        write_file(target, MARK + inner.read_bytes())
    return formats.FileNotes("float32 behind four letters")


def run(path: Path, inputs: np.ndarray, optimised: bool = True, threads: int = 1) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        return ONNX.run(unwrapped(path, folder), inputs, optimised, threads)


def describe(path: Path) -> tuple[formats.Signatures, formats.Signatures]:
    with tempfile.TemporaryDirectory() as folder:
        return ONNX.describe(unwrapped(path, folder))


def embed(content: bytes, metadata: formats.Metadata) -> bytes:
    return MARK + ONNX.embed(content[len(MARK) :], metadata)


def read(content: bytes) -> dict[str, str]:
    return ONNX.read(content[len(MARK) :])


def build_probe(layers: Layers) -> bytes:
    return MARK + ONNX.build_probe(layers)


TOY = formats.Format(
    name="toy",
    tools=("torch",),
    load_exporters=lambda: {"fp32": export},
    run=run,
    describe=describe,
    embed=embed,
    read=read,
    build_probe=build_probe,
    probe_axes=(1, 2),
    kernels=TOLERANCES["kernels"],
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The target file, once format and runtime are known."""
    module = tmp_path / "runtime_toyrt.py"
    module.write_text(AGENT_MODULE)
    runtime = core.Runtime("toyrt", "toy", core.RUNTIMES["onnxruntime"].packages, agent_module=str(module))
    monkeypatch.setitem(core.FORMATS, "toy", core.FileFormat("toy", "Toy", ("fp32",), made_by="torch"))
    monkeypatch.setitem(core.RUNTIMES, "toyrt", runtime)
    monkeypatch.setitem(formats._loaded, "toy", TOY)
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "toy.toml"
    target.write_text(TARGET)
    return target


@pytest.mark.slow
def test_the_toy_format_goes_through_the_line(toy: Path, tmp_path: Path) -> None:
    told: list[str] = []
    deployment = ep.deploy(
        tmp_path / "run", told.append, target=str(toy), recipe=str(TINY), host="local", allow_busy=True
    )
    report = deployment.report
    assert report["result"]["artifact"] == "artifacts/pruned.fp32.toy"
    assert report["runtime"].startswith("toyrt ")
    rows = {row["path"]: row for row in report["artifacts"]}
    assert {row["format"] for row in rows.values()} >= {"onnx", "toy"}
    shipped, original = rows["artifacts/pruned.fp32.toy"], rows["artifacts/original.fp32.toy"]
    assert shipped["bytes"] < original["bytes"]
    assert shipped["quality"] == pytest.approx(rows["artifacts/pruned.fp32.onnx"]["quality"], abs=0.5)
    assert (tmp_path / "run" / shipped["path"]).read_bytes()[:4] == MARK
    measured = ep.measure(tmp_path / "run" / shipped["path"])
    assert (measured.runtime, measured.latency.p50_ms > 0) == ("toyrt", True)


def test_what_the_toy_format_lacks_is_told_before_anything_slow(toy: Path, tmp_path: Path) -> None:
    text = toy.read_text()
    for line, said in {
        'precision = "int8"': "precision: 'int8' is not known for toyrt",
        'provider = "cuda"': "provider: 'cuda' is for onnxruntime; toyrt does not know it",
        'io = "integer"': "io: 'integer' is for litert or tflm or c; toyrt does not know it",
        'int8_scheme = "s8s8"': "int8_scheme: 's8s8' is for onnxruntime; toyrt does not know it",
    }.items():
        toy.write_text(f"{line}\n{text}")
        with pytest.raises(TargetError, match=said):
            load_target(str(toy))


def test_toy_files_run_and_say_what_they_are_but_cannot_be_looked_into(toy: Path, tmp_path: Path) -> None:
    net = ep.trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)), torch.zeros(2, 3, 8, 8))
    (artifact,) = build_artifacts(
        net.program, net.example[:1], ExportRequest(tmp_path, "original", ("toy",), ("fp32",))
    )
    path = tmp_path / artifact.path
    rows = np.random.default_rng(0).standard_normal((3, *net.example.shape[1:])).astype(np.float32)
    wanted = net.program(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(run_file(path, rows), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ExportError, match="files of this format cannot be looked into"):
        formats.look_inside(path)
    (probe,) = write_probes([net.analysis.layers[0].shape], "toy", "fp32", tmp_path / "probes").values()
    assert probe.suffix == ".toy"
    assert probe.read_bytes()[:4] == MARK
