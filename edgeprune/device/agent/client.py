"""The agent on the board: packed, pushed, asked."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgeprune.core.answers import describe_misfit
from edgeprune.core.boards.doctor import MIN_PYTHON
from edgeprune.core.formats import RUNTIMES
from edgeprune.core.progress import Count
from edgeprune.device.transports.transport import Completed, Transport, plain
from edgeprune.disk import describe_os_error
from edgeprune.errors import ConnectionFailed, DeviceError, NoSpace, RemoteError, RuntimeMissing
from edgeprune.shipped import shipped_dir

PACKAGE = "edgeprune_agent"
TOO_OLD = f"Python %d.%d is too old (%s); {'.'.join(map(str, MIN_PYTHON))} or newer is needed: edgeprune devices setup"
START = f"""import sys
if sys.version_info < {MIN_PYTHON}:
    problem = {TOO_OLD!r} % (sys.version_info[0], sys.version_info[1], sys.executable)
    print('{{"event": "error", "kind": "runtime", "message": "%s"}}' % problem)
    sys.exit(1)
from {PACKAGE}.__main__ import main
sys.exit(main())
"""
"""Also an old Python gets as far as to say that it is one."""
FROM_MEMORY = """
import os, sys, zipimport
size, place = int(sys.argv[1]), sys.argv[2]
descriptor = os.memfd_create("agent")
with open(descriptor, "wb", closefd=False) as file:
    file.write(sys.stdin.buffer.read(size))
sys.argv = [place]
sys.path.insert(0, "/proc/self/fd/%d" % descriptor)
from edgeprune_agent.__main__ import main
sys.exit(main())
"""
"""Runs the agent without a file, as where the disk is full: the first $1 bytes of its input, as if it lay at $2."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold: the same sources always give the same file."""
KILLED = (-9, 137, -1)
"""Exit codes of a killed agent: from a process, from a shell, and over SSH, which names no signal."""
SILENCE_S = 120.0
"""The agent gives a sign of life every 5 s, but not within one window of a slow model."""


@dataclass(frozen=True)
class Agent:
    """The agent where it lies on a board, with the interpreter that runs it."""

    transport: Transport
    python: str
    path: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What goes with every request: on which cores, with which provider and governor."""
    content: bytes = b""
    """The agent itself, where there was no room for it there: it goes with every request too."""

    @property
    def workspace(self) -> str:
        """The folder that it lies in, by its whole path."""
        return str(PurePosixPath(self.path).parent)


def ignore(text: str) -> None:
    """Progress that nobody looks at."""


def pack_agent() -> bytes:
    """The agent's sources as one file that Python runs."""
    files = {"__main__.py": START}
    for path in sorted((shipped_dir("deploy") / "agent" / PACKAGE).glob("*.py")):
        files[f"{PACKAGE}/{path.name}"] = path.read_text()
    for name, runtime in RUNTIMES.items():
        if runtime.agent_module:
            files[f"{PACKAGE}/runtime_{name}.py"] = Path(runtime.agent_module).read_text()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def push_agent(transport: Transport, workspace: str, python: str) -> Agent:
    """Put the agent into the workspace, named by its hash, unless it is there; without room it works without a file."""
    content = pack_agent()
    remote = f"{workspace}/agent-{hashlib.sha256(content).hexdigest()[:16]}.pyz"
    try:
        put_bytes(transport, content, remote)
    except NoSpace:
        return Agent(transport, python, remote, content=content)
    return Agent(transport, python, remote)


def put_bytes(transport: Transport, content: bytes, remote: str) -> None:
    """Upload content that is not yet a file.

    Raises:
        DeviceError: as for :meth:`Transport.put`, or there is no room here.
    """
    with ExitStack() as undo:
        try:
            path = Path(undo.enter_context(tempfile.TemporaryDirectory())) / "content"
            path.write_bytes(content)
        except OSError as exc:
            raise DeviceError(describe_os_error(exc)) from exc
        transport.put(path, remote)


