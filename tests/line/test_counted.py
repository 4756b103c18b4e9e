"""The whole line on a core in QEMU, in instructions: nothing of it is called ms."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from counted_text import CLOCK, find_clock, list_keys, strip_code
from line import FOLDER, TINY, VERDICTS, command, environment

from edgeprune.core.releasing.gate import PASS

HAS_TOOLS = all(map(shutil.which, ("arm-none-eabi-gcc", "qemu-system-arm")))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_TOOLS, reason="no arm-none-eabi-gcc or qemu-system-arm; see test_packages.sh"),
]


def run_line(run: Path, cache: Path, *options: object) -> tuple[dict[str, Any], str]:
    """The report as it is on disk, and what was printed."""
    arguments = command("deploy", "--run", run, *options)
    completed = subprocess.run(
        arguments, capture_output=True, text=True, env=environment(cache), timeout=3000, check=False
    )
    assert completed.returncode in VERDICTS, completed.stderr
    return json.loads((run / "report.json").read_text()), completed.stdout + completed.stderr


def test_a_net_is_pruned_counted_and_judged_without_a_board(tmp_path: Path) -> None:
    run, target = tmp_path / "run", FOLDER / "targets" / "qemu-quick.toml"
    report, said = run_line(run, tmp_path / "cache", "--target", target, "--recipe", TINY)
    assert report["unit"] == "instructions"
    (ratio,) = (row for row in report["gates"] if row["gate"] == "instruction_ratio at_least 1.3")
    assert (ratio["outcome"], report["result"]["origin"]) == (PASS, "counted")
    assert report["result"]["cost"]["p50_instructions"] * 1.3 <= report["baseline"]["cost"]["p50_instructions"]
    (attempt, *_) = report["predicted"]["tries"]
    assert attempt["predicted_instructions"] == pytest.approx(attempt["measured_instructions"], rel=0.05)
    assert "times fewer instructions, counted in QEMU" in said
    assert find_clock(said) == []
    assert find_clock((run / "gates.md").read_text()) == []
    assert find_clock(strip_code((run / "report.html").read_text())) == []
    for path in (*run.glob("*.json"), *run.glob("stages/*.json")):
        assert [key for key in list_keys(json.loads(path.read_text())) if CLOCK.search(key)] == [], path


@pytest.mark.device
def test_the_recipe_of_digits_goes_from_an_empty_folder_to_a_verdict(tmp_path: Path) -> None:
    options = ("--target", "qemu-cortex-m4", "--recipe", "digits-resnet8", "--speedup", 1.5)
    report, _ = run_line(tmp_path / "run", tmp_path / "cache", *options)
    assert report["verdict"] == PASS
    assert report["predicted"]["correction"]["error"] < 0.02
    assert report["instruction_ratio"] >= 1.5


@pytest.mark.device
def test_a_microcontroller_without_an_address_is_pruned_until_it_fits(tmp_path: Path) -> None:
    options = ("--target", "stm32l4r5", "--recipe", TINY, "--sram", "20KiB", "--flash", "40KiB")
    report, _ = run_line(tmp_path / "run", tmp_path / "cache", *options)
    assert report["verdict"] == PASS
    assert report["result"]["file_bytes"] <= 40 * 1024
    assert any("no address of a board was given" in note for note in report["notes"])
