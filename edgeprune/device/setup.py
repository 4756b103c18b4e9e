"""Preparing a board: a venv with the inference runtime, from the network or from wheels pushed over SSH."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.answers import text
from edgeprune.core.target import Target
from edgeprune.device.agent import ask_agent, push_agent, understood
from edgeprune.device.connect import VENV, open_transport, shake_hands
from edgeprune.device.transport import Completed, Transport
from edgeprune.errors import DeviceError, UsageError

MODULES = {
    "onnxruntime": "onnxruntime",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
SILENCE_S = 900.0
"""pip says nothing while it unpacks; on an SD card that takes minutes."""
WHEEL_NAME = re.compile(r"[A-Za-z0-9_.+!]+(-[A-Za-z0-9_.+!]+){4,5}\.whl")
DESCRIBE = """
import json, platform, sys
print(json.dumps([list(sys.version_info[:2]), platform.machine(), platform.libc_ver()[1]]))
"""
ABSOLUTE = 'printf "%s" "$HOME/${1#"~/"}"'


@dataclass(frozen=True)
class Interpreter:
    """A board's Python: what wheels it takes."""

    version: tuple[int, int]
    machine: str
    glibc: str

    def describe(self) -> str:
        """For messages."""
        return f"Python {self.version[0]}.{self.version[1]} on {self.machine}"


@dataclass(frozen=True)
class Board:
    """A board that is being set up; `python` is that of the venv."""

    transport: Transport
    workspace: str
    python: str
    interpreter: Interpreter
    say: Callable[[str], None]


def setup_device(target: Target, host: str | None, wheels: Path | None, say: Callable[[str], None]) -> str:
    """Make a venv on the board, install the target's runtime there, and say what it has now.

    The board's own network is tried first; without one, this machine fetches the wheels and pushes them. A folder of
    `wheels` is pushed and used alone.

    Raises:
        UsageError: the target is this machine.
        DeviceError: no Python or venv there, no wheel for it, or the installation failed.
    """
    with closing(open_transport(target.name, host)) as transport:
        if transport.name == "local":
            here = Interpreter(sys.version_info[:2], "x86_64", "")
            names = " ".join(choose_all_packages(target, here, "local"))
            raise UsageError(f"this machine needs no set-up; for its runtime: pip install {names}")
        board = _make_venv(transport, say)
        packages = choose_all_packages(target, board.interpreter, transport.host)
        say(f"installing {' '.join(packages)} for {board.interpreter.describe()}")
        if wheels is not None:
            _install_offline(board, packages, sorted(wheels.glob("*.whl")))
        elif not _install_online(board, packages):
            _install_fetched(board, packages)
        return _verify(board, packages[0])


def choose_all_packages(target: Target, interpreter: Interpreter, host: str) -> tuple[str, ...]:
    """What to install for a target: of several runtimes that it leaves open, those that there is something for.

    Raises:
        DeviceError: nothing fits.
    """
    packages, refusals = list[str](), list[DeviceError]()
    for runtime in target.runtimes:
        try:
            packages += choose_packages(runtime, interpreter, host)
        except DeviceError as exc:
            refusals.append(exc)
    if not packages:
        raise refusals[0]
    return tuple(packages)


def choose_packages(runtime: str, interpreter: Interpreter, host: str) -> tuple[str, ...]:
    """What to install for a runtime; the first is the runtime itself.

    onnxruntime has wheels for 64-bit machines only; ai-edge-litert too, from Python 3.10; tflite-runtime ends at
    Python 3.11 and needs numpy 1.

    Raises:
        DeviceError: nothing fits.
    """
    wide = interpreter.machine in ("aarch64", "x86_64")
    if runtime == "onnxruntime" and wide:
        return ("onnxruntime",)
    if runtime == "litert" and wide and interpreter.version >= (3, 10):
        return ("ai-edge-litert",)
    if runtime == "litert" and interpreter.version <= (3, 11):
        return ("tflite-runtime", "numpy<2")
    remedy = "use runtime litert" if runtime == "onnxruntime" else "use an older Python or a 64-bit system"
    raise DeviceError(f"{host}: there is no {runtime} for {interpreter.describe()}; {remedy}")


def wheel_platforms(machine: str, glibc: str) -> tuple[str, ...]:
    """The platform tags of wheels that a Linux of this glibc takes, the newest first (PEP 600)."""
    match = re.fullmatch(r"2\.(\d{1,3})", glibc)
    newest = int(match.group(1)) if match else 17
    return (*(f"manylinux_2_{minor}_{machine}" for minor in range(newest, 16, -1)), f"manylinux2014_{machine}")


