"""A phone without Python: models run in TFLite's native benchmark_model, and `dumpsys` tells what state it is in."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgeprune.core.boards.phone import Benchmark, core_mask, parse_benchmark, parse_phone, pick_fastest
from edgeprune.core.formats import RUNTIMES
from edgeprune.core.measuring.measurement import Conditions, DeviceFacts, Measurement, Protocol, find_problems
from edgeprune.core.measuring.windows import Window
from edgeprune.core.progress import Count
from edgeprune.core.target import FASTEST, Target
from edgeprune.device.board import ModelFile
from edgeprune.device.phone.state import Sections, collect, read_state
from edgeprune.device.transports.adb import HOME
from edgeprune.device.transports.transport import Transport
from edgeprune.errors import RemoteError, RuntimeMissing

BENCHMARK = "benchmark_model"
"""In adb's home, where the user has put it."""
RUNTIME, FORMAT = "benchmark_model (TFLite)", "tflite"
CALLS = 2
SHORT_S = 60.0
SILENCE_S = 180.0
COOLING_POLL_S = 5.0
Progress = Callable[[str], None]


def describe_phone(transport: Transport) -> DeviceFacts:
    """The facts of a phone without Python.

    Raises:
        DeviceError: it runs no commands.
    """
    sections = collect(transport)
    clocks = _clocks(sections)
    memory = re.search(r"MemTotal:\s+([0-9]{1,12}) kB", sections.get("memory", ""))
    return DeviceFacts(
        host=transport.host,
        machine=sections.get("machine", ""),
        model=" ".join(sections.get("model", "").split()),
        cpu=" ".join(sections.get("soc", "").split()),
        cores=len(clocks) or 1,
        cpu_flags=(),
        memory_mib=int(memory.group(1)) // 1024 if memory else 0,
        os=f"Android {sections['android']}" if sections.get("android") else "",
        kernel=sections.get("kernel", ""),
        python="",
        runtimes={RUNTIME: "unknown"},
        max_mhz=max(clocks.values()) // 1000 if clocks else None,
        host_key=transport.host_key,
    )


def _clocks(sections: Sections) -> dict[int, int]:
    pairs = re.findall(
        r"/cpu([0-9]{1,4})/cpufreq/cpuinfo_max_freq ([0-9]{1,9})$", sections.get("clocks", ""), re.MULTILINE
    )
    return {int(core): int(khz) for core, khz in pairs}


def has_python(transport: Transport, target: Target) -> bool:
    """Whether an agent can run there."""
    candidates = [target.python] if target.python else [f"{HOME}/.local/share/edgeprune/venv/bin/python", "python3"]
    search = 'for one; do command -v -- "$one" && exit 0; done; exit 1'
    return transport.run(["sh", "-c", search, "sh", *candidates], timeout_s=SHORT_S).exit_code == 0


def measure_native(
    transport: Transport, models: Sequence[ModelFile], target: Target, progress: Progress
) -> dict[str, Measurement]:
    """Latency of .tflite files by name: each sample is the mean of the runs of one call of `benchmark_model`.

    Raises:
        RuntimeMissing: there is no benchmark_model.
        RemoteError: it fails, or prints nothing that is known; a file of another format.
        DeviceError: anything else that goes wrong there.
    """
    wrong = [model.path.name for model in models if RUNTIMES[model.runtime].format != FORMAT]
    if wrong:
        raise RemoteError(f"{transport.host}: without Python only .tflite files run there; found {wrong[0]}")
    before = collect(transport)
    commands = {model.name: _command(transport, model, target, before) for model in models}
    benchmarks: dict[str, list[Benchmark]] = {name: [] for name in commands}
    too_warm_c = cool_down(transport, target.protocol, progress)
    calls = _count_calls(target.protocol)
    for turn in range(calls):
        for name, command in list(commands.items())[:: -1 if turn % 2 else 1]:
            benchmarks[name].append(_run(transport, command))
        progress(Count(f"round {turn + 1} of {calls}"))
    conditions = replace(_conditions(transport.host, target, before, collect(transport)), too_warm_c=too_warm_c)
    device = describe_phone(transport).fingerprint
    return {model.name: _describe(model, benchmarks[model.name], target, conditions, device) for model in models}


def cool_down(transport: Transport, protocol: Protocol, progress: Progress) -> float | None:
    """Wait until a phone is as cool as the protocol asks; gives its temperature where it did not become so in time.

    Raises:
        RemoteError: it does not tell its temperature.
    """
    limit, end = protocol.start_temperature_c, time.monotonic() + protocol.max_cooldown_s
    while limit is not None:
        temperature_c = read_state(transport).cpu_c
        if temperature_c is None:
            raise RemoteError(f"{transport.host}: start_temperature_c: it does not tell its temperature; leave it out")
        if temperature_c <= limit:
            return None
        if time.monotonic() >= end:
            progress(f"still {temperature_c:.1f} C, wanted {limit:g} C: gave up after {protocol.max_cooldown_s:g} s")
            return temperature_c
        progress(f"cooling down: {temperature_c:.1f} C, wanted {limit:g} C")
        time.sleep(COOLING_POLL_S)
    return None


