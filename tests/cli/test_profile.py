"""`edgeprune profile show` and `edgeprune profile calibrate`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from recorded import record_run

from edgeprune.cli import main
from edgeprune.core.estimating.estimate import EstimatedProfile, Parameter
from edgeprune.core.estimating.profiles import parse_profiles
from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey, render_table
from edgeprune.shipped import list_profiles, load_profiles, shipped_dir

TARGET = 'description = "a board of mine"\nruntime = "litert"\nprecision = "fp32"\nthreads = 2\n'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shipped(board: str) -> EstimatedProfile:
    path = shipped_dir("hardware_profiles") / f"{board}.json"
    return parse_profiles(path.read_text(), path.name).choose("litert", "fp32", 2)


def net(width: int, depth: int, size: int) -> tuple[LayerShape, ...]:
    block = LayerShape("conv", width, width, (3, 3), (1, 1), 1, (size, size), (1, 1))
    whole = LayerShape("pool", width, width, (size, size), (size, size), 1, (size, size), (0, 0))
    return (replace(block, cin=3), *[block] * depth, whole, LayerShape("linear", width, 10))


NETS = [
    net(width, depth, size)
    for width, depth, size in zip((8, 24, 40, 64, 96, 128), (2, 9, 4, 3, 5, 2), (7, 14, 28, 14, 7, 14), strict=True)
]


def write_rows(
    folder: Path, truth: EstimatedProfile, nets: Sequence[tuple[LayerShape, ...]], precision: str = ""
) -> Path:
    lines = ["model,ms" + (",precision" if precision else "")]
    for index, layers in enumerate(nets):
        (folder / f"net{index}.json").write_text(json.dumps([asdict(layer) for layer in layers]))
        cells = (f"net{index}.json", f"{truth.predict_net(layers).latency_ms:.6g}", precision)
        lines.append(",".join(filter(None, cells)))
    path = folder / "rows.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def slower(profile: EstimatedProfile, factor: float) -> EstimatedProfile:
    speed = profile.parameters["speed"]
    return replace(profile, parameters={**profile.parameters, "speed": Parameter(speed.value / factor, speed.spread)})


def calibrate(*words: str) -> None:
    main(["profile", "calibrate", *words])


def fails(code: int, *words: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["profile", *words])
    assert exit_.value.code == code


def test_a_new_board_is_calibrated_from_another(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "mine.toml").write_text(TARGET)
    truth = slower(shipped("rpi4"), 2.5)
    rows = write_rows(home, truth, NETS)
    calibrate("--target", "mine.toml", "--start", "rpi4", "--measurements", str(rows))
    text = capsys.readouterr().out
    before, after = (line.split() for line in text.splitlines() if line.startswith(("before", "after")))
    assert float(before[2].rstrip("%")) == pytest.approx(60, abs=1)
    assert float(after[4].rstrip("%")) < 15
    board = load_profiles("mine", list_profiles())
    assert str(home / "config" / "edgeprune" / "hardware_profiles" / "mine.json") in text
    assert [one.runtime for one in board.profiles] == ["litert"]
    assert "rpi4" in board.description
    found = board.choose("litert", "fp32", 2)
    assert found.origin == "estimated"
    assert found.conditions["calibration"]["after_left_out"]["count"] == len(NETS)
    unseen = net(48, 6, 28)
    assert found.predict_net(unseen).latency_ms == pytest.approx(truth.predict_net(unseen).latency_ms, rel=0.1)
    assert found.predict_net(unseen).kind == "estimated"


def test_the_shipped_profile_is_what_it_starts_from_each_time(home: Path) -> None:
    rows = write_rows(home, slower(shipped("rpi5"), 2.0), NETS)
    how = ("--runtime", "litert", "--precision", "fp32", "--threads", "2", "--output", "out.json")
    written = []
    for _ in range(2):
        calibrate("--target", "rpi5", "--measurements", str(rows), *how)
        written.append((home / "out.json").read_text())
    assert written[0] == written[1]
    board = parse_profiles(written[0], "out.json")
    assert [one.runtime for one in board.profiles] == ["onnxruntime", "litert"], "the other runtime is kept"
    assert sum("calibration" in one.conditions for one in board.profiles) == 1


def test_what_a_file_holds_of_another_runtime_stays(home: Path) -> None:
    rows = write_rows(home, slower(shipped("rpi4"), 2.0), NETS)
    for runtime in ("litert", "onnxruntime"):
        how = ("--runtime", runtime, "--precision", "fp32", "--threads", "2")
        calibrate("--target", "rpi4", *how, "--measurements", str(rows))
    board = load_profiles("rpi4", list_profiles())
    assert {one.runtime for one in board.profiles if "calibration" in one.conditions} == {"litert", "onnxruntime"}


def test_rows_say_their_precision_and_correct_the_board_in_all(home: Path) -> None:
    truth = replace(slower(shipped("rpi4"), 2.0), precision="int8")
    rows = write_rows(home, truth, NETS, "int8")
    how = ("--runtime", "litert", "--precision", "fp32", "--threads", "2")
    calibrate("--target", "rpi4", *how, "--measurements", str(rows))
    for precision in ("int8", "fp32"):
        before = replace(shipped("rpi4"), precision=precision).predict_net(NETS[2]).latency_ms
        after = load_profiles("rpi4", list_profiles()).choose("litert", precision, 2).predict_net(NETS[2]).latency_ms
        assert after / before == pytest.approx(2, rel=0.2)


def test_a_calibrated_file_of_an_earlier_version_is_not_read_for_another(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_rows(home, shipped("rpi4"), NETS)
    old = json.loads((shipped_dir("hardware_profiles") / "rpi4.json").read_text()) | {"version": 1}
    (home / "old.json").write_text(json.dumps(old))
    fails(1, "calibrate", "--target", "rpi4", "--measurements", str(rows), "--output", "old.json")
    assert "old.json: version 1; this edgeprune reads version 2; remove the file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "words", "code", "message"),
    [
        ("model,ms\nnet0.json,1\nnet1.json,soon\n", (), 1, "rows.csv: line 3: ms is 'soon'"),
        (
            "model,ms\nnet0.json,1\nnet1.tflite,1\n",
            (),
            1,
            "line 3: net1.tflite: layers cannot be read from .tflite files",
        ),
        ("model,ms\nnet0.json,1\nnet9.json,1\n", (), 1, "line 3"),
        ("model,ms\nnet0.json,1\nnet1.json,2\n", (), 1, "2 rows of 2 different nets; at least 5 rows of 3"),
        ("model,ms,threads\n" + "".join(f"net{i}.json,1,8\n" for i in range(6)), (), 1, "8 threads in a row"),
        ("model,ms,precision\nnet0.json,1,int4\n", (), 1, "line 2: precision is 'int4'; expected fp32, fp16, int8"),
        (
            "model,ms,precision\n" + "".join(f"net{i}.json,1,fp16\n" for i in range(6)),
            (),
            1,
            "Cortex-A72 has no documented peak at fp16",
        ),
        ("model,ms\n", ("--target", "local"), 2, "with --start: jetson-nano"),
        ("model,ms\n", ("--start", "rpi9"), 1, "no estimated profile of 'rpi9'; did you mean"),
    ],
)
def test_wrong_input_is_told(
    home: Path, capsys: pytest.CaptureFixture[str], rows: str, words: tuple[str, ...], code: int, message: str
) -> None:
    write_rows(home, shipped("rpi4"), NETS)
    (home / "rows.csv").write_text(rows)
    fails(code, "calibrate", "--target", "rpi4", "--measurements", "rows.csv", *words)
    assert message in capsys.readouterr().err
    assert not (home / "config").exists()


def test_a_file_that_is_no_profile_is_not_written_over(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_rows(home, shipped("rpi4"), NETS)
    (home / "precious.json").write_text('{"a": 1}')
    fails(
        1,
        "calibrate",
        "--target",
        "rpi4",
        "--runtime",
        "litert",
        "--measurements",
        str(rows),
        "--output",
        "precious.json",
    )
    assert "precious.json" in capsys.readouterr().err
    assert (home / "precious.json").read_text() == '{"a": 1}'


def table() -> str:
    shapes = [LayerShape("conv", cin, cout, (1, 1), (1, 1), 1, (8, 8), (0, 0)) for cin in (4, 8) for cout in (4, 8, 12)]
    points = tuple(LatencyPoint(shape, 1e-3 * shape.cout, 9e-4 * shape.cout, 2e-3 * shape.cout) for shape in shapes)
    return render_table(LatencyTable(TableKey("device", "onnxruntime", "1.31.1", "int8", 4), points))


def test_a_table_is_drawn_beside_itself(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "mine.json").write_text(table())
    main(["profile", "show", "--table", "mine.json"])
    text = capsys.readouterr().out
    assert "conv 1x1 @ 8x8: latency over cout, 6 points" in text
    assert "onnxruntime 1.31.1 int8, 4 threads" in text
    assert (home / "mine.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_is_drawn_with_its_validation_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "run").mkdir()
    (home / "run" / "latency_table.json").write_text(table())
    profiled = {"correction": {"error": 0.021, "variants": 12}, "device": {"host": "local", "cpu": "some"}}
    record_run(home / "run", {"target": "local"}, {"profile": profiled}, {"profile": ["latency_table.json"]})
    main(["profile", "show", "--run", "run"])
    assert "missed by 2.1% on average, leave one out of 12" in capsys.readouterr().out
    assert (home / "run" / "staircases.png").exists()


def test_show_says_what_it_lacks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "run").mkdir()
    fails(2, "show")
    fails(2, "show", "--run", "run")
    assert "measures one" in capsys.readouterr().err
    (home / "bad.json").write_text("{}")
    fails(1, "show", "--table", "bad.json")
    assert "bad.json: not a latency table" in capsys.readouterr().err


def test_options_before_the_command_are_not_swallowed(capsys: pytest.CaptureFixture[str]) -> None:
    fails(2, "--target", "local", "show", "--table", __file__)
    assert "behind the command" in capsys.readouterr().err


def test_profile_alone_still_wants_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    fails(2)
    assert "--target is needed for a new run" in capsys.readouterr().err
