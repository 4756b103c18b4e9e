"""How often gates on latency fail where nothing changed, and miss what did: ours and those of others.

    python benchmarks/gate_errors.py

Reads results/gate_sessions.jsonl (`gate_sessions.py` makes it: one file against itself and against files that take 2, 5
and 10 % longer, other programs coming and going) and writes results/gate_errors.json. A session is what `edgeprune gate
--interleave` does: calls of the board until the gates decide, three at most. Sessions that are simulated draw their
noise from what was recorded, with and without tails that are heavier than any that was seen.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from scipy.stats import ttest_ind_from_stats

from edgeprune.core.measuring.spread import (
    RATIO_ERROR,
    StudentSpread,
    find_session_error,
    ratio_over_processes,
    spread_over_processes,
)
from edgeprune.core.measuring.windows import Window, fit_common_speed
from edgeprune.core.releasing.gate import FAIL, INCONCLUSIVE, LOOKS, PASS, Figure, Gate, decide, judge_all
from edgeprune.core.releasing.regression import DEFAULT_LIMITS

FOLDER = Path(__file__).parent / "results"
LIMIT = 0.02
"""Of the rules of others, as ours has it of the median."""
METRICS = {"latency_p50_ms": 0, "latency_p90_ms": 1, "latency_p95_ms": 2, "latency_p99_ms": 3}
"""What is gated, and where its percentile stands among those of a process."""
GATES = [Gate(limit.metric, max_regression=limit.max_regression) for limit in DEFAULT_LIMITS if limit.metric in METRICS]
SESSION_ERRORS_OF = {metric: find_session_error(float(metric[9:11])) for metric in METRICS}
EFFECTS = {"same": 0.0, "plus_2": 2.0, "plus_5": 5.0, "plus_10": 10.0}
SIMULATED = 4000
PROCESSES = 12
Row = dict[str, Any]
Spreads = dict[str, StudentSpread]


def find_spreads(rows: Sequence[Row], name: str) -> Spreads:
    """The ratio of a file to the base over several calls, by metric, as `find_ratio` has it."""
    windows: dict[str, list[Window]] = {name: [], "base": []}
    for number, row in enumerate(rows):
        for file, own in windows.items():
            own += [
                Window(PROCESSES * number + process, at_s, p50_ms, waited_share=waited)
                for process, at_s, p50_ms, waited in row["files"][file]["windows"]
            ]
    steady = fit_common_speed(windows)
    ratios = {metric: ratio_of_percentiles(rows, name, place) for metric, place in METRICS.items()}
    return ratios | {"latency_p50_ms": steady[name].ratio_to(steady["base"])}


def ratio_of_percentiles(rows: Sequence[Row], name: str, place: int) -> StudentSpread:
    """The ratio of a percentile of a file to the base's, over the processes of several calls."""
    above, below = (
        {
            PROCESSES * number + int(process): percentiles[place]
            for number, row in enumerate(rows)
            for process, percentiles in row["files"][file]["percentiles"].items()
        }
        for file in (name, "base")
    )
    return ratio_over_processes(above, below)


def judge_spreads(spreads: Spreads) -> str:
    """The verdict of gates on all of them."""
    figures = {metric: Figure(1.0) for metric in spreads}
    changes = {
        metric: Figure.of(spread.center - 1, StudentSpread(spread.center, spread.error, spread.freedom, shift=-1.0))
        for metric, spread in spreads.items()
    }
    return decide(judge_all(GATES, figures, figures, changes))


def run_sessions(rows: Sequence[Row], name: str) -> Iterator[tuple[str, int]]:
    """The verdict of each session and the calls that it took; what an invalid call gave is left out."""
    calls = iter(rows)
    while True:
        valid: list[Row] = []
        verdict, looks = INCONCLUSIVE, 0
        while verdict == INCONCLUSIVE and looks < LOOKS:
            row, looks = next(calls, None), looks + 1
            if row is None:
                return
            if not any(row["files"][file]["problems"] for file in (name, "base")):
                valid.append(row)
                verdict = judge_spreads(find_spreads(valid, name))
        yield verdict, looks


