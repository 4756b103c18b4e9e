"""Planning for a board that is not at hand: on an estimate, said so, and no further."""

import json
import subprocess
from pathlib import Path

from line import TINY, command, environment


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
