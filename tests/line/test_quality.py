"""Runs judged by a recipe's own metric, whole: F1 and RMSE that collapse, files that were changed, other gates."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import run_command
from line import FOLDER, command, environment
from recorded import record_stage

from edgeprune.core.releasing.document import REPORT_VERSION
from edgeprune.run import look_at_run, open_run, read_json
from edgeprune.stages.results import Reported

pytestmark = pytest.mark.alone

TARGET, RECIPE = FOLDER / "targets" / "judged.toml", FOLDER / "recipes" / "judged.py"
STRICT = "[[gates]]\nmetric = 'quality_drop'\nat_most = 0.05\n"
F1 = {"JUDGED_NAME": "F1", "JUDGED_BETTER": "higher", "JUDGED_BEFORE": "0.77", "JUDGED_AFTER": "0.10"}
RMSE = {
    "JUDGED_NAME": "RMSE", "JUDGED_BETTER": "lower", "JUDGED_UNIT": "K",
    "JUDGED_BEFORE": "0.33", "JUDGED_AFTER": "2.90",
}  # fmt: skip
Call = Callable[..., tuple[int, str, str]]


def deploy(folder: Path, figures: dict[str, str], *options: object) -> tuple[Path, str]:
    """A whole run in `folder`, judged by STRICT; its directory and what it printed."""
    (folder / "gates.toml").write_text(STRICT)
    words = ("--target", TARGET, "--host", "local", "--recipe", RECIPE, "--gates", folder / "gates.toml")
    done = subprocess.run(
        command("deploy", *words, "--allow-busy", "--run", folder / "run", *options),
        capture_output=True, text=True, env=environment(folder / "cache", **figures), timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    return folder / "run", done.stdout


@pytest.fixture(scope="module")
def f1(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return deploy(tmp_path_factory.mktemp("f1"), F1)


@pytest.fixture(scope="module")
def rmse(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The runtime and the precision are left to the board."""
    return deploy(tmp_path_factory.mktemp("rmse"), RMSE, "--runtime", "auto", "--precision", "auto")


