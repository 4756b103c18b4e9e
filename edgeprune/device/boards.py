"""From a target and a host to a board of whatever kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from edgeprune.core.measuring.measurement import DeviceFacts, Measurement
from edgeprune.core.target import Target
from edgeprune.device.agent.board import AgentBoard
from edgeprune.device.agent.client import ignore
from edgeprune.device.board import PLAIN, Board, ModelFile, Progress, Session
from edgeprune.device.connect import open_device, open_transport, shake_hands
from edgeprune.device.mcu.board import COUNTS_ONLY, QemuBoard, is_emulated, refuse_unreachable
from edgeprune.device.phone.benchmark import has_python
from edgeprune.device.phone.board import NativeBoard, hold_on_host
from edgeprune.device.transports.address import AdbAddress
from edgeprune.device.transports.lookup import resolve_host
from edgeprune.errors import TargetError

EMULATOR = "QEMU on this machine"


@contextmanager
def open_board(target: Target, host: str | None, say: Progress = ignore, session: Session = PLAIN) -> Iterator[Board]:
    """Connect to a target's board, and hold it: nobody else's measurement runs there meanwhile.

    Raises:
        TargetError: no address is known for the target.
        DeviceError: the board cannot be reached, or is in use by somebody else.
        UsageError: the session asks for what this kind of board has not.
    """
    refuse_unreachable(target)
    if is_emulated(target):
        yield QemuBoard.of(target, session)
        return
    if isinstance(resolve_host(target.name, host), AdbAddress):
        with closing(open_transport(target.name, host)) as transport:
            if not has_python(transport, target):
                with hold_on_host(transport.host_key, target.name):
                    yield NativeBoard.of(transport, target, session)
                return
    with open_device(target, host, say, session) as device:
        yield AgentBoard(device)


def measure_files(
    target: Target, host: str | None, models: Sequence[ModelFile], session: Session, progress: Progress
) -> tuple[DeviceFacts, dict[str, Measurement]]:
    """Latency of ready files by name, on a board of any kind.

    Raises:
        TargetError: no address is known.
        UsageError: the session asks for what this kind of board has not.
        RuntimeMissing: the runtime is not there.
        DeviceError: anything else that goes wrong there.
    """
    with open_board(target, host, progress, session) as board:
        return board.facts, board.time(models, target.threads, target.protocol, progress)


def reach_board(target: Target, host: str | None) -> str:
    """Find out whether a board answers, and has Python if it needs that; it is not held. Gives its address.

    Raises:
        TargetError: no address is known for the target.
        DeviceError: it cannot be reached, or lacks Python.
    """
    refuse_unreachable(target)
    if is_emulated(target):
        return EMULATOR
    with closing(open_transport(target.name, host)) as transport:
        if transport.name != "adb" or has_python(transport, target):
            shake_hands(transport, target.python)
        return transport.host


def describe_address(target: Target, host: str | None) -> str:
    """Where a board is, in words.

    Raises:
        TargetError: nothing says it, or nothing that is there tells time.
    """
    refuse_unreachable(target)
    if is_emulated(target):
        raise TargetError(
            f"target {target.name}: {COUNTS_ONLY}; the line plans and judges in milliseconds alone so far"
        )
    return str(resolve_host(target.name, host) or "this machine")
