"""Calls into converters and runtimes: kept quiet, and their errors made ours."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from edgeprune.disk import describe_os_error
from edgeprune.errors import EdgepruneError, ExportError

_OPERATOR_PATTERNS = (
    r"OpOverload\(op='([\w.:]+)'",  # torch.onnx: no ONNX function found
    r"Lowering not found: ([\w.:]+)",  # litert-torch
    r"failed to legalize operation '([\w.]+)'",  # the LiteRT converter
    r"unresolved custom op: ([\w.]+)",  # the LiteRT interpreter
    r"op for builtin opcode '(\w+)'",  # the same
    r"While executing %\w+ : .*?target=torch\.ops\.([\w.]+)",  # any pass over an fx graph
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_REASON_LENGTH = 300


class _Silence:
    """What is muted of this process, while any thread is in :func:`quiet`.

    Descriptors, warning filters and loggers belong to the whole process: the first thread that enters saves and mutes
    them, the last that leaves sets them back. `threads` counts how deep each is inside.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads: Counter[int] = Counter()
        self.undo = contextlib.ExitStack()

    def enter(self) -> None:
        """Mute for this thread; what others print goes on being seen, but for what C++ code prints."""
        with self.lock:
            if not self.threads:
                self.undo = _mute(self.threads)
            self.threads[threading.get_ident()] += 1

    def leave(self) -> None:
        """Set back what was muted, if no other thread needs it."""
        with self.lock:
            self.threads.subtract([threading.get_ident()])
            self.threads += Counter()
            if not self.threads:
                self.undo.close()


class _ByThread(io.TextIOBase):
    """A stream that drops what the threads of `muted` write, and hands on what others do."""

    def __init__(self, loud: TextIO, muted: Counter[int]) -> None:
        self._loud, self._muted = loud, muted

    def write(self, text: str) -> int:
        """Write text, or not.

        Raises:
            TypeError: it is no text; so click finds out what kind of stream this is.
        """
        if not isinstance(text, str):
            raise TypeError(f"expected text, not {type(text).__name__}")
        return len(text) if self._muted[threading.get_ident()] else self._loud.write(text)

    def flush(self) -> None:
        """Let what was written be seen."""
        self._loud.flush()


def _mute(muted: Counter[int]) -> contextlib.ExitStack:
    """Mute this process; closing what it gives sets everything back."""
    with contextlib.ExitStack() as undo:
        handlers, level = logging.root.handlers[:], logging.root.manager.disable
        undo.callback(logging.disable, level)
        undo.callback(logging.root.handlers.__setitem__, slice(None), handlers)  # logging.warning() installs one
        logging.disable(logging.CRITICAL)
        undo.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        sink = undo.enter_context(Path(os.devnull).open("w"))
        undo.enter_context(_redirected(1, sink, muted))
        undo.enter_context(_redirected(2, sink, muted))
        return undo.pop_all()


@contextlib.contextmanager
def _redirected(descriptor: int, sink: TextIO, muted: Counter[int]) -> Iterator[None]:
    """Send one of the process's output streams to `sink`, but for what threads print that are not `muted`."""
    name = {1: "stdout", 2: "stderr"}[descriptor]
    stream: TextIO | None = getattr(sys, name)
    with contextlib.ExitStack() as undo:
        if stream is not None:
            stream.flush()
            undo.callback(setattr, sys, name, stream)
        with contextlib.suppress(OSError):  # a stream that is closed prints nothing
            saved = os.dup(descriptor)
            undo.callback(os.close, saved)
            undo.callback(os.dup2, saved, descriptor)
            os.dup2(sink.fileno(), descriptor)
            if stream is not None and _writes_to(stream, descriptor):
                stream = undo.enter_context(open(saved, "w", 1, stream.encoding, stream.errors, closefd=False))
        if stream is not None:
            setattr(sys, name, _ByThread(stream, muted))
        yield


def _writes_to(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError):
        return False


_silence = _Silence()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, loggers and what this thread prints, also in C++; several threads may be inside at once."""
    _silence.enter()
    try:
        yield
    finally:
        _silence.leave()


@contextlib.contextmanager
def foreign(action: str, path: Path) -> Iterator[None]:
    """Run a foreign library :func:`quiet`-ly; `action` on `path` is what an error says was being done.

    Raises:
        ExportError: the library raised; the message names the operator that it could not handle, where one is known.
    """
    try:
        with quiet():
            yield
    except EdgepruneError:
        raise
    except OSError as exc:
        raise ExportError(f"{path}: {action}: {describe_os_error(exc)}") from exc
    except Exception as exc:
        raise ExportError(f"{path}: {action}: {_explain(exc)}") from exc


def _explain(exc: BaseException) -> str:
    chain = [exc]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    text = "\n".join(_ANSI.sub("", str(link)) for link in chain)
    for pattern in _OPERATOR_PATTERNS:
        if match := re.search(pattern, text):
            return f"operator {match[1]} is not supported there; replace it in the model, or choose another format"
    root = chain[-1]
    reason = " ".join(_ANSI.sub("", str(root)).split())[:_REASON_LENGTH]
    return f"{type(root).__name__}: {reason or 'no reason given'}"
