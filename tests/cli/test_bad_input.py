"""Every kind of bad input ends in one clear line and exit code 1 or 2, never in a traceback."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call
from places import RECIPES

from edgeprune.cli import main

DATA = """
import torch
from torch import nn
finetune = {}
def model(): return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
def train_data(): return [(torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))]
def eval_data(): return train_data()
def calibration_data(): return train_data()
"""

BROKEN = {
    "that raises": ("def model(): raise OSError('weights.bin is gone')", "OSError: weights.bin is gone"),
    "that does not parse": ("def model(:", "cannot be read: invalid syntax"),
    "without a function": ("del eval_data", r"eval_data\(\) is missing"),
    "whose model is not one": ("def model(): return 3", "gave int; expected a torch.nn.Module"),
    "with NaN in the model": (
        "def model():\n net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
        " net[1].weight.data[0, 0] = float('nan')\n return net",
        "NaN|finite",
    ),
    "of the wrong shape": ("def eval_data(): return [(torch.randn(4, 1, 9, 9), torch.zeros(4).long())]", "shape"),
    "without data": ("def eval_data(): return []", "no batches"),
    "with an iterator": ("def eval_data(): return iter(train_data())", "only once"),
    "with targets out of range": ("def eval_data(): return [(torch.randn(4, 1, 8, 8), torch.full((4,), 7))]", "target"),
    "with a misspelt setting": ("finetune = {'epoch': 3}", "did you mean 'epochs'"),
    "with a metric of NaN": (
        "from edgeprune.core.metric import Metric\n"
        "metric = Metric('F1', lambda outputs, targets: float('nan'), better='higher')",
        "the metric gave nan",
    ),
    "with a metric of no direction": ("def metric(outputs, targets): return 1.0", "which direction is better"),
    "that cannot be traced": (
        "class Net(nn.Module):\n def forward(self, x):\n  y = x.flatten(1)[:, :3]\n"
        "  return y if x.min() > -1e9 else -y\n"
        "def model(): return Net()",
        "torch.export|export",
    ),
    "with nothing to prune": (
        "def model(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))",
        "no channel .* can be pruned",
    ),
}


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """Run the command line; its one line of error."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capsys.readouterr().err
    assert ended.value.code == code, captured
    assert "Traceback" not in captured
    lines = [line for line in captured.splitlines() if line.startswith("edgeprune: ")]
    assert len(lines) == 1, captured
    return lines[0]


@pytest.mark.parametrize("kind", BROKEN)
def test_recipe(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    added, message = BROKEN[kind]
    recipe = tmp_path / "mine.py"
    recipe.write_text(f"{DATA}\n{added}\n")
    code = 1 if kind in ("that cannot be traced", "with nothing to prune") else 2
    found = fails(capsys, code, "deploy", "--target", "local", "--recipe", str(recipe), "--run", str(tmp_path / "run"))
    assert re.search(message, found), found
    assert "unexpected" not in found


def test_missing_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    assert "did you mean 'digits-resnet8'" in fails(
        capsys, 2, "deploy", "--target", "local", "--recipe", "digit-resnet8", "--run", run
    )


def test_pickled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.pt").write_bytes(b"\x80\x02}")
    arguments = ("deploy", "--target", "local", "--recipe", str(tmp_path / "net.pt"), "--run", str(tmp_path / "run"))
    assert "a recipe is a Python file" in fails(capsys, 2, *arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("description = 'x'\nruntme = 'litert'", "unknown key 'runtme'; did you mean 'runtime'"),
        ("description = ", "cannot be read as TOML"),
        ("description = 'x'", "no budget; give --latency-ms or --speedup"),
    ],
)
def test_target_file(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.toml"
    target.write_text(text)
    assert message in fails(capsys, 2, "deploy", "--target", str(target), "--run", str(tmp_path / "run"))


def test_unknown_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'rpi4'" in fails(capsys, 2, "deploy", "--target", "rpi44", "--run", str(tmp_path / "run"))


def test_no_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--target is needed" in fails(capsys, 2, "deploy")


def test_two_budgets(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("deploy", "--target", "local", "--speedup", "2", "--latency-ms", "1")
    assert "not both" in fails(capsys, 2, *arguments)


@pytest.mark.parametrize(("size", "message"), [("48 KiBs", "no number of bytes"), ("0", "must be above zero")])
def test_a_size_that_is_none(size: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--sram", "--flash"):
        with pytest.raises(SystemExit) as ended:
            main(("deploy", "--target", "local", option, size))
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_gates_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text("[[gates]]\nmetric = 'latency_p50_ms'\natmost = 3\n")
    arguments = ("deploy", "--target", "local", "--gates", str(gates), "--run", str(tmp_path / "run"))
    assert "unknown key 'atmost'; did you mean 'at_most'" in fails(capsys, 2, *arguments)


def test_run_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("")
    assert "cannot be used as a run directory" in fails(
        capsys, 1, "deploy", "--target", "local", "--run", str(tmp_path / "run")
    )


def test_run_of_another_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "request.json").write_text('{"target": "local", "recipe": "digits-resnet8"}')
    arguments = ("deploy", "--target", "rpi4", "--run", str(tmp_path))
    assert "was made with target = 'local', not 'rpi4'" in fails(capsys, 1, *arguments)


def test_stage_that_has_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "request.json").write_text('{"target": "local", "recipe": "digits-resnet8"}')
    assert "has not run yet" in fails(capsys, 1, "gate", "--run", str(tmp_path))
    assert "no such file" in fails(capsys, 1, "explain", "--run", str(tmp_path))


def test_board_without_an_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("EDGEPRUNE_HOST", raising=False)
    recipe = RECIPES / "tiny.py"
    arguments = ("deploy", "--target", "rpi4", "--recipe", str(recipe), "--run", str(tmp_path / "run"))
    assert "--host" in fails(capsys, 2, *arguments)
    assert not list((tmp_path / "run").glob("stages/*"))  # told before anything slow


def test_unreachable_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = RECIPES / "tiny.py"
    arguments = ("deploy", "--target", "local", "--host", "nobody@127.0.0.1:9", "--recipe", str(recipe))
    assert "127.0.0.1" in fails(capsys, 1, *arguments, "--run", str(tmp_path / "run"))


@pytest.mark.parametrize("option", ["--speedup", "--latency-ms"])
@pytest.mark.parametrize("value", ["nan", "1e999", "inf"])
def test_a_budget_that_is_no_finite_number_is_a_wrong_call(option: str, value: str) -> None:
    code, _, said = call("deploy", "--target", "local", option, value)
    assert (code, "is no finite number" in said or "is not in the range" in said) == (2, True)


@pytest.mark.parametrize("command", ["gate", "report"])
@pytest.mark.parametrize(("file", "text"), [("other.txt", "is this a run directory?"), ("sweep.json", "is a sweep")])
def test_a_folder_that_is_no_run_is_told_and_left_alone(command: str, file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}")
    code, _, said = call(command, "--run", tmp_path)
    assert (code, text in said) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == [file]


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_costs_the_words_alone(closed: str) -> None:
    redirect = {"stdout": ">&-", "stderr": "2>&-"}[closed]
    command = f"{sys.executable} -m edgeprune targets --json {redirect}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_under_the_result_is_told() -> None:
    command = f"{sys.executable} -m edgeprune targets --json >/dev/full"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr, "No space left" in done.stderr) == (1, False, True)
