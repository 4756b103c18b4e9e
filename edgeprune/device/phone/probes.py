"""Timing hundreds of files of one layer by `benchmark_model`: one push, one command a turn, several turns.

Each call gives one window, whose figure is the mean of its runs; a turn calls every file once and the references again
and again, forwards and backwards in turn. What a call gave is kept here at once, so that a command that is run again
after a lost link goes on where it ended.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeprune.core.answers import positive
from edgeprune.core.boards.phone import parse_benchmark
from edgeprune.core.measuring.windows import Window
from edgeprune.core.progress import Count
from edgeprune.core.target import Target
from edgeprune.core.text import describe_duration
from edgeprune.device.board import ModelFile, ProbeSettings, Progress
from edgeprune.device.phone.calls import Call, check_delegate, fail_call, run_many
from edgeprune.device.transports.transport import Transport
from edgeprune.disk import describe_os_error
from edgeprune.errors import DeviceError

LEAST_TURNS = 3
"""So many windows of each file at least: fewer tell nothing of how far they lie apart."""
LEAST_RUNS = 3
LEAST_WINDOW_S, WARMUP_S = 0.05, 0.02
"""Of a call, which takes some 50 ms on a phone to begin with: a shorter window would save little."""
REFERENCE_EVERY = 24
"""So many files are timed between two looks at the references."""
FIRST_LOOK = 8
"""After so many calls it is told how long a turn takes."""
KEPT_S = 86400.0
"""What an interrupted command has left is taken up for so long."""


@dataclass(frozen=True)
class Step:
    """The call of one file in one turn; `place` is where in the turn."""

    turn: int
    place: int
    name: str


def plan_turn(names: Sequence[str], references: Sequence[str], turn: int) -> list[Step]:
    """The calls of a turn: all files, every other turn backwards, with the references at its ends and in between."""
    others = [name for name in names if name not in references]
    if turn % 2:
        others.reverse()
    order: list[str] = list(references)
    for start in range(0, len(others), REFERENCE_EVERY):
        order += [*others[start : start + REFERENCE_EVERY], *references]
    return [Step(turn, place, name) for place, name in enumerate(order or names)]


def count_turns(settings: ProbeSettings, calls: int, call_s: float) -> int:
    """So many turns of `calls` calls as the time allows: at least LEAST_TURNS, at most as many as rounds are asked."""
    affordable = int(settings.budget_s / max(calls * call_s, 1e-9))
    return max(LEAST_TURNS, min(settings.rounds, affordable))


def call_flags(settings: ProbeSettings) -> list[str]:
    """How long a call warms up and runs."""
    window_s = max(settings.window_s, LEAST_WINDOW_S)
    return [
        f"--num_runs={LEAST_RUNS}",
        f"--min_secs={window_s:g}",
        "--warmup_runs=1",
        f"--warmup_min_secs={WARMUP_S:g}",
    ]


@dataclass(frozen=True)
class ProbeRun:
    """What probes are timed with: `words` begin every call, `graphs` are the files' paths on the board by name."""

    transport: Transport
    words: Sequence[str]
    graphs: Mapping[str, str]
    target: Target
    settings: ProbeSettings
    record: Path


def time_all(run: ProbeRun, progress: Progress) -> dict[str, tuple[Window, ...]]:
    """Windows by name.

    Raises:
        RemoteError: a call failed, printed nothing that is known, or its nodes fell back to the CPU.
        ConnectionFailed: the link was lost; the same command goes on from there.
    """
    rows = _read(run.record)
    windows = {(row["turn"], row["place"]): row for row in rows}
    names, references, begun = list(run.graphs), run.settings.references, time.monotonic()
    if rows:
        progress(f"{len(rows)} calls of an interrupted command are kept")
    turn, turns, call_s = 0, LEAST_TURNS, 0.0
    while turn < turns:
        whole = plan_turn(names, references, turn)
        steps = [step for step in whole if (turn, step.place) not in windows]
        started = time.monotonic()
        _call(run, steps, windows, progress)
        if steps and not call_s:
            call_s = (time.monotonic() - started) / len(steps)
            turns = max(turn + 1, count_turns(run.settings, len(whole), call_s))
            left = describe_duration((turns - turn - 1) * len(whole) * call_s)
            progress(f"{len(names)} layers, {call_s * 1e3:.0f} ms a call, {turns} turns: about {left} more")
        turn += 1
        if turn >= LEAST_TURNS and time.monotonic() - begun > run.settings.budget_s:
            break
    with suppress(OSError):
        run.record.unlink(missing_ok=True)
    return _gather(names, windows)


