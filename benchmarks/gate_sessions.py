"""Sessions of one file against itself and against files that do 2, 5 and 10 % more work, other load coming and going.

    python benchmarks/gate_sessions.py --calls 260

Each call of the board is a line of results/gate_sessions.jsonl: the windows of every file, the percentiles of each
process, and what was wrong with the run. What gates make of them says `gate_errors.py`. A killed run goes on where it
ended.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from machine import describe_machine
from onnx import TensorProto, helper, numpy_helper

from edgeprune.core.measuring.measurement import Measurement, Protocol
from edgeprune.device.board import PLAIN, ModelFile
from edgeprune.device.boards import measure_files
from edgeprune.shipped import load_target

RESULTS = Path(__file__).parent / "results" / "gate_sessions.jsonl"
LAYERS = {"base": 100, "same": 100, "plus_2": 102, "plus_5": 105, "plus_10": 110}
"""Layers alike in each file; so many hundredths more take so many percent longer."""
PROTOCOL = Protocol(min_samples=60, min_duration_s=0.6, rounds=24, processes=12, max_warmup_s=0.05)
CHANNELS, SIDE = 16, 8
LOAD = """
import multiprocessing, os, random, time
import numpy as np

def compute(end):
    while time.perf_counter() < end: pass

def copy(end):
    values = np.ones(2_000_000)
    while time.perf_counter() < end: values = values * 1.0001

parent = os.getppid()
while os.getppid() == parent:
    time.sleep(random.uniform(5, 60))
    end = time.perf_counter() + random.choice((0.3, 1, 3, 10)) * random.uniform(0.5, 1.5)
    kinds = random.choices((compute, copy), k=random.choice((1, 1, 2)))
    work = [multiprocessing.Process(target=kind, args=(end,)) for kind in kinds]
    for process in work: process.start()
    for process in work: process.join()
"""
"""Other programs: nothing for 5 to 60 s, then one or two that compute or copy for 0.15 to 15 s."""


def build_net(layers: int, path: Path) -> None:
    """A chain of 3x3 convolutions with ReLU, of weights of their own."""
    draw, shape = np.random.default_rng(0), [1, CHANNELS, SIDE, SIDE]
    nodes, weights, name = [], [], "x"
    for number in range(layers):
        values = draw.normal(0, (2 / (9 * CHANNELS)) ** 0.5, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        nodes += [
            helper.make_node("Conv", [name, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"]),
        ]
        name = f"r{number}"
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, shape) for end in ("x", name)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@contextmanager
def other_programs() -> Iterator[None]:
    """They work beside, now and then."""
    process = subprocess.Popen([sys.executable, "-c", LOAD])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def shorten(measurement: Measurement) -> dict[str, Any]:
    """What is kept of a measurement."""
    samples = np.array(measurement.steady_ms)
    middle = np.sort(samples)[[int(len(samples) * share) for share in half_interval(len(samples))]]
    return {
        "windows": [
            [window.process, round(window.at_s, 3), digits(window.p50_ms), round(window.waited_share or 0.0, 4)]
            for window in measurement.windows
        ],
        "percentiles": {
            str(process): [digits(value) for value in np.percentile(own, (50, 90, 95, 99))]
            for process, own in measurement.samples_by_process.items()
        },
        "samples": {
            "count": len(samples),
            "mean": digits(samples.mean()),
            "deviation": digits(samples.std(ddof=1)),
            "least": digits(samples.min()),
            "median_interval": [digits(value) for value in middle],
        },
        "problems": list(measurement.problems),
    }


def half_interval(count: int) -> tuple[float, float]:
    """Ranks, as shares, between which the median of independent samples lies with 95 %."""
    return 0.5 - 0.98 / count**0.5, 0.5 + 0.98 / count**0.5


def digits(value: float) -> float:
    """Six of them."""
    return float(f"{value:.6g}")


def main() -> None:
    """Measure until there are so many calls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=260)
    calls = parser.parse_args().calls
    if not RESULTS.exists():
        RESULTS.write_text(json.dumps({"machine": describe_machine(["onnxruntime"]), "layers": LAYERS}) + "\n")
    target = replace(load_target("local"), protocol=PROTOCOL)
    with tempfile.TemporaryDirectory() as folder, other_programs():
        models = []
        for name, layers in LAYERS.items():
            path = Path(folder) / f"{name}.onnx"
            build_net(layers, path)
            models.append(ModelFile.of(path, "onnxruntime"))
        for number in range(len(RESULTS.read_text().splitlines()) - 1, calls):
            order = random.Random(number).sample(models, len(models))
            began_s = time.perf_counter()
            _, measured = measure_files(target, None, order, PLAIN, lambda text: None)
            row = {
                "seconds": round(time.perf_counter() - began_s, 2),
                "files": {name: shorten(measured[name]) for name in LAYERS},
            }
            with RESULTS.open("a") as file:
                file.write(json.dumps(row, separators=(",", ":")) + "\n")
            base_ms = measured["base"].latency.p50_ms
            ratios = " ".join(f"{name} {measured[name].latency.p50_ms / base_ms:.4f}" for name in LAYERS)
            print(number, f"{base_ms:.4g} ms", ratios, measured["base"].problems, flush=True)


if __name__ == "__main__":
    main()
