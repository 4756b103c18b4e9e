"""One request in, events out."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from typing import Any

from edgeprune_agent.errors import AgentError, first_line
from edgeprune_agent.events import Events, claim_stdout

COMMANDS = {
    "facts": "facts",
    "busy": "occupancy",
    "have": "files",
    "measure": "measure",
    "meter": "energy",
    "energy": "energy",
    "probe": "probe",
    "nodes": "nodes",
    "sustain": "sustain",
    "turns": "turns",
    "evaluate": "evaluate",
    "cold": "measure",
    "lease": "lease",
    "release": "releases",
    "trust": "trust",
}
"""The modules of the commands, each a function of that name: imported on demand, as a board takes long to import."""
TIMED = ("measure", "energy", "probe", "nodes", "sustain", "evaluate")
"""What runs on the cores and with the governor that a request asks for; evaluate too, as its outputs come sooner."""
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Signals that end it, also where `nohup` or a shell's `&` would have it ignore them."""


def main() -> int:
    """Serve the request on standard input; `--root DIR` reads the board's files from a recorded tree."""
    os.umask(0o077)
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    root = sys.argv[sys.argv.index("--root") + 1] if "--root" in sys.argv else ""
    events = Events(claim_stdout())
    try:
        text = sys.stdin.read()
        events.keep_watch()
        serve(text, root, events)
    except BrokenPipeError:
        return 1
    return 0


def serve(text: str, root: str, events: Events) -> None:
    """Answer one request; whatever goes wrong becomes an event."""
    try:
        request = json.loads(text)
        name = request["command"]
        if request.get("lease"):
            events.watch = lambda: find("lease", "require_held")(request)
        with find("prepare", "prepared")(request, root) if name in TIMED else nullcontext():
            find(COMMANDS[name], name)(request, root, events)
    except AgentError as exc:
        events.emit("error", kind=exc.kind, message=str(exc))
    except MemoryError:
        events.emit("error", kind="memory", message="out of memory")
    except BrokenPipeError:
        raise
    except OSError as exc:
        events.emit("error", **describe_os_error(exc))
    except Exception as exc:
        traceback.print_exc()
        events.emit("error", kind="internal", message=f"{type(exc).__name__}: {first_line(exc)}")
    events.emit("end")


def describe_os_error(exc: OSError) -> dict[str, str]:
    """What a file or disk did not allow, as the caller understands it."""
    place = exc.filename or f"a file of {os.path.dirname(os.path.abspath(sys.argv[0]))}"  # noqa: PTH100, PTH120
    text = f"{place}: {exc.strerror or first_line(exc)}"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return {"kind": "full", "message": f"{text}; make room there (edgeprune release prune), and run it again"}
    return {"kind": "disk", "message": text}


def find(module: str, name: str) -> Callable[..., Any]:
    """A function of a module of this agent."""
    function: Callable[..., Any] = getattr(import_module(f"edgeprune_agent.{module}"), name)
    return function


if __name__ == "__main__":
    sys.exit(main())