def _call(run: ProbeRun, steps: Sequence[Step], windows: dict[Any, Any], progress: Progress) -> None:
    """The calls of one turn, each kept as soon as it is whole."""
    if not steps:
        return
    host, started = run.transport.host, time.monotonic()
    run.record.parent.mkdir(parents=True, exist_ok=True)
    with run.record.open("a") as record:

        def take(call: Call) -> None:
            step, benchmark = steps[call.number], parse_benchmark(call.text)
            if call.exit_code != 0 or benchmark is None:
                raise fail_call(host, call.exit_code, call.text)
            check_delegate(host, call.text, run.target, step.name)
            mean_us = max(benchmark.inference_us, 1 / max(benchmark.count, 1))
            row = {**asdict(step), "at_s": call.at_s, "mean_us": mean_us, "count": benchmark.count}
            windows[step.turn, step.place] = row
            record.write(json.dumps(row) + "\n")
            record.flush()
            if call.number == FIRST_LOOK and step.turn == 0:
                turn_s = (time.monotonic() - started) / call.number * len(steps)
                progress(f"{len(run.graphs)} layers: about {describe_duration(turn_s)} a turn, {LEAST_TURNS} or more")
            elif step.place % REFERENCE_EVERY == 0:
                progress(Count(f"turn {step.turn + 1}: {call.number + 1} of {len(steps)} calls"))

        rows = [f"--graph={run.graphs[step.name]}" for step in steps]
        run_many(run.transport, [*run.words, *call_flags(run.settings)], rows, take)


def _gather(names: Sequence[str], rows: Mapping[Any, Mapping[str, Any]]) -> dict[str, tuple[Window, ...]]:
    """The windows of each file in the order of time; a turn stands for a process, as each call is one of its own."""
    windows: dict[str, list[Window]] = {name: [] for name in names}
    for row in sorted(rows.values(), key=lambda row: row["at_s"]):
        if row["name"] in windows:
            mean_ms = row["mean_us"] / 1e3
            windows[row["name"]].append(Window(row["turn"], row["at_s"], mean_ms, wall_ms=mean_ms * row["count"]))
    return {name: tuple(own) for name, own in windows.items()}


def name_record(folder: Path, parts: Mapping[str, Any]) -> Path:
    """Where calls of this measurement are kept while it is not finished: another board, binary or file is another."""
    return folder / f"{hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]}.jsonl"


def _read(record: Path) -> list[dict[str, Any]]:
    """What an interrupted command has left; a line that was cut off, and all that is a day old, counts for nothing.

    Raises:
        DeviceError: it cannot be read.
    """
    try:
        if not record.exists():
            return []
        if time.time() - record.stat().st_mtime > KEPT_S:
            record.unlink()
            return []
        lines = record.read_text().splitlines()
    except OSError as exc:
        raise DeviceError(describe_os_error(exc, record)) from exc
    return [row for line in lines if (row := _parse(line)) is not None]


def _parse(line: str) -> dict[str, Any] | None:
    with suppress(ValueError, KeyError, TypeError):
        row = json.loads(line)
        return {
            **{name: int(row[name]) for name in ("turn", "place", "count")},
            **{name: positive(row[name]) for name in ("at_s", "mean_us")},
            "name": str(row["name"]),
        }
    return None


def describe_models(models: Sequence[ModelFile]) -> list[list[str]]:
    """Which files a measurement is of."""
    return [[model.name, model.sha256] for model in models]
