"""Cycles, SRAM and flash of a TFLite file on an Ethos-U55, as Arm's compiler `vela` estimates them."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from edgeprune.errors import ExportError, MissingExtra

SYSTEM, MEMORY = "Ethos_U55_High_End_Embedded", "Shared_Sram"
"""Of the configurations that come with vela, the one of an Ethos-U55 with its tensors in SRAM and weights in flash."""
TIMEOUT_S = 300
ON_CPU = re.compile(r"CPU operators = (\d+)")


@dataclass(frozen=True)
class VelaEstimate:
    """What vela says of a file: `cpu_operators` are left to the CPU, and their time is in no figure here."""

    accelerator: str
    system: str
    memory: str
    clock_mhz: float
    cycles: float
    sram_bytes: int
    flash_bytes: int
    macs: int
    cpu_operators: int | None

    @property
    def latency_ms(self) -> float:
        """Latency of one inference at the clock of the configuration."""
        return self.cycles / (self.clock_mhz * 1e3)


def estimate_by_vela(path: Path, accelerator: str) -> VelaEstimate:
    """Compile an int8 `.tflite` file for an accelerator, such as "ethos-u55-128", and read vela's summary.

    Raises:
        MissingExtra: vela is not installed.
        ExportError: vela refused the file, or took too long.
    """
    program = shutil.which("vela") or shutil.which("vela", path=str(Path(sys.executable).parent))
    if program is None:
        raise MissingExtra("vela is needed for Ethos-U; run: pip install 'edgeprune[ethos-u]'")
    with tempfile.TemporaryDirectory(prefix="edgeprune-vela-") as folder:
        options = ["--accelerator-config", accelerator, "--system-config", SYSTEM, "--memory-mode", MEMORY]
        config = ["--config", "Arm/vela.ini", "--output-dir", folder]
        command = [program, str(path.absolute()), *options, *config]
        try:
            process = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=folder
            )
        except subprocess.TimeoutExpired as exc:
            raise ExportError(f"{path}: vela was not done after {TIMEOUT_S} s") from exc
        summaries = sorted(Path(folder).glob("*_summary_*.csv"))
        if process.returncode != 0 or not summaries:
            lines = (process.stderr.strip() or process.stdout.strip() or "it gave no reason").splitlines()
            raise ExportError(f"{path}: vela refused it: {lines[-1]}")
        return parse_summary(summaries[0].read_text(), process.stdout, str(path))


def parse_summary(text: str, printed: str, where: str) -> VelaEstimate:
    """Read the summary that vela writes (CSV, one row), and from what it printed how much it left to the CPU.

    Raises:
        ExportError: not such a summary.
    """
    try:
        (row,) = csv.DictReader(text.splitlines())
        kib = ("sram_memory_used", "on_chip_flash_memory_used", "off_chip_flash_memory_used")
        sram, *flash = (float(row[key]) * 1024 for key in kib)
        figures = (float(row["core_clock"]) / 1e6, float(row["cycles_total"]))
        if not all(map(isfinite, (*figures, sram, *flash))) or min(figures) <= 0:
            raise ValueError("clock and cycles must be above zero")
        on_cpu = ON_CPU.search(printed)
        return VelaEstimate(
            row["accelerator_configuration"],
            row["system_config"],
            row["memory_mode"],
            *figures,
            round(sram),
            round(sum(flash)),
            int(row["nn_macs"]),
            int(on_cpu[1]) if on_cpu else None,
        )
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as exc:
        raise ExportError(f"{where}: vela's summary is not as known: {exc}; known is that of ethos-u-vela 5") from exc
