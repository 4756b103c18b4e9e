"""A stand-in for TFLite's native benchmark_model, around LiteRT from its wheel: for tests alone.

It knows those flags of tensorflow/lite/tools/benchmark that edgeprune uses, and prints what the real one prints by its
sources (benchmark_model.cc, benchmark_tflite_model.cc of google-ai-edge/LiteRT). A file `delegates` beside it says how
many nodes of how many a delegate takes, as `gpu 31 31`; it computes on the CPU all the same.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

Values = dict[str, str]

FLAGS = {
    "num_runs": ("50", "int32", "expected number of runs, see also min_secs, max_secs"),
    "min_secs": ("1", "float", "minimum number of seconds to rerun for"),
    "num_threads": ("-1", "int32", "number of threads"),
    "warmup_runs": ("1", "int32", "minimum number of runs performed on initialization"),
    "warmup_min_secs": ("0.5", "float", "minimum number of seconds to rerun for"),
    "report_peak_memory_footprint": ("false", "bool", "Report the peak memory footprint"),
    "graph": ("", "string", "graph file name"),
    "input_layer": ("", "string", "input layer names"),
    "input_layer_shape": ("", "string", "input layer shape"),
    "input_layer_value_files": ("", "string", "A map-like string representing value file."),
    "output_filepath": ("", "string", "File path to export outputs layer as binary data."),
    "use_xnnpack": ("false", "bool", "explicitly apply the XNNPACK delegate."),
    "use_gpu": ("false", "bool", "use gpu"),
    "gpu_precision_loss_allowed": ("true", "bool", "Allow to process computation in lower precision than FP32"),
    "use_nnapi": ("false", "bool", "use nnapi delegate api"),
}
DELEGATES = {"use_gpu": ("gpu", "GPU", "TfLiteGpuDelegateV2"), "use_nnapi": ("nnapi", "NNAPI", "TfLiteNnapiDelegate")}


def log(text: str, level: str = "INFO") -> None:
    """The tool's own lines: errors to standard error, the rest to standard output (tools/logging.h)."""
    print(f"{level}: {text}", flush=True, file=sys.stderr if level in ("ERROR", "FATAL") else sys.stdout)


def log_runtime(text: str, level: str = "INFO") -> None:
    """The runtime's lines: all to standard error; a release build says VERBOSE ones on Android alone."""
    print(f"{level}: {text}", flush=True, file=sys.stderr)


def show_usage() -> None:
    rows = [f"\t{f'--{name}={default}':<40}\t{kind}\toptional\t{text}" for name, (default, kind, text) in FLAGS.items()]
    log("usage: benchmark_model <flags>\nFlags:\n" + "\n".join(rows), "ERROR")


def fail(text: str) -> NoReturn:
    log(text, "ERROR")
    log("Benchmarking failed.", "ERROR")
    sys.exit(1)


def abort(text: str) -> NoReturn:
    """As TFLITE_LOG(FATAL) ends: by SIGABRT, which a shell tells as 134."""
    log(text, "FATAL")
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGABRT)
    sys.exit(134)


def parse(words: list[str]) -> Values:
    values = {name: default for name, (default, _, _) in FLAGS.items()}
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        if word == "--help":
            show_usage()
            log("Benchmarking failed.", "ERROR")
            sys.exit(1)
        if name in values:
            values[name] = value
        else:
            log(f"Unconsumed cmdline flags: {word}", "WARN")
    return values


def apply_delegates(values: Values) -> None:
    if values["use_xnnpack"] == "true":
        tell_applied("XNNPACK", 1, 1)
    place = Path(__file__).resolve().parent / "delegates"
    rows = [line.split() for line in place.read_text().splitlines()] if place.exists() else []
    shares = {name: (int(count), int(total)) for name, count, total in rows}
    for flag, (name, title, label) in DELEGATES.items():
        if values[flag] != "true":
            continue
        count, total = shares.get(name, (0, 1))
        if not count:
            log(f"Though {title} delegate is explicitly applied, the model graph will not be executed by the delegate.")
            continue
        replaced = f"Replacing {count} out of {total} node(s) with delegate ({label}) node"
        log_runtime(f"{replaced}, yielding 1 partitions for subgraph 0.", "VERBOSE")
        tell_applied(title, count, total)


def tell_applied(title: str, count: int, total: int) -> None:
    how = "completely" if count == total else "partially"
    more = "." if count == total else " w/ 1 delegate kernels."
    log(f"Explicitly applied {title} delegate, and the model graph will be {how} executed by the delegate{more}")


