"""`edgeprune baseline` and `gate --baseline` on recorded runs: no board, no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import call
from fake_board import FakeBoard, shipped_hash
from measured_run import ENERGY, FACTS, Shipped, record_measured_run

from edgeprune.core.metric import TOP1, Metric
from edgeprune.history.filters import Filters
from edgeprune.history.store import read_rows
from edgeprune.run import read_json, write_json

SURE = replace(ENERGY, uncertainty_mj=0.02)
STEADY = Shipped(processes=6, energy=SURE)
RMSE = Metric("RMSE", better="lower", unit="K")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPRUNE_HISTORY", "")
    return tmp_path


def record(name: str, pruned_ms: float = 0.4, shipped: Shipped = STEADY, verdict: int = 0) -> Path:
    """A run that was judged by its own gates."""
    run = record_measured_run(Path(name).absolute(), pruned_ms, shipped=shipped)
    assert call("gate", "--run", run)[0] == verdict
    return run


def against(run: Path, baseline: object, *options: object) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Exit code, outcome by metric, and what the report says."""
    code, _, said = call("gate", "--run", run, "--baseline", baseline, *options)
    assert code in (0, 3, 4), said
    report = read_json(run / "report.json")
    assert {"pass": 0, "fail": 3, "inconclusive": 4}[report["verdict"]] == code
    return code, {row["metric"]: row["outcome"] for row in report["against"]["rows"]}, report


def test_the_same_again_passes_and_every_metric_of_both_is_compared() -> None:
    record("old", 0.4)
    assert call("baseline", "set", "main", "--run", "old")[0] == 0
    code, outcomes, report = against(record("new", 0.4005), "main")
    assert (code, set(outcomes.values())) == (0, {"pass"})
    assert set(outcomes) == {
        "latency_p50_ms", "latency_p90_ms", "latency_p95_ms", "latency_p99_ms", "init_ms", "first_ms",
        "peak_memory_mib", "energy_mj", "power_w", "file_bytes", "parameters", "macs", "activation_bytes", "quality",
    }  # fmt: skip
    (note,) = report["against"]["notes"]
    assert note.startswith("the shipped file is the baseline's, byte for byte: what differs is the session")
    assert report["against"]["not_compared"]["sram_bytes"] == "not measured in the run"
    assert (
        'name="latency_p50_ms against main: 2 % or 0.001 ms worse at most"' in Path("new/gates.junit.xml").read_text()
    )


@pytest.mark.parametrize(
    ("pruned_ms", "shipped", "metric"),
    [
        (0.44, STEADY, "latency_p50_ms"),
        (0.4001, replace(STEADY, quality=0.70), "quality"),
        (0.4001, replace(STEADY, size=3000), "file_bytes"),
    ],
)
def test_a_planted_regression_fails(pruned_ms: float, shipped: Shipped, metric: str) -> None:
    record("old", 0.4)
    call("baseline", "set", "main", "--run", "old")
    code, outcomes, report = against(record("new", pruned_ms, shipped), "main")
    assert (code, outcomes[metric]) == (3, "fail")
    assert report["gates"][0]["outcome"] == "pass"  # its own gates see nothing


@pytest.mark.parametrize(("before", "after", "code"), [(0.30, 0.299, 0), (0.30, 0.40, 3), (0.30, 0.10, 0)])
def test_of_an_error_a_lower_one_is_better(before: float, after: float, code: int) -> None:
    record("old", shipped=replace(STEADY, metric=RMSE, quality=before))
    call("baseline", "set", "main", "--run", "old")
    assert against(record("new", 0.4001, replace(STEADY, metric=RMSE, quality=after)), "main")[0] == code


def test_tflite_without_a_power_sensor() -> None:
    shipped = replace(STEADY, format="tflite", energy=None)
    record("old", shipped=shipped)
    assert "pruned-tflite-fp32" in call("baseline", "set", "main", "--run", "old")[1]
    code, outcomes, report = against(record("new", 0.4001, shipped), "main")
    assert (code, "energy_mj" in outcomes) == (0, False)
    assert report["against"]["not_compared"]["power_w"] == "not measured in the run: no power sensor"
    assert against(record("slow", 0.46, shipped), "main")[0] == 3


def test_sessions_with_nothing_in_common_decide_little() -> None:
    """Of one process without windows nothing tells how fast the board was: 3 % may be anything, a factor is not."""
    record("old", shipped=Shipped())
    call("baseline", "set", "main", "--run", "old")
    code, outcomes, report = against(record("new", 0.412, Shipped()), "main")
    assert (code, outcomes["latency_p50_ms"]) == (4, "inconclusive")
    assert "sessions with nothing in common" in report["against"]["title"]


