"""Preparing a board: a venv with the inference runtime, from the network or from wheels pushed over SSH.

The board is looked at first; nothing is made there before it is known that it can be finished. What was made is removed
where it fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.answers import text
from edgeprune.core.formats import list_packages
from edgeprune.core.target import Target
from edgeprune.device.agent.client import ask_agent, push_agent, understood
from edgeprune.device.board import refuse_untimed
from edgeprune.device.connect import VENV, open_transport, shake_hands
from edgeprune.device.preparing.site import (
    Interpreter,
    Site,
    check_place,
    choose_all_packages,
    choose_interpreter,
    find_free,
    find_needed,
    survey,
)
from edgeprune.device.preparing.wheels import Wheel, fits, name_set, plain_name, read_wheel, wheel_platforms
from edgeprune.device.transports.commands import FULL
from edgeprune.device.transports.transport import Completed, Transport
from edgeprune.errors import DeviceError, NoSpace, UsageError

FULL_BYTES = 1 << 20
SILENCE_S = 900.0
"""pip says nothing while it unpacks; on an SD card that takes minutes."""
CHECK = """
import hashlib, json, os, sys
digests = json.load(sys.stdin)
folder = sys.argv[1]
for name in os.listdir(folder):
    if name not in digests:
        os.unlink(os.path.join(folder, name))
for name in sorted(digests):
    with open(os.path.join(folder, name), "rb") as file:
        if hashlib.sha256(file.read()).hexdigest() != digests[name]:
            sys.exit(name + " was damaged on the way")
"""
"""Leaves in the folder $1 those wheels alone that standard input names, and compares each with its sha256 there."""
VERSIONS = """
import importlib.metadata, json, sys
versions = {}
for distribution in importlib.metadata.distributions():
    versions[distribution.metadata["Name"]] = distribution.version
print(json.dumps(versions))
"""


@dataclass(frozen=True)
class Board:
    """A board that is being set up; `python` is that of the venv."""

    transport: Transport
    workspace: str
    python: str
    interpreter: Interpreter
    say: Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What is asked for: a target, the runtimes, and the folder of wheels, where one is given."""

    target: Target
    runtimes: Sequence[str]
    wheels: Path | None = None


def setup_device(order: Order, host: str | None, say: Callable[[str], None]) -> str:
    """Make a venv on the board, install a runtime there, and say what it has now.

    The board's own network is tried first; without one, this machine fetches the wheels and pushes them. Wheels that
    are given are pushed and used alone.

    Raises:
        UsageError: the target is this machine, or a wheel is damaged.
        NoSpace: the runtime does not fit there.
        DeviceError: no Python or venv there, no wheel for it, or the installation failed.
    """
    refuse_untimed(order.target)
    with closing(open_transport(order.target.name, host)) as transport:
        if transport.name == "local":
            own = Interpreter(sys.version_info[:2], "x86_64", "")
            names = " ".join(choose_all_packages(order.runtimes, own, "local"))
            raise UsageError(f"this machine needs no set-up; for its runtime: pip install {names}")
        site = survey(transport, order.target.python)
        interpreter = choose_interpreter(site, order.target, transport.host)
        packages = choose_all_packages(order.runtimes, interpreter, transport.host)
        paths = sorted(order.wheels.glob("*.whl")) if order.wheels is not None else []
        wheels = choose_wheels(paths, packages, interpreter) if order.wheels is not None else None
        keeps_venv = bool(order.target.python) or interpreter == site.venv_python
        check_place(site, find_needed(keeps_venv, packages, wheels), transport.host)
        with (
            _venv(transport, site, interpreter, say)
            if not keeps_venv
            else _venv_as_is(transport, interpreter, say) as board
        ):
            say(f"installing {' '.join(packages)} for {interpreter.describe()}")
            if wheels is not None:
                _install_offline(board, packages, wheels)
            elif not _install_online(board, packages):
                _install_fetched(board, packages)
            return _verify(board, packages[0])


