"""Targets and devices.toml that are almost right: what they say, or an error of ours that names the file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing import changed_often, spliced
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT

from edgeprune.cli import main
from edgeprune.core.target import parse_target
from edgeprune.device.transports.lookup import (
    add_device,
    devices_path,
    is_known,
    load_devices,
    resolve_boards,
    resolve_host,
)
from edgeprune.errors import TargetError
from edgeprune.shipped import load_target

SHIPPED = [path.read_text() for path in sorted((ROOT / "targets").glob("*.toml"))]
WHOLE = """
description = "every key there is"
runtime = "onnxruntime"
precision = "int8"
threads = 2
cores = [2, 3]
provider = "cpu"
allow_fallback = false
python = "~/venv/bin/python"
step = 8

[budget]
speedup = 2.0
confidence = 0.9

[protocol]
rounds = 10
min_samples = 100
min_duration_s = 2.0
max_warmup_s = 2.0
start_temperature_c = 45
max_cooldown_s = 300

[power]
meter = "command"
command = ["python3", "my_meter.py"]
where = "here"

[[gates]]
metric = "energy_mj"
at_most = 1.5
"""
DEVICES = """
[devices.bench-1]
host = "pi@192.168.1.20"
target = "rpi4"

[devices.phone]
host = "adb:R58M12ABCDE"

[groups]
lab = ["bench-1", "pi@192.168.1.30:2222", "u@[::1]:22"]
"""
TARGETS = st.sampled_from([WHOLE, WHOLE, *SHIPPED])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the user's configuration, and of a home without anything."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CONFIG_HOME", str(home))
        patch.delenv("EDGEPRUNE_HOST", raising=False)
        yield home


def test_the_documents_that_are_changed_are_right(folder: Path) -> None:
    assert parse_target(tomllib.loads(WHOLE), "board", "board.toml").cores == (2, 3)
    devices_path().parent.mkdir(exist_ok=True)
    devices_path().write_text(DEVICES)
    assert len(resolve_boards("lab,phone")) == 4


@given(TARGETS.map(tomllib.loads).flatmap(changed_often))
def test_a_changed_target_is_one_or_a_clear_error(document: Any) -> None:
    said = ""
    try:
        target = parse_target(document if isinstance(document, dict) else {"x": document}, "board", "board.toml")
    except TargetError as exc:
        said = str(exc)
    else:
        assert target.threads > 0
        assert target.protocol.rounds > 0
    assert said == "" or said.startswith(("board.toml: ", "target board: "))


@given(text=TARGETS.flatmap(spliced))
def test_a_spliced_target_is_one_or_a_clear_error(folder: Path, text: str) -> None:
    path = folder / "board.toml"
    path.write_text(text, errors="replace")
    said = ""
    try:
        assert load_target(str(path)).threads > 0
    except TargetError as exc:
        said = str(exc)
    assert said == "" or "board.toml: " in said or said.startswith("target board: ")


@given(text=spliced(DEVICES), target=st.sampled_from(["rpi4", "bench-1", "x"]), boards=spliced("lab,phone"))
def test_spliced_devices_are_some_or_a_clear_error(folder: Path, text: str, target: str, boards: str) -> None:
    devices_path().parent.mkdir(exist_ok=True)
    devices_path().write_text(text, errors="replace")
    for ask in (
        load_devices,
        lambda: is_known(target),
        lambda: resolve_host(target, None),
        lambda: resolve_boards(boards),
    ):
        said = ""
        try:
            ask()
        except TargetError as exc:
            said = str(exc)
        assert said == "" or "devices.toml" in said or "--hosts" in said


def test_a_device_is_added_without_harm_to_what_is_there(no_devices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    far = no_devices / "far.toml"
    far.write_text('[devices.bench]\nhost = "pi@10.0.0.1"\n[groups]\nlab = ["bench"]\n')
    devices_path().parent.mkdir(parents=True)
    devices_path().symlink_to(far)
    with pytest.raises(TargetError, match=r"has a group lab already"):
        add_device("lab", "pi@10.0.0.2", None)
    for name, host, step in (("b", "pi@10.0.0.2", "trust"), ("here", "local", "doctor"), ("p", "adb:R58", "doctor")):
        main(["devices", "add", name, "--host", host])
        assert f"next: edgeprune devices {step} {name}" in capsys.readouterr().out
    assert devices_path().is_symlink()
    assert list(load_devices()) == ["bench", "b", "here", "p"]
    assert resolve_boards("lab,b") == ("bench", "b")


def test_what_says_where_a_target_is(no_devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_known("local")
    assert not is_known("rpi4")
    monkeypatch.setenv("EDGEPRUNE_HOST", "pi@10.0.0.1")
    assert is_known("rpi4")
    monkeypatch.delenv("EDGEPRUNE_HOST")
    add_device("bench", "pi@10.0.0.1", "rpi4")
    assert (is_known("rpi4"), is_known("rpi5")) == (True, False)
    (no_devices / ".ssh").mkdir()
    (no_devices / ".ssh" / "config").write_text("Host rpi5\n  HostName 10.0.0.2\n")
    assert is_known("rpi5")
