"""What vela says of a file is read from its summary, and a vela that is missing or refuses is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.errors import ExportError, MissingExtra
from edgeprune.exporting.tflite.vela import estimate_by_vela, parse_summary

HEAD = (
    "experiment,network,accelerator_configuration,system_config,memory_mode,core_clock,sram_memory_used,"
    "dram_memory_used,on_chip_flash_memory_used,off_chip_flash_memory_used,nn_macs,cycles_npu,cycles_total"
)
ROW = (
    "default,kws_ref_model,Ethos_U55_128,Ethos_U55_High_End_Embedded,Shared_Sram,500000000.0,21.671875,0.0,0.0,30.375,"
    "2664792,88902,89900"
)
"""Columns of what ethos-u-vela 5.2.0 wrote of the reference model of MLPerf Tiny's keyword spotting."""
PRINTED = "\nCPU operators = 2 (5.0%)\nNPU operators = 39 (95.0%)\n"


def test_a_summary_is_read_with_its_units() -> None:
    estimate = parse_summary(f"{HEAD}\n{ROW}\n", PRINTED, "a.tflite")
    assert (estimate.cycles, estimate.clock_mhz, estimate.macs) == (89900, 500, 2664792)
    assert (estimate.sram_bytes, estimate.flash_bytes) == (22192, 31104)
    assert estimate.latency_ms == pytest.approx(0.1798)
    assert estimate.cpu_operators == 2
    assert parse_summary(f"{HEAD}\n{ROW}\n", "", "a.tflite").cpu_operators is None


@pytest.mark.parametrize(
    "text", ["", HEAD, f"{HEAD}\n{ROW}\n{ROW}", f"{HEAD}\n{ROW[:60]}", f"{HEAD}\n{ROW.replace('89900', '0')}"]
)
def test_another_summary_is_refused(text: str) -> None:
    with pytest.raises(ExportError, match=r"a\.tflite: vela's summary is not as known"):
        parse_summary(text, PRINTED, "a.tflite")


def put_vela(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    program = folder / "vela"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "a.tflite"


def test_vela_is_asked_for_the_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'echo "$@" > {tmp_path}/words\nprintf "{HEAD}\\n{ROW}\\n" > x_summary_y.csv\necho "CPU operators = 0"'
    estimate = estimate_by_vela(put_vela(tmp_path, monkeypatch, script), "ethos-u55-256")
    assert (estimate.cycles, estimate.cpu_operators) == (89900, 0)
    assert "a.tflite --accelerator-config ethos-u55-256 " in (tmp_path / "words").read_text()


def test_a_refusal_is_told_by_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = put_vela(tmp_path, monkeypatch, "echo first >&2; echo no such thing >&2; exit 1")
    with pytest.raises(ExportError, match="vela refused it: no such thing"):
        estimate_by_vela(model, "ethos-u55-128")


def test_a_missing_vela_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(MissingExtra, match=r"edgeprune\[ethos-u\]"):
        estimate_by_vela(tmp_path / "a.tflite", "ethos-u55-128")