def choose_wheels(paths: Sequence[Path], packages: Sequence[str], interpreter: Interpreter) -> list[Wheel]:
    """Of the wheels that are given those that may fit, read and checked.

    Raises:
        UsageError: one of them is damaged.
        DeviceError: the runtime is not among them.
    """
    fitting = [read_wheel(path) for path in paths if fits(path.name, interpreter.machine)]
    if plain_name(packages[0]) not in {wheel.distribution for wheel in fitting}:
        raise DeviceError(f"no wheel of {packages[0]} for {interpreter.describe()} among the {len(paths)} given")
    return fitting


# making


@contextmanager
def _venv_as_is(transport: Transport, interpreter: Interpreter, say: Callable[[str], None]) -> Iterator[Board]:
    """A venv as it is."""
    workspace, _ = shake_hands(transport, interpreter.path)
    yield Board(transport, workspace, interpreter.path, interpreter, say)


@contextmanager
def _venv(transport: Transport, site: Site, interpreter: Interpreter, say: Callable[[str], None]) -> Iterator[Board]:
    """The venv, made anew, and removed again where the body fails."""
    workspace, _ = shake_hands(transport, interpreter.path)
    again = " anew" if site.venv_python is not None else ""
    say(f"making {VENV}{again} with {interpreter.describe()}")
    try:
        completed = transport.run([interpreter.path, "-m", "venv", "--clear", site.venv], timeout_s=SILENCE_S)
        if completed.exit_code != 0:
            what, remedy = "python3 cannot make a venv", "; on Debian: apt install python3-venv"
            raise _failed(transport.host, completed, what, remedy, free_bytes=find_free(transport, site.venv))
        yield Board(transport, workspace, f"{site.venv}/bin/python", interpreter, say)
    except BaseException:
        with suppress(DeviceError):
            transport.run(["rm", "-rf", "--", site.venv], timeout_s=SILENCE_S)
        raise


def _failed(
    host: str, completed: Completed, what: str, remedy: str = "", *, free_bytes: int | None = None
) -> DeviceError:
    """What is said of a command that failed; a full disk is told as one, whatever the command made of it."""
    if is_full(completed) or (free_bytes is not None and free_bytes < FULL_BYTES):
        return NoSpace(f"{host}: {what}: its disk is full; make room there, and run the same command again")
    return DeviceError(f"{host}: {what}: {_reason(completed)}{remedy}")


def is_full(completed: Completed) -> bool:
    """Whether a command failed for want of space."""
    output = f"{completed.stderr}\n{completed.stdout.decode(errors='replace')}"
    return FULL.search(output) is not None


def _pip(board: Board, packages: Sequence[str], *more: str) -> Completed:
    """Run pip there; nothing of what it fetches stays but what it installs."""
    command = [board.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
    command += ["--progress-bar=off", "--only-binary=:all:", *more, *packages]
    completed = board.transport.run(command, timeout_s=SILENCE_S)
    if is_full(completed):
        raise _failed(board.transport.host, completed, f"pip cannot install {' '.join(packages)}")
    return completed


def _install_online(board: Board, packages: Sequence[str]) -> bool:
    """Let the board fetch for itself; False where it cannot."""
    completed = _pip(board, packages, "--retries=1", "--timeout=15")
    if completed.exit_code != 0:
        board.say(f"the board cannot fetch them itself ({_reason(completed)}); fetching here")
    return completed.exit_code == 0


def _install_fetched(board: Board, packages: Sequence[str]) -> None:
    """Fetch the wheels on this machine, for the board's Python and platform, and push them."""
    interpreter = board.interpreter
    platforms = wheel_platforms(interpreter.machine, interpreter.glibc)
    version = f"--python-version={interpreter.version[0]}.{interpreter.version[1]}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--implementation=cp"]
        command += [version, *(f"--platform={tag}" for tag in platforms), f"--dest={folder}", *packages]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode != 0:
            reason = _reason(Completed(process.returncode, b"", process.stderr))
            raise DeviceError(
                f"{board.transport.host}: neither the board nor this machine can fetch {' '.join(packages)} for "
                f"{interpreter.describe()}: {reason}; fetch the wheels elsewhere and give --wheels DIR"
            )
        paths = sorted(Path(folder).glob("*.whl"))
        _install_offline(board, packages, choose_wheels(paths, packages, interpreter))


