"""Mixed precision: an int8 file in which some layers stay in float, chosen by measured noise and what it costs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path

import numpy as np

from edgeprune.core.planning.mixed import MixedProblem, choose_floats
from edgeprune.errors import ExportError
from edgeprune.exporting.files import write_file
from edgeprune.exporting.formats import FileNotes
from edgeprune.exporting.quantizing.feeds import Feeds, find_feeds
from edgeprune.exporting.quantizing.prices import Pricer, pose_problem, price_nothing
from edgeprune.exporting.quantizing.static import Settings, Static, Trials, tune
from edgeprune.exporting.quantizing.weights import WeightLayer, read_layers, read_nodes

COARSE_DB, FINE_DB, MOST_DB = 3, 1, 42
"""How far limits on the noise are apart that are tried, from that of plain int8 down: first these, then those between
the last that was too loud and the first that was not."""


@dataclass(frozen=True)
class Mixed:
    """A file with the layers in it that stayed in float; `sqnr_db` is that of the output on held-out rows.

    `cost` says in words what that costs; `predicted_ms` is what the file is predicted to take on the device, if known;
    `activation_bytes` the most that any one layer reads and writes.
    """

    content: bytes
    floats: tuple[str, ...]
    layers: int
    sqnr_db: float
    cost: str
    predicted_ms: float | None
    activation_bytes: int

    def describe(self) -> str:
        """For people: how many layers stay in float, and which."""
        names = f": {', '.join(self.floats)}" if self.floats else ""
        judged = f"{self.sqnr_db:.1f} dB on rows held out"
        return f"{len(self.floats)} of {self.layers} layers in float{names} ({judged}; {self.cost})"


def _label(layer: WeightLayer) -> str:
    """The module that a layer belongs to, by its path (`a.Net/torch.nn.Conv2d_body;2`: `Conv2d_body`) or its weight."""
    steps = layer.name.partition(";")[0].split("/")[1:]
    return "/".join(step.rpartition(".")[2] for step in steps) or layer.weight.removesuffix(".weight")


@dataclass(frozen=True)
class Wishes:
    """What is asked of a mixed file: that it is `accurate`, at the prices of layers and conversions that `ask` gives.

    `always`: it is made even if it turns out that no layer is better in float. It may be larger than the int8 file by
    `room_bytes`, and no layer of it may read and write more than `most_activation_bytes`.
    """

    accurate: Callable[[Path], bool] = lambda _: True
    ask: Pricer = price_nothing
    always: bool = True
    room_bytes: float = inf
    most_activation_bytes: float = inf


def mix(trials: Trials, settings: Settings, wishes: Wishes) -> Mixed:
    """The cheapest file that is accurate: of layers whose noise adds up to less and less, the first.

    A file within the budget of the prices, and within the sizes that are wished for, is taken where there is one.

    Raises:
        ExportError: no choice is accurate, there are too few rows to judge by, no layer to choose, or none to keep.
    """
    path = trials.static.source
    layers = read_layers(path)
    if not layers or not len(trials.judged):
        raise ExportError(f"{path.name}: mixed precision needs layers with weights and 16 rows or more")
    feeds = find_feeds(read_nodes(path), [layer.name for layer in layers])
    problem = pose_problem(path, trials.judged[0], layers, feeds, wishes.ask)
    noises = _measure_noises(trials, settings, feeds, len(layers))
    parts = zip(problem.layers, noises, strict=True)
    problem = replace(
        problem,
        layers=tuple(replace(layer, noise=noise) for layer, noise in parts),
        room_bytes=wishes.room_bytes,
        most_activation_bytes=wishes.most_activation_bytes,
    )
    contents: dict[tuple[bool, ...], bytes] = {}

    def is_accurate(floats: tuple[bool, ...]) -> bool:
        if not (wishes.always or any(floats)):
            raise ExportError(f"{path.name}: mixed precision: no layer is predicted to be faster in float; ship int8")
        contents[floats] = trials.quantize(settings, feeds.float_operators(floats))
        return wishes.accurate(trials.write("mixed", contents[floats]))

    choice = find_choice(problem, is_accurate)
    if choice is None:
        raise ExportError(
            f"{path.name}: mixed precision: no layer may be int8 for it to be accurate and fast enough; ship fp32"
        )
    names = tuple(_label(layer) for layer, is_float in zip(layers, choice, strict=True) if is_float)
    return Mixed(
        content=contents[choice],
        floats=names,
        layers=len(layers),
        sqnr_db=trials.judge(contents[choice]),
        cost=describe_cost(problem, choice),
        predicted_ms=problem.cost(choice) if isfinite(problem.budget) else None,
        activation_bytes=problem.activation_bytes(choice),
    )


def make_mixed(static: Static, scheme: str, rows: np.ndarray, wishes: Wishes, target: Path) -> FileNotes:
    """Write a file of mixed precision, made and judged on `rows` `[N, ...]`; `scheme` says how its integers are held.

    Raises:
        ExportError: as :func:`mix`, or it cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(static, rows, Path(folder))
        tuned = tune(trials)
        mixed = mix(trials, tuned.settings, wishes)
    write_file(target, mixed.content)
    description = f"{scheme}; {tuned.settings.describe()}; {mixed.describe()}"
    return FileNotes(description, mixed.predicted_ms, mixed.activation_bytes)