def rate_first_looks(rows: Sequence[Row], name: str) -> dict[str, float]:
    """Shares of the verdicts that each valid call gives by itself."""
    valid = [row for row in rows if not any(row["files"][file]["problems"] for file in (name, "base"))]
    return summarise_sessions([(judge_spreads(find_spreads([row], name)), 1) for row in valid])


def summarise_sessions(sessions: Sequence[tuple[str, int]]) -> dict[str, float]:
    """Shares of the verdicts."""
    verdicts = Counter(verdict for verdict, _ in sessions)
    shares = {f"{verdict}_rate": round(verdicts[verdict] / len(sessions), 4) for verdict in (FAIL, PASS, INCONCLUSIVE)}
    return {"sessions": len(sessions), **shares, "calls": round(float(np.mean([calls for _, calls in sessions])), 3)}


# what others do


def exceeds_by_mean(new: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """A plain threshold on means."""
    return bool(new["mean"] > (1 + LIMIT) * base["mean"])


def exceeds_by_least(new: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """pytest-benchmark's `--benchmark-compare-fail=min:2%`."""
    return bool(new["least"] > (1 + LIMIT) * base["least"])


def differs_by_t_test(new: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Welch's test of the samples, one-sided, at 1 %."""
    sides = [value for side in (new, base) for value in (side["mean"], side["deviation"], side["count"])]
    return bool(ttest_ind_from_stats(*sides, equal_var=False, alternative="greater").pvalue < 0.01)


def exceeds_by_samples(new: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """What this project did before: the 95 % interval of the median of all samples, as if they were independent."""
    middle = float(np.mean(base["median_interval"]))
    return bool(new["median_interval"][0] > (1 + LIMIT) * middle)


OTHERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], bool]] = {
    "threshold_on_means": exceeds_by_mean,
    "pytest_benchmark_min": exceeds_by_least,
    "t_test_on_samples": differs_by_t_test,
    "interval_over_samples": exceeds_by_samples,
}


def rate_others(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """How often each fails, by effect: against the base of the same call, and of the call before, as a CI job does."""
    rates: dict[str, dict[str, dict[str, float]]] = {}
    for rule, fails in OTHERS.items():
        rates[rule] = {"same_session": {}, "session_before": {}}
        for name in EFFECTS:
            samples = [(row["files"][name]["samples"], row["files"]["base"]["samples"]) for row in rows]
            together = [fails(new, base) for new, base in samples]
            apart = [fails(new, base) for (_, base), (new, _) in pairwise(samples)]
            rates[rule]["same_session"][name] = round(float(np.mean(together)), 4)
            rates[rule]["session_before"][name] = round(float(np.mean(apart)), 4)
    return rates


# simulation


def collect_noise(rows: Sequence[Row]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Logarithms of ratios in valid calls: how processes lie about their call `[calls, processes]`, calls about all."""
    within: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    middles: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for row in rows:
        for name in EFFECTS:
            if any(row["files"][file]["problems"] for file in (name, "base")):
                continue
            new, base = (row["files"][file]["percentiles"] for file in (name, "base"))
            shared = [process for process in new if process in base]
            for metric, place in METRICS.items():
                logs = np.array([np.log(new[process][place] / base[process][place]) for process in shared])
                within[metric].append(logs - logs.mean())
                middles[metric].append(float(logs.mean()))
    processes = {metric: np.concatenate(parts) for metric, parts in within.items()}
    return processes, {metric: np.array(values) for metric, values in middles.items()}


def simulate(noise: Mapping[str, np.ndarray], effect: float, tails: bool, random: np.random.Generator) -> Any:
    """Sessions whose processes are drawn from recorded noise; with `tails` one in twenty is ten times as far off."""
    inflation = (PROCESSES / (PROCESSES - 1)) ** 0.5
    for _ in range(SIMULATED):
        session = {metric: random.normal(0, RATIO_ERROR) for metric in METRICS}
        logs: dict[str, list[float]] = {metric: [] for metric in METRICS}
        verdict, looks = INCONCLUSIVE, 0
        while verdict == INCONCLUSIVE and looks < LOOKS:
            looks += 1
            for metric, values in noise.items():
                drawn = inflation * random.choice(values, PROCESSES)
                if tails:
                    drawn = np.where(random.random(PROCESSES) < 0.05, 10 * drawn, drawn)
                logs[metric] += list(drawn + session[metric] + np.log1p(effect / 100))
            ratios = {metric: dict(enumerate(np.exp(own))) for metric, own in logs.items()}
            ones = dict.fromkeys(range(len(logs["latency_p50_ms"])), 1.0)
            verdict = judge_spreads({metric: ratio_over_processes(ratio, ones) for metric, ratio in ratios.items()})
        yield verdict, looks


def check_intervals(rows: Sequence[Row]) -> dict[str, float]:
    """How often the 95 % interval of a ratio of one call holds the median of it over all other valid calls."""
    held: dict[str, list[bool]] = {metric: [] for metric in METRICS}
    for name in EFFECTS:
        valid = [row for row in rows if not any(row["files"][file]["problems"] for file in (name, "base"))]
        spreads = [find_spreads([row], name) for row in valid]
        for metric in METRICS:
            truth = float(np.median([spread[metric].center for spread in spreads]))
            held[metric] += [low <= truth <= high for low, high in (spread[metric].bound(0.025) for spread in spreads)]
    return {metric: round(float(np.mean(values)), 4) for metric, values in held.items()}


def check_latencies(rows: Sequence[Row]) -> dict[str, float]:
    """How often the 95 % interval of a latency of one call holds the median of it over all valid calls."""
    held: dict[str, list[bool]] = {metric: [] for metric in METRICS}
    for name in ("base", *EFFECTS):
        valid = [row["files"][name] for row in rows if not row["files"][name]["problems"]]
        for metric, place in METRICS.items():
            spreads = [
                spread_over_processes([own[place] for own in file["percentiles"].values()], SESSION_ERRORS_OF[metric])
                for file in valid
            ]
            truth = float(np.median([spread.center for spread in spreads]))
            held[metric] += [low <= truth <= high for low, high in (spread.bound(0.025) for spread in spreads)]
    return {metric: round(float(np.mean(values)), 4) for metric, values in held.items()}


def main() -> None:
    """Judge what was recorded, and simulate."""
    header, *rows = map(json.loads, (FOLDER / "gate_sessions.jsonl").read_text().splitlines())
    valid = [row for row in rows if not any(file["problems"] for file in row["files"].values())]
    sessions = {name: list(run_sessions(rows, name)) for name in EFFECTS}
    recorded = {name: summarise_sessions(of) for name, of in sessions.items()}
    noise, _ = collect_noise(rows)
    simulated = {
        kind: {
            name: summarise_sessions(list(simulate(noise, effect, kind == "heavy_tails", np.random.default_rng(1))))
            for name, effect in EFFECTS.items()
        }
        for kind in ("recorded_noise", "heavy_tails")
    }
    p50_ms = np.array([row["files"]["base"]["samples"]["mean"] for row in valid])
    document = {
        "summary": {
            "false_alarm_rate": recorded["same"]["fail_rate"],
            "caught_5_percent": recorded["plus_5"]["fail_rate"],
            "caught_10_percent": recorded["plus_10"]["fail_rate"],
            "device_s": round(float(np.mean([row["seconds"] for row in rows]) * recorded["plus_5"]["calls"]), 1),
        },
        "machine": header["machine"] | describe_machine(["scipy"]),
        "limit_of_others": LIMIT,
        "gates": [gate.describe() for gate in GATES],
        "calls": len(rows),
        "valid_calls": len(valid),
        "seconds_per_call_of_5_files": round(float(np.mean([row["seconds"] for row in rows])), 2),
        "sessions_apart": round(float(np.std(np.log(p50_ms), ddof=1)), 5),
        "intervals_of_ratios_hold": check_intervals(rows),
        "intervals_of_latencies_hold": check_latencies(rows),
        "recorded": recorded,
        "first_looks": {name: rate_first_looks(rows, name) for name in EFFECTS},
        "simulated": simulated,
        "others": rate_others(rows),
    }
    (FOLDER / "gate_errors.json").write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["summary"], indent=1))


if __name__ == "__main__":
    main()
