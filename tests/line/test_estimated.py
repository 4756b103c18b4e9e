"""Planning for a board that is not at hand: on an estimate, said so, and no further."""

import json
import subprocess
from pathlib import Path

import pytest
from line import TINY, command, environment
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
