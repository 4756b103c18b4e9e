"""A full disk of this machine, really full: an error of ours that names the file or the disk, and what to do."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from device_models import CONV, make_model
from export_nets import OddNet, normal, seeded, traced

from edgeprune.cli import root
from edgeprune.device.agent.client import put_bytes
from edgeprune.device.transports.local import LocalTransport
from edgeprune.disk import describe_os_error, find_full
from edgeprune.errors import EdgepruneError
from edgeprune.exporting.files import write_file
from edgeprune.exporting.onnx.quantize import choose_onnx_scheme, quantize_onnx_dynamic
from edgeprune.exporting.probing.probes import write_probes
from edgeprune.graph.storage import save_model
from edgeprune.recipes.built_in import copy_recipe
from edgeprune.recipes.data import _save_arrays
from edgeprune.run import open_run, write_atomic

ODD = (1, 3, 17, 13)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk without a byte to spare."""
    place = tmp_path / "full"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs root, to mount a small disk")
    with (place / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def save_net(place: Path) -> None:
    example = normal(*ODD)
    save_model(traced(seeded(OddNet), torch.from_numpy(example)), place / "a.pt2", (torch.from_numpy(example),))


def enter_run(place: Path) -> None:
    with open_run(place / "run", {"target": "local"}) as run:
        run.begin()


WRITERS: dict[str, Callable[[Path], object]] = {
    "a file of a run": lambda place: write_atomic(place / "a.json", bytes(9999)),
    "a run": enter_run,
    "a model": save_net,
    "an artifact": lambda place: write_file(place / "a.onnx", bytes(9999)),
    "a probe": lambda place: write_probes([CONV], "onnx", "fp32", place / "probes"),
    "data of a recipe": lambda place: _save_arrays(place / "a.npz", x=np.zeros(9999)),
    "a recipe": lambda place: copy_recipe("digits-resnet8", place / "recipes"),
    "a file for this machine's agent": lambda place: LocalTransport().put(Path(__file__), str(place / "a")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_named_with_the_file_that_was_written(full: Path, name: str) -> None:
    with pytest.raises(EdgepruneError) as caught:
        WRITERS[name](full)
    assert str(full) in str(caught.value)
    assert "No space left on device" in str(caught.value) or "no space for" in str(caught.value)
    assert "make room there" in str(caught.value) or name in ("a probe", "a recipe")
    assert [path.name for path in full.rglob("*") if path.is_file() and path.stat().st_size] == ["filler"]


@pytest.mark.parametrize("name", ["upload", "quantize"])
def test_a_full_folder_of_temporary_files_is_named(
    full: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path, "onnxruntime").path
    monkeypatch.setattr(tempfile, "tempdir", str(full))
    works = {
        "upload": lambda: put_bytes(LocalTransport(), bytes(9999), str(tmp_path / "there")),
        "quantize": lambda: quantize_onnx_dynamic(model, tmp_path / "small.onnx", choose_onnx_scheme("x86_64", ())),
    }
    with pytest.raises(EdgepruneError) as caught:
        works[name]()
    assert str(full) in str(caught.value)
    assert "or set TMPDIR to a folder on another disk" in str(caught.value)


def test_an_error_that_names_nothing_is_told_with_the_disk_that_is_full(
    full: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*words: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(full)
    monkeypatch.setattr(root.cli, "main", fail)
    with pytest.raises(SystemExit) as caught:
        root.main(["targets"])
    said = capsys.readouterr().err
    assert caught.value.code == 1
    assert said.startswith(f"edgeprune: {full}: No space left on device; make room there")
    assert "unexpected" not in said


def test_other_troubles_with_files_have_their_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for number, text, remedy in (
        (30, "Read-only file system", "mounted read-only; choose another place"),
        (13, "Permission denied", "check its permissions"),
        (5, "Input/output error", "is the disk failing?"),
        (2, "No such file or directory", "check the path, its permissions and the disk"),
    ):
        assert describe_os_error(OSError(number, text, str(path))) == f"{path}: {text}; " + (
            f"it is on a disk that is {remedy}" if number == 30 else remedy
        )
    assert "a file: odd" in describe_os_error(OSError("odd"))


def test_disks_with_room_are_not_accused() -> None:
    assert find_full() == []
