"""A budget of bytes: what it needs, and that a plan is made again where its file needs more than was foretold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeprune.core.latency.layers import Extent
from edgeprune.core.memory.arena import Buffer
from edgeprune.core.memory.learn import FileMemory
from edgeprune.core.memory.steps import NetMemory, Tensor
from edgeprune.core.planning.budget import Budget
from edgeprune.core.planning.limits import read_limits
from edgeprune.errors import InfeasibleBudget, TargetError
from edgeprune.stages import arena
from edgeprune.stages.job import Job, check_request
from edgeprune.stages.latency import budget_ms

FORMATS = {"onnxruntime": "onnx", "litert": "tflite", "auto": "auto"}


def job(budget: Budget, runtime: str = "litert", precision: str = "int8", **more: Any) -> Any:
    target = SimpleNamespace(
        budget=budget, gates=(), runtime=runtime, runtimes=() if runtime == "auto" else (runtime,), name="board",
        format=FORMATS[runtime], precision=precision, fitted_precision=precision, input_layout="nchw", io="float32",
    )  # fmt: skip
    run = SimpleNamespace(finished=lambda stage: False, request={}, **more)
    return SimpleNamespace(
        target=target, planned=target, run=run, formats=("onnx", "tflite"), recipe=Job, asked_gates=(), estimated=False,
        is_counted=False, detail=lambda text: None, read=lambda kind: SimpleNamespace(model_sha256="0", power_w=None),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [("onnxruntime", "int8"), ("auto", "int8"), ("litert", "auto"), ("litert", "mixed"), ("litert", "dynamic-int8")],
)
def test_memory_is_planned_only_for_files_that_are_laid_out_by_rules(runtime: str, precision: str) -> None:
    with pytest.raises(TargetError, match=f"found runtime {runtime} and precision {precision}; give --runtime litert"):
        check_request(job(Budget(sram_bytes=1000), runtime, precision))
    check_request(job(Budget(flash_bytes=1000), runtime, precision))
    check_request(job(Budget(sram_bytes=1000)))


def test_bytes_alone_are_a_budget_and_then_no_time_decides() -> None:
    with pytest.raises(TargetError, match="no budget"):
        check_request(job(Budget(macs=1000)))
    assert budget_ms(job(Budget(sram_bytes=1000)), 2.0) >= 20.0
    assert budget_ms(job(Budget(sram_bytes=1000, speedup=2.0)), 2.0) == 1.0


def test_the_tighter_of_file_and_flash_limits_the_weights() -> None:
    assert read_limits(Budget(flash_bytes=5000), "int8", 1000).weight_bytes == 4000
    assert read_limits(Budget(flash_bytes=5000, file_bytes=4000), "int8", 1000).weight_bytes == 3000
    with pytest.raises(InfeasibleBudget, match="a file of 900 bytes: 1,000 of them are not weights"):
        read_limits(Budget(flash_bytes=900), "int8", 1000)


def test_what_a_file_needs_beyond_what_was_foretold_is_kept_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foretold = NetMemory((Tensor("x", Extent(0, ((16, ("a",)),)), 0, 1),), ("CONV_2D",), Extent(100))
    counts = iter([0, 48, 0])
    monkeypatch.setattr(arena, "_learn", lambda job, net: foretold)
    monkeypatch.setattr(arena, "apply_plan", lambda *_: None)
    monkeypatch.setattr(arena, "build_variant", lambda *_: tmp_path / "planned.tflite")
    monkeypatch.setattr(arena, "read_file_memory", lambda path: FileMemory((Buffer("x", 128, 0, 1),), ("CONV_2D",)))
    monkeypatch.setattr(arena, "count_overhead", lambda path, file: 100 + next(counts))
    net: Any = SimpleNamespace(analysis=SimpleNamespace(groups=()), program=None, widths={"a": (8,)})
    own = job(Budget(sram_bytes=1000), directory=tmp_path)
    assert not arena.learn_from_plan(own, net, {"a": 8})
    assert arena.learn_from_plan(own, net, {"a": 8})
    assert arena.read_net_memory(own, net).count({"a": 8}) == 128 + 148
    assert not arena.learn_from_plan(own, net, {"a": 8})
    assert not arena.learn_from_plan(job(Budget(latency_ms=1.0)), net, {"a": 8})
