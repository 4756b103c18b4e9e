"""`--json`: every command has it or no result, it prints one document, and docs/json.md describes each field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from command_line import run_command
from device_models import make_model
from judged_run import judge_run
from measured_run import FACTS, make_measurement
from micro_files import build_residual
from places import RECIPES, ROOT

from edgeprune import calibration
from edgeprune.cli import line
from edgeprune.cli.output import JSON_VERSION, json_option, print_result, render_json
from edgeprune.cli.root import cli
from edgeprune.core.boards.doctor import Finding
from edgeprune.core.estimating.calibrate import Errors
from edgeprune.core.latency.breakdown import LayerTime
from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.latency.table import LatencyPoint, LatencyTable, TableKey, render_table
from edgeprune.core.measuring.measurement import Conditions
from edgeprune.core.measuring.sustained import SustainedRun
from edgeprune.core.measuring.sustained import Window as SustainedWindow
from edgeprune.core.measuring.windows import Window
from edgeprune.core.releasing.release import ReleaseOnBoard
from edgeprune.device import boards as device_boards
from edgeprune.device.preparing import doctor, setup
from edgeprune.device.releasing import releases, signing
from edgeprune.device.ssh import trust
from edgeprune.exporting.parity.bisect import Bisection, LayerParity, Spread
from edgeprune.run import Run
from edgeprune.shipped import cache_dir
from edgeprune.stages import bisect, breakdown, memory
from edgeprune.stages import fleet as fleet_stage
from edgeprune.stages import model as model_stage

WITHOUT = {"completion": "prints a shell script", "devices": "", "cache": "", "release": "", "baseline": ""}
"""Commands without --json and why; groups have no result of their own."""
PAGE = ROOT / "docs" / "json.md"


def list_commands(command: click.Command = cli, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command below the root, by its words."""
    for name, inner in getattr(command, "commands", {}).items():
        words = f"{path} {name}".strip()
        yield words, inner
        yield from list_commands(inner, words)


def read_page() -> dict[str, set[str]]:
    """The documented fields by the words of the section, which the document of `Also ...` shares."""
    sections = re.split(r"^### `([^`]+)`$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {
        words: set(re.findall(r"^\| `([a-z_0-9.\[\]]+)` \|", text.split("\n## ")[0], re.MULTILINE))
        for words, text in zip(sections[::2], sections[1::2], strict=True)
    }