def _describe(
    model: ModelFile, benchmarks: list[Benchmark], target: Target, conditions: Conditions, device: str
) -> Measurement:
    runs = statistics.mean(benchmark.count for benchmark in benchmarks)
    measurement = Measurement(
        artifact=model.name,
        sha256=model.sha256,
        runtime=model.runtime,
        runtime_version=RUNTIME,
        device=device,
        conditions=replace(conditions, notes=(*conditions.notes, f"a sample is the mean of {runs:.0f} runs")),
        init_ms=benchmarks[0].init_us / 1e3,
        first_ms=benchmarks[0].first_us / 1e3,
        warmup_runs=0,
        samples_ms=tuple(benchmark.inference_us / 1e3 for benchmark in benchmarks),
        peak_memory_mib=max((benchmark.peak_mib for benchmark in benchmarks if benchmark.peak_mib), default=None),
        windows=tuple(_window(number, benchmark) for number, benchmark in enumerate(benchmarks)),
    )
    return replace(
        measurement, problems=find_problems(measurement, replace(target.protocol, min_samples=len(benchmarks)))
    )


def _count_calls(protocol: Protocol) -> int:
    """How often `benchmark_model` is called for each file: each call is a process of its own, and gives one sample."""
    return CALLS * protocol.processes


def _window(number: int, benchmark: Benchmark) -> Window:
    """One call of `benchmark_model`, which is a process of its own."""
    wall_ms = benchmark.inference_us * benchmark.count / 1e3
    return Window(number, float(number), benchmark.inference_us / 1e3, wall_ms=wall_ms)


def find_cores(host: str, target: Target, sections: Sections) -> tuple[int, ...]:
    """The cores that a target names, or the fastest of this phone; empty where it is left to the kernel.

    Raises:
        RemoteError: the phone does not tell the clocks of its cores.
    """
    if target.cores != FASTEST:
        return tuple(int(core) for core in target.cores)
    cores = pick_fastest(_clocks(sections), target.threads)
    if not cores:
        raise RemoteError(
            f'{host}: cores = "fastest": it does not tell the clocks of its cores; name them, as cores = [4, 5]'
        )
    return cores


def _command(transport: Transport, model: ModelFile, target: Target, sections: Sections) -> list[str]:
    completed = transport.run(["test", "-x", f"./{BENCHMARK}"], timeout_s=SHORT_S)
    if completed.exit_code != 0:
        raise RuntimeMissing(
            f"{transport.host}: neither Python nor {BENCHMARK} is there; put TFLite's (Android, its architecture) into "
            f"/data/local/tmp: adb push {BENCHMARK} /data/local/tmp/ and adb shell chmod +x /data/local/tmp/{BENCHMARK}"
        )
    remote = f"edgeprune/{model.file}"
    transport.put(model.path, remote)
    cores, protocol = find_cores(transport.host, target, sections), target.protocol
    return [
        *(["taskset", core_mask(cores)] if cores else []),
        f"./{BENCHMARK}",
        f"--graph={remote}",
        f"--num_threads={target.threads}",
        f"--num_runs={-(-protocol.min_samples // _count_calls(protocol))}",
        f"--min_secs={protocol.min_duration_s / _count_calls(protocol):g}",
        f"--warmup_min_secs={min(0.5, protocol.max_warmup_s):g}",
        "--report_peak_memory_footprint=true",
    ]


def _run(transport: Transport, command: list[str]) -> Benchmark:
    completed = transport.run(command, timeout_s=SILENCE_S)
    text = f"{completed.stdout.decode(errors='replace')}\n{completed.stderr}"
    benchmark = parse_benchmark(text)
    if completed.exit_code != 0 or benchmark is None:
        lines = [line for line in text.splitlines() if line.strip()]
        raise RemoteError(
            f"{transport.host}: {BENCHMARK} failed (exit code {completed.exit_code}): {' '.join(lines[-2:])[-300:]}"
        )
    return benchmark


def _conditions(host: str, target: Target, before: Sections, after: Sections) -> Conditions:
    states = parse_phone(before), parse_phone(after)
    clocks = [_mean_mhz(sections) for sections in (before, after)]
    hottest = max(states, key=lambda state: state.thermal_status or 0)
    return Conditions(
        threads=target.threads,
        affinity=find_cores(host, target, before),
        governor="+".join(sorted(set(before.get("governor", "").split()))),
        frequency_mhz=tuple(mhz for mhz in clocks if mhz is not None),
        temperature_c=tuple(state.cpu_c for state in states if state.cpu_c is not None),
        throttled=hottest.throttled,
        notes=states[0].notes,
    )


def _mean_mhz(sections: Sections) -> float | None:
    clocks = [int(khz) / 1000 for khz in sections.get("now", "").split() if khz.isdigit()]
    return round(statistics.mean(clocks), 1) if clocks else None