def test_a_run_that_did_not_pass_is_no_baseline() -> None:
    record("slow", 0.6, verdict=3)
    code, _, said = call("baseline", "set", "main", "--run", "slow")
    assert (code, "its verdict is 'fail'; only a run that passed its gates is a baseline" in said) == (1, True)
    assert not Path("baselines").exists()
    new = record("new")
    before = read_json(new / "report.json")
    code, _, said = call("gate", "--run", new, "--baseline", "slow")
    assert (code, "baseline slow: its verdict is 'fail'" in said) == (1, True)
    assert read_json(new / "report.json") == before  # a refusal leaves the verdict


def test_a_run_that_was_planned_on_an_estimate_is_no_baseline() -> None:
    run = record_measured_run(Path("estimated").absolute(), request={"estimate": True}, shipped=STEADY)
    for words in (("baseline", "set", "main", "--run", run), ("gate", "--run", record("new"), "--baseline", run)):
        code, _, said = call(*words)
        assert (code, "was planned on an estimated profile" in said) == (1, True)


def test_a_run_that_was_not_judged_is_no_baseline() -> None:
    run = record_measured_run(Path("measured").absolute(), shipped=STEADY)
    code, _, said = call("baseline", "set", "main", "--run", run)
    assert (code, "stage 'gate' has not run yet" in said) == (1, True)


def test_a_run_directory_and_a_file_are_baselines_too() -> None:
    old, new = record("old"), record("new", 0.4001)
    call("baseline", "set", "main", "--run", old, "--to", "elsewhere")
    (place,) = Path("elsewhere/main").glob("*.json")
    for baseline in (old, place, "elsewhere/main"):
        assert against(new, baseline)[0] == 0
    code, _, said = call("gate", "--run", old, "--baseline", place)
    assert (code, "is this run itself" in said) == (1, True)
    code, _, said = call("gate", "--run", old, "--baseline", "./old/")
    assert (code, "is this run itself" in said) == (1, True)


def test_a_name_goes_before_a_directory_of_that_name() -> None:
    record("main", 0.2)
    call("baseline", "set", "main", "--run", record("old", 0.4))
    new = record("new", 0.4001)
    assert against(new, "main")[0] == 0
    assert against(new, "./main")[0] == 3


@pytest.mark.parametrize("name", ["../main", "a/b", "", ".hidden", "-x", "a" * 65, "a b"])
def test_a_path_is_no_name(name: str) -> None:
    run = record("old")
    code, _, said = call("baseline", "set", "--run", run, "--", name)
    assert (code, "is no name of a baseline" in said) == (1, True)


def test_each_kind_of_device_has_its_own_under_one_name() -> None:
    fast = replace(STEADY, facts=replace(FACTS, cpu="a faster CPU"))
    call("baseline", "set", "main", "--run", record("slow-old", 0.4))
    call("baseline", "set", "main", "--run", record("fast-old", 0.2, fast))
    assert len(list(Path("baselines/main").glob("*.json"))) == 2
    assert against(record("slow-new", 0.4001), "main")[0] == 0
    assert against(record("fast-new", 0.4, fast), "main")[0] == 3
    other = record("other", 0.4, replace(STEADY, facts=replace(FACTS, cpu="a third CPU")))
    code, _, said = call("gate", "--run", other, "--baseline", "main")
    assert (code, "none for this kind of device, a board, a third CPU" in said) == (1, True)
    code, printed, _ = call("baseline", "list")
    assert (code, printed.count("main ")) == (0, 2)
    code, printed, _ = call("baseline", "show", "main")
    assert (code, "a faster CPU" in printed, "latency_p50_ms" in printed) == (0, True, True)


def test_a_truncated_file_is_told() -> None:
    call("baseline", "set", "main", "--run", record("old"))
    (place,) = Path("baselines/main").glob("*.json")
    content, new = place.read_text().rstrip("\n"), record("new", 0.4001)
    for keep in (0, 1, 100, -1):
        place.write_text(content[:keep])
        code, _, said = call("gate", "--run", new, "--baseline", "main")
        assert (code, f"{place}: cannot be read" in said, "set the baseline again" in said) == (1, True, True)
    code, _, said = call("baseline", "list")
    assert (code, f"{place}: cannot be read" in said) == (1, True)


def test_a_figure_changed_by_hand_and_another_artifact_are_told() -> None:
    call("baseline", "set", "main", "--run", record("old"))
    (place,), (copy,) = Path("baselines/main").glob("*.json"), Path("baselines/main").glob("*.onnx")
    new, content = record("new", 0.4001), place.read_text()
    place.write_text(content.replace('"quality":0.79', '"quality":0.7'))
    assert "is not what was written (its checksum differs)" in call("gate", "--run", new, "--baseline", "main")[2]
    place.write_text(content)
    copy.write_bytes(b"another file")
    assert "is not the file that baseline 'main' measured" in call("gate", "--run", new, "--baseline", "main")[2]
    copy.unlink()
    assert call("gate", "--run", new, "--baseline", "main")[0] == 0  # recorded figures need no file
    code, _, said = call("gate", "--run", new, "--baseline", "main", "--interleave")
    assert (code, f"{copy}: is gone" in said) == (1, True)


