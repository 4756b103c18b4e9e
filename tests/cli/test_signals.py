"""A signal that ends a command lets go of what it holds, and ends it as Ctrl-C does."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from device_models import make_model
from line import command, environment

LEASE = "leases/lease-work.json"
MODEL_THAT_WAITS = "import sys, time\nprint('reached', file=sys.stderr, flush=True)\ntime.sleep(60)\n"


def interrupt(folder: Path, number: signal.Signals, *words: object, until: str) -> tuple[int, str, str]:
    """Start a command in a folder and send it a signal once it has said something; its exit code and what it said."""
    told, place = folder / "stderr", environment(folder / "cache", EDGEPRUNE_LEASES=str(folder / "leases"))
    with told.open("w") as stream:
        process = subprocess.Popen(
            command(*words), cwd=folder, env=place, stdout=subprocess.PIPE, stderr=stream, text=True
        )
    try:
        deadline = time.monotonic() + 60
        while until not in told.read_text():
            assert process.poll() is None, told.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, printed, told.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_ends_with_one_document_and_the_signals_exit_code(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(MODEL_THAT_WAITS)
    words = ("deploy", "--target", "local", "--recipe", "slow.py", "--run", "run", "--json")
    code, printed, _ = interrupt(tmp_path, number, *words, until="reached")
    error = json.loads(printed)["error"]
    assert code == error["exit_code"] == 128 + number
    assert error["kind"] == "Interrupted"
    assert not (tmp_path / "run").exists()  # refused before it began, its lock is gone too


@pytest.mark.device
def test_a_board_is_let_go_of(tmp_path: Path) -> None:
    model = make_model(tmp_path, "onnxruntime")
    words = ("measure", model.path, "--target", "local", "--host", "local", "--sustained", "10m")
    code, printed, told = interrupt(tmp_path, signal.SIGTERM, *words, until="onnxruntime-fp32-conv-8: ")
    assert (code, printed) == (128 + signal.SIGTERM, "")
    assert "interrupted by SIGTERM" in told
    assert "Traceback" not in told
    assert not (tmp_path / LEASE).exists()