def _install_offline(board: Board, packages: Sequence[str], wheels: Sequence[Wheel]) -> None:
    """Push wheels into a folder of their own, and install from exactly these; then compare the versions.

    Raises:
        DeviceError: one was damaged on the way, pip cannot install them, or installed something else.
    """
    transport, place = board.transport, f"{board.workspace}/{name_set(wheels)}"
    try:
        for wheel in wheels:
            board.say(f"pushing {wheel.path.name}")
            transport.put(wheel.path, f"{place}/{wheel.path.name}")
        digests = json.dumps({wheel.path.name: wheel.sha256 for wheel in wheels}).encode()
        completed = transport.run([board.python, "-I", "-c", CHECK, place], stdin=digests, timeout_s=SILENCE_S)
        if completed.exit_code != 0:
            raise DeviceError(f"{transport.host}: {_reason(completed)}; run the same command again")
        completed = _pip(board, packages, "--isolated", "--no-index", f"--find-links={place}", "--force-reinstall")
        if completed.exit_code != 0:
            raise _failed(transport.host, completed, f"pip cannot install {' '.join(packages)}")
    finally:
        with suppress(DeviceError):
            transport.run(["rm", "-rf", "--", place], timeout_s=SILENCE_S)
    _check_versions(board, packages[0], wheels)


def _check_versions(board: Board, package: str, wheels: Sequence[Wheel]) -> None:
    """Require that what is installed now is of the versions that the wheels have."""
    host = board.transport.host
    completed = board.transport.run([board.python, "-I", "-c", VERSIONS], timeout_s=SILENCE_S)
    with understood(host, "what is installed"):
        installed = {plain_name(text(name)): text(version) for name, version in json.loads(completed.stdout).items()}
    for name in sorted({wheel.distribution for wheel in wheels}):
        versions = sorted(wheel.version for wheel in wheels if wheel.distribution == name)
        version = installed.get(name, "none" if name == plain_name(package) else versions[0])
        if version not in versions:
            raise DeviceError(
                f"{host}: {name} {version} is installed, and not {' or '.join(versions)} as the wheels have it; remove "
                f"the venv there (rm -r {VENV}) and run the same command again"
            )


def _verify(board: Board, package: str) -> str:
    """Load the runtime, and say what is installed.

    Raises:
        DeviceError: it does not load.
    """
    transport = board.transport
    completed = transport.run([board.python, "-I", "-c", f"import {list_packages()[package].module}"], timeout_s=120)
    if completed.exit_code != 0:
        raise DeviceError(f"{transport.host}: {package} is installed but does not load: {_reason(completed)}")
    facts = ask_agent(push_agent(transport, board.workspace, board.python), {"command": "facts"}, board.say)
    with understood(transport.host, "its runtimes"):
        version = text(facts["runtimes"][package])
    return f"{transport.host}: {package} {version} for {board.interpreter.describe()} in {_describe_venv(board)}"


def _describe_venv(board: Board) -> str:
    return VENV if board.python.endswith(f"{VENV[1:]}/bin/python") else board.python


def _reason(completed: Completed) -> str:
    """The line that says why a command failed: pip's last error, or the last line."""
    lines = [
        line.strip() for line in (completed.stderr.strip() or completed.stdout.decode(errors="replace")).splitlines()
    ]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [f"exit code {completed.exit_code}"])[-1].removeprefix("ERROR: ")[:300]
