"""The command that estimates what a ready file costs on a microcontroller."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.cli.options import TARGET_HELP
from edgeprune.cli.output import json_option, print_result
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.estimation import FileEstimate
    from edgeprune.exporting.tflite.vela import VelaEstimate

SHOWN = 3
"""Results that are named; the JSON document has all."""
CLOCK = (
    "note: the target's processor has {:g} MHz; vela's figures are for {:g} MHz and the memories of its configuration"
)
MEANING = "estimated, never measured: it serves to look ahead and passes no gate"


@click.command("estimate")
@click.argument("model", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--target", required=True, help=TARGET_HELP)
@click.option("--runtime", help="A runtime of which results were published. Default: that of the target.")
@json_option
def estimate_model(model: Path, target: str, runtime: str | None) -> None:
    """Estimate cycles and latency of the int8 .tflite file MODEL on a microcontroller, by published results.

    An Ethos-U55 is estimated by Arm's compiler vela (extra ethos-u). An estimate never passes a gate.
    """
    from edgeprune.estimation import estimate_file, estimate_npu, find_clock_mhz
    from edgeprune.shipped import load_target

    kind = load_target(target)
    by_vela = estimate_npu(model, kind)
    if by_vela is None:
        estimate = estimate_file(model, kind, runtime)
        print_result(_document(model, estimate), _describe(model, estimate))
        return
    if runtime is not None:
        raise UsageError(f"target {kind.name}: --runtime: an Ethos-U55 is estimated by vela alone; leave it out")
    document = {"model": model, "target": kind.name, "origin": "estimated", "source": "vela"}
    figures = asdict(by_vela) | {"latency_ms": by_vela.latency_ms}
    figures["target_clock_mhz"] = find_clock_mhz(kind)
    print_result(document | figures, _describe_vela(model, kind.name, by_vela, find_clock_mhz(kind)))


def _document(model: Path, estimate: FileEstimate) -> dict[str, Any]:
    latency_ms, low_ms, high_ms = estimate.latency_ms
    return {
        "model": model,
        "target": estimate.target,
        "origin": "estimated",
        "core": estimate.core,
        "clock_mhz": estimate.clock_mhz,
        "runtime": estimate.runtime.name,
        "basis": estimate.prices.basis,
        "submissions": list(estimate.prices.submissions),
        "sources": list(estimate.sources),
        "macs": estimate.file.macs,
        "dropped_macs": estimate.dropped_macs,
        "parameters": estimate.file.parameters,
        "cycles": asdict(estimate.cycles),
        "latency_ms": {"estimate": latency_ms, "low": low_ms, "high": high_ms},
        "layers": [{"layer": shape.describe(), "cycles": cycles} for shape, cycles in estimate.layers],
        "notes": list(estimate.notes),
    }


def _describe(model: Path, estimate: FileEstimate) -> str:
    from edgeprune.core.text import render_columns

    latency_ms, low_ms, high_ms = estimate.latency_ms
    cycles, macs = estimate.cycles, estimate.file.macs
    share = [
        (kind, f"{count:,.0f}", f"{count / cycles.cycles:.1%}") for kind, count in estimate.cycles_by_kind().items()
    ]
    lines = [
        f"{model}: {macs:,} multiply-accumulates, {estimate.file.parameters:,} parameters, int8",
        f"on {estimate.target}: {estimate.core} at {estimate.clock_mhz:g} MHz, {estimate.runtime.title}",
        f"  cycles   {cycles.cycles:,.0f} (90 % interval {cycles.low:,.0f} to {cycles.high:,.0f}), estimated",
        f"  latency  {latency_ms:.4g} ms ({low_ms:.4g} to {high_ms:.4g}) of one inference at that clock, estimated",
        "",
        render_columns([("kind of layer", "cycles", "share"), *share]),
        "",
        f"rests on: {_say_basis(estimate)}",
        *_say_dropped(estimate),
        *(f"note: {note}" for note in estimate.notes),
        MEANING,
    ]
    return "\n".join(lines)


def _say_basis(estimate: FileEstimate) -> str:
    """What was published of the core and the runtime."""
    names = estimate.prices.submissions
    if not names:
        return (
            f"no published result of {estimate.core} in this runtime, but those of the core in other runtimes and of "
            "the runtime on other cores, hence the wide interval (MLPerf Tiny, TinyEngine, ESP-NN, ESP-DL)"
        )
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"published results of {estimate.core} in this runtime: {'; '.join(names[:SHOWN])}{more}"


def _say_dropped(estimate: FileEstimate) -> list[str]:
    if not estimate.dropped_macs:
        return []
    return [f"not counted: {estimate.dropped_macs:,} of channels whose weights are all zero, which this runtime drops"]


def _describe_vela(model: Path, target: str, estimate: VelaEstimate, clock_mhz: float | None) -> str:
    on_cpu = estimate.cpu_operators
    left = (
        "" if on_cpu == 0 else f"\n  {'some' if on_cpu is None else on_cpu} operator(s) are left to the CPU, uncounted"
    )
    other = [] if clock_mhz in (None, estimate.clock_mhz) else [CLOCK.format(clock_mhz, estimate.clock_mhz)]
    return "\n".join(
        [
            f"{model}: {estimate.macs:,} multiply-accumulates, int8",
            f"on {target}: {estimate.accelerator} at {estimate.clock_mhz:g} MHz, {estimate.system}, {estimate.memory}",
            f"  cycles   {estimate.cycles:,.0f}, estimated by vela; it states no interval{left}",
            f"  latency  {estimate.latency_ms:.4g} ms of one inference at that clock, estimated",
            f"  SRAM     {estimate.sram_bytes:,} bytes, flash {estimate.flash_bytes:,} bytes, as vela places them",
            *other,
            MEANING,
        ]
    )


COMMANDS = (estimate_model,)
