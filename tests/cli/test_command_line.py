import subprocess
import sys

import pytest


@pytest.mark.parametrize("words", [["deploi"], ["deploy", "--speedup", "0.5"], ["deploy", "--run"], ["gate"]])
def test_wrong_call_is_exit_code_2(words: list[str]) -> None:
    call = [sys.executable, "-m", "edgeprune.cli", *words]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Error" in done.stderr