@pytest.fixture
def run(f1: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the run of F1, to be spoilt."""
    return Path(shutil.copytree(f1[0], tmp_path / "run"))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run a command; gives its exit code, what it printed, and its line of error."""
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    for name, value in F1.items():
        monkeypatch.setenv(name, value)

    def run(*words: object) -> tuple[int, str, str]:
        code, printed, told = run_command(capsys, *words)
        errors = [line for line in told.splitlines() if line.startswith("edgeprune: ")]
        return code, printed, errors[-1] if errors else ""

    return run


def loose(folder: Path) -> Path:
    """Gates that a collapsed net passes."""
    path = folder / "loose.toml"
    path.write_text("[[gates]]\nmetric = 'quality_drop'\nat_most = 5\n")
    return path


# the metric


def test_an_f1_that_collapses_fails_and_is_called_by_its_name(f1: tuple[Path, str]) -> None:
    directory, printed = f1
    report = read_json(directory / "report.json")
    (gate,) = (row for row in report["gates"] if "quality" in row["gate"])
    assert (gate["gate"], gate["outcome"]) == ("quality_drop at_most 0.05 (F1)", "fail")
    assert gate["value"] == pytest.approx(0.67)
    assert report["metric"] == {"name": "F1", "better": "higher", "unit": ""}
    assert (report["baseline"]["quality"], report["result"]["quality"]) == (0.77, 0.1)
    assert report["torch_quality"] == {"original": 0.77, "cut": 0.1, "recovered": 0.1}
    assert {row["accurate"] for row in report["artifacts"] if "accurate" in row} == {False}
    assert "gate fail         quality_drop at_most 0.05 (F1): 0.67 is not <= 0.05" in printed
    row = next(line for line in printed.splitlines() if line.startswith("F1 (in the runtime)"))
    assert row.split()[-2:] == ["0.77", "0.1"]
    assert "%" not in row
    words = re.sub(r"<[^>]*>", "|", (directory / "report.html").read_text())
    assert "|F1 (in the runtime)||0.77||0.1|" in words
    suite = ElementTree.fromstring((directory / "gates.junit.xml").read_text())
    (case,) = (one for one in suite.iter("testcase") if one.get("name") == "quality_drop at_most 0.05 (F1)")
    assert case.find("failure") is not None


@pytest.mark.slow
def test_an_rmse_that_collapses_fails_in_its_unit(rmse: tuple[Path, str]) -> None:
    directory, printed = rmse
    report = read_json(directory / "report.json")
    (gate,) = (row for row in report["gates"] if "quality" in row["gate"])
    assert (gate["gate"], gate["outcome"]) == ("quality_drop at_most 0.05 K (RMSE)", "fail")
    assert gate["value"] == pytest.approx(2.57)
    row = next(line for line in printed.splitlines() if line.startswith("RMSE (in the runtime, lower is better)"))
    assert row.endswith("0.33 K                       2.9 K") or row.split()[-4:] == ["0.33", "K", "2.9", "K"]
    assert "no file is within quality_drop at_most 0.05 K (RMSE)" in printed


# the budget


def test_every_limit_of_the_budget_is_gated_by_what_was_made(f1: tuple[Path, str]) -> None:
    directory, _ = f1
    report = read_json(directory / "report.json")
    values = {row["gate"].split()[0]: row for row in report["gates"]}
    shipped = directory / report["result"]["artifact"]
    counted = {"parameters": 12 * 16 + 16 + 16 * 3 + 3, "macs": 12 * 16 + 16 * 3, "activation_bytes": 4 * (12 + 16)}
    for name, value in {**counted, "file_bytes": shipped.stat().st_size}.items():
        assert (values[name]["value"], values[name]["outcome"]) == (value, "pass")
        assert report["result"][name] == value
    assert values["latency_p50_ms"]["outcome"] in ("pass", "inconclusive")


# what the board decides


@pytest.mark.slow
def test_the_fastest_of_all_that_the_board_runs_ships(rmse: tuple[Path, str], call: Call, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(rmse[0], tmp_path / "run"))
    code, printed, _ = call("gate", "--run", directory, "--gates", loose(tmp_path))
    report = read_json(directory / "report.json")
    rows = [row for row in report["artifacts"] if row["role"] == "pruned" and not row["problems"]]
    if not rows:
        pytest.skip("no run was valid: the machine is busy")
    fastest = min(rows, key=lambda row: row["latency"]["p50_ms"])
    assert {row["format"] for row in rows} == {"onnx", "tflite"}
    assert [row["path"] for row in report["artifacts"] if row.get("fastest")] == [fastest["path"]]
    assert [row["path"] for row in report["artifacts"] if row["shipped"]] == [fastest["path"]]
    assert report["result"]["artifact"] == fastest["path"]
    assert any("shipped, fastest" in line and fastest["path"] in line for line in printed.splitlines())
    assert report["runtime"].split()[0] == {"onnx": "onnxruntime", "tflite": "litert"}[fastest["format"]]
    assert (code, report["judged_by"]) == (0 if report["verdict"] == "pass" else 4, str(tmp_path / "loose.toml"))


@pytest.mark.slow
def test_what_is_planned_for_is_chosen_by_the_unpruned_net(rmse: tuple[Path, str]) -> None:
    chosen = read_json(rmse[0] / "chosen.json")
    latency_ms = {tuple(name.split()): ms for name, ms in chosen["latency_ms"].items()}
    assert set(latency_ms) == {(one, held) for one in ("onnxruntime", "litert") for held in ("fp32", "int8")}
    best = min(latency_ms, key=lambda key: latency_ms[key])
    assert chosen["baseline"] == min(("onnxruntime", "litert"), key=lambda one: latency_ms[one, "fp32"])
    assert (chosen["runtime"], chosen["precision"]) in (best, (chosen["baseline"], "fp32"))
    table = read_json(rmse[0] / "latency_table.json")
    assert (table["key"]["runtime"], table["key"]["precision"]) == (chosen["runtime"], chosen["precision"])


# other gates


def test_other_gates_judge_once_and_change_nothing_else(run: Path, call: Call, tmp_path: Path) -> None:
    request = (run / "request.json").read_bytes()
    code, printed, _ = call("gate", "--run", run, "--gates", loose(tmp_path))
    assert code in (0, 4)
    assert f"judged by {tmp_path / 'loose.toml'}" in printed
    assert "gate pass         quality_drop at_most 5 (F1)" in printed
    code, printed, _ = call("report", "--run", run)
    assert "quality_drop at_most 5 (F1)" in printed  # what it was judged by last
    code, printed, _ = call("gate", "--run", run)
    assert (code, "quality_drop at_most 0.05 (F1)" in printed) == (3, True)
    assert "at_most 5" not in printed
    assert (run / "request.json").read_bytes() == request


def test_a_run_that_another_process_holds_is_not_touched(run: Path, call: Call, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with open_run(run, {}):
        code, _, error = call("gate", "--run", run, "--gates", loose(tmp_path))
    assert (code, "another edgeprune is at work here" in error) == (1, True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_gates_that_do_not_fit_the_metric_leave_the_verdict_as_it_was(run: Path, call: Call, tmp_path: Path) -> None:
    gates = tmp_path / "accuracy.toml"
    gates.write_text("[[gates]]\nmetric = 'accuracy_drop_points'\nat_most = 1.5\n")
    code, _, error = call("gate", "--run", run, "--gates", gates)
    assert code == 2
    assert f"{gates}: gate accuracy_drop_points at_most 1.5 is for an accuracy in percent" in error
    assert 'metric = "quality_drop"' in error
    assert look_at_run(run).result("gate")["verdict"] == "fail"


def test_nothing_heavy_is_imported_to_judge_a_run_again(run: Path) -> None:
    code = (
        "import sys\n"
        "from edgeprune.cli import main\n"
        "for command in ('gate', 'report'):\n"
        "    try:\n        main([command, '--run', sys.argv[1]])\n"
        "    except SystemExit as ended:\n        assert ended.code == 3, ended.code\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'paramiko', 'litert_torch', 'ai_edge_litert'}\n"
        "heavy |= {'matplotlib', 'sklearn', 'edgeprune_recipe_judged'}\n"
        "sys.exit(f'imported: {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, run], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# files that were changed


def spoil(path: Path) -> None:
    """Change one digit of a file, or one byte."""
    content = bytearray(path.read_bytes())
    place = next((index for index in range(len(content) // 2, len(content)) if chr(content[index]) in "12345678"), -1)
    content[place] += 1
    path.write_bytes(bytes(content))


RESTS = [
    ("measurements.json", "measure", ("gate", "report", "deploy")),
    ("artifacts/pruned.fp32.onnx", "export", ("gate", "report", "deploy", "fleet")),
    ("artifacts/original.fp32.onnx", "profile", ("gate", "report", "deploy", "fleet")),
    ("artifacts/pruned.int8.tflite", "export", ("deploy",)),
    ("plan.json", "fit", ("report", "deploy", "explain")),
    ("original.pt2", "trace", ("deploy",)),
    ("latency_table.json", "profile", ("deploy", "profile show")),
    ("pruned.pt2", "prune", ("deploy",)),
    ("recovered.pt2", "recover", ("deploy",)),
    ("stages/measure.json", "measure", ("gate", "report", "deploy", "fleet")),
    ("stages/export.json", "export", ("gate", "report", "deploy", "fleet")),
    ("stages/gate.json", "gate", ("report", "deploy", "fleet")),
    ("report.json", "report", ("deploy", "compare")),
    ("report.html", "report", ("deploy",)),
]


CHANGED = [(name, stage, words, False) for name, stage, commands in RESTS for words in commands]
GONE = [(*row[:3], True) for row in CHANGED if not row[0].startswith("stages/") and row[2] != "profile show"]
"""A stage without a result, and a profile without a table, were never made."""


@pytest.mark.parametrize(("name", "stage", "command", "gone"), CHANGED + GONE)
def test_what_a_command_rests_on_is_held_against_its_record(
    run: Path, call: Call, name: str, stage: str, command: str, gone: bool
) -> None:
    (run / name).unlink() if gone else spoil(run / name)
    words = ["compare", run] if command == "compare" else [*command.split(), "--run", run]
    code, printed, error = call(*words, *(["--hosts", "local"] if command == "fleet" else []))
    assert code == 1, printed
    assert name in error
    assert f"`edgeprune deploy --run {run} --from {stage}`" in error
    assert "verdict" not in printed


@pytest.mark.slow
def test_what_rests_on_a_stage_that_runs_again_is_made_anew(run: Path, call: Call) -> None:
    (run / "stages" / "measure.json").unlink()
    judged, created = ((run / name).read_bytes() for name in ("record/gate.json", "report.json"))
    for words in ("gate", "report"):
        code, _, error = call(words, "--run", run)
        assert (code, f"stage 'measure' has not run yet; `edgeprune deploy --run {run}` runs it" in error) == (1, True)
    assert (run / "record" / "gate.json").read_bytes() == judged
    assert call("deploy", "--run", run)[0] == 3
    assert (run / "report.json").read_bytes() != created


def test_a_release_is_not_offered_of_a_run_whose_file_was_changed(run: Path, call: Call) -> None:
    with open_run(run, {}) as opened:
        report = {**read_json(run / "report.json"), "verdict": "pass", "version": REPORT_VERSION}
        (run / "report.json").write_text(json.dumps(report))
        record_stage(opened, "report", Reported(verdict="pass"), ["report.json"])
    code, printed, _ = call("deploy", "--run", run)
    assert (code, "next: edgeprune release push" in printed) == (0, True)
    spoil(run / report["result"]["artifact"])
    for words in (["deploy", "--run", run], ["release", "push", "--run", run, "--target", "judged"]):
        code, printed, error = call(*words)
        assert (code, "release push" in printed) == (1, False) or "no target" in error
    words = ["release", "push", "--run", run, "--target", TARGET]
    code, printed, error = call(*words)
    assert (code, "pruned.fp32.onnx: is not what it was" in error) == (1, True)


@pytest.mark.slow
def test_a_file_that_is_gone_is_made_anew_from_its_stage(run: Path, call: Call) -> None:
    report = read_json(run / "report.json")
    shipped = run / report["result"]["artifact"]
    before = shipped.read_bytes()
    shipped.unlink()
    code, printed, error = call("deploy", "--run", run, "--from", "export")
    assert code == 3, error
    assert shipped.read_bytes() == before
    assert "gate fail         quality_drop at_most 0.05 (F1)" in printed
    code, _, error = call("gate", "--run", run)
    assert code == 3, error


def test_a_stage_that_is_none_or_of_no_run_is_refused(run: Path, call: Call, tmp_path: Path) -> None:
    assert call("deploy", "--run", run, "--from", "exprt")[0] == 2
    code, _, error = call("deploy", "--target", "local", "--run", tmp_path / "new", "--from", "export")
    assert (code, "there is no run yet" in error) == (2, True)
    code, printed, _ = call("deploy", "--run", run, "--from", "measure", "--dry-run")
    assert code == 0
    words = {line.split()[1]: line.split()[0] for line in printed.splitlines() if line.startswith("  ")}
    assert [name for name, word in words.items() if word == "will"] == ["measure", "confirm", "gate", "report"]
