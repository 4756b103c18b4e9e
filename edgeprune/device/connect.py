"""From a target and a host to a connected board."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgeprune.core.answers import read_fields
from edgeprune.core.formats import RUNTIMES
from edgeprune.core.measuring.measurement import FACTS, NO_POWER_SENSOR, DeviceFacts
from edgeprune.core.target import Target
from edgeprune.device.agent.client import Agent, ask_agent, ignore, push_agent, understood
from edgeprune.device.bare_lease import REMOTE_WORKSPACE, Bare
from edgeprune.device.board import PLAIN, Session
from edgeprune.device.lease import Keeper, hold_lease
from edgeprune.device.transports.address import AdbAddress, SerialAddress
from edgeprune.device.transports.commands import cannot_write
from edgeprune.device.transports.local import LocalTransport
from edgeprune.device.transports.lookup import resolve_host
from edgeprune.device.transports.transport import Transport, plain
from edgeprune.errors import DeviceError, PythonMissing, RuntimeMissing
from edgeprune.shipped import cache_dir

VENV = "~/.local/share/edgeprune/venv"
HANDSHAKE_S = 30.0
HANDSHAKE = """
umask 077
mkdir -p -- "$1" && cd -- "$1" || exit 1
echo "workspace=$(pwd)"
shift
for python in "$@"; do
    case $python in "~/"*) python=$HOME/${python#"~/"} ;; esac
    found=$(command -v -- "$python") && echo "python=$found" && break
done
"""
"""Makes the workspace $1, and finds the first interpreter of the rest that is there."""


@dataclass(frozen=True)
class Device:
    """A connected board. `workspace` is the agent's folder there, `python` the interpreter with the runtimes.

    `target` is the option that names its target, for remedies.
    """

    transport: Transport
    facts: DeviceFacts
    workspace: str
    python: str
    agent: Agent
    target: str

    def runtime_version(self, runtime: str) -> str:
        """Version of the runtime there, with the provider that it is asked for; empty where it is not installed."""
        installed = (self.facts.runtimes.get(package.name, "") for package in RUNTIMES[runtime].packages)
        version = next(filter(None, installed), "")
        provider = self.agent.settings.get("provider", "cpu")
        return f"{version}+{provider}" if version and provider != "cpu" else version

    def require_runtime(self, runtime: str) -> None:
        """Make sure that the board can run models of a runtime.

        Raises:
            RuntimeMissing: it is not installed there.
        """
        if self.runtime_version(runtime):
            return
        package = RUNTIMES[runtime].packages[0].name
        if self.transport.name == "local":
            remedy = f"pip install {package}"
        else:
            remedy = f"edgeprune devices setup {self.target} --host {self.transport.host} --runtime {runtime}"
        raise RuntimeMissing(f"{self.facts.host}: {package} is not installed for {self.python}; run: {remedy}")


@contextmanager
def open_device(
    target: Target, host: str | None, say: Callable[[str], None] = ignore, session: Session = PLAIN
) -> Iterator[Device]:
    """Connect, push the agent where it is missing, take the board's lease, and gather the board's facts.

    Raises:
        TargetError: no address is known for the target.
        DeviceError: the board cannot be reached, lacks Python, or is in use by somebody else.
    """
    with (
        closing(open_transport(target.name, host)) as transport,
        start_device(transport, target, say, session) as device,
    ):
        yield device


@contextmanager
def start_device(
    transport: Transport, target: Target, say: Callable[[str], None] = ignore, session: Session = PLAIN
) -> Iterator[Device]:
    """A board that is connected already, as :func:`open_device` has it."""
    agent = start_agent(transport, target.python)
    with hold_lease(agent, f"target {target.name}", say) as holding:
        settings = {"cores": target.cores, "provider": target.provider, "allow_fallback": target.allow_fallback}
        used = {name: value for name, value in asdict(session).items() if name != "benchmark_model"}
        settings |= {**used, **holding.settings}
        yield _gather(replace(holding, settings=settings), target)


@contextmanager
def open_agent(target_name: str, host: str | None, python: str) -> Iterator[Agent]:
    """Connect, and push the agent where it is missing; without the lease.

    Raises:
        TargetError: no address is known for the target.
        DeviceError: the board cannot be reached, or lacks Python.
    """
    with closing(open_transport(target_name, host)) as transport:
        yield start_agent(transport, python)


def start_agent(transport: Transport, python: str) -> Agent:
    """The agent of a board that is connected, pushed where it is missing.

    Raises:
        PythonMissing: no Python there.
        DeviceError: nowhere to put it.
    """
    workspace, interpreter = shake_hands(transport, python)
    return push_agent(transport, workspace, interpreter)


@contextmanager
def open_keeper(target: Target, host: str | None) -> Iterator[Keeper]:
    """Connect to who keeps a board's leases: the agent, or the shell where no Python is.

    Raises:
        TargetError: no address is known for the target.
        DeviceError: the board cannot be reached.
    """
    with closing(open_transport(target.name, host)) as transport:
        try:
            keeper: Keeper = start_agent(transport, target.python)
        except PythonMissing:
            keeper = Bare(transport)
        yield keeper


def open_transport(target_name: str, host: str | None) -> Transport:
    """Connect to the board of a target.

    Raises:
        TargetError: no address is known.
        ConnectionFailed: it cannot be reached.
        DeviceError: it is one that runs no commands.
    """
    address = resolve_host(target_name, host)
    if address is None:
        return LocalTransport()
    if isinstance(address, AdbAddress):
        from edgeprune.device.transports.adb import connect_adb

        return connect_adb(address)
    if isinstance(address, SerialAddress):
        raise DeviceError(f"{address}: runs no commands; `measure FILE` times the net of its firmware (docs/serial.md)")
    from edgeprune.device.ssh.transport import connect

    return connect(address)


def _gather(agent: Agent, target: Target) -> Device:
    facts = _parse_facts(ask_agent(agent, {"command": "facts"}), agent.transport)
    return Device(agent.transport, facts, agent.workspace, agent.python, agent, target.option)


def shake_hands(transport: Transport, python: str) -> tuple[str, str]:
    """The workspace's whole path, made, and the interpreter's: the one asked for, or the usual ones.

    Raises:
        PythonMissing: no Python.
        DeviceError: no home to write in.
    """
    local = transport.name == "local"
    workspace = str(cache_dir() / "board") if local else REMOTE_WORKSPACE
    candidates = [python] if python else [sys.executable] if local else [f"{VENV}/bin/python", "python3"]
    completed = transport.run(["sh", "-c", HANDSHAKE, "sh", workspace, *candidates], timeout_s=HANDSHAKE_S)
    output = plain(completed.stdout.decode(errors="replace"))
    paths = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    if "workspace" not in paths:
        raise cannot_write(transport.host, workspace, completed.stderr)
    if "python" not in paths:
        remedy = "install python3 (3.8 or newer) with venv"
        remedy = "set the target's python to one that is there" if python else remedy
        raise PythonMissing(f"{transport.host}: no Python there ({', '.join(candidates)}); {remedy}")
    return paths["workspace"], paths["python"]


def _parse_facts(row: Mapping[str, Any], transport: Transport) -> DeviceFacts:
    own = {"host": transport.host, "host_key": transport.host_key}
    with understood(transport.host, "the board"):
        fields = {**row, "power_meter": row.get("power_meter") or NO_POWER_SENSOR}
        return DeviceFacts(**{**read_fields(fields, FACTS), **own})