def _make_venv(transport: Transport, say: Callable[[str], None]) -> Board:
    workspace, base = shake_hands(transport, "python3")
    done = transport.run(["sh", "-c", ABSOLUTE, "sh", VENV], timeout_s=30)
    venv = done.stdout.decode()
    interpreter = _describe(transport, base)
    if transport.run([f"{venv}/bin/python", "-m", "pip", "--version"], timeout_s=SILENCE_S).exit_code == 0:
        return Board(transport, workspace, f"{venv}/bin/python", _describe(transport, f"{venv}/bin/python"), say)
    say(f"making {VENV} with {interpreter.describe()}")
    done = transport.run([base, "-m", "venv", "--clear", venv], timeout_s=SILENCE_S)
    if done.exit_code != 0:
        raise DeviceError(
            f"{transport.host}: python3 cannot make a venv: {_reason(done)}; on Debian: apt install python3-venv"
        )
    return Board(transport, workspace, f"{venv}/bin/python", interpreter, say)


def _describe(transport: Transport, python: str) -> Interpreter:
    done = transport.run([python, "-I", "-c", DESCRIBE], timeout_s=60)
    try:
        version, machine, glibc = json.loads(done.stdout)
        return Interpreter((int(version[0]), int(version[1])), str(machine), str(glibc))
    except (ValueError, TypeError, IndexError) as exc:
        raise DeviceError(f"{transport.host}: {python} does not run: {_reason(done)}") from exc


def _pip(board: Board, arguments: Sequence[str]) -> Completed:
    command = [board.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    return board.transport.run([*command, "--progress-bar=off", "--only-binary=:all:", *arguments], timeout_s=SILENCE_S)


def _install_online(board: Board, packages: Sequence[str]) -> bool:
    """Let the board fetch for itself; False where it cannot."""
    done = _pip(board, ["--retries=1", "--timeout=15", *packages])
    if done.exit_code != 0:
        board.say(f"the board cannot fetch them itself ({_reason(done)}); fetching here")
    return done.exit_code == 0


def _install_fetched(board: Board, packages: Sequence[str]) -> None:
    """Fetch the wheels on this machine, for the board's Python and platform, and push them."""
    interpreter = board.interpreter
    platforms = wheel_platforms(interpreter.machine, interpreter.glibc)
    version = f"--python-version={interpreter.version[0]}.{interpreter.version[1]}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--implementation=cp"]
        command += [version, *(f"--platform={tag}" for tag in platforms), f"--dest={folder}", *packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = _reason(Completed(done.returncode, b"", done.stderr))
            raise DeviceError(
                f"{board.transport.host}: neither the board nor this machine can fetch {' '.join(packages)} for "
                f"{interpreter.describe()}: {reason}; fetch the wheels elsewhere and give --wheels DIR"
            )
        _install_offline(board, packages, sorted(Path(folder).glob("*.whl")))


def _install_offline(board: Board, packages: Sequence[str], wheels: Sequence[Path]) -> None:
    """Push the wheels that can fit, and install from them alone."""
    fitting = [wheel for wheel in wheels if fits(wheel.name, board.interpreter.machine)]
    if not fitting:
        raise DeviceError(f"no wheel for {board.interpreter.describe()} among the {len(wheels)} that were given")
    place = f"{board.workspace}/wheels"
    for wheel in fitting:
        board.say(f"pushing {wheel.name}")
        board.transport.put(wheel, f"{place}/{wheel.name}")
    done = _pip(board, ["--no-index", f"--find-links={place}", *packages])
    if done.exit_code != 0:
        raise DeviceError(f"{board.transport.host}: pip cannot install {' '.join(packages)}: {_reason(done)}")


def fits(name: str, machine: str) -> bool:
    """Whether a wheel's name is one, and its platform may be this machine's."""
    platform = name.removesuffix(".whl").rpartition("-")[2]
    return WHEEL_NAME.fullmatch(name) is not None and (platform == "any" or platform.endswith(machine))


def _verify(board: Board, package: str) -> str:
    """Load the runtime, and say what is installed.

    Raises:
        DeviceError: it does not load.
    """
    transport = board.transport
    done = transport.run([board.python, "-I", "-c", f"import {MODULES[package]}"], timeout_s=120)
    if done.exit_code != 0:
        raise DeviceError(f"{transport.host}: {package} is installed but does not load: {_reason(done)}")
    facts = ask_agent(push_agent(transport, board.workspace, board.python), {"command": "facts"}, board.say)
    with understood(transport.host, "its runtimes"):
        version = text(facts["runtimes"][package])
    return f"{transport.host}: {package} {version} for {board.interpreter.describe()} in {VENV}"


def _reason(done: Completed) -> str:
    """The line that says why a command failed: pip's last error, or the last line."""
    lines = [line.strip() for line in (done.stderr.strip() or done.stdout.decode(errors="replace")).splitlines()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [f"exit code {done.exit_code}"])[-1].removeprefix("ERROR: ")[:300]