def test_setting_again_leaves_one_file_and_one_copy() -> None:
    call("baseline", "set", "main", "--run", record("old"))
    call("baseline", "set", "main", "--run", record("newer", 0.3, replace(STEADY, size=900)))
    assert sorted(path.suffix for path in Path("baselines/main").iterdir()) == [".json", ".onnx"]
    assert "p50 0.30" in call("baseline", "show", "main")[1]
    assert call("baseline", "remove", "main")[0] == 0
    assert list(Path("baselines").iterdir()) == []
    code, _, said = call("baseline", "show", "main")
    assert (code, "no baseline 'main': neither a name in baselines, a run directory, nor a file" in said) == (1, True)


def test_only_baselines_are_removed() -> None:
    run = record("old")
    assert call("baseline", "remove", run)[0] == 1
    Path("mine.json").write_text("{}")
    assert call("baseline", "remove", "mine.json")[0] == 1
    assert (run / "report.json").exists()
    assert Path("mine.json").exists()


def test_a_misspelt_name_is_told() -> None:
    call("baseline", "set", "release", "--run", record("old"))
    assert "did you mean 'release'?" in call("gate", "--run", record("new"), "--baseline", "relaese")[2]


def test_limits_of_a_file_replace_the_default_ones() -> None:
    call("baseline", "set", "main", "--run", record("old", shipped=replace(STEADY, energy=None)))
    new = record("new", 0.44, replace(STEADY, energy=None))
    assert against(new, "main")[0] == 3
    limits = Path("limits.toml")
    names = ("latency_p50_ms", "latency_p90_ms", "latency_p95_ms", "latency_p99_ms")
    limits.write_text("".join(f'[[baseline]]\nmetric = "{name}"\nmax_regression = 0.2\n' for name in names))
    code, outcomes, report = against(new, "main", "--gates", limits)
    assert (code, outcomes["latency_p50_ms"]) == (0, "pass")
    assert report["gates"][0]["gate"] == "speedup at_least 2"
    limits.write_text('[[baseline]]\nmetric = "energy_mj"\nmax_regression = 0.1\nfloor = 0.2\n')
    code, outcomes, report = against(new, "main", "--gates", limits)
    assert outcomes["energy_mj"] == "inconclusive"
    (row,) = (row for row in report["gates"] if row["gate"].startswith("energy_mj"))
    assert row["reason"] == "not measured in the run: no power sensor"


def test_limits_that_were_not_judged_are_told() -> None:
    new = record("new", 0.4001)
    (new / "board.toml").write_text(
        (new / "board.toml").read_text() + '[[baseline]]\nmetric = "file_bytes"\nfloor = 10\n'
    )
    call("gate", "--run", new)
    notes = read_json(new / "report.json")["notes"]
    assert any(note.startswith("limits against a baseline were not judged") for note in notes)
    call("baseline", "set", "main", "--run", record("old"))
    _, _, report = against(new, "main")
    assert not any(note.startswith("limits against a baseline") for note in report["notes"])


def test_a_run_that_is_judged_again_without_it_forgets_the_baseline() -> None:
    call("baseline", "set", "main", "--run", record("old", 0.3))
    new = record("new", 0.4)
    assert against(new, "main")[0] == 3
    code, printed, _ = call("report", "--run", new)
    assert (code, "against baseline main" in printed) == (3, True)
    assert call("gate", "--run", new)[0] == 0
    assert read_json(new / "report.json")["against"] is None


def test_a_sustained_run_is_compared_where_both_have_one() -> None:
    runs = [record("old"), record("new", 0.4001)]
    sha256 = next(row["sha256"] for row in read_json(runs[0] / "report.json")["artifacts"] if row["shipped"])
    for run, ratio in zip(runs, (1.0, 1.2), strict=True):
        change = {"ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01}
        write_json(run / "sustained.json", {"sha256": sha256, "change": change})
    call("baseline", "set", "main", "--run", "old")
    code, outcomes, _ = against(runs[1], "main")
    assert (code, outcomes["sustained_slowdown"]) == (3, "fail")


# --interleave


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeBoard], list[str | None]]:
    def install(board: FakeBoard) -> list[str | None]:
        hosts: list[str | None] = []

        @contextmanager
        def open_board(_: object, host: str | None, *__: object) -> Iterator[FakeBoard]:
            hosts.append(host)
            yield board

        monkeypatch.setattr("edgeprune.device.boards.open_board", open_board)
        return hosts

    return install


