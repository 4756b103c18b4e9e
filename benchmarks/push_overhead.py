"""What measuring a ready file over SSH costs beside the bare way: results/push_overhead.json.

    .venv/bin/python benchmarks/push_overhead.py [--repetitions 5] [--seconds 10]

Both bring a model of 1 MiB to a board (a real sshd on this machine), run it there for so many seconds in the same
ONNX Runtime, and bring the latencies back:

    bare          scp model bench.py board: && ssh board python bench.py && scp board:result.json .
    edgeprune     edgeprune measure model.onnx --target board.toml --host board --output result.json
    first         the same on a board that has not even the agent

A proxy in between counts connections and round trips (how often the client sends after the board has answered), and, in
the second half, holds what it forwards back for so long that a round trip takes 20 ms, as a busy Wi-Fi does. The ways
take turns. `command_s` is the time of the whole command, Python's start on this machine included.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import describe_machine

from edgeprune.core.latency.layers import LayerShape
from edgeprune.exporting.probing.probes import build_probe
from edgeprune.run import read_json, write_json

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
from ssh_server import SshServer

RESULTS = Path(__file__).parent / "results" / "push_overhead.json"
LAYER = LayerShape("conv", 168, 168, (3, 3), (1, 1), 1, (14, 14), (1, 1))
"""254,016 weights: 1 MiB."""
DELAYS_MS = (0.0, 20.0)
LIMIT = 1.3
CHUNK = 1 << 16
TARGET = """
description = "the board of this benchmark"
runtime = "onnxruntime"
precision = "fp32"
threads = 1

[protocol]
min_duration_s = {seconds}
"""
BARE = """
import json, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
feeds = {one.name: numpy.random.default_rng(0).standard_normal(one.shape).astype("float32")
         for one in session.get_inputs()}
for _ in range(10):
    session.run(None, feeds)
samples_ns, end = [], time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    begun = time.perf_counter_ns()
    session.run(None, feeds)
    samples_ns.append(time.perf_counter_ns() - begun)
with open("result.json", "w") as file:
    json.dump({"samples_ms": [one / 1e6 for one in samples_ns]}, file)
"""


@dataclass
class Proxy:
    """Forwards to a port of this machine, late by half of `delay_ms` each way; counts what goes through."""

    to_port: int
    delay_ms: float = 0.0
    port: int = 0
    connections: int = 0
    turns: int = 0
    sent_bytes: int = 0
    _answered: dict[int, bool] = field(default_factory=dict)

    def start(self) -> None:
        """Listen, in a thread that ends with this process."""
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._listen(ready)), daemon=True).start()
        ready.wait()

    def reset(self, delay_ms: float) -> None:
        """Count from zero."""
        self.delay_ms, self.connections, self.turns, self.sent_bytes = delay_ms, 0, 0, 0

    async def _listen(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await server.serve_forever()

    async def _join(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        board, to_board = await asyncio.open_connection("127.0.0.1", self.to_port)
        self._answered[number] = True
        await asyncio.gather(
            self._pump(client, to_board, number, upward=True), self._pump(board, to_client, number, upward=False)
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, *, upward: bool
    ) -> None:
        later = asyncio.get_running_loop().call_later
        with suppress(ConnectionResetError):
            while chunk := await reader.read(CHUNK):
                if upward:
                    self.turns += self._answered[number]
                    self.sent_bytes += len(chunk)
                self._answered[number] = not upward
                later(self.delay_ms / 2000, writer.write, chunk)
        later(self.delay_ms / 2000, writer.close)


@dataclass(frozen=True)
class Bench:
    """The board, the way there, and the files."""

    server: SshServer
    proxy: Proxy
    folder: Path
    seconds: float

    def bare(self) -> Path:
        """By hand."""
        result = self.folder / "bare.json"
        options = ["-F", str(self.server.home / ".ssh" / "config"), "-q"]
        options += ["-o", f"UserKnownHostsFile={self.server.known_hosts}"]
        files = [str(self.folder / "model.onnx"), str(self.folder / "bench.py")]
        run = f".local/share/edgeprune/venv/bin/python bench.py {self.seconds}"
        subprocess.run(["scp", "-O", *options, *files, "board:"], check=True)
        subprocess.run(["ssh", *options, "board", run], check=True)
        subprocess.run(["scp", "-O", *options, "board:result.json", str(result)], check=True)
        return result

    def edgeprune(self) -> Path:
        """By one command, on a board that has the agent and not the model."""
        shutil.rmtree(self.server.board / ".cache" / "edgeprune" / "board" / "models", ignore_errors=True)
        result = self.folder / "edgeprune.json"
        command = [sys.executable, "-m", "edgeprune.cli", "measure", str(self.folder / "model.onnx")]
        command += ["--target", str(self.folder / "board.toml"), "--host", "board", "--output", str(result)]
        environment = {**os.environ, "HOME": str(self.server.home)}
        completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if not result.exists():
            raise RuntimeError(completed.stderr)
        return result

    def first(self) -> Path:
        """The same on a board that has nothing."""
        shutil.rmtree(self.server.board / ".cache", ignore_errors=True)
        return self.edgeprune()

    def take(self, way: Callable[[], Path], delay_ms: float) -> dict[str, Any]:
        """One repetition of a way."""
        self.proxy.reset(delay_ms)
        begun = time.perf_counter()
        result = way()
        taken_s = time.perf_counter() - begun
        samples_ms = read_json(result)["samples_ms"]
        result.unlink()
        return {
            "command_s": taken_s,
            "measured_s": sum(samples_ms) / 1e3,
            "median_ms": statistics.median(samples_ms),
            "connections": self.proxy.connections,
            "round_trips": self.proxy.turns,
            "sent_bytes": self.proxy.sent_bytes,
        }


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over repetitions, with the least and the most seconds."""
    seconds = [row["command_s"] for row in rows]
    medians = {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}
    return {**medians, "least_s": round(min(seconds), 3), "most_s": round(max(seconds), 3), "repetitions": len(rows)}