def find_choice(problem: MixedProblem, is_accurate: Callable[[tuple[bool, ...]], bool]) -> tuple[bool, ...] | None:
    """The cheapest choice of float layers for the loudest limit on the noise that is quiet enough, to FINE_DB.

    Where no choice so quiet is within the budget, the cheapest beyond it; where none is within the sizes, the cheapest
    beyond these too. None where nothing would be int8.
    """
    slower = replace(problem, budget=inf)
    larger = replace(slower, room_bytes=inf, most_activation_bytes=inf)
    loudest = problem.noise([False] * len(problem.layers))
    verdicts: dict[tuple[bool, ...], bool] = {}

    def try_limit(below_db: float) -> tuple[bool, ...] | None:
        limit = loudest * 10 ** (-below_db / 10)
        choices = (choose_floats(variant, limit) for variant in (problem, slower, larger))
        floats = next((choice for choice in choices if choice is not None), None)
        if floats is None or all(floats):
            return None
        if floats not in verdicts:
            verdicts[floats] = is_accurate(floats)
        return floats if verdicts[floats] else None

    coarse = next((limit_db for limit_db in range(0, MOST_DB, COARSE_DB) if try_limit(limit_db)), None)
    if coarse is None:
        return None
    finer = range(max(coarse - COARSE_DB, 0), coarse + FINE_DB, FINE_DB)
    return next(choice for limit_db in finer if (choice := try_limit(limit_db)))


def describe_cost(problem: MixedProblem, floats: Sequence[bool]) -> str:
    """For people: what a choice is predicted to take, beside all in int8 and all in float."""
    return "; ".join([_describe_ms(problem, floats), *_describe_sizes(problem, floats)])


def _describe_sizes(problem: MixedProblem, floats: Sequence[bool]) -> list[str]:
    added, read = problem.added_bytes(floats), problem.activation_bytes(floats)
    exceeded = [f"{added:,} bytes larger than int8, {problem.room_bytes:,.0f} allowed"] * (added > problem.room_bytes)
    if read > problem.most_activation_bytes:
        exceeded.append(f"a layer reads and writes {read:,} bytes, {problem.most_activation_bytes:,.0f} allowed")
    return exceeded


def _describe_ms(problem: MixedProblem, floats: Sequence[bool]) -> str:
    if not isfinite(problem.budget):
        return "layers weighed by their multiply-accumulates: what they take on the device is not known"
    chosen_ms, in_int8, in_float = (
        problem.cost(choice) for choice in (floats, [False] * len(floats), [True] * len(floats))
    )
    prediction = f"predicted {chosen_ms:.3g} ms, all in int8 {in_int8:.3g}, all in float {in_float:.3g}"
    return (
        prediction
        if chosen_ms <= problem.budget
        else f"{prediction}; no choice as quiet is within {problem.budget:.3g} ms"
    )


def _measure_noises(trials: Trials, settings: Settings, feeds: Feeds, count: int) -> list[float]:
    """Noise of each layer alone in int8, as a share of the output's power."""
    noises = []
    for index in range(count):
        alone = trials.quantize(settings, feeds.float_operators([layer != index for layer in range(count)]))
        noises.append(float(10 ** (-trials.judge(alone) / 10)))
    return noises
