"""A board behind a cable, with a release in use, and the work that is done with it: what the faults are tried on."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import paramiko
import pytest
from device_models import QUICK, ignore, make_model
from network import Cable
from release_board import Board, install, read_run
from ssh_server import SshServer

from edgeprune.core.latency.layers import LayerShape
from edgeprune.core.releasing.release import Release
from edgeprune.core.target import Target
from edgeprune.device.agent.measure import measure_models
from edgeprune.device.board import ModelFile
from edgeprune.device.connect import open_agent, open_device
from edgeprune.device.lease import hold_lease
from edgeprune.device.releasing.releases import push_release
from edgeprune.device.ssh.transport import SshTransport
from edgeprune.device.transports.transport import Completed
from edgeprune.errors import DeviceError

TARGET = Target("rpi4", "a board of the tests")
WAITS = (
    "agent.client.SILENCE_S",
    "transports.commands.SHORT_S",
    "releasing.releases.SHORT_S",
    "lease.SHORT_S",
    "connect.HANDSHAKE_S",
    "ssh.login.CONNECT_S",
)
LEAST_SILENCE_S, MOST_SILENCE_S = 4.0, 20.0
SLACK = 3
"""While a fault is met, silences are given up after so many times what the slowest command took; else as in use."""
UPLOADED = LayerShape("linear", 256, 384)
"""384 KiB of weights."""
ENTER = 'mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"'


@dataclass
class LabServer(SshServer):
    """The SSH server behind a cable, with starts of its own."""

    cable: Cable = field(default_factory=lambda: Cable(59))
    boot: ClassVar[str] = "boot"

    def command(self) -> list[str]:
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]
        return [*self.cable.inside, *enter, str(self.folder / self.boot), *super().command()]

    def start(self) -> None:
        number = int.from_bytes(os.urandom(6), "big")
        (self.folder / self.boot).write_text(f"00000000-0000-4000-8000-{number:012x}\n")
        super().start()


@dataclass
class Lab:
    """A board with an active release, and the work that is done with it: bring a release there, measure a model."""

    server: LabServer
    active: str
    release: Release
    content: bytes
    model: ModelFile
    hook: Callable[[], None] = lambda: None
    silence_s: float = LEAST_SILENCE_S
    work_s: float = 0.0

    @property
    def limit_s(self) -> float:
        """When a command must have ended that meets a fault."""
        return 3 * self.silence_s + 2 * self.work_s

    @property
    def board(self) -> Board:
        return Board(self.server)

    @property
    def workspace(self) -> Path:
        return self.board.folder.parent

    def work(self) -> None:
        """The command that meets a fault and is then run again."""
        with open_agent(TARGET.name, "board", "") as agent, hold_lease(agent, "release push", ignore):
            push_release(agent, self.release, self.content)
        with open_device(TARGET, "board") as device:
            (measurement,) = measure_models(device, [self.model], 1, QUICK, self._progress).values()
        assert len(measurement.samples_ms) >= QUICK.min_samples
        assert (self.board.folder / self.release.id).is_dir()

    def attempt(self) -> tuple[str, float]:
        """What the work meets, and how long it takes."""
        begun = time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            for place in WAITS:
                patch.setattr(f"edgeprune.device.{place}", self.silence_s)
            try:
                self.work()
            except DeviceError as exc:
                return str(exc), time.monotonic() - begun
        return "", time.monotonic() - begun

    def _progress(self, text: str) -> None:
        hook, self.hook = self.hook, lambda: None
        hook()

    def forget(self) -> None:
        """As it was before any work, but for the agent and the active release."""
        for place in self.board.folder.glob(f"{self.release.id}*"):
            shutil.rmtree(place)
        for name in ("models", "incoming"):
            shutil.rmtree(self.workspace / name, ignore_errors=True)

    def check(self) -> None:
        """The release in use runs as before; nothing under a final name is half-written, nothing else is left."""
        assert self.board.active() == self.active
        assert self.board.half_written() == []
        for path in (self.workspace / "models").glob("*.onnx"):
            assert ModelFile.of(path, "onnxruntime").sha256 == path.stem
        end = time.monotonic() + self.limit_s
        while partials := [path for path in self.workspace.rglob("*.partial") if path.parent != self.board.folder]:
            assert time.monotonic() < end, partials
            time.sleep(0.1)


def prepare(server: LabServer, folder: Path) -> Lab:
    """The lab, with a release in use and the work done once."""
    first, model = read_run(folder / "a")
    second, content = read_run(folder / "b", UPLOADED)
    lab = Lab(server, first.id, second, content, make_model(folder, "onnxruntime", UPLOADED))
    install(lab.board.folder, first, model)
    run_command, slowest = SshTransport.run, [0.0]

    def time_command(*words: Any, **more: Any) -> Completed:
        begun = time.monotonic()
        completed = run_command(*words, **more)
        slowest.append(time.monotonic() - begun)
        return completed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SshTransport, "run", time_command)
        begun = time.monotonic()
        lab.work()
        lab.work_s = time.monotonic() - begun
    lab.silence_s = min(MOST_SILENCE_S, max(LEAST_SILENCE_S, SLACK * max(slowest)))
    return lab


class Scissors:
    """Cuts the cable at one of the moments at which something is sent or has come, or only counts them."""

    def __init__(self, cable: Cable, at: int | None) -> None:
        self.count = 0
        self._cable, self._at, self._lock = cable, at, threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._at:
                self._cable.cut()

    @contextmanager
    def lying_ready(self) -> Iterator[None]:
        send, receive = paramiko.Channel.send, paramiko.Channel.recv

        def count_send(channel: paramiko.Channel, content: bytes) -> int:
            self()
            return send(channel, content)

        def count_receive(channel: paramiko.Channel, most: int) -> bytes:
            content = receive(channel, most)
            self()
            return content

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paramiko.Channel, "send", count_send)
            patch.setattr(paramiko.Channel, "recv", count_receive)
            yield
