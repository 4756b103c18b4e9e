"""What runs keep for one another: found by all that it hangs on, whole or not at all, and cleared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from command_line import run_command
from places import SUPPORT

from edgeprune.core.latency.correction import Correction
from edgeprune.core.measuring.measurement import DeviceFacts
from edgeprune.deployment import REQUEST
from edgeprune.errors import RunError
from edgeprune.pipeline import LINE, restart_from
from edgeprune.run import Run, open_run
from edgeprune.stages import memory
from edgeprune.stages.job import Job
from edgeprune.stages.latency import _is_undisturbed
from edgeprune.stages.memory import clear_cache, list_entries, remember
from edgeprune.stages.results import Profiled, run_stage

FACTS = DeviceFacts("board", "aarch64", "a board", "a CPU", 4, (), 1000, "Linux", "6.1", "3.11", {"onnxruntime": "1"})
READS = {"device": FACTS.fingerprint, "model": "0" * 64, "widths": {"conv": [4, 8]}}
Profile = Callable[..., tuple[Profiled, list[str]]]


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """Profile in a new run; what came of it, and what was said. A figure that is measured is a number never seen."""
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    count = iter(range(100))

    def run(reads: dict[str, Any] = READS, anew: bool = False, is_quiet: bool = True, **asked: Any) -> Any:
        number, said = next(count), list[str]()
        request = dict.fromkeys(REQUEST) | {"target": "local", "recipe": "mine.py", "host": "desk"} | asked
        with open_run(tmp_path / f"run{number}", request) as opened:
            job = Job(opened, said.append, ExitStack(), anew={"profile"} if anew else set())

            def measure() -> Profiled:
                opened.product("tables/latency.json").write_text(f"{number}")
                return Profiled(baseline_ms=1.0 + number, correction=Correction(), device=FACTS)

            result = run_stage(opened, Profiled, lambda: remember(job, Profiled, reads, measure, lambda _: is_quiet)[0])
            assert opened.file("tables/latency.json").read_text() == f"{result.baseline_ms - 1:.0f}"
        return result.baseline_ms, said

    return run


def test_equal_work_is_done_once(profile: Profile) -> None:
    assert [profile()[0] for _ in range(3)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "changed", [{"device": "other"}, {"model": "1" * 64}, {"widths": {"conv": [4]}}, {"more": None}], ids=str
)
def test_other_work_is_done_anew(profile: Profile, changed: dict[str, Any]) -> None:
    assert [profile()[0], profile({**READS, **changed})[0], profile()[0]] == [1.0, 2.0, 1.0]


@pytest.mark.parametrize("how", [{"fresh": True}, {"anew": True}], ids=str)
def test_fresh_work_is_done_anew_and_kept(profile: Profile, how: dict[str, Any]) -> None:
    assert [profile()[0], profile(**how)[0], profile()[0]] == [1.0, 2.0, 2.0]


def test_what_was_measured_beside_other_work_is_not_kept(profile: Profile) -> None:
    assert [profile(is_quiet=False)[0], profile()[0]] == [1.0, 2.0]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a file that is gone": lambda entry: (entry / "files/tables/latency.json").unlink(),
    "a file that was changed": lambda entry: (entry / "files/tables/latency.json").write_text("other"),
    "no JSON": lambda entry: (entry / "entry.json").write_text("{"),
    "another version": lambda entry: spoil(entry / "entry.json", result={"version": 0}),
    "a result that was changed": lambda entry: spoil(entry / "entry.json", result={"version": 1, "baseline_ms": 9.0}),
    "other work": lambda entry: spoil(entry / "entry.json", reads={}),
    "a folder that is a file": lambda entry: (shutil.rmtree(entry), entry.write_text("a file")),
    "a number that is none": lambda entry: (entry / "entry.json").write_text('{"sha256": NaN, "reads": NaN}'),
    "no result": lambda entry: (entry / "entry.json").write_text("{}"),
    "no document": lambda entry: (entry / "entry.json").write_text("[]"),
}


def spoil(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_and_the_work_done_anew(profile: Profile, tmp_path: Path, name: str) -> None:
    profile()
    (entry,) = (tmp_path / "cache" / "stages").iterdir()
    DAMAGES[name](entry)
    latency_ms, said = profile()
    assert latency_ms == 2.0
    is_told = any("damaged, and left aside" in line for line in said)
    assert is_told == (name != "a folder that is a file")
    assert profile()[0] == 2.0


def test_an_entry_writes_nothing_outside_of_the_run(profile: Profile, tmp_path: Path) -> None:
    profile()
    (entry,) = (tmp_path / "cache" / "stages").iterdir()
    document = json.loads((entry / "entry.json").read_text())
    for name in ("../evil", str(tmp_path / "evil")):
        (entry / "files" / name).resolve().parent.mkdir(parents=True, exist_ok=True)
        document["files"] = {name: sha256(b"evil").hexdigest()}
        document["sha256"] = memory._hash_entry(document)
        (entry / "entry.json").write_text(json.dumps(document))
        (tmp_path / "cache" / "evil").write_bytes(b"evil")
        assert any("lies outside of a run" in line for line in profile(fresh=None)[1])
        assert not (tmp_path / "evil").exists()
        (entry / "entry.json").write_text(json.dumps(document))


def keep_often(cache: Path, number: int) -> None:
    """Keep and recall the same work again and again; a figure and its file must be of one process."""
    os.environ["EDGEPRUNE_CACHE"] = str(cache)
    for turn in range(40):
        request = dict.fromkeys(REQUEST) | {"target": "local", "recipe": "mine.py", "fresh": turn % 2 == 0}
        with open_run(cache.parent / f"run{number}-{turn}", request) as opened:
            job = Job(opened, lambda text: None, ExitStack())

            def measure(opened: Run = opened, value: float = number * 1000 + turn) -> Profiled:
                opened.product("table.json").write_text(f"{value}")
                return Profiled(baseline_ms=value, correction=Correction(), device=FACTS)

            def work(job: Job = job, measure: Callable[[], Profiled] = measure) -> Profiled:
                return remember(job, Profiled, READS, measure, lambda _: True)[0]

            result = run_stage(opened, Profiled, work)
            assert float(opened.file("table.json").read_text()) == result.baseline_ms


def test_processes_that_keep_the_same_work_do_not_mix_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import test_memory as tests; "
        "tests.keep_often(Path(sys.argv[1]), int(sys.argv[2]))"
    )
    folders = os.pathsep.join((str(Path(__file__).parent), str(SUPPORT), os.environ.get("PYTHONPATH", "")))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "cache"), str(number)],
            env={**os.environ, "PYTHONPATH": folders}, stderr=subprocess.PIPE, text=True,
        )
        for number in range(1, 4)
    ]  # fmt: skip
    for writer in writers:
        assert writer.communicate(timeout=120)[1] == ""
    assert not list((tmp_path / "cache" / "stages").glob(".partial-*"))


def test_whatever_lies_in_the_cache_is_listed_and_cleared(
    profile: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile()
    stages, tables = (tmp_path / "cache" / name for name in ("stages", "profiles"))
    tables.mkdir()
    (tables / "notes.txt").write_text("mine")
    (tables / "gone.json").symlink_to("/nowhere")
    (stages / "profile-list").mkdir()
    (stages / "profile-list" / "entry.json").write_text("[1]")
    (stages / "profile-pipe").mkdir()
    os.mkfifo(stages / "profile-pipe" / "entry.json")
    (stages / "profile-escape").mkdir()
    (stages / "profile-escape" / "entry.json").write_text(json.dumps({"recipe": "\x1b[31mred"}))
    _, out, _ = run_command(capsys, "cache", "list")
    assert out.count("not readable") == 2
    assert "\x1b" not in out
    code, _, _ = run_command(capsys, "cache", "clear")
    assert code == 0
    assert [path.name for path in tables.iterdir()] == ["notes.txt"]
    assert not list(stages.iterdir())


def test_a_cache_that_cannot_be_written_stops_nothing(profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "stages").write_text("a file")
    latency_ms, said = profile()
    assert latency_ms == 1.0
    assert any("not kept for other runs" in line for line in said)


def test_what_is_kept_is_listed_and_cleared(
    profile: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile()
    (tmp_path / "cache" / "profiles").mkdir()
    (tmp_path / "cache" / "profiles" / "board.json").write_text("{}")
    (tmp_path / "cache" / "board").mkdir()
    entries = list(list_entries())
    assert [entry.path.parent.name for entry in entries] == ["stages", "profiles"]
    assert "mine local desk" in entries[0].description
    assert run_command(capsys, "cache", "list")[1].count("\n") == 5
    assert clear_cache() == sum(entry.bytes for entry in entries)
    assert list(list_entries()) == []
    assert (tmp_path / "cache" / "board").is_dir(), "what is not kept for runs stays"
    assert profile()[0] == 2.0


@pytest.mark.parametrize(
    ("changes", "is_kept"), [({}, True), ({"problems": ("others took 1 core",)}, False), ({"twin_gap": 0.03}, False)]
)
def test_a_profile_that_something_disturbed_is_not_for_others(changes: dict[str, Any], is_kept: bool) -> None:
    assert _is_undisturbed(Profiled(baseline_ms=1.0, correction=Correction(), device=FACTS, **changes)) is is_kept


def test_a_measured_profile_without_its_device_is_refused(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", dict.fromkeys(REQUEST) | {"target": "local"}) as run:
        run_stage(run, Profiled, lambda: Profiled(baseline_ms=1.0, correction=Correction()))
        with pytest.raises(RunError, match=r"names no device.*--from profile"):
            _ = Job(run, lambda text: None, ExitStack()).facts


def test_a_stage_that_is_made_anew_is_so_with_all_after_it(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", dict.fromkeys(REQUEST) | {"target": "local"}) as run:
        job = Job(run, lambda text: None, ExitStack())
        restart_from(job, "score")
        assert job.anew == {*LINE} - {"trace", "profile"}
