"""Files that a run goes by, changed after it has begun: what is told, and what they are held against."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call
from measured_run import record_measured_run

from edgeprune.core.stages import STEPS
from edgeprune.run import SOURCES, look_at_run, read_json
from edgeprune.scopes import begin_scope
from edgeprune.stages.job import Job, open_job
from edgeprune.stages.sources import describe_changes, note_sources

GATES = '[[gates]]\nmetric = "speedup"\nat_least = {limit}\n'


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A measured run whose stages have noted what they went by."""
    monkeypatch.setenv("EDGEPRUNE_HISTORY", "")
    (tmp_path / "gates.toml").write_text(GATES.format(limit=2))
    folder = record_measured_run(tmp_path / "run", 0.4)
    with open_job(folder, {}, print) as job:
        note_all(job)
    return folder


def note_all(job: Job) -> None:
    for stage in filter(job.run.finished, STEPS):
        note_sources(job, stage)


def read_files(run: Path) -> tuple[Path, Path]:
    """The recipe and the target of a run."""
    request = look_at_run(run).request
    return Path(request["recipe"]), Path(request["target"])


def gate(run: Path, *options: object) -> tuple[int, str, list[str]]:
    """Judge it; the exit code, what was said, and the notes of the report."""
    code, _, told = call("gate", "--run", run, *options)
    return code, told, read_json(run / "report.json")["notes"]


def test_nothing_is_said_of_files_that_are_as_they_were(run: Path) -> None:
    _, told, notes = gate(run)
    assert "since this run used it" not in told + " ".join(notes)


def test_a_target_that_was_changed_is_named_with_what_stays_and_what_goes_by_it(run: Path) -> None:
    gate(run)
    _, target = read_files(run)
    target.write_text(target.read_text() + "\n# edited\n")
    _, told, notes = gate(run)
    (line,) = [note for note in notes if "since this run used it" in note]
    assert line.startswith(f"{target}: was changed since this run used it; profile to confirm stay as made then")
    assert f"`edgeprune deploy --run {run} --from profile` makes all anew" in line
    assert line in told


def test_gates_that_were_changed_are_told_where_they_judge_anew_and_where_the_verdict_stays(
    run: Path, tmp_path: Path
) -> None:
    gates = tmp_path / "gates.toml"
    assert gate(run, "--gates", gates)[0] == 0
    gates.write_text(GATES.format(limit=9))
    _, _, told = call("report", "--run", run)
    assert f"{gates}: was changed since this run used it; gate stays as made then" in told
    code, told, notes = gate(run, "--gates", gates)
    assert code == 3
    assert f"{gates}: was changed since this run used it; gate uses it as it is now" in told
    assert not [note for note in notes if "since this run" in note]


@pytest.mark.parametrize("name", ["mine.py", "helper.py"])
def test_a_recipe_that_was_changed_is_named_also_where_it_is_what_it_imports(run: Path, name: str) -> None:
    (run / "mine.py").write_text("import helper")
    (run / "helper.py").write_text("x = 1")
    with open_job(run, {}, print) as job:
        note_all(job)
        assert not describe_changes(job)
        (run / name).write_text("x = 2")
        (line,) = describe_changes(job)
    assert line.startswith(f"{run / 'mine.py'}: was changed since this run used it")
    assert "--from trace`" in line


def test_a_recipe_that_is_gone_is_named(run: Path) -> None:
    (run / "mine.py").unlink()
    assert f"{run / 'mine.py'}: is gone since this run used it" in " ".join(gate(run)[2])


def test_a_run_without_the_note_is_taken_as_it_is(run: Path) -> None:
    (run / SOURCES).unlink()
    _, target = read_files(run)
    target.write_text(target.read_text() + "\n# edited\n")
    assert not [note for note in gate(run)[2] if "since this run" in note]


def test_a_scope_of_another_budget_knows_it_too(run: Path, tmp_path: Path) -> None:
    scope = tmp_path / "run" / "budgets" / "speedup-9"
    assert begin_scope(scope, run)
    assert read_json(scope / SOURCES) == read_json(run / SOURCES)
