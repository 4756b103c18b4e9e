"""Preparing a board: which packages, which wheels, and the installation over SSH with and without a network."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from device_models import ignore
from ssh_server import SshServer

from edgeprune.cli.boards import devices
from edgeprune.core.target import Target
from edgeprune.device.connect import open_device
from edgeprune.device.preparing.setup import Order, setup_device
from edgeprune.device.preparing.site import NEWER, Interpreter, choose_packages
from edgeprune.device.preparing.wheels import fits, name_set, read_wheel, wheel_platforms
from edgeprune.device.ssh.transport import SshTransport
from edgeprune.device.transports.transport import Completed
from edgeprune.errors import DeviceError, NoSpace, RuntimeMissing, UsageError
from edgeprune.shipped import load_target

TARGET = Target("rpi4", "a board of the tests")


@pytest.mark.parametrize(
    ("runtime", "version", "machine", "packages"),
    [
        ("onnxruntime", (3, 9), "aarch64", ("onnxruntime",)),
        ("litert", (3, 13), "aarch64", ("ai-edge-litert",)),
        ("litert", (3, 9), "aarch64", ("tflite-runtime", "numpy<2")),
        ("litert", (3, 11), "armv7l", ("tflite-runtime", "numpy<2")),
    ],
)
def test_each_board_gets_what_there_is_for_it(
    runtime: str, version: tuple[int, int], machine: str, packages: tuple[str, ...]
) -> None:
    assert choose_packages(runtime, Interpreter(version, machine, "2.36"), "board") == packages


@pytest.mark.parametrize(
    ("runtime", "version", "said"),
    [
        ("onnxruntime", (3, 11), "board: there is no onnxruntime for Python 3.11 on armv7l; use --runtime litert"),
        ("litert", (3, 13), "board: there is no litert for Python 3.13 on armv7l; use an older Python"),
    ],
)
def test_a_board_that_nothing_is_made_for_is_told(runtime: str, version: tuple[int, int], said: str) -> None:
    with pytest.raises(DeviceError) as caught:
        choose_packages(runtime, Interpreter(version, "armv7l", "2.36"), "board")
    assert str(caught.value).startswith(said)


def test_wheels_for_older_c_libraries_are_taken_too() -> None:
    tags = wheel_platforms("aarch64", "2.19")
    assert tags == (
        "manylinux_2_19_aarch64",
        "manylinux_2_18_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    )
    assert wheel_platforms("aarch64", "") == tags[2:]


@pytest.mark.parametrize(
    ("name", "fit"),
    [
        ("numpy-2.4.6-cp311-cp311-manylinux_2_28_aarch64.whl", True),
        ("flatbuffers-25.12.19-py2.py3-none-any.whl", True),
        ("numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("../x-1-py3-none-any.whl", False),
        ("numpy.whl", False),
    ],
)
def test_only_wheels_that_can_fit_are_pushed(name: str, fit: bool) -> None:
    assert fits(name, "aarch64") is fit


def test_this_machine_is_not_set_up() -> None:
    with pytest.raises(UsageError, match="needs no set-up; for its runtime: pip install onnxruntime"):
        set_up(target=Target("local", "this machine"), host=None)


def set_up(
    wheels: Path | None = None, target: Target = TARGET, host: str | None = "board", say: Callable[[str], None] = ignore
) -> str:
    return setup_device(Order(target, target.runtimes, wheels), host, say)


def make_wheel(folder: Path, version: str = "9.9", name: str = "onnxruntime", requires: str = "") -> Path:
    """A package that calls itself onnxruntime."""
    info, path = f"{name}-{version}.dist-info", folder / f"{name}-{version}-py3-none-any.whl"
    folder.mkdir(exist_ok=True)
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", f"__version__ = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def fresh_board(ssh_server: SshServer) -> SshServer:
    """A board with Python alone, that reaches no package index."""
    (ssh_server.board / ".local" / "share" / "edgeprune" / "venv").unlink()
    ssh_server.restart(prelude=f"export PIP_NO_INDEX=1 PATH='{sys.base_prefix}/bin':$PATH; ")
    return ssh_server


@pytest.fixture(scope="module")
def bare_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv, made once: that takes its time."""
    path = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([Path(sys.base_prefix) / "bin" / "python3", "-m", "venv", path], check=True)
    return path


