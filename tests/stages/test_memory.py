"""What runs keep for one another: found by all that it hangs on, whole or not at all, and cleared."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from command_line import run_command

from edgeprune.core.latency.correction import Correction
from edgeprune.core.measuring.measurement import DeviceFacts
from edgeprune.deployment import REQUEST
from edgeprune.run import open_run
from edgeprune.stages.job import Job
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
    assert any("damaged, and left aside" in line for line in said)
    assert profile()[0] == 2.0


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