def run(interpreter: Any, least: int, least_s: float) -> list[int]:
    log(f"Running benchmark for at least {least} iterations and at least {least_s:g} seconds but terminate if "
        "exceeding 150 seconds.")  # fmt: skip
    times, end = list[int](), time.perf_counter() + least_s
    while len(times) < least or time.perf_counter() < end:
        begun = time.perf_counter_ns() // 1000
        interpreter.invoke()
        times.append(time.perf_counter_ns() // 1000 - begun)
    log(f"{tell_times(times)} {tell_percentiles(times)}\n")
    return times


def tell_times(times: list[int]) -> str:
    """As Stat of stats_calculator.h."""
    if not times:
        return "count=0"
    if min(times) == max(times):
        return f"count={len(times)} curr={times[-1]}{'(all same)' if len(times) > 1 else ''}"
    mean = sum(times) / len(times)
    variance = int(sum((value - mean) ** 2 for value in times) / len(times))
    ends = f"first={times[0]} curr={times[-1]} min={min(times)} max={max(times)}"
    return f"count={len(times)} {ends} avg={mean:g} std={int(variance**0.5)}"


def tell_percentiles(times: list[int]) -> str:
    """As StatWithPercentiles of stats_calculator.h."""
    ordered = sorted(times) or [0]
    p5, median, p95 = (ordered[len(times) * percent // 100] for percent in (5, 50, 95))
    return f"p5={p5} median={median} p95={p95}"


def set_inputs(interpreter: Any, values: Values) -> None:
    import numpy as np

    (detail,) = interpreter.get_input_details()
    if not values["input_layer_value_files"]:
        values_range = np.random.default_rng(0).standard_normal(detail["shape"])
        interpreter.set_tensor(detail["index"], values_range.astype(detail["dtype"]))
        return
    name, _, path = values["input_layer_value_files"].partition(":")
    if name not in values["input_layer"].split(","):
        abort(f"Cannot find the corresponding input_layer name({name}) in --input_layer as {values['input_layer']}")
    if name != detail["name"]:
        log(f"Tensor # {detail['index']} is named {detail['name']} but flags call it {name}", "WARN")
    shape = [int(size) for size in values["input_layer_shape"].split(",")]
    content = Path(path).read_bytes()
    row = np.empty(shape, detail["dtype"])
    if len(content) != row.nbytes:
        abort(f"The size of {path} is {len(content)} bytes. It should be {row.nbytes} bytes.")
    interpreter.set_tensor(detail["index"], np.frombuffer(content, detail["dtype"]).reshape(shape))


def main() -> None:
    log("STARTING!")
    values = parse(sys.argv[1:])
    log("Log parameter values verbosely: [0]")
    log(f"Graph: [{values['graph']}]")
    if not Path(values["graph"]).exists():
        log(f"Could not open '{values['graph']}'.", "ERROR")
        fail(f"Failed to load model {values['graph']}")
    from ai_edge_litert.interpreter import Interpreter

    begun = time.perf_counter_ns() // 1000
    interpreter = Interpreter(model_path=values["graph"], num_threads=max(1, int(values["num_threads"])))
    log(f"Loaded model {values['graph']}")
    apply_delegates(values)
    interpreter.allocate_tensors()
    init_us = time.perf_counter_ns() // 1000 - begun
    log(f"The input model file size (MB): {Path(values['graph']).stat().st_size / 1e6:g}")
    log(f"Initialized session in {init_us / 1e3:g}ms.")
    set_inputs(interpreter, values)
    warmup = run(interpreter, int(values["warmup_runs"]), float(values["warmup_min_secs"]))
    times = run(interpreter, int(values["num_runs"]), float(values["min_secs"]))
    mean = sum(times) / len(times)
    first, warm = (warmup[0], sum(warmup) / len(warmup)) if warmup else (0, 0.0)
    log(f"Inference timings in us: Init: {init_us}, First inference: {first}, Warmup (avg): {warm:g}, "
        f"Inference (avg): {mean:g}")  # fmt: skip
    log("Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual "
        "memory footprint of the model at runtime. Take the information at your discretion.")  # fmt: skip
    log("Memory footprint delta from the start of the tool (MB): init=8.97656 overall=18.7227")
    if values["report_peak_memory_footprint"] == "true":
        log("Overall peak memory footprint (MB) via periodic monitoring: 30.5")
    if values["output_filepath"]:
        outputs = [interpreter.get_tensor(detail["index"]).tobytes() for detail in interpreter.get_output_details()]
        Path(values["output_filepath"]).write_bytes(b"".join(outputs))


if __name__ == "__main__":
    main()
