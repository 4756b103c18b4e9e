"""Calls into converters and runtimes: kept quiet, and their errors made ours."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, loggers and both output streams (also those of C++ code) of the whole process meanwhile."""
    handlers, level = logging.root.handlers[:], logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), _muted_streams():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.root.handlers[:] = handlers  # logging.warning() installs one that writes to the muted stream
        logging.disable(level)


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
        raise ExportError(f"{path}: {action}: {exc}; check the path, its permissions and the free space") from exc
    except Exception as exc:
        raise ExportError(f"{path}: {action}: {_explain(exc)}") from exc


@contextlib.contextmanager
def _muted_streams() -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Path(os.devnull).open("w"))
        for descriptor in (1, 2):
            saved = os.dup(descriptor)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, descriptor)
            os.dup2(sink.fileno(), descriptor)
        stack.enter_context(contextlib.redirect_stdout(sink))
        stack.enter_context(contextlib.redirect_stderr(sink))
        yield


def _explain(exc: BaseException) -> str:
    chain = [exc]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    text = "\n".join(_ANSI.sub("", str(link)) for link in chain)
    for pattern in _OPERATOR_PATTERNS:
        if found := re.search(pattern, text):
            return f"operator {found[1]} is not supported there; replace it in the model, or choose another format"
    root = chain[-1]
    reason = " ".join(_ANSI.sub("", str(root)).split())[:_REASON_LENGTH]
    return f"{type(root).__name__}: {reason or 'no reason given'}"
