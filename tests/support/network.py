"""A network namespace with an address of its own, joined to this machine by a cable that can be cut and slowed."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

REACHED_S = 20.0
NETWORK = "10.213.{number}.{host}"


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@dataclass(frozen=True)
class Cable:
    """`address` is the board's; commands that begin with `inside` run on its side."""

    number: int

    @property
    def name(self) -> str:
        return f"edgeprune{self.number}"

    @property
    def address(self) -> str:
        return NETWORK.format(number=self.number, host=2)

    @property
    def inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def plug(self) -> None:
        """Make the link work, or work again; our side forgets that there was nobody."""
        run(*self.inside, "ip", "link", "set", "board", "up")
        run("ip", "neigh", "flush", "dev", f"ep{self.number}")
        end = time.monotonic() + REACHED_S
        while time.monotonic() < end:
            try:
                socket.create_connection((self.address, 1), timeout=1).close()
            except ConnectionRefusedError:
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"{self.address} cannot be reached")

    def cut(self) -> None:
        """Cut it on the board's side: on ours, packets would leave by the default route."""
        run(*self.inside, "ip", "link", "set", "board", "down")

    def slow(self, kilobits: int) -> None:
        """Shape what either side sends."""
        shape = ["root", "tbf", "rate", f"{kilobits}kbit", "burst", "16kb", "latency", "400ms"]
        run("tc", "qdisc", "replace", "dev", f"ep{self.number}", *shape)
        run(*self.inside, "tc", "qdisc", "replace", "dev", "board", *shape)


def why_no_network() -> str:
    """Why no namespace can be made here; empty where one can."""
    if os.geteuid() != 0:
        return "needs root, for a network of its own"
    completed = subprocess.run(["ip", "netns", "add", "edgeprune-try"], capture_output=True, text=True, check=False)
    if completed.returncode == 0:
        run("ip", "netns", "del", "edgeprune-try")
    return "" if completed.returncode == 0 else f"no network namespaces here: {completed.stderr.strip()}"


@contextmanager
def laid_cable(number: int) -> Iterator[Cable]:
    """A namespace and its cable, gone afterwards with all that ran there."""
    cable = Cable(number)
    _remove(cable)
    run("ip", "netns", "add", cable.name)
    try:
        run("ip", "link", "add", f"ep{number}", "type", "veth", "peer", "name", "board")
        run("ip", "link", "set", "board", "netns", cable.name)
        run("ip", "addr", "add", f"{NETWORK.format(number=number, host=1)}/30", "dev", f"ep{number}")
        run("ip", "link", "set", f"ep{number}", "up")
        run(*cable.inside, "ip", "addr", "add", f"{cable.address}/30", "dev", "board")
        run(*cable.inside, "ip", "link", "set", "lo", "up")
        network = f"{NETWORK.format(number=number, host=0)}/30"
        run("ip", "route", "replace", "unreachable", network, "metric", "4000")
        cable.plug()
        yield cable
    finally:
        _remove(cable)


def _remove(cable: Cable) -> None:
    network = f"{NETWORK.format(number=cable.number, host=0)}/30"
    with suppress(OSError):
        pids = subprocess.run(["ip", "netns", "pids", cable.name], capture_output=True, text=True, check=False).stdout
        for pid in pids.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        for words in (
            ["ip", "link", "del", f"ep{cable.number}"],
            ["ip", "netns", "del", cable.name],
            ["ip", "route", "del", "unreachable", network, "metric", "4000"],
        ):
            subprocess.run(words, capture_output=True, check=False)
