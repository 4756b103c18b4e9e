"""Windows of runs, and what they say of a file once the common speed of the board is taken off them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import exp
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.core.answers import positive
from edgeprune.core.measuring.spread import StudentSpread, ratio_over_processes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DISTURBED = 0.05
"""A window whose threads waited for a core for more than this share of it was not the process's own."""
LEAST_KEPT = 0.2
"""Below this share of undisturbed windows all are looked at."""
RATE = 0.01
"""How fast the common speed of a board may change: the standard deviation of its logarithm over one second."""
STEP_S = 0.25
LONGEST_GAP_S = 5.0
"""Beyond such a gap between windows the speed is not known any worse."""
LEAST_NOISE = 0.002
HUBER = 1.5
"""Residuals beyond so many standard deviations count less, as a quarter of a percent of good ones do (Huber 1964)."""
STEPS = 8


@dataclass(frozen=True)
class Window:
    """Runs of one file without a break, in one process; `p50_ms` is the median of `count` kept samples.

    `waited_share` is how long its threads stood ready without a core, by the time of the window; None where the board
    does not tell. `cpu_share` is the processor time of the thread that called.
    """

    process: int
    at_s: float
    p50_ms: float
    count: int = 1
    wall_ms: float = 0.0
    cpu_share: float = 1.0
    waited_share: float | None = None
    switches: int = 0

    @property
    def is_disturbed(self) -> bool:
        """Whether others had its cores for a part of it that may be seen in its figures."""
        return (self.waited_share or 0.0) > DISTURBED


@dataclass(frozen=True)
class SteadyLatency:
    """What a file takes at the common speed of a session, in ms; `windows` are what it rests on, at that speed."""

    latency_ms: float
    windows: tuple[Window, ...]

    @property
    def windows_ms(self) -> tuple[float, ...]:
        """The median of each window, at the common speed."""
        return tuple(window.p50_ms for window in self.windows)

    @property
    def by_process_ms(self) -> dict[int, float]:
        """What each process alone says of the file."""
        return {
            process: float(np.median([window.p50_ms for window in self.windows if window.process == process]))
            for process in sorted({window.process for window in self.windows})
        }

    def ratio_to(self, other: SteadyLatency) -> StudentSpread:
        """This latency by another of the same session, over the processes that timed both.

        Fewer than two such processes are a ValueError.
        """
        return ratio_over_processes(self.by_process_ms, other.by_process_ms)


def parse_probe_window(figures: Sequence[float]) -> Window:
    """A window as an agent tells it of a probe: its process, when it began in s, its median in ms, the share waited.

    Raises:
        TypeError, ValueError: not such figures.
    """
    process, at_s, p50_ms, waited_share = figures
    return Window(int(process), at_s, positive(p50_ms), waited_share=waited_share)


def keep_undisturbed(windows: Sequence[Window]) -> tuple[Window, ...]:
    """The windows that were the process's own; all where those are few."""
    own = tuple(window for window in windows if not window.is_disturbed)
    return own if len(own) >= LEAST_KEPT * len(windows) else tuple(windows)


def fit_common_speed(windows: Mapping[str, Sequence[Window]]) -> dict[str, SteadyLatency]:
    """A latency for every file of a session, freed of what changed the speed of the board for all of them.

    The logarithm of a window's median is that of its file's latency and that of the common speed, a random walk of
    RATE over time (knots every STEP_S, linear between them), whose mean over all windows is zero. Both are fitted at
    once, by least squares of residuals weighed by the noise of each file, Huber's way.

    Raises:
        ValueError: a file without windows.
    """
    undisturbed = {name: keep_undisturbed(of_file) for name, of_file in windows.items()}
    if not undisturbed or not all(undisturbed.values()):
        raise ValueError("every file needs windows")
    rows = [(number, window) for number, of_file in enumerate(undisturbed.values()) for window in of_file]
    logs = np.log([window.p50_ms for _, window in rows])
    latencies, speeds = _fit(
        np.array([number for number, _ in rows]), np.array([window.at_s for _, window in rows]), logs
    )
    steady = [replace(window, p50_ms=exp(value)) for (_, window), value in zip(rows, logs - speeds, strict=True)]
    ends = list(accumulate(map(len, undisturbed.values()), initial=0))
    return {
        name: SteadyLatency(exp(latency), tuple(steady[start:end]))
        for name, latency, start, end in zip(undisturbed, latencies, ends, ends[1:], strict=False)
    }


def _fit(files: np.ndarray, at_s: np.ndarray, logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logarithm of each file's latency, and that of the common speed at each window."""
    from scipy.sparse import csr_matrix, diags, hstack
    from scipy.sparse.linalg import spsolve

    count = len(logs)
    places, knots_s = _interpolate(at_s)
    design = hstack([csr_matrix((np.ones(count), (np.arange(count), files))), places]).tocsr()
    files_count, knots_count = int(files.max()) + 1, len(knots_s)
    walk = diags([-1.0, 1.0], [0, 1], shape=(knots_count - 1, knots_count))
    variance = RATE**2 * np.minimum(np.diff(knots_s), LONGEST_GAP_S)
    smooth = hstack([csr_matrix((knots_count - 1, files_count)), diags(1 / np.sqrt(variance)) @ walk]).tocsr()
    level = hstack([csr_matrix((1, files_count)), csr_matrix(places.mean(axis=0))]).tocsr() / LEAST_NOISE**2
    prior = smooth.T @ smooth + level.T @ level
    solution = np.concatenate([_medians(files, logs), np.zeros(knots_count)])
    noise = _find_noise(files, at_s, logs)[files]
    for _ in range(STEPS):
        residuals = logs - design @ solution
        weights = 1 / (noise**2 * np.maximum(1.0, np.abs(residuals) / (HUBER * noise)))
        solution = spsolve((design.T @ diags(weights) @ design + prior).tocsc(), design.T @ (weights * logs))
    return solution[:files_count], places @ solution[files_count:]


def _find_noise(files: np.ndarray, at_s: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Standard deviation of each file's windows, by how far those that follow each other differ: robust, and blind to
    what changes slowly. The median of |x - y| of normal values is 0.6745 * sqrt(2) of their deviation.
    """
    noise = []
    for number in range(int(files.max()) + 1):
        own = files == number
        steps = np.abs(np.diff(logs[own][np.argsort(at_s[own], kind="stable")]))
        noise.append(float(np.median(steps)) / (0.6745 * 2**0.5) if len(steps) else 0.0)
    return np.maximum(LEAST_NOISE, noise)


def _interpolate(at_s: np.ndarray) -> tuple[csr_matrix, np.ndarray]:
    """A matrix that takes values at knots to values at these times, and the times of the knots."""
    from scipy.sparse import csr_matrix

    ticks = np.unique(np.floor((at_s - at_s.min()) / STEP_S))
    knots_s = np.unique(np.concatenate([ticks, ticks + 1])) * STEP_S
    left = np.clip(np.searchsorted(knots_s, at_s - at_s.min(), side="right") - 1, 0, len(knots_s) - 2)
    share = (at_s - at_s.min() - knots_s[left]) / np.diff(knots_s)[left]
    rows = np.arange(len(at_s))
    shape = (len(at_s), len(knots_s))
    return csr_matrix((1 - share, (rows, left)), shape) + csr_matrix((share, (rows, left + 1)), shape), knots_s


def _medians(files: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.array([np.median(values[files == number]) for number in range(int(files.max()) + 1)])