def test_every_command_has_it_or_no_result() -> None:
    lacking = {
        words
        for words, command in list_commands()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert lacking == WITHOUT.keys()


def test_every_command_has_its_section() -> None:
    words = {words for words, _ in list_commands()} - WITHOUT.keys()
    heads = {re.sub(r" (--|[A-Z]).*", "", name) for name in read_page()}
    alike = re.findall(r"`([a-z -]+)`", " ".join(re.findall(r"^Also .*$", PAGE.read_text(), re.MULTILINE)))
    assert not heads - words
    assert not words - heads - set(alike)


def check_fields(document: dict[str, Any], documented: set[str]) -> None:
    """Every documented field is there, and of each object that is described no field is left out."""
    assert document.pop("version") == JSON_VERSION
    objects: dict[str, Any] = {"": document}
    for path in documented:
        place = ""
        for step in path.split(".")[:-1]:
            value = objects[place][step.removesuffix("[]")]
            place = f"{place}{step}."
            assert value, f"{path}: nothing there to look at"
            objects[place] = value[0] if step.endswith("[]") else value
        assert path.split(".")[-1] in objects[place], path
    for place, value in objects.items():
        names = {re.split(r"[.\[]", path.removeprefix(place))[0] for path in documented if path.startswith(place)}
        assert not value.keys() - names, place


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judge_run(tmp_path_factory.mktemp("judged") / "run")


@pytest.fixture
def call(
    no_devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Run a command with --json; its document."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPRUNE_HOST", "local")
    monkeypatch.setenv("EDGEPRUNE_HISTORY", str(tmp_path / "history.sqlite"))

    def run(*words: object, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        ended, printed, told = run_command(capsys, *words, "--json")
        assert ended == code, told
        document = json.loads(printed)
        assert isinstance(document, dict)
        return document

    return run


Call = Callable[..., dict[str, Any]]
FIELDS = read_page()


@pytest.mark.parametrize("command", ["gate", "report"])
def test_verdicts(command: str, judged: Path, call: Call) -> None:
    document = call(command, "--run", judged)
    assert (document["verdict"], document["report"]["verdict"]) == ("pass", "pass")
    assert all(Path(path).is_file() for path in document["files"].values())
    check_fields(document, FIELDS["deploy"])


def test_a_failed_gate_is_a_document_and_no_error(judged: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "gates.toml").write_text('[[gates]]\nmetric = "latency_p50_ms"\nat_most = 0.001\n')
    folder = judge_run(tmp_path / "run")
    assert call("gate", "--run", folder, "--gates", "gates.toml", code=3)["verdict"] == "fail"


def test_a_dry_run(judged: Path, call: Call) -> None:
    document = call("deploy", "--dry-run", "--run", judged)
    assert (document["resumed"], document["stages"][0]["finished"]) == (True, True)
    check_fields(document, FIELDS["deploy --dry-run"])


def test_what_is_planned_and_exported(judged: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_run_line", lambda *_: None)
    (judged / "front.json").write_text(
        json.dumps({"origin": "measured", "front": [{"latency_ms": 1.0, "loss_increase": 0.0}]})
    )
    monkeypatch.setattr(Run, "file", lambda run, name: run.directory / name)
    check_fields(call("plan", "--run", judged), FIELDS["plan"])
    for command in ("prune", "profile"):
        check_fields(call(command, "--run", judged), FIELDS["prune"])
    for command in ("quantize", "export", "measure"):
        document = call(command, "--run", judged)
        assert {row["path"] for row in document["artifacts"]} == {
            "artifacts/original.fp32.onnx", "artifacts/pruned.fp32.onnx"
        }  # fmt: skip
        check_fields(document, FIELDS["quantize"])


def test_what_fits(call: Call) -> None:
    Path("net.tflite").write_bytes(build_residual())
    document = call("fit", "net.tflite", "--html", "page.html")
    assert document["peak"] == document["steps"][2]
    check_fields(document, FIELDS["fit MODEL"])


def test_a_bisection(judged: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LayerParity("conv", "Conv", float("nan"), Spread(0, 1, 0, 1), Spread(0, 1, 0, 1))
    finding = bisect.Finding("onnx fp32 -> onnx int8", Bisection((layer,), 20.0), False)
    monkeypatch.setattr(bisect, "bisect", lambda *_: (finding,))
    document = call("export", "--bisect", "--run", judged)
    assert document["links"][0]["bisection"]["layers"][0]["sqnr_db"] is None
    check_fields(document, FIELDS["export --bisect"])


def test_profiles(judged: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [LayerShape("conv", cin, 8, (1, 1), (1, 1), 1, (8, 8), (0, 0)) for cin in (4, 8)]
    points = tuple(LatencyPoint(shape, 1e-3, 9e-4, 2e-3) for shape in shapes)
    table = LatencyTable(TableKey("device", "onnxruntime", "1.31.1", "int8", 4), points)
    Path("mine.json").write_text(render_table(table))
    document = call("profile", "show", "--table", "mine.json")
    assert document["staircases"][0]["lines"][0]["points"][0]["latency_ms"] == 1e-3
    check_fields(document, FIELDS["profile show"])
    layers = [LayerTime("conv1", "conv 1x1", 1.0, None)]
    monkeypatch.setattr(breakdown, "break_down_net", lambda _: (layers, 2.0))
    check_fields(call("profile", "layers", "--run", judged), FIELDS["profile layers"])
    errors = Errors(6, 0.1, 0.1, 0.2, 0.5, 0.9)
    result = SimpleNamespace(before=errors, after=errors), Path("profile.json")
    monkeypatch.setattr(calibration, "calibrate_target", lambda *_: result)
    document = call("profile", "calibrate", "--target", "rpi4", "--measurements", "mine.json")
    check_fields(document, FIELDS["profile calibrate"])


def windows(latency_ms: float) -> tuple[Window, ...]:
    return tuple(Window(number % 10, 0.1 * number, latency_ms, 1, latency_ms, 1.0, 0.0) for number in range(30))


def test_measurements(judged: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(target: Any, host: Any, models: Any, *_: Any) -> Any:
        rows = {model.name: make_measurement(model.name, model.sha256, 1.0) for model in models}
        return FACTS, {name: replace(row, windows=windows(1.0)) for name, row in rows.items()}

    monkeypatch.setattr(device_boards, "measure_files", measure)
    model = make_model(tmp_path, "onnxruntime").path
    document = call("measure", model, "--target", "local")
    assert document["latency"]["p50_ms"] == pytest.approx(1.0, abs=0.05)
    assert FIELDS["measure MODEL"] <= document.keys()
    document = call("compare", model, model, "--target", "local")
    assert document["comparison"]["verdict"] == "equivalent"
    check_fields(document, FIELDS["compare A B --target"])
    document = call("compare", judged)
    assert (document["version"], document["rows"][0]["verdict"]) == (JSON_VERSION, "pass")


def test_a_sustained_run(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(SustainedWindow(0.5 * n, 10, 1.0, 1.0, 1.1, 1.2, None, None, ()) for n in range(1, 41))
    run = SustainedRun("net", 20.0, rows, Conditions(1))

    @contextmanager
    def open_board(*_: Any) -> Iterator[Any]:
        yield SimpleNamespace(lacks={}, facts=FACTS, sustain=lambda *_: run)

    monkeypatch.setattr(device_boards, "open_board", open_board)
    model = make_model(tmp_path, "onnxruntime").path
    document = call("measure", model, "--target", "local", "--sustained", "20s")
    assert len(document["windows"]) == 40
    assert FIELDS["measure MODEL --sustained"] <= document.keys()


def test_histories(judged: Path, call: Call) -> None:
    check_fields(call("history", "take-in", judged), FIELDS["history take-in"])
    document = call("history")
    assert len(document["measurements"]) == 4
    check_fields(document, FIELDS["history"])
    check_fields(call("history", "export", "all.csv"), FIELDS["history export"])
    check_fields(call("history", "plot", "--output", "trend.png"), FIELDS["history plot"])


def test_baselines(judged: Path, call: Call) -> None:
    check_fields(call("baseline", "set", "main", "--run", judged), FIELDS["baseline set"])
    check_fields(call("baseline", "list"), FIELDS["baseline list"])
    check_fields(call("baseline", "show", "main"), FIELDS["baseline show"])
    check_fields(call("baseline", "remove", "main"), FIELDS["baseline remove"])


def test_known_boards(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    added = call("devices", "add", "bench", "--host", "pi@192.0.2.7", "--target", "rpi4")
    check_fields(added, FIELDS["devices add"])
    document = call("devices", "list")
    assert [(row["name"], row["target"], row["host"]) for row in document["devices"]] == [
        ("bench", "rpi4", "pi@192.0.2.7")
    ]
    check_fields(document, FIELDS["devices list"])
    key = SimpleNamespace(host="192.0.2.7", kind="ssh-ed25519", fingerprint="SHA256:abc")
    monkeypatch.setattr(trust, "fetch_host_key", lambda _: key)
    monkeypatch.setattr(trust, "remember_host_key", lambda _: Path("known_hosts"))
    check_fields(call("devices", "trust", "bench", "--yes"), FIELDS["devices trust"])
    monkeypatch.setattr(setup, "setup_device", lambda *_: "installed")
    check_fields(call("devices", "setup", "--target", "rpi4"), FIELDS["devices setup"])


def test_a_refused_key_is_a_document_and_the_question_none_of_it(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = SimpleNamespace(host="192.0.2.7", kind="ssh-ed25519", fingerprint="SHA256:abc")
    monkeypatch.setattr(trust, "fetch_host_key", lambda _: key)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda *_: "n")
    assert call("devices", "trust", "bench")["file"] is None


def test_this_machine_as_a_board(judged: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    board = ("--target", "local")
    monkeypatch.setattr(doctor, "examine_board", lambda *_: ("local", [Finding("error", "no disk", "add one")]))
    check_fields(call("devices", "doctor", *board, code=1), FIELDS["devices doctor"])
    check_fields(call("devices", "lock", *board, "--reason", "tests"), FIELDS["devices lock"])
    check_fields(call("devices", "unlock", *board), FIELDS["devices unlock"])
    key = signing.TrustedKey("text", "ci@example", "SHA256:abc")
    monkeypatch.setattr(signing, "list_keys", lambda _: ("keys", [key]))
    check_fields(call("devices", "keys", *board), FIELDS["devices keys"])
    monkeypatch.setattr(signing, "read_public_key", lambda _: ("text", "name"))
    monkeypatch.setattr(signing, "trust_key", lambda *_: [key])
    Path("key.pub").touch()
    document = call("devices", "trust-key", "key.pub", *board)
    check_fields(document, FIELDS["devices keys"] - {"file"})


def test_releases(judged: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    board = ("--target", "local")
    row = ReleaseOnBoard("abcdef123456", True, True, False, 1000, {"recipe": "mine"})
    monkeypatch.setattr(releases, "list_releases", lambda _: [row])
    check_fields(call("release", "list", *board), FIELDS["release list"])
    monkeypatch.setattr(releases, "activate_release", lambda *_: "python run.py")
    check_fields(call("release", "activate", "abcd", *board), FIELDS["release activate"])
    monkeypatch.setattr(releases, "roll_back", lambda _: ("abcdef123456", "python run.py"))
    check_fields(call("release", "rollback", *board), FIELDS["release activate"])
    monkeypatch.setattr(releases, "prune_releases", lambda *_: ["abc"])
    check_fields(call("release", "prune", *board), FIELDS["release prune"])
    monkeypatch.setattr(releases, "read_release", lambda *_: (SimpleNamespace(id="abcdef123456"), b""))
    monkeypatch.setattr(releases, "push_release", lambda *_: releases.Pushed("abcdef123456", 10, 0))
    document = call("release", "push", "--run", judged, *board)
    assert (document["boards"][0]["command"], document["boards"][0]["error"]) == (None, None)
    check_fields(document, FIELDS["release push"])


def test_a_board_that_does_not_have_a_release_is_told_beside_the_others(
    judged: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "read_release", lambda *_: (SimpleNamespace(id="abcdef123456"), b""))
    monkeypatch.setattr(releases, "push_release", lambda *_: releases.Pushed("abcdef123456", 10, 0))
    words = ("release", "push", "--run", judged, "--target", "local", "--hosts", "local,nobody@127.0.0.1:9")
    rows = {row["host"]: row for row in call(*words, code=1)["boards"]}
    assert rows["local"]["error"] is None
    assert "127.0.0.1" in rows["nobody@127.0.0.1:9"]["error"]


def test_a_fleet(judged: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"verdict": "fail", "boards": [], "gates": [], "unlike": [], "percentile": 100}
    monkeypatch.setattr(fleet_stage, "measure_fleet", lambda *_: document)
    check_fields(call("fleet", "--run", judged, "--hosts", "local", code=3), FIELDS["fleet"])


def test_targets_recipes_and_the_cache(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    document = call("targets")
    assert [row["name"] for row in document["targets"]] == sorted(row["name"] for row in document["targets"])
    check_fields(document, FIELDS["targets"])
    check_fields(call("targets", "rpi4"), FIELDS["targets"])
    check_fields(call("recipes"), FIELDS["recipes"])
    check_fields(call("recipes", "copy", "digits-resnet8"), FIELDS["recipes copy"])
    analysis = SimpleNamespace()
    monkeypatch.setattr(model_stage, "look_at_recipe", lambda _: (analysis, ("fc stays whole",)))
    monkeypatch.setattr(model_stage, "list_groups", lambda _: [("conv1", "16", "conv1, conv2")])
    check_fields(call("recipes", "check", RECIPES / "tiny.py"), FIELDS["recipes check"])
    entry = memory.Entry(cache_dir() / "stages" / "score-1", 1000, "2026-11-21", "tiny local")
    monkeypatch.setattr(memory, "list_entries", lambda: iter([entry]))
    check_fields(call("cache", "list"), FIELDS["cache list"])
    check_fields(call("cache", "clear"), FIELDS["cache clear"])


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (("gate", "--run", "nowhere"), 2, "BadParameter"),
        (("gate",), 2, "MissingParameter"),
        (("deploi",), 2, "NoSuchCommand"),
        (("deploy", "--target", "rpi44"), 2, "TargetError"),
        (("history", "--since", "yesterday"), 2, "UsageError"),
    ],
)
def test_an_error_is_the_document(words: tuple[str, ...], code: int, kind: str, call: Call) -> None:
    error = call(*words, code=code)["error"]
    assert (error["kind"], error["exit_code"]) == (kind, code)
    assert error["message"]


def test_numbers_that_json_has_not_are_null() -> None:
    text = render_json({"a": float("nan"), "b": [float("-inf"), 1.5], "c": {"d": Path("x")}})
    assert json.loads(text, parse_constant=pytest.fail) == {"version": 1, "a": None, "b": [None, 1.5], "c": {"d": "x"}}


def test_a_document_is_asked_for_by_one_command_and_not_by_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command()
    @json_option
    def command() -> None:
        print_result({"a": 1}, "text")

    for words, printed in ((["--json"], '"a": 1'), ([], "text\n")):
        command.main(words, standalone_mode=False)
        assert printed in capsys.readouterr().out


def test_an_estimate_on_a_microcontroller(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert")
    from mcu_files import TARGET, put_model, put_vela

    model = put_model(tmp_path)
    (tmp_path / "m4.toml").write_text(TARGET)
    document = call("estimate", model, "--target", "m4.toml", "--runtime", "x-cube-ai")
    check_fields(document, FIELDS["estimate MODEL"])
    (tmp_path / "npu.toml").write_text(TARGET.replace("Cortex-M4F", "Cortex-M55, Ethos-U55-256"))
    put_vela(tmp_path, monkeypatch)
    document = call("estimate", model, "--target", "npu.toml")
    check_fields(document, FIELDS["estimate MODEL on an Ethos-U55"])
