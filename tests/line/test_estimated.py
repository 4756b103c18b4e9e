"""Planning for a board that is not at hand: on an estimate, said so, and no further."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from line import TINY, command, environment
from mcu_files import TARGET
from places import ROOT


@pytest.mark.slow
def test_a_board_without_an_address_is_planned_on_its_estimate_and_never_judged(tmp_path: Path) -> None:
    run = tmp_path / "run"
    env = environment(tmp_path / "cache", HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    arguments = command("plan", "--target", "rpi4", "--recipe", TINY, "--speedup", 1.5, "--run", run)
    done = subprocess.run(arguments, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "estimated: no board was measured" in done.stdout
    plan = json.loads((run / "plan.json").read_text())
    assert plan["predicted_ms"] <= plan["budget_ms"]
    assert json.loads((run / "latency_table.json").read_text())["origin"] == "estimated"
    cut = subprocess.run(
        command("prune", "--run", run), capture_output=True, text=True, env=env, timeout=100, check=False
    )
    assert cut.returncode == 1
    assert "an estimate is never cut, measured or judged" in cut.stderr
    assert not (run / "pruned.pt2").exists()


@pytest.mark.slow
def test_limits_rules_and_confidence_hold_together(tmp_path: Path) -> None:
    run, board, recipe = tmp_path / "run", tmp_path / "rpi4.toml", tmp_path / "mine.py"
    target = (ROOT / "targets" / "rpi4.toml").read_text()
    board.write_text(target.replace("[budget]", "[budget]\nparameters = 20000"))
    recipe.write_text(TINY.read_text() + '\nwidths = {"3": {"fixed": 24}, "0": "whole"}\n')
    env = environment(tmp_path / "cache", HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    options = ("--target", board, "--recipe", recipe, "--latency-ms", 1.6, "--confidence", 0.95, "--run", run)
    done = subprocess.run(command("plan", *options), capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    plan = json.loads((run / "plan.json").read_text())
    first, second, third = (len(row["keep"]) for row in plan["groups"])
    assert (first, second) == (32, 24)
    assert 1 * 32 * 9 + 32 * 24 * 9 + 24 * third * 9 + third * 10 <= 20000
    profiled = json.loads((run / "stages" / "profile.json").read_text())
    _, high_ms = profiled["baseline_interval_ms"]
    assert plan["predicted_ms"] * high_ms / profiled["baseline_ms"] <= plan["budget_ms"]


WITH_TFLM = (
    "import sys; from dataclasses import replace; from edgeprune.core.formats import RUNTIMES; "
    "RUNTIMES.setdefault('tflm', replace(RUNTIMES['litert'], name='tflm')); "
    "from edgeprune.cli import main; main(sys.argv[1:])"
)
"""edgeprune with a runtime of microcontrollers, whether it has one of its own or not."""


@pytest.mark.slow
def test_a_microcontroller_is_planned_by_published_cycles_with_an_int8_baseline(tmp_path: Path) -> None:
    run, board = tmp_path / "run", tmp_path / "board.toml"
    board.write_text(TARGET.replace("litert", "tflm"))
    env = environment(tmp_path / "cache", HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
    words = ("plan", "--target", board, "--recipe", TINY, "--speedup", 2, "--run", run)
    arguments = [sys.executable, "-c", WITH_TFLM, *map(str, words)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "estimated, not measured: unpruned int8" in done.stderr
    profiled = json.loads((run / "stages" / "profile.json").read_text())
    assert (profiled["origin"], profiled["baseline_precision"]) == ("estimated", "int8")
    plan = json.loads((run / "plan.json").read_text())
    assert plan["predicted_ms"] <= plan["budget_ms"] == pytest.approx(profiled["baseline_ms"] / 2)
    explained = [sys.executable, "-c", WITH_TFLM, "explain", "--run", str(run)]
    text = subprocess.run(explained, capture_output=True, text=True, env=env, timeout=100, check=False).stdout
    assert "unpruned, int8" in text
    assert "fp32" not in text
