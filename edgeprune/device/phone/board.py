"""A phone without Python: TFLite's native benchmark times files there, and can do nothing else."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from edgeprune.core.formats import RUNTIMES
from edgeprune.core.measuring.measurement import NO_POWER_SENSOR, DeviceFacts, Measurement, Protocol
from edgeprune.core.target import Target
from edgeprune.device.board import MS, ModelFile, Progress, Session
from edgeprune.device.phone.benchmark import FORMAT, RUNTIME, describe_phone, measure_native
from edgeprune.device.transports.transport import Transport
from edgeprune.errors import DeviceError, UsageError
from edgeprune.shipped import cache_dir

NEEDS_PYTHON = "that needs Python there (docs/phones.md); here only ready .tflite files can be measured"


@dataclass(frozen=True)
class NativeBoard:
    """A :class:`Board` by `benchmark_model`."""

    transport: Transport
    target: Target
    facts: DeviceFacts
    unit: str = MS

    @classmethod
    def of(cls, transport: Transport, target: Target, session: Session) -> NativeBoard:
        """What a phone says of itself.

        Raises:
            UsageError: the governor is to be set, or sizes of inputs are given.
            DeviceError: it runs no commands.
        """
        if session.set_governor or session.shapes:
            option = "--set-governor" if session.set_governor else "--shape"
            raise UsageError(f"{transport.host}: {option} needs Python there; leave it out")
        return cls(transport, target, describe_phone(transport))

    @property
    def lacks(self) -> Mapping[str, str]:
        """All but timing files."""
        return dict.fromkeys(("time_probes", "run", "energy", "nodes", "sustain"), NEEDS_PYTHON)

    @property
    def is_remote(self) -> bool:
        """It is never this machine."""
        return True

    def runtime_version(self, runtime: str) -> str:
        """The benchmark runs TFLite files, and tells no version."""
        return RUNTIME if RUNTIMES[runtime].format == FORMAT else ""

    def check_power(self, target: Target) -> str:
        """There is no power meter that could be read."""
        return NO_POWER_SENSOR

    def time(
        self, models: Sequence[ModelFile], threads: int, protocol: Protocol, progress: Progress
    ) -> dict[str, Measurement]:
        """Latency of files by name: each sample is the mean of the runs of one call."""
        target = replace(self.target, threads=threads, protocol=protocol)
        return measure_native(self.transport, models, target, progress)

    def _refuse(self, *_: Any) -> NoReturn:
        raise DeviceError(f"{self.facts.host}: {NEEDS_PYTHON}")

    time_probes = run = energy = nodes = sustain = _refuse


@contextmanager
def hold_on_host(identity: str, reason: str) -> Iterator[None]:
    """Hold a board that holds no files: its lease is a lock on this machine, which ends with the process.

    Raises:
        DeviceError: another process of this machine holds it.
    """
    place = cache_dir() / "leases" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = place.open("a")
    except OSError as exc:
        raise DeviceError(f"{place}: cannot be written: {exc.strerror}") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise DeviceError(
                f"{identity}: another edgeprune of this machine is at work on it; wait for it ({reason})"
            ) from exc
        yield