def call_agent(
    agent: Agent,
    request: Mapping[str, Any],
    progress: Callable[[str], None],
    on_mark: Callable[[float], None] | None = None,
) -> list[dict[str, Any]]:
    """Send one request; gives its results. `on_mark` is told the board's clock in s whenever the agent tells it.

    Raises:
        ConnectionFailed: the link or the agent was lost before the end.
        RuntimeMissing: the board lacks the runtime.
        DeviceError: what else the agent or the board reports.
    """
    reader = EventReader(agent.transport.host, progress, on_mark)
    command, stdin = [agent.python, "-I", "-B", agent.path], json.dumps({**agent.settings, **request}).encode()
    if agent.content:
        command[3:] = ["-c", FROM_MEMORY, str(len(agent.content)), agent.path]
    completed = agent.transport.run(command, stdin=agent.content + stdin, timeout_s=SILENCE_S, on_line=reader.feed)
    return reader.finish(completed)


def ask_agent(
    agent: Agent,
    request: Mapping[str, Any],
    progress: Callable[[str], None] = ignore,
    on_mark: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Send a request that has one result; gives it.

    Raises:
        DeviceError: as for :func:`call_agent`, or there is none, or several.
    """
    rows = call_agent(agent, request, progress, on_mark)
    if len(rows) != 1:
        problem = f"{len(rows)} answers to {request['command']!r}, expected one"
        raise RemoteError(f"{agent.transport.host}: the agent gave {problem}; run the same command again")
    return rows[0]


@contextmanager
def understood(host: str, what: str) -> Iterator[None]:
    """Read in the body what a board says of something.

    Raises:
        RemoteError: it is not what is read there.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
        misfit = plain(describe_misfit(exc))
        raise RemoteError(f"{host}: what the agent says of {what} is not whole: {misfit[:300]}") from exc


class EventReader:
    """Reads the agent's lines. What a login shell prints before the first event is skipped."""

    def __init__(
        self, host: str, progress: Callable[[str], None], on_mark: Callable[[float], None] | None = None
    ) -> None:
        self._host = host
        self._progress = progress
        self._on_mark = on_mark
        self._results: list[dict[str, Any]] = []
        self._error: dict[str, Any] | None = None
        self._garbled = ""
        self._begun = False
        self._ended = False

    def feed(self, line: str) -> None:
        """Take one line."""
        event = parse_event(line)
        if event is None:
            if self._begun and not self._garbled:
                self._garbled = line[:200]
            return
        self._begun = True
        kind = event.pop("event")
        if kind == "progress":
            self._progress(Count(event.get("text", "")))
        elif kind == "mark" and self._on_mark is not None and isinstance(event.get("at_s"), (int, float)):
            self._on_mark(float(event["at_s"]))
        elif kind == "result":
            self._results.append(event)
        elif kind == "error":
            self._error = event
        elif kind == "end":
            self._ended = True

    def finish(self, completed: Completed) -> list[dict[str, Any]]:
        """The results, once the command has ended.

        Raises:
            DeviceError: an error was reported, or the conversation is not whole.
        """
        if self._error is not None:
            raise self._translate(str(self._error.get("kind")), str(self._error.get("message")))
        if self._garbled:
            raise RemoteError(f"{self._host}: the agent's answer is garbled: {self._garbled!r}")
        if not self._ended:
            raise self._lost(completed)
        return self._results

    def _translate(self, kind: str, message: str) -> DeviceError:
        errors: dict[str, type[DeviceError]] = {"runtime": RuntimeMissing, "disk": DeviceError, "full": NoSpace}
        return errors.get(kind, RemoteError)(f"{self._host}: {message}")

    def _lost(self, completed: Completed) -> DeviceError:
        lines = completed.stderr.strip().splitlines()
        tail = f": {lines[-1][:300]}" if lines else ""
        if completed.exit_code in KILLED:
            return RemoteError(f"{self._host}: the agent was killed; the board may be out of memory{tail}")
        if not self._begun and completed.exit_code != 0:
            return RemoteError(f"{self._host}: the agent did not start (exit code {completed.exit_code}){tail}")
        cause = f"the agent ended too soon (exit code {completed.exit_code})"
        return ConnectionFailed(f"{self._host}: {cause}; run the same command again{tail}")


def parse_event(line: str) -> dict[str, Any] | None:
    """One line of the agent, its texts made plain, or None where it is not an event."""
    try:
        event = _plain_texts(json.loads(line))
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _plain_texts(value: Any) -> Any:
    """A JSON value with every text in it made plain."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [_plain_texts(element) for element in value]
    return {plain(key): _plain_texts(member) for key, member in value.items()} if isinstance(value, dict) else value
