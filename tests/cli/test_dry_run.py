"""`deploy --dry-run` refuses what `deploy` refuses, in the same words, and does nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from command_line import run_command
from places import RECIPES
from recorded import record_run

from edgeprune.core.stages import STEPS
from edgeprune.deployment import REQUEST
from edgeprune.pipeline import LINE
from edgeprune.run import open_run
from edgeprune.stages.results import Traced

TINY = RECIPES / "tiny.py"
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command in an empty folder; gives its exit code, what it printed and its error."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    return partial(run_command, capsys)


def write_files(folder: Path) -> None:
    """What bad requests name."""
    (folder / "file").write_text("")
    (folder / "broken.py").write_text("raise OSError('weights.bin is gone')")
    (folder / "f1.py").write_text(
        TINY.read_text()
        + "\nfrom edgeprune.core.metric import Metric\nmetric = Metric('F1', lambda o, t: 0.5, better='higher')\n"
    )
    (folder / "wide.py").write_text(TINY.read_text() + "\nwidths = {'nowhere': 'whole'}\n")
    (folder / "odd.py").write_text(TINY.read_text() + "\nlabels = ['one']\n")
    gates = {
        "speed": ("latency_p50_ms", "at_most = 3"), "accuracy": ("accuracy_percent", "at_least = 90"),
        "wrong": ("quality", "at_most = 0.9"), "unknown": ("speed", "at_most = 1"),
    }  # fmt: skip
    for name, (metric, limit) in gates.items():
        (folder / f"{name}.gates").write_text(f'[[gates]]\nmetric = "{metric}"\n{limit}\n')
    targets = {"bare": "", "energy": "[budget]\nenergy_mj = 2\n", "both": "[budget]\nspeedup = 2\nlatency_ms = 1\n"}
    for name, text in targets.items():
        (folder / f"{name}.toml").write_text(f'description = "x"\n{text}')
    (folder / "noidea.toml").write_text("description =")
    record_run(folder / "begun", dict.fromkeys(REQUEST) | {"target": "local", "recipe": str(TINY)}, {}, {})
    (folder / "edited").mkdir()
    (folder / "edited" / "request.json").write_text("[1]")


BAD = [
    ("--target", "lokal"),
    ("--recipe", TINY),
    ("--target", "bare.toml", "--recipe", TINY),
    ("--target", "noidea.toml", "--recipe", TINY),
    ("--target", "both.toml", "--recipe", TINY),
    ("--target", "none.toml", "--recipe", TINY),
    ("--target", "local", "--speedup", 2, "--latency-ms", 1),
    ("--target", "local", "--recipe", "digit-resnet8"),
    ("--target", "local", "--recipe", "none.py"),
    ("--target", "local", "--recipe", "broken.py"),
    ("--target", "local", "--recipe", TINY, "--precision", "int16x8"),
    ("--target", "local", "--recipe", TINY, "--runtime", "auto", "--precision", "int16x8"),
    ("--target", "local", "--recipe", TINY, "--gates", "unknown.gates"),
    ("--target", "local", "--recipe", TINY, "--gates", "wrong.gates"),
    ("--target", "local", "--recipe", "f1.py", "--gates", "accuracy.gates"),
    ("--target", "local", "--recipe", TINY, "--gates", "none.gates"),
    ("--target", "rpi4", "--recipe", TINY),
    ("--target", "rpi4", "--recipe", TINY, "--host", "a b"),
    ("--target", "local", "--recipe", TINY, "--run", "file"),
    ("--target", "local", "--recipe", TINY, "--run", "file/below"),
    ("--target", "rpi4", "--run", "begun"),
    ("--run", "edited"),
    ("--target", "local", "--recipe", TINY, "--from", "export"),
    ("--run", "begun", "--from", "exprt"),
]


@pytest.mark.parametrize("words", BAD, ids=lambda words: " ".join(map(str, words)).replace(str(TINY), "tiny"))
def test_a_bad_request_is_refused_alike(words: tuple[object, ...], say: Say) -> None:
    write_files(Path())
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    previewed = say("deploy", *words, "--dry-run")
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    real = say("deploy", *words)
    assert previewed[0] == real[0] != 0
    assert previewed[2].splitlines()[-1] == real[2].splitlines()[-1]
    assert previewed[1] == ""


@pytest.mark.parametrize("recipe", ["wide.py", "odd.py"])
def test_what_only_the_built_model_shows_is_refused_by_a_check_of_the_recipe(recipe: str, say: Say) -> None:
    write_files(Path())
    path = Path(recipe).resolve()
    checked, real = say("recipes", "check", path), say("deploy", "--target", "local", "--recipe", path)
    assert checked[0] == real[0] == 2
    assert checked[2].splitlines()[-1] == real[2].splitlines()[-1]
    assert say("deploy", "--target", "local", "--recipe", recipe, "--dry-run")[0] == 0


def test_nothing_is_trained_and_that_is_told(say: Say) -> None:
    Path("slow.py").write_text(
        "def model(): raise SystemExit('an hour of training')\ntrain_data = eval_data = calibration_data = model\n"
    )
    code, printed, _ = say("deploy", "--target", "local", "--recipe", "slow.py", "--dry-run")
    assert code == 0
    assert "not checked: the model, the data and `widths`" in printed
    assert f"`edgeprune recipes check {Path('slow.py').resolve()}`" in printed


def test_another_budget_is_told_as_a_new_scope_and_nothing_is_written(say: Say) -> None:
    write_files(Path())
    before = sorted(Path().rglob("*"))
    code, printed, _ = say("deploy", "--run", "begun", "--speedup", 3, "--dry-run")
    assert (code, sorted(Path().rglob("*"))) == (0, before)
    assert "run directory: begun/budgets/speedup-3 (a new scope of begun)" in printed


def test_a_run_in_use_is_refused_alike(say: Say) -> None:
    write_files(Path())
    with open_run(Path("begun"), {}):
        previewed, real = say("deploy", "--run", "begun", "--dry-run"), say("deploy", "--run", "begun")
    assert previewed == real
    assert "another edgeprune is at work here" in real[2]


def test_a_refused_request_does_not_bind_its_directory(say: Say) -> None:
    write_files(Path())
    words = ("--target", "local", "--recipe", "f1.py", "--run", "new")
    assert say("deploy", *words, "--gates", "accuracy.gates")[0] == 2
    assert say("deploy", *words, "--gates", "speed.gates", "--dry-run")[0] == 0


def test_what_would_be_done_is_told_and_nothing_is(say: Say) -> None:
    write_files(Path())
    before = sorted(Path().rglob("*"))
    code, printed, _ = say("deploy", "--target", "local", "--recipe", "f1.py", "--speedup", 3, "--dry-run")
    assert code == 0
    assert "judged by: speedup at_least 3; quality max_regression 0.02 (F1)" in printed
    assert "metric F1; board: this machine" in printed
    assert printed.count("\n  will ") == len(LINE)
    assert sorted(Path().rglob("*")) == before


def test_a_resumed_run_says_what_is_done(say: Say) -> None:
    write_files(Path())
    request = json.loads(Path("begun/request.json").read_text())
    metric = {"name": "F1", "better": "higher", "unit": ""}
    record_run(Path("begun"), request, {"trace": Traced(metric=metric, quality=0.5)}, {})
    code, printed, _ = say("deploy", "--run", "begun", "--dry-run")
    assert code == 0
    assert "(resumed)" in printed
    assert "  done trace" in printed
    assert "metric F1;" in printed
    Path("begun/stages/trace.json").write_text(json.dumps({"metric": {**metric, "better": "lower"}}))
    assert "trace.json: is not what it was" in say("deploy", "--run", "begun", "--dry-run")[2]


def test_every_step_of_the_line_is_told() -> None:
    assert list(STEPS) == list(LINE)
