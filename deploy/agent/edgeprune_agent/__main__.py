"""One request in, events out."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from contextlib import nullcontext
from typing import Any

from edgeprune_agent.board import read_facts
from edgeprune_agent.energy import energy, meter
from edgeprune_agent.errors import AgentError, first_line
from edgeprune_agent.evaluate import evaluate
from edgeprune_agent.events import Events, claim_stdout
from edgeprune_agent.files import sweep
from edgeprune_agent.lease import lease
from edgeprune_agent.measure import cold, have, measure
from edgeprune_agent.nodes import nodes
from edgeprune_agent.power import find_meter
from edgeprune_agent.prepare import prepared, set_back_left
from edgeprune_agent.probe import probe
from edgeprune_agent.releases import release
from edgeprune_agent.runtimes import find_runtimes
from edgeprune_agent.sustain import sustain
from edgeprune_agent.trust import trust


def facts(request: dict[str, Any], root: str, events: Events) -> None:
    """What this board is."""
    sweep()
    set_back_left(root)
    found = find_meter(root)
    events.emit("result", **read_facts(root), runtimes=find_runtimes(), power_meter=found.name if found else None)


COMMANDS = {
    "facts": facts,
    "have": have,
    "measure": measure,
    "meter": meter,
    "energy": energy,
    "probe": probe,
    "nodes": nodes,
    "sustain": sustain,
    "evaluate": evaluate,
    "cold": cold,
    "lease": lease,
    "release": release,
    "trust": trust,
}


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
        serve(sys.stdin.read(), root, events)
    except BrokenPipeError:
        return 1
    return 0


def serve(text: str, root: str, events: Events) -> None:
    """Answer one request; whatever goes wrong becomes an event."""
    try:
        request = json.loads(text)
        command = COMMANDS[request["command"]]
        with prepared(request, root) if request["command"] in TIMED else nullcontext():
            command(request, root, events)
    except AgentError as exc:
        events.emit("error", kind=exc.kind, message=str(exc))
    except MemoryError:
        events.emit("error", kind="memory", message="out of memory")
    except BrokenPipeError:
        raise
    except OSError as exc:
        events.emit("error", kind="disk", message=f"{exc.filename or ''}: {exc.strerror or first_line(exc)}")
    except Exception as exc:
        traceback.print_exc()
        events.emit("error", kind="internal", message=f"{type(exc).__name__}: {first_line(exc)}")
    events.emit("end")


if __name__ == "__main__":
    sys.exit(main())
