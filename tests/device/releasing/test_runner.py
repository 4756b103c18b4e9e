"""The runner that stays with a release: what was measured is what runs, and what does not fit is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from device_models import CONV, LINEAR, ignore, make_model
from release_board import TARGET, Board, make_run, read_run

from edgeprune.device.agent.measure import evaluate_model
from edgeprune.device.connect import open_device
from edgeprune.device.releasing.releases import activate_release, push_release, read_release


@pytest.mark.parametrize(("runtime", "precision"), [("onnxruntime", "fp32"), ("litert", "fp32"), ("litert", "int8")])
def test_what_was_measured_is_what_runs(board: Board, tmp_path: Path, runtime: str, precision: str) -> None:
    """The runner's output is bit for bit that of the agent, from which the accuracy on the device comes."""
    run = make_run(tmp_path / "a", CONV, runtime, precision)
    release, content = read_release(run, TARGET)
    model = make_model(tmp_path, runtime, CONV, precision)
    assert model.path.read_bytes() == content
    with open_device(TARGET, "board") as device:
        push_release(device.agent, release, content)
        activate_release(device.agent, release.id)
        shape = json.loads(board.run("--check").stdout)
        values = np.random.default_rng(2).standard_normal(
            (2, 3, 16, 16) if runtime == "onnxruntime" else (2, 16, 16, 3)
        )
        inputs = values.astype(np.float32)
        expected = evaluate_model(device, model, inputs, ignore)
    assert shape["model_sha256"] == model.sha256
    np.save(tmp_path / "one.npy", inputs[1:])
    answers = [
        board.run(str(tmp_path / "one.npy")),
        board.run("-", stdin=json.dumps(inputs[1:].tolist())),
    ]
    for done in answers:
        assert done.returncode == 0, done.stderr
        (output,) = json.loads(done.stdout)["outputs"].values()
        np.testing.assert_array_equal(np.array(output, np.float32)[0], expected[1])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[[1, 2]]", r"shape \[1, 2\]; the model takes \[1, 24\]"),
        ("[[1], [1, 2]]", "not a regular nested list of numbers"),
        ('"text"', "not a regular nested list of numbers"),
        ("null", "not a regular nested list of numbers"),
        ("[", "cannot be read as JSON"),
        ('{"other": [1]}', "has inputs other; the model takes"),
        ("[[NaN" + ", 0" * 23 + "]]", "has values that are not finite"),
        ("[[1e999" + ", 0" * 23 + "]]", "has values that are not finite"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(installed: Path, given: str, said: str) -> None:
    done = run_installed(installed, "-", stdin=given)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.search(said, done.stderr), done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release's folder."""
    folder = tmp_path_factory.mktemp("installed")
    release, model = read_run(folder / "run", LINEAR)
    for name, content in (("manifest.json", release.manifest), ("run.py", release.runner)):
        (folder / name).write_text(content)
    (folder / "model.onnx").write_bytes(model)
    return folder


def run_installed(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(folder / "run.py"), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def test_arrays_are_of_the_models_type_and_never_pickles(installed: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((1, 24)))
    assert "type float64; the model takes float32" in run_installed(installed, str(tmp_path / "wide.npy")).stderr
    np.save(tmp_path / "object.npy", np.array([[{}]]), allow_pickle=True)
    assert "cannot be read as .npy" in run_installed(installed, str(tmp_path / "object.npy")).stderr
    assert "cannot be read" in run_installed(installed, str(tmp_path / "none.npy")).stderr
    assert run_installed(installed).returncode == 2
