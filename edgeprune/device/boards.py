"""From a target and a host to a board of whatever kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from edgeprune.core.answers import text
from edgeprune.core.formats import AUTO, RUNTIMES
from edgeprune.core.measuring.measurement import DeviceFacts, Measurement, add_energy
from edgeprune.core.target import Target
from edgeprune.core.text import describe_duration
from edgeprune.device.agent.board import AgentBoard
from edgeprune.device.agent.client import Agent, ask_agent, ignore, push_agent, understood
from edgeprune.device.bare_lease import Bare
from edgeprune.device.board import PLAIN, Board, ModelFile, Progress, Session, refuse_untimed, require
from edgeprune.device.connect import open_transport, shake_hands, start_device
from edgeprune.device.lease import hold_board
from edgeprune.device.mcu.board import QemuBoard, check_core, is_emulated
from edgeprune.device.phone.benchmark import NATIVE_RUNTIME
from edgeprune.device.phone.binary import find_binary
from edgeprune.device.phone.board import NativeBoard
from edgeprune.device.serial.board import open_serial
from edgeprune.device.transports.address import SerialAddress
from edgeprune.device.transports.lookup import is_known, resolve_host
from edgeprune.device.transports.transport import Transport
from edgeprune.errors import PythonMissing, RuntimeMissing, UsageError

EMULATOR = "QEMU on this machine"


def is_counted(target: Target, host: str | None) -> bool:
    """Whether a target's board is its core in QEMU on this machine: one that is named so, or a microcontroller that
    nothing says the address of.

    Raises:
        TargetError: there is no board, and QEMU has no such core; or devices.toml is not valid.
    """
    if is_emulated(target):
        return True
    runs_python = all(RUNTIMES[runtime].needs_python for runtime in target.runtimes)
    if runs_python or host is not None or is_known(target.name):
        return False
    check_core(target)
    return True


@contextmanager
def open_board(target: Target, host: str | None, say: Progress = ignore, session: Session = PLAIN) -> Iterator[Board]:
    """Connect to a target's board, and hold it: nobody else's measurement runs there meanwhile.

    What it has decides how: the agent where Python is, else TFLite's benchmark_model, which a session may also ask for.

    Raises:
        TargetError: no address is known for the target.
        DeviceError: the board cannot be reached, has neither, or is in use by somebody else.
        UsageError: the session asks for what this kind of board has not.
    """
    if is_counted(target, host):
        yield QemuBoard.of(target, session)
        return
    address = resolve_host(target.name, host)
    with ExitStack() as stack:
        if isinstance(address, SerialAddress):
            yield stack.enter_context(open_serial(address, target, session))
            return
        refuse_untimed(target)
        transport = stack.enter_context(closing(open_transport(target.name, host)))
        if not _wants_native(transport, session):
            try:
                device = stack.enter_context(start_device(transport, target, say, session))
            except PythonMissing as exc:
                if not _can_run_natively(target):
                    raise
                say(f"{exc.args[0].partition(';')[0]}: looking for benchmark_model")
            else:
                _require_provider(target, device.facts.host)
                yield AgentBoard(device)
                return
        stack.enter_context(hold_board(Bare(transport), f"target {target.name}", say))
        yield NativeBoard.of(transport, target, session)


def _wants_native(transport: Transport, session: Session) -> bool:
    """Whether benchmark_model is asked for.

    Raises:
        UsageError: it is asked for on this machine.
    """
    if session.benchmark_model is not None and transport.name == "local":
        raise UsageError("--benchmark-model is for phones and boards; this machine is measured by its own Python")
    return session.benchmark_model is not None


def _can_run_natively(target: Target) -> bool:
    """Whether what ships for a target may be a file that benchmark_model runs."""
    return NATIVE_RUNTIME in target.runtimes


def _require_provider(target: Target, host: str) -> None:
    """Refuse a delegate that Python's runtimes do not have: they would run on the CPU and say nothing.

    Raises:
        RuntimeMissing: the target names such a one.
    """
    if target.runtime == NATIVE_RUNTIME and target.provider != "cpu":
        raise RuntimeMissing(
            f'{host}: provider = "{target.provider}": LiteRT for Python runs on the CPU; give a '
            "benchmark_model by --benchmark-model FILE (docs/phones.md)"
        )


def measure_files(
    target: Target, host: str | None, models: Sequence[ModelFile], session: Session, progress: Progress
) -> tuple[DeviceFacts, dict[str, Measurement]]:
    """Latency of ready files by name, on a board of any kind; their energy too where the target names a meter.

    Raises:
        TargetError: no address is known, or the meter cannot be read.
        UsageError: the session asks for what this kind of board has not.
        RuntimeMissing: the runtime is not there.
        DeviceError: anything else that goes wrong there.
    """
    with open_board(target, host, progress, session) as board:
        has_meter = target.power.meter != AUTO
        if has_meter:
            require(board, "energy")
            board.check_power(target)
        measured = board.time(models, target.threads, target.protocol, progress)
        return board.facts, add_energy(measured, board.energy(models, target, progress)) if has_meter else measured


def reach_board(target: Target, host: str | None, say: Progress = ignore, session: Session = PLAIN) -> str:
    """Find out whether a board answers, and has Python or a benchmark_model; it is not held. Gives its address.

    Says what others do there, if a session is to wait for them.

    Raises:
        TargetError: no address is known for the target.
        DeviceError: it cannot be reached, or lacks both.
        UsageError: a benchmark_model is asked for on this machine.
    """
    if is_counted(target, host):
        return EMULATOR
    with closing(open_transport(target.name, host)) as transport:
        is_native = _wants_native(transport, session)
        if not is_native:
            try:
                workspace, python = shake_hands(transport, target.python)
            except PythonMissing:
                if not _can_run_natively(target):
                    raise
                is_native = True
            else:
                _say_busy(push_agent(transport, workspace, python), say, session.quiet_wait_s)
        if is_native:
            find_binary(transport, session.benchmark_model)
        return transport.host


def _say_busy(agent: Agent, say: Progress, wait_s: float) -> None:
    """Say that others are at work on a board, and what becomes of it, while there is still time to stop them."""
    if not wait_s:
        return
    row = ask_agent(agent, {"command": "busy"})
    with understood(agent.transport.host, "what others do there"):
        others = text(row["others"])
    if others:
        say(
            f"{agent.transport.host}: {others}; whatever is timed there waits for them, "
            f"{describe_duration(wait_s)} at most each time, and then fails; stop them, or add --allow-busy: then "
            "nothing waits, and no figure of latency passes a gate"
        )


def describe_address(target: Target, host: str | None) -> str:
    """Where a board is, in words.

    Raises:
        TargetError: nothing says it, or nothing runs its files.
    """
    if is_counted(target, host):
        return EMULATOR
    refuse_untimed(target)
    return str(resolve_host(target.name, host) or "this machine")
