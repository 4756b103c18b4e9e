"""A phone or board without Python: TFLite's native benchmark_model times files, `dumpsys` tells a phone's state."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgeprune.core.boards.phone import Benchmark, parse_benchmark, parse_phone, parse_spread, pick_fastest
from edgeprune.core.measuring.measurement import Conditions, DeviceFacts, Measurement, Protocol
from edgeprune.core.measuring.validity import find_problems
from edgeprune.core.measuring.windows import Window
from edgeprune.core.progress import Count
from edgeprune.core.target import FASTEST, Target
from edgeprune.device.board import ModelFile
from edgeprune.device.phone.binary import Binary, own_folder
from edgeprune.device.phone.calls import SILENCE_S, base_words, check_delegate, fail_call
from edgeprune.device.phone.state import Sections, collect, read_state
from edgeprune.device.transports.transport import Transport
from edgeprune.errors import RemoteError

RUNTIME = "benchmark_model (TFLite)"
NATIVE_RUNTIME = "litert"
"""The runtime that benchmark_model is built around."""
CALLS = 2
LOOK_FLAGS = ("--num_runs=1", "--min_secs=0.2", "--warmup_min_secs=0", "--report_peak_memory_footprint=true")
"""Long enough for several looks at the memory, one every 50 ms."""
COOLING_POLL_S = 5.0
Progress = Callable[[str], None]


def describe_phone(transport: Transport, binary_sha256: str = "") -> DeviceFacts:
    """The facts of a phone or board without Python; its benchmark_model tells no version, so that its hash stands for
    it: what another one measures is not held against it.

    Raises:
        DeviceError: it runs no commands.
    """
    sections = collect(transport)
    clocks = _clocks(sections)
    memory = re.search(r"MemTotal:\s+([0-9]{1,12}) kB", sections.get("memory", ""))
    return DeviceFacts(
        host=transport.host,
        machine=sections.get("machine", ""),
        model=" ".join(sections.get("model", "").replace("\0", " ").split()),
        cpu=" ".join((sections.get("soc") or _name_cpu(sections)).split()),
        cores=len(clocks) or _count_cores(sections),
        cpu_flags=(),
        memory_mib=int(memory.group(1)) // 1024 if memory else 0,
        os=f"Android {sections['android']}" if sections.get("android") else sections.get("os", "").strip('"'),
        kernel=sections.get("kernel", ""),
        python="",
        runtimes={RUNTIME: binary_sha256[:16] or "unknown"},
        max_mhz=max(clocks.values()) // 1000 if clocks else None,
        host_key=transport.host_key,
    )


def _clocks(sections: Sections) -> dict[int, int]:
    pairs = re.findall(
        r"/cpu([0-9]{1,4})/cpufreq/cpuinfo_max_freq ([0-9]{1,9})$", sections.get("clocks", ""), re.MULTILINE
    )
    return {int(core): int(khz) for core, khz in pairs}


def _name_cpu(sections: Sections) -> str:
    """What /proc/cpuinfo calls the processor."""
    name = re.search(r"^(?:model name|Hardware|cpu model)\s*:\s*(.{1,100})$", sections.get("cpuinfo", ""), re.MULTILINE)
    return name.group(1) if name else ""


def _count_cores(sections: Sections) -> int:
    return len(re.findall(r"^processor\s*:", sections.get("cpuinfo", ""), re.MULTILINE)) or 1


@dataclass(frozen=True)
class Timed:
    """What one call measured, when it ended in s, and how far its runs lie apart, as a fraction of their mean."""

    benchmark: Benchmark
    at_s: float = 0.0
    spread: float | None = None


def measure_native(
    transport: Transport, binary: Binary, models: Sequence[ModelFile], target: Target, progress: Progress
) -> dict[str, Measurement]:
    """Latency of .tflite files by name: each sample is the mean of the runs of one call of `benchmark_model`.

    Raises:
        RuntimeMissing: the benchmark_model lacks the delegate that the target asks for.
        RemoteError: it fails, or prints nothing that is known; a file of another format; nodes on the CPU that ought
            not to be there.
        DeviceError: anything else that goes wrong there.
    """
    require_tflite(transport.host, models)
    before = collect(transport)
    words = base_words(transport.host, binary, target, find_cores(transport.host, target, before), target.threads)
    commands = {model.name: [*words, f"--graph={_put(transport, model)}"] for model in models}
    looks = {name: _look(transport, command, target, name) for name, command in commands.items()}
    timed: dict[str, list[Timed]] = {name: [] for name in commands}
    too_warm_c = cool_down(transport, target.protocol, progress)
    calls, flags = _count_calls(target.protocol), pace_flags(target.protocol)
    for turn in range(calls):
        for name, command in list(commands.items())[:: -1 if turn % 2 else 1]:
            timed[name].append(_run(transport, [*command, *flags]))
        progress(Count(f"round {turn + 1} of {calls}"))
    conditions = replace(_conditions(transport.host, target, before, collect(transport)), too_warm_c=too_warm_c)
    device = describe_phone(transport, binary.sha256).fingerprint
    return {
        model.name: replace(
            _describe(model, timed[model.name], target, conditions, device),
            peak_memory_mib=looks[model.name][0],
            providers=looks[model.name][1],
        )
        for model in models
    }


def require_tflite(host: str, models: Sequence[ModelFile]) -> None:
    """Refuse files of another runtime.

    Raises:
        RemoteError: there is one.
    """
    wrong = [model.path.name for model in models if model.runtime != NATIVE_RUNTIME]
    if wrong:
        raise RemoteError(f"{host}: without Python only .tflite files run there; found {wrong[0]}")


def pace_flags(protocol: Protocol) -> list[str]:
    """How long each call of a file warms up and runs."""
    return [
        f"--num_runs={-(-protocol.min_samples // _count_calls(protocol))}",
        f"--min_secs={protocol.min_duration_s / _count_calls(protocol):g}",
        f"--warmup_min_secs={min(0.5, protocol.max_warmup_s):g}",
    ]


def _put(transport: Transport, model: ModelFile) -> str:
    remote = f"{own_folder(transport)}/{model.file}"
    transport.put(model.path, remote)
    return remote


def _look(transport: Transport, command: list[str], target: Target, name: str) -> tuple[float | None, dict[str, float]]:
    """The peak memory of a file in MiB, and the share of the nodes that its delegate took, from a call of its own: what
    looks at the memory meanwhile may disturb the timing."""
    benchmark, text, _ = _call(transport, [*command, *LOOK_FLAGS])
    return benchmark.peak_mib, check_delegate(transport.host, text, target, name)


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


def _describe(model: ModelFile, timed: list[Timed], target: Target, conditions: Conditions, device: str) -> Measurement:
    benchmarks = [call.benchmark for call in timed]
    least_ms = 1e3 * target.protocol.min_duration_s / _count_calls(target.protocol)
    runs = statistics.mean(benchmark.count for benchmark in benchmarks)
    spreads = [call.spread for call in timed if call.spread is not None]
    apart = f", which lie {statistics.median(spreads):.1%} apart (standard deviation)" if spreads else ""
    measurement = Measurement(
        artifact=model.name,
        sha256=model.sha256,
        runtime=model.runtime,
        runtime_version=RUNTIME,
        device=device,
        conditions=replace(conditions, notes=(*conditions.notes, f"a sample is the mean of {runs:.0f} runs{apart}")),
        init_ms=benchmarks[0].init_us / 1e3,
        first_ms=benchmarks[0].first_us / 1e3,
        warmup_runs=0,
        samples_ms=tuple(benchmark.inference_us / 1e3 for benchmark in benchmarks),
        peak_memory_mib=max((benchmark.peak_mib for benchmark in benchmarks if benchmark.peak_mib), default=None),
        runs_per_sample=round(runs),
        windows=tuple(_window(number, call, least_ms) for number, call in enumerate(timed)),
    )
    return replace(
        measurement, problems=find_problems(measurement, replace(target.protocol, min_samples=len(benchmarks)))
    )


def _count_calls(protocol: Protocol) -> int:
    """How often `benchmark_model` is called for each file: each call is a process of its own, and gives one sample."""
    return CALLS * protocol.processes


def _window(number: int, call: Timed, least_ms: float) -> Window:
    """One call of `benchmark_model`, which is a process of its own, and runs for as long as it is asked at least."""
    benchmark = call.benchmark
    wall_ms = max(least_ms, benchmark.inference_us * benchmark.count / 1e3)
    return Window(number, call.at_s, benchmark.inference_us / 1e3, wall_ms=wall_ms)


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


def _run(transport: Transport, command: list[str]) -> Timed:
    benchmark, text, at_s = _call(transport, command)
    return Timed(benchmark, at_s, parse_spread(text))


def _call(transport: Transport, command: list[str]) -> tuple[Benchmark, str, float]:
    """What one call measured, what it printed, and when it ended, in s."""
    completed = transport.run(command, timeout_s=SILENCE_S)
    text = f"{completed.stdout.decode(errors='replace')}\n{completed.stderr}"
    benchmark = parse_benchmark(text)
    if completed.exit_code != 0 or benchmark is None:
        raise fail_call(transport.host, completed.exit_code, text)
    return benchmark, text, time.time()


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
