"""What this board is."""

from __future__ import annotations

from typing import Any

from edgeprune_agent.board import read_facts
from edgeprune_agent.events import Events
from edgeprune_agent.files import sweep
from edgeprune_agent.power import find_meter
from edgeprune_agent.prepare import set_back_left
from edgeprune_agent.runtimes import find_versions


def facts(request: dict[str, Any], root: str, events: Events) -> None:
    """Tell what this board is, once what an earlier agent left behind is put in order."""
    sweep()
    set_back_left(root)
    meter = find_meter(root)
    events.emit("result", **read_facts(root), runtimes=find_versions(), power_meter=meter.name if meter else None)