@pytest.fixture
def board_with_venv(fresh_board: SshServer, bare_venv: Path, tmp_path: Path) -> SshServer:
    """A board on which version 9.9 was installed."""
    shutil.copytree(bare_venv, venv_of(fresh_board), symlinks=True)
    assert "onnxruntime 9.9" in set_up(make_wheel(tmp_path / "nine").parent)
    return fresh_board


def venv_of(server: SshServer) -> Path:
    return server.board / ".local" / "share" / "edgeprune" / "venv"


def version_on(server: SshServer) -> str:
    code = "import importlib.metadata as m; print(m.version('onnxruntime'))"
    python = venv_of(server) / "bin" / "python"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_a_board_without_a_network_is_set_up(
    fresh_board: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three ways in one, as a venv takes its time: nobody can fetch, wheels are given, this machine fetches."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    with pytest.raises(DeviceError, match=r"neither the board nor this machine can fetch onnxruntime .*--wheels DIR"):
        set_up()
    assert not venv_of(fresh_board).exists()
    with pytest.raises(DeviceError, match="no wheel of onnxruntime for Python"):
        set_up(tmp_path)
    make_wheel(tmp_path / "wheels")
    said = set_up(tmp_path / "wheels")
    assert said.startswith("board: onnxruntime 9.9 for Python 3.")
    assert said.endswith("in ~/.local/share/edgeprune/venv")
    with open_device(TARGET, "board") as device:
        assert device.facts.runtimes == {"onnxruntime": "9.9"}
        assert device.python == str(fresh_board.board / ".local/share/edgeprune/venv/bin/python")
        device.transport.run([device.python, "-m", "pip", "uninstall", "-y", "-q", "onnxruntime"], timeout_s=60)
    lines: list[str] = []
    assert set_up(say=lines.append) == said
    assert any("the board cannot fetch them itself" in line for line in lines)
    assert not any("making" in line for line in lines)


# from exactly the wheels that are given


def test_wheels_that_lie_on_the_board_from_before_are_not_installed(board_with_venv: SshServer, tmp_path: Path) -> None:
    """An older one than what is installed is taken, though a newer one lies in every folder that it could lie in."""
    older = make_wheel(tmp_path / "eight", "8.1")
    workspace = board_with_venv.board / ".cache" / "edgeprune" / "board"
    for place in (workspace / "wheels", workspace / name_set([read_wheel(older)])):
        place.mkdir()
        shutil.copy(make_wheel(tmp_path / "newest", "10.0"), place)
    assert "onnxruntime 8.1 for" in set_up(older.parent)
    assert version_on(board_with_venv) == "8.1"
    assert "onnxruntime 9.9 for" in set_up(tmp_path / "nine")
    assert not list(workspace.glob("wheels-*"))


def test_a_wheel_that_lies_damaged_on_the_board_is_pushed_again(board_with_venv: SshServer, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "eight", "8.1")
    place = board_with_venv.board / ".cache" / "edgeprune" / "board" / name_set([read_wheel(wheel)])
    place.mkdir()
    (place / wheel.name).write_bytes(wheel.read_bytes()[:-50] + bytes(50))
    assert "onnxruntime 8.1 for" in set_up(wheel.parent)


def test_a_wheel_damaged_between_push_and_pip_is_named(
    board_with_venv: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path / "eight", "8.1")
    put = SshTransport.put

    def put_and_damage(link: SshTransport, local: Path, remote: str) -> None:
        put(link, local, remote)
        if remote.endswith(".whl"):
            place = board_with_venv.board / remote if not remote.startswith("/") else Path(remote)
            place.write_bytes(place.read_bytes()[:-1] + b"x")

    monkeypatch.setattr(SshTransport, "put", put_and_damage)
    with pytest.raises(DeviceError, match=rf"{wheel.name} was damaged on the way; run the same command again"):
        set_up(wheel.parent)
    assert version_on(board_with_venv) == "9.9"


def test_what_is_installed_is_compared_with_the_wheels(
    board_with_venv: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should pip have its own mind: here it is made to leave what is there."""
    wheel = make_wheel(tmp_path / "eight", "8.1")
    run = SshTransport.run

    def leave(link: SshTransport, command: Any, **more: Any) -> Any:
        return run(link, [word for word in command if word != "--force-reinstall"], **more)

    monkeypatch.setattr(SshTransport, "run", leave)
    with pytest.raises(DeviceError, match=r"onnxruntime 9\.9 is installed, and not 8\.1 as the wheels have it; remove"):
        set_up(wheel.parent)


def test_a_dependency_that_no_wheel_has_is_told_by_its_name(board_with_venv: SshServer, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "eight", "8.1", requires="unheard-of-package")
    with pytest.raises(DeviceError, match=r"pip cannot install onnxruntime: .*unheard-of-package"):
        set_up(wheel.parent)
    make_wheel(wheel.parent, "1.0", "unheard_of_package")
    assert "onnxruntime 8.1 for" in set_up(wheel.parent)


def damage_tail(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_content(path: Path) -> None:
    content = path.read_bytes()
    at = content.index(b"__version__")
    path.write_bytes(content[:at] + b"X" + content[at + 1 :])


@pytest.mark.parametrize("damage", [damage_tail, damage_content, lambda path: path.write_bytes(b"")])
def test_a_damaged_wheel_is_named_before_anything_is_made(
    fresh_board: SshServer, tmp_path: Path, damage: Callable[[Path], Any]
) -> None:
    wheel = make_wheel(tmp_path / "wheels")
    damage(wheel)
    with pytest.raises(UsageError, match=rf"{wheel.name}: is damaged.*fetch it again"):
        set_up(wheel.parent)
    assert not (fresh_board.board / ".local" / "share" / "edgeprune" / "venv").exists()
    assert not (fresh_board.board / ".cache" / "edgeprune").exists()


def test_a_zip_that_is_no_wheel_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a", "b")
    with pytest.raises(UsageError, match="is damaged or no wheel"):
        read_wheel(path)


# the interpreter


def fake_python(folder: Path, version: tuple[int, int], name: str) -> Path:
    """An interpreter that says that it is of a version, and makes no venv."""
    folder.mkdir(exist_ok=True)
    told = {
        "path": str(folder / name), "version": version, "machine": "aarch64", "glibc": "2.27", "prefix": "/usr",
        "pip": True, "made_for": "", "is_venv": False,
    }  # fmt: skip
    path = folder / name
    path.write_text(f"#!/bin/sh\n[ \"$2\" = -c ] && echo '{json.dumps(told)}' && exit 0\nexit 1\n")
    path.chmod(0o755)
    return path


def use_pythons(server: SshServer, *pythons: tuple[str, tuple[int, int]]) -> Path:
    """Interpreters that come first in the PATH of a board."""
    folder = server.folder / "pythons"
    for name, version in pythons:
        fake_python(folder, version, name)
    every = ["python3", *NEWER]
    for name in set(every) - {name for name, _ in pythons}:
        (folder / name).write_text("#!/bin/sh\nexit 1\n")
        (folder / name).chmod(0o755)
    server.restart(prelude=f"export PIP_NO_INDEX=1 PATH='{folder}':$PATH; ")
    return folder


def test_a_python_that_is_too_old_is_told_before_anything_is_made(fresh_board: SshServer, tmp_path: Path) -> None:
    """As on JetPack 4."""
    use_pythons(fresh_board, ("python3", (3, 6)))
    with pytest.raises(DeviceError) as caught:
        set_up(make_wheel(tmp_path / "wheels").parent)
    for said in ("python3 is Python 3.6 on aarch64", "3.8 or newer is needed", "apt install python3.8 python3.8-venv"):
        assert said in str(caught.value)
    assert not (fresh_board.board / ".local" / "share" / "edgeprune" / "venv").exists()
    assert not (fresh_board.board / ".cache" / "edgeprune").exists()


@pytest.mark.device
def test_a_newer_python_beside_the_old_one_is_taken(fresh_board: SshServer, tmp_path: Path) -> None:
    """What the message above says is done, and works."""
    folder = use_pythons(fresh_board, ("python3", (3, 6)))
    (folder / "python3.11").unlink()
    (folder / "python3.11").symlink_to(Path(sys.base_prefix) / "bin" / "python3.11")
    assert "onnxruntime 9.9 for Python 3.11" in set_up(make_wheel(tmp_path / "wheels").parent)
    with open_device(TARGET, "board") as device:
        assert device.facts.runtimes == {"onnxruntime": "9.9"}


@pytest.mark.device
@pytest.mark.parametrize("harm", ["too old", "gone", "another"])
def test_a_venv_whose_python_is_not_its_own_any_more_is_made_anew(
    board_with_venv: SshServer, tmp_path: Path, harm: str
) -> None:
    venv = venv_of(board_with_venv)
    python, config = venv / "bin" / "python", venv / "pyvenv.cfg"
    if harm == "another":
        config.write_text(config.read_text().replace("version = 3.11", "version = 3.9"))
    else:
        for link in (venv / "bin").glob("python*"):
            link.unlink()
        if harm == "too old":
            fake_python(venv / "bin", (3, 7), "python")
    lines: list[str] = []
    assert "onnxruntime 9.9 for" in set_up(tmp_path / "nine", say=lines.append)
    assert any("making ~/.local/share/edgeprune/venv" in line for line in lines)
    assert python.resolve() == (Path(sys.base_prefix) / "bin" / "python3.11").resolve()
    assert "version = 3.11" in config.read_text()


@pytest.mark.device
def test_a_venv_is_made_from_a_python_that_is_in_one(fresh_board: SshServer, bare_venv: Path, tmp_path: Path) -> None:
    """As where the account activates one of its own: that is left alone."""
    fresh_board.restart(prelude=f"export PIP_NO_INDEX=1 PATH='{bare_venv}/bin':$PATH; ")
    assert set_up(make_wheel(tmp_path / "wheels").parent).endswith("in ~/.local/share/edgeprune/venv")
    assert not list(bare_venv.glob("lib/python*/site-packages/onnxruntime*"))


def test_a_venv_that_is_sound_is_kept(board_with_venv: SshServer, tmp_path: Path) -> None:
    mark = venv_of(board_with_venv) / "mark"
    mark.touch()
    set_up(tmp_path / "nine")
    assert mark.exists()


def test_the_python_that_a_target_names_is_installed_for(
    fresh_board: SshServer, bare_venv: Path, tmp_path: Path
) -> None:
    """And used afterwards: not another venv beside it."""
    own = fresh_board.board / "own"
    shutil.copytree(bare_venv, own, symlinks=True)
    named = replace(TARGET, python=f"{own}/bin/python")
    assert set_up(make_wheel(tmp_path / "wheels").parent, named).endswith(f"in {own}/bin/python")
    assert not (fresh_board.board / ".local" / "share" / "edgeprune" / "venv").exists()
    with open_device(named, "board") as device:
        assert device.facts.runtimes == {"onnxruntime": "9.9"}


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("python3", r"python = 'python3' of the target is the system's Python, and no venv; .*python3 -m venv ~/venv"),
        ("/no/bin/python", r"python = '/no/bin/python' of the target does not run there; .*python3 -m venv /no\)"),
    ],
)
def test_a_named_python_that_nothing_can_be_installed_for_is_told(
    fresh_board: SshServer, tmp_path: Path, python: str, said: str
) -> None:
    with pytest.raises(DeviceError, match=said):
        set_up(make_wheel(tmp_path / "wheels").parent, replace(TARGET, python=python))


# the place


@contextmanager
def mounted(server: SshServer, options: str) -> Iterator[Path]:
    """A small disk of its own under the place of the venv."""
    place = server.board / ".local" / "share"
    shutil.rmtree(place)
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("needs root, to mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_small_disk_is_told_before_anything_is_made(fresh_board: SshServer, tmp_path: Path) -> None:
    wheels = make_wheel(tmp_path / "wheels").parent
    with mounted(fresh_board, "size=20m") as place:
        for given in (wheels, None):
            with pytest.raises(
                NoSpace, match=r"no space for ~/\.local.*needs (30|170)\.0 MiB, .*nothing was made there"
            ):
                set_up(given)
        assert list(place.iterdir()) == []


def test_a_disk_that_fills_up_is_told_and_left_as_it_was(
    fresh_board: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked large enough."""
    monkeypatch.setattr("edgeprune.device.preparing.site.VENV_MIB", 0)
    wheels = make_wheel(tmp_path / "wheels").parent
    with mounted(fresh_board, "size=12m") as place:
        with pytest.raises(NoSpace, match=r"cannot make a venv: its disk is full; make room there"):
            set_up(wheels)
        assert not list(place.rglob("*.py"))
        assert not list(place.rglob("venv"))


def test_a_full_disk_is_not_taken_for_a_missing_network(
    fresh_board: SshServer, bare_venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bare_venv, venv_of(fresh_board), symlinks=True)
    run = SshTransport.run

    def be_full(link: SshTransport, command: Any, **more: Any) -> Any:
        said = b"ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
        return Completed(1, said, "") if "pip" in command and "install" in command else run(link, command, **more)

    monkeypatch.setattr(SshTransport, "run", be_full)
    with pytest.raises(NoSpace, match="pip cannot install onnxruntime: its disk is full"):
        set_up()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("size=64m,noexec", r"/share is on a disk that runs no programs \(mounted noexec\).*remount,exec"),
        ("size=64m,ro", r"/share is on a disk that is mounted read-only, so ~/\.local/share/edgeprune/venv cannot be"),
    ],
)
def test_a_disk_that_nothing_can_run_from_is_told(
    fresh_board: SshServer, tmp_path: Path, options: str, said: str
) -> None:
    with mounted(fresh_board, options), pytest.raises(DeviceError, match=said):
        set_up(make_wheel(tmp_path / "wheels").parent)


# what other messages name


def test_remedies_name_the_target_and_the_runtime_as_they_are_to_be_given(
    fresh_board: SshServer, bare_venv: Path, tmp_path: Path
) -> None:
    """The command that a message names is run as it stands, and mends what the message was about."""
    shutil.copytree(bare_venv, venv_of(fresh_board), symlinks=True)
    file = tmp_path / "my target.toml"
    file.write_text('description = "mine"\nruntime = "onnxruntime"\n')
    target = load_target(str(file))
    with open_device(target, "board") as device:
        with pytest.raises(RuntimeMissing) as other:
            device.require_runtime("litert")
        with pytest.raises(RuntimeMissing) as caught:
            device.require_runtime("onnxruntime")
    assert str(other.value).endswith("--runtime litert")
    command = shlex.split(str(caught.value).partition("; run: edgeprune devices ")[2])
    assert command[:5] == ["setup", "--target", str(file), "--host", "board"]
    done = CliRunner().invoke(devices, [*command, "--wheels", str(make_wheel(tmp_path / "wheels").parent)])
    assert (done.exit_code, done.exception) == (0, None)
    with open_device(target, "board") as device:
        device.require_runtime("onnxruntime")
