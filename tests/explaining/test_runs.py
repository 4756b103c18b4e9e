"""Runs of every kind explained: images and signals, judged by classes and by errors, ended early, spoilt, made anew."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import run_command
from explained_run import IMAGES, SIGNALS, record_explained_run
from recorded import record_stage

from edgeprune.run import look_at_run, open_run, read_json
from edgeprune.stages.explanation import EXPLAINED_PLAN, EXPLANATION, RESTS_ON
from edgeprune.stages.results import Recovery

Call = Callable[..., str]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A measured run whose branch and whose channels went; explained once."""
    return record_explained_run(tmp_path_factory.mktemp("images") / "run", budget=0.5)


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a regression that ended before `export`, of an edgeprune that explained no plan."""
    return record_explained_run(tmp_path_factory.mktemp("signals") / "run", SIGNALS, "recover", explain=False)


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str]) -> Call:
    def call(run: Path, *words: object, code: int = 0) -> str:
        ended, printed, told = run_command(capsys, "explain", "--run", run, *words)
        assert ended == code, told
        return printed if code == 0 else told

    return call


def explain_json(explain: Call, run: Path) -> dict[str, Any]:
    return dict(json.loads(explain(run, "--json")))


def test_a_measured_run_of_images_has_every_part(images: Path, explain: Call) -> None:
    document = explain_json(explain, images)
    assert document == read_json(images / EXPLANATION)
    assert set(document["missing"]) == {"errors"}
    levels = [step for step in document["waterfall"]["steps"] if step["kind"] == "level"]
    assert [step["name"] for step in levels] == ["unpruned", "by_macs", "pruned"]
    assert levels[-1]["text"].startswith("artifacts/pruned.fp32.onnx")
    rest = next(step for step in document["waterfall"]["steps"] if step["name"] == "unexplained")
    assert rest["ms"] == pytest.approx(0.02 * document["plan"]["predicted_ms"])  # measured 1 % above, at half the speed
    assert document["outputs"]["after"] == "artifacts/pruned.fp32.onnx"
    assert document["classes"]["labels"] == ["top", "left", "noise"]
    assert sum(map(sum, document["classes"]["confusion_after"])) == document["classes"]["inputs"] == 96
    assert [row["corruption"] for row in document["robustness"]["rows"][::3]] == [
        "none", "noise", "blur", "brightness", "contrast",
    ]  # fmt: skip
    clean = document["robustness"]["rows"][0]
    assert clean["after"] == pytest.approx(100 * sum(document["classes"]["correct_after"]) / 96)


def test_inputs_that_excited_channels_are_those_of_the_highest_activation(images: Path, explain: Call) -> None:
    document = explain_json(explain, images)
    groups = {row["group"]: row for row in document["plan"]["groups"]}
    assert set(document["excited"]) == {name for name, row in groups.items() if row["cut"]}
    for name, own in document["excited"].items():
        ranks = [groups[name]["ranks"][row["channel"]] for row in own["channels"]]
        assert ranks == sorted(ranks)
        assert (images / own["picture"]).read_bytes().startswith(b"\x89PNG")
        for row in own["channels"]:
            assert row["activations"] == sorted(row["activations"], reverse=True)
            assert len(row["inputs"]) == 6
            assert row["channel"] in groups[name]["cut"]


def test_a_branch_that_went_takes_its_channels_along(images: Path, explain: Call) -> None:
    rows = {row["group"]: row for row in explain_json(explain, images)["plan"]["groups"]}
    assert rows["inner:branch"]["width"] == 0
    assert (rows["inner"]["width"], rows["inner"]["bound_by"]) == (0, ["branch"])
    assert rows["inner"]["cut"] == list(range(6))
    text = explain(images, "inner:0")
    assert "went with inner:branch" in text
    assert "it stays at" not in text


def test_what_is_kept_is_read_again_without_torch(images: Path, explain: Call) -> None:
    explain(images)
    script = (
        "import sys; from edgeprune.cli import main\n"
        f"try: main(['explain', '--run', {str(images)!r}])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert "explain" not in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_an_explanation_is_made_anew_once_a_stage_was(images: Path, explain: Call, tmp_path: Path) -> None:
    run = Path(shutil.copytree(images, tmp_path / "run"))
    before = explain_json(explain, run)
    with open_run(run, {}) as opened:
        record_stage(opened, "recover", Recovery(quality_before=1.0, quality=1.0), ["recovered.pt2"])
    after = explain_json(explain, run)
    assert before["run_sha256"] != after["run_sha256"]
    assert "before_finetuning" in [row["kind"] for row in after["warnings"]]
    assert "before_finetuning" not in [row["kind"] for row in before["warnings"]]


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99}'])
def test_a_damaged_or_foreign_explanation_is_made_anew(
    images: Path, explain: Call, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeprune.explaining import document as module

    run = Path(shutil.copytree(images, tmp_path / "run"))
    (run / EXPLANATION).write_text(text)
    monkeypatch.setattr(module, "make_explanation", lambda job: {**read_json(images / EXPLANATION), "made": "anew"})
    assert explain_json(explain, run)["made"] == "anew"


def test_a_changed_plan_or_net_is_refused_and_its_stage_named(images: Path, explain: Call, tmp_path: Path) -> None:
    run = Path(shutil.copytree(images, tmp_path / "run"))
    for name, stage in ((EXPLAINED_PLAN, "fit"), ("recovered.pt2", "recover"), ("plan.json", "fit")):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content + b" ")
        assert f"--from {stage}`" in explain(run, code=1)
        (run / name).write_bytes(content)


def test_a_regression_on_signals_is_told_by_errors_in_torch(signals: Path, explain: Call) -> None:
    document = explain_json(explain, signals)
    assert document["classes"] is None
    assert document["errors"]["unit"] == "K"
    assert [row["share"] for row in document["errors"]["quantiles"]] == [0.5, 0.9, 0.95, 0.99, 1.0]
    assert document["outputs"]["before"] == document["outputs"]["after"] == "torch"
    assert "'measure' has not run" in document["outputs"]["note"]
    rows = document["robustness"]["rows"]
    assert {row["corruption"] for row in rows} == {"none", "noise", "lost samples"}
    for row in rows:
        assert row["drop"] == pytest.approx(row["after"] - row["before"])  # lower is better
    assert document["missing"]["excited"] == "inputs are no images"
    last = document["waterfall"]["steps"][-1]
    assert last["text"] == "the cut net, untrained, in the stage fit"
    assert last["origin"] == "measured"
    assert "RMSE in K before and after" in explain(signals)


def test_a_run_that_was_not_cut_yet_says_what_is_still_to_come(images: Path, explain: Call, tmp_path: Path) -> None:
    run = Path(shutil.copytree(images, tmp_path / "run"))
    with open_run(run, {}) as opened:
        opened.forget(*RESTS_ON[RESTS_ON.index("fit") + 1 :])
    text = explain(run)
    assert "stage 'recover' has not run" in " ".join(text.split())
    assert "what the MACs promise" in text
    with open_run(run, {}) as opened:
        opened.forget("fit")
    assert "no such file yet" in explain(run, code=1)


def test_a_recipe_that_fails_is_told_and_nothing_is_kept(images: Path, explain: Call, tmp_path: Path) -> None:
    run = Path(shutil.copytree(images, tmp_path / "run"))
    recipe = run / "moved.py"
    recipe.write_text("raise ValueError('no disk with the data')\n")
    look_at_run(run)
    request = {**read_json(run / "request.json"), "recipe": str(recipe)}
    with open_run(run, {}) as opened:
        type(opened)(run, request).begin()
    (run / EXPLANATION).unlink(missing_ok=True)
    document = explain_json(explain, run)
    assert "no disk with the data" in document["missing"]["classes"]
    assert "no disk with the data" in document["missing"]["excited"]
    assert document["waterfall"] is not None
    assert not (run / EXPLANATION).exists()


def test_a_whole_net_is_explained_as_such(tmp_path: Path, explain: Call) -> None:
    run = record_explained_run(tmp_path / "run", IMAGES, "fit", budget=1.2)
    document = explain_json(explain, run)
    assert {tuple(row["bound_by"]) for row in document["plan"]["groups"]} == {("whole",)}
    assert document["plan"]["more"]["note"] == "nothing comes back: the net is whole"
    assert [step["name"] for step in document["waterfall"]["steps"]][:3] == ["unpruned", "macs", "by_macs"]
    assert document["missing"]["excited"] == "no channel was cut"
    assert "no channel went" in explain(run, "stem")


def test_without_matplotlib_inputs_are_listed_and_not_drawn(
    images: Path, explain: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(images, tmp_path / "run"))
    (run / EXPLANATION).unlink(missing_ok=True)
    for name in ("edgeprune.report.contact_sheet", "edgeprune.report.pictures"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for own in explain_json(explain, run)["excited"].values():
        assert own["picture"] is None
        assert own["channels"][0]["inputs"]