def compare(bench: Bench, delay_ms: float, repetitions: int) -> dict[str, Any]:
    """The three ways in turn."""
    ways = {"bare": bench.bare, "edgeprune": bench.edgeprune, "first": bench.first}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for turn in range(repetitions):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            rows[name].append(bench.take(ways[name], delay_ms))
            print(f"{delay_ms:g} ms, {turn + 1}: {name} {rows[name][-1]['command_s']:.2f} s", flush=True)
    figures = {name: summarize(turns) for name, turns in rows.items()}
    ratios = {
        name: [row["command_s"] / bare["command_s"] for row, bare in zip(rows[name], rows["bare"], strict=True)]
        for name in ("edgeprune", "first")
    }
    return {
        "round_trip_ms": delay_ms,
        **figures,
        "ratio": {name: round(statistics.median(values), 3) for name, values in ratios.items()},
        "ratio_spread": {name: [round(min(values), 3), round(max(values), 3)] for name, values in ratios.items()},
        "ratio_of_least": {name: round(figures[name]["least_s"] / figures["bare"]["least_s"], 3) for name in ratios},
    }


def set_up(folder: Path, seconds: float) -> Bench:
    """A running board behind the proxy, with the runtimes; the client knows it as Host `board`."""
    server = SshServer(folder / "ssh")
    server.lend_runtimes()
    server.start()
    proxy = Proxy(server.port)
    proxy.start()
    for path in (server.home / ".ssh" / "config", server.known_hosts):
        path.write_text(path.read_text().replace(str(server.port), str(proxy.port)))
    (folder / "model.onnx").write_bytes(build_probe(LAYER, "onnx", "fp32"))
    (folder / "board.toml").write_text(TARGET.format(seconds=seconds))
    (folder / "bench.py").write_text(BARE)
    return Bench(server, proxy, folder, seconds)


def main() -> None:
    """Compare without and with a delay; write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = set_up(Path(folder), options.seconds)
        try:
            rows = [compare(bench, delay_ms, options.repetitions) for delay_ms in DELAYS_MS]
            size = (bench.folder / "model.onnx").stat().st_size
        finally:
            bench.server.stop()
    document = {
        "what": "seconds of a whole command; board and client share one core; see benchmarks/push_overhead.py",
        "machine": describe_machine(["onnxruntime", "numpy", "paramiko"]),
        "model_bytes": size,
        "measuring_s": options.seconds,
        "limit": LIMIT,
        "met": all(ratio <= LIMIT for row in rows for ratio in row["ratio"].values()),
        "rows": rows,
    }
    write_json(RESULTS, document)
    print(document)


if __name__ == "__main__":
    main()
