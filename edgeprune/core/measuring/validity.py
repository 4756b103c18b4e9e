"""Why a run may not be believed: too short, unstable, throttled, too warm, or not alone on its board."""

from __future__ import annotations

from edgeprune.core.boards.neighbours import describe_taken
from edgeprune.core.measuring.measurement import Conditions, Measurement, Protocol
from edgeprune.core.measuring.statistics import LatencySummary, drift

DRIFT_LIMIT = 0.15
SPREAD_LIMIT = 0.15
"""Above these fractions of the median, drift or median absolute deviation make a run unstable."""
TAIL_LIMITS = {95: 2.0, 99: 4.0}
"""So many times the median at most: beyond them something else than the file takes the time."""
WAITED_LIMIT, DISTURBED_LIMIT = 0.05, 0.2
"""Share of the time that a run may wait for a core, and share of its windows that may be disturbed."""
NEARLY = 0.95
"""Of the time that is asked for: disturbed windows are taken again, but for so much."""


def find_problems(measurement: Measurement, protocol: Protocol) -> tuple[str, ...]:
    """Why a run is invalid: too short, unstable, throttled, or not alone on its board. Empty when it is valid."""
    if not measurement.samples_ms:
        return ("no samples",)
    latency, conditions = measurement.latency, measurement.conditions
    return (
        *_find_shortness(measurement, protocol),
        *_find_unrest(measurement, latency),
        *find_neighbours(conditions),
        *_find_waiting(measurement),
        *find_heat(conditions),
        *(f"throttled: {flag}" for flag in conditions.throttled),
    )


def _find_shortness(measurement: Measurement, protocol: Protocol) -> list[str]:
    """Whether there are fewer samples, or they took less time, than asked for; disturbed windows do not count."""
    samples = measurement.steady_ms
    windows_ms = sum(window.wall_ms for window in measurement.steady_windows)
    taken_s = (windows_ms or sum(samples)) / 1e3
    if len(samples) >= protocol.min_samples and taken_s >= NEARLY * protocol.min_duration_s:
        return []
    request = f"{protocol.min_samples} samples and {protocol.min_duration_s:g} s are asked for"
    return [f"too short: {len(samples)} samples in {taken_s:.2f} s; {request}"]


def _find_unrest(measurement: Measurement, latency: LatencySummary) -> list[str]:
    """Whether the figures of a run are too far apart to stand for anything."""
    problems, samples = [], measurement.steady_ms
    if latency.mad_ms > SPREAD_LIMIT * latency.p50_ms:
        problems.append(f"unstable: spread (MAD) {latency.mad_ms / latency.p50_ms:.0%} of the median")
    if abs(drift(samples)) > DRIFT_LIMIT:
        problems.append(f"unstable: the last third is {drift(samples):+.0%} against the first")
    for percent, limit in TAIL_LIMITS.items():
        if (times := measurement.spread(percent).center / latency.p50_ms) > limit:
            of_means = " of the means" if measurement.runs_per_sample > 1 else ""
            problems.append(f"unstable: p{percent}{of_means} is {times:.1f} times the median")
    return problems


def find_neighbours(conditions: Conditions) -> list[str]:
    """What others took of the board while it was timed, where that makes a run invalid; threads without cores too."""
    cores = conditions.cores or len(conditions.affinity)
    shares = (("others took", conditions.others_cores), ("a hypervisor took", conditions.stolen_cores))
    problems = [problem for subject, share in shares if (problem := describe_taken(subject, share, cores))]
    own = len(conditions.affinity)
    if own and conditions.threads > own:
        problems.append(f"{conditions.threads} threads on {own} core{'s' if own > 1 else ''}: they wait for each other")
    return problems


def _find_waiting(measurement: Measurement) -> list[str]:
    """How much of its time a run waited for a core, where that is too much, or how many windows were disturbed."""
    processor, problems = measurement.processor, []
    waited, disturbed, count = (processor[name] for name in ("waited_share", "disturbed_windows", "windows"))
    if waited is not None and waited > WAITED_LIMIT:
        problems.append(f"the processor was not this run's own: it waited for a core {waited:.0%} of the time")
    elif disturbed > DISTURBED_LIMIT * count:
        problems.append(f"the processor was not this run's own in {disturbed} of {count} windows")
    return problems


def find_heat(conditions: Conditions) -> list[str]:
    """Why the temperature that a run began at makes it invalid; empty where it does not."""
    too_warm = conditions.too_warm_c
    return [] if too_warm is None else [f"not cooled down: began at {too_warm:g} C"]