@pytest.mark.parametrize(("now_ms", "code"), [(0.4, 0), (0.43, 3), (0.35, 0)])
def test_both_files_are_measured_again_and_that_decides(
    now_ms: float, code: int, boards: Callable[[FakeBoard], list[str | None]]
) -> None:
    old, new = record("old", 0.3), record("new", 0.4, replace(STEADY, size=1010))  # as recorded it is slower
    call("baseline", "set", "main", "--run", old)
    board = FakeBoard({shipped_hash(old): 0.4, shipped_hash(new): now_ms})
    hosts = boards(board)
    own_code, outcomes, report = against(new, "main", "--interleave", "--host", "other-board")
    assert (own_code, outcomes["latency_p50_ms"]) == (code, "fail" if code else "pass")
    assert (hosts, board.sessions) == (["other-board"], 1)
    assert report["against"]["sessions"] == 1
    (row,) = (row for row in report["against"]["rows"] if row["metric"] == "latency_p50_ms")
    assert row["ratio"] == pytest.approx(now_ms / 0.4, rel=0.004)
    assert set(json.loads((new / "beside.json").read_text())) == {"run", "baseline"}
    call("gate", "--run", new)
    assert not (new / "beside.json").exists()


def test_what_was_measured_in_turns_is_in_the_history_under_the_names_of_the_run(
    boards: Callable[[FakeBoard], list[str | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRUNE_HISTORY", str(tmp_path / "history.sqlite"))
    old, new = record("old", 0.4), record("new", 0.4, replace(STEADY, size=1010))
    call("baseline", "set", "main", "--run", old)
    boards(FakeBoard({shipped_hash(old): 0.41, shipped_hash(new): 0.41}))
    against(new, "main", "--interleave")
    rows = {row.artifact: row for row in read_rows(tmp_path / "history.sqlite", Filters(stage="gate"))}
    assert {name: row.artifact_sha256 for name, row in rows.items()} == {
        "pruned-onnx-fp32": shipped_hash(new),
        "baseline": shipped_hash(old),
    }
    assert rows["pruned-onnx-fp32"].shipped
    assert (rows["baseline"].shipped, rows["baseline"].quality, rows["baseline"].speedup) == (None, None, None)


def test_it_measures_on_while_undecided_and_not_for_ever(boards: Callable[[FakeBoard], list[str | None]]) -> None:
    old, new = record("old", 0.4), record("new", 0.4, replace(STEADY, size=1010))
    call("baseline", "set", "main", "--run", old)
    board = FakeBoard({shipped_hash(old): 0.4, shipped_hash(new): 0.408})  # the limit itself
    boards(board)
    code, outcomes, _ = against(new, "main", "--interleave")
    assert (code, outcomes["latency_p50_ms"], board.sessions) == (4, "inconclusive", 3)


def test_a_session_that_is_not_valid_decides_nothing(boards: Callable[[FakeBoard], list[str | None]]) -> None:
    old, new = record("old", 0.4), record("new", 0.4, replace(STEADY, size=1010))
    call("baseline", "set", "main", "--run", old)
    board = FakeBoard(dict.fromkeys(map(shipped_hash, (old, new)), 0.4), problems=["throttled"])
    boards(board)
    code, outcomes, _ = against(new, "main", "--interleave")
    assert (code, outcomes["latency_p50_ms"], outcomes["file_bytes"], board.sessions) == (4, "inconclusive", "pass", 3)


def test_another_kind_of_board_is_refused_before_it_measures(
    boards: Callable[[FakeBoard], list[str | None]],
) -> None:
    old, new = record("old", 0.4), record("new", 0.4001)
    call("baseline", "set", "main", "--run", old)
    board = FakeBoard({}, facts=replace(FACTS, cores=8))
    boards(board)
    before = read_json(new / "report.json")
    code, _, said = call("gate", "--run", new, "--baseline", "main", "--interleave")
    assert (code, "name a board of that kind by --host" in said, board.sessions) == (1, True, 0)
    assert read_json(new / "report.json") == before


@pytest.mark.parametrize(
    "options", [["--interleave"], ["--baseline", "main", "--host", "pi"], ["--baseline", "main", "--allow-busy"]]
)
def test_options_that_say_nothing_are_refused(options: list[str]) -> None:
    assert call("gate", "--run", record("new"), *options)[0] == 2


def test_the_quality_in_percent_has_one_input_for_a_floor() -> None:
    shipped = replace(STEADY, metric=TOP1, quality=80.0)
    call("baseline", "set", "main", "--run", record("old", shipped=shipped))
    assert against(record("new", 0.4001, replace(shipped, quality=70.0)), "main")[0] == 0  # 1 of 10
    assert against(record("worse", 0.4001, replace(shipped, quality=69.0)), "main")[0] == 3
