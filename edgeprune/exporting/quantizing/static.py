"""Static int8 done well: rounding, biases, ranges and equalisation, each kept if it lowers the measured output error.

The error is that of the model's output on calibration rows that nothing was fitted to, in the runtime's own kernels.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from edgeprune.core.quantizing.ranges import METHODS, Range, find_range
from edgeprune.core.quantizing.rounding import round_to_nearest, round_weights, shift_of_outputs
from edgeprune.core.quantizing.sqnr import measure_sqnr_db
from edgeprune.errors import ExportError
from edgeprune.exporting.files import write_file
from edgeprune.exporting.metadata import embed_metadata, read_metadata
from edgeprune.exporting.quantizing.observe import Observed, count_values, observe
from edgeprune.exporting.quantizing.streams import Raises, choose_raises, equalise, find_streams
from edgeprune.exporting.quantizing.weights import Changes, WeightLayer, change_weights, read_layers
from edgeprune.exporting.runners import run_file

GAIN_DB = 0.1
"""What a step must gain to be kept: less would be chance."""
FITTED_ROWS = 384
JUDGED_ROWS = 128
MOST_VALUES = 300_000_000
"""Of a large net fewer rows are taken: so many values between layers are looked at, for the ranges and each trial."""
LEAST_ROWS = 16
"""With fewer rows there is nothing to judge by: plain min-max."""
EQUALISED = "equalised"
"""Key of a file's metadata: by how much the channels between layers were raised."""


@dataclass(frozen=True)
class Settings:
    """How a static file is made from its float file."""

    method: str = "min-max"
    equalised: bool = False
    rounded: bool = False
    corrected: bool = False

    def describe(self) -> str:
        """For people: `percentile 99.99, weights rounded to spare the output`."""
        words = {
            "layers equalised": self.equalised,
            "weights rounded to spare the output": self.rounded,
            "biases corrected": self.corrected,
        }
        return ", ".join((self.method, *(text for text, on in words.items() if on)))


STEPS = (
    *({name: True} for name in ("rounded", "corrected", "equalised")),
    *({"method": name} for name in METHODS),
)
"""Changes of settings in the order in which they are tried, each on top of what was kept."""


@dataclass(frozen=True)
class Static:
    """A static quantizer: `quantize(float file, ranges, floats)` gives a file's content.

    Operators named in `floats` stay in float. Weights go to the integers -`levels` to `levels`, one scale per output
    channel. Its files are judged in this processor's `optimised` kernels, or in reference ones.
    """

    source: Path
    quantize: Callable[[Path, Mapping[str, Range], Collection[str]], bytes]
    optimised: bool
    levels: int


@dataclass(frozen=True)
class Tuned:
    """The best file found: its content, how it was made, and its SQNR in dB beside that of plain min-max.

    Both figures are None where there were too few rows to judge by.
    """

    content: bytes
    settings: Settings
    sqnr_db: float | None = None
    plain_db: float | None = None

    def describe(self) -> str:
        """For people: the settings and what they gained."""
        if self.sqnr_db is None or self.plain_db is None:
            return f"{self.settings.describe()} (too few calibration rows to choose by)"
        plain = "" if self.settings == Settings() else f", plain min-max {self.plain_db:.1f} dB"
        return f"{self.settings.describe()} ({self.sqnr_db:.1f} dB on calibration rows held out{plain})"


def tune(trials: Trials) -> Tuned:
    """Choose how to quantize by trying STEPS; one whose file does not run in the runtime is passed over.

    Raises:
        ExportError: the plain file does not run, or cannot be made.
    """
    best_settings = Settings()
    content = trials.quantize(best_settings)
    if not len(trials.judged):
        return Tuned(content, best_settings)
    sqnr_db = plain_db = trials.judge(content)
    for step in STEPS:
        settings = replace(best_settings, **step)  # type: ignore[arg-type]
        if settings == best_settings:
            continue
        with suppress(ExportError):
            candidate_db = trials.judge(candidate := trials.quantize(settings))
            if candidate_db > sqnr_db + GAIN_DB:
                best_settings, content, sqnr_db = settings, candidate, candidate_db
    return Tuned(content, best_settings, sqnr_db, plain_db)


def write_tuned(static: Static, rows: np.ndarray, target: Path) -> str:
    """Write the best file for `rows` `[N, ...]`, and say how it was made.

    Raises:
        ExportError: as :func:`tune`, or it cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        tuned = tune(Trials(static, rows, Path(folder)))
    write_file(target, tuned.content)
    return tuned.describe()


class Trials:
    """Files of one net by settings, quantized for `rows` `[N, ...]`: fitted to three quarters, judged on the rest.

    What settings have in common is made once, in `folder`.
    """

    def __init__(self, static: Static, rows: np.ndarray, folder: Path) -> None:
        """Split the rows.

        Raises:
            ExportError: the file does not run.
        """
        held_out = np.arange(len(rows)) % 4 == 3 if len(rows) >= LEAST_ROWS else np.zeros(len(rows), bool)
        self.static, self.folder = static, folder
        most = max(LEAST_ROWS, MOST_VALUES // count_values(static.source, rows[0]))
        self.fitted = _spread(rows[~held_out], min(FITTED_ROWS, most))
        self.judged = _spread(rows[held_out], min(JUDGED_ROWS, most))
        self._changed: dict[Settings, Changes] = {}
        self._bases: dict[bool, tuple[Path, tuple[WeightLayer, ...], Observed]] = {}

    def quantize(self, settings: Settings, floats: Collection[str] = ()) -> bytes:
        """A file made by these settings; operators named in `floats` stay in float, with their own weights.

        Raises:
            ExportError: the file does not run, or cannot be quantized.
        """
        path, layers, observed = self._base(settings.equalised)
        ranges = {name: find_range(settings.method, histogram) for name, histogram in observed.histograms.items()}
        ranges |= observed.endless
        if settings.rounded or settings.corrected:
            tensors = {name for layer in layers if layer.name not in floats for name in (layer.weight, layer.bias)}
            changes = {name: values for name, values in self._changes(settings).items() if name in tensors}
            path = self.write("changed", change_weights(path, changes))
        return self.static.quantize(path, ranges, floats)

    def judge(self, content: bytes) -> float:
        """SQNR in dB of the output on the rows that nothing was fitted to.

        Raises:
            ExportError: the file does not run.
        """
        return measure_sqnr_db(self._reference, self._run(self.write("judged", content)))

    def write(self, name: str, content: bytes) -> Path:
        """A file in the folder."""
        path = self.folder / f"{name}{self.static.source.suffix}"
        write_file(path, content)
        return path

    def _changes(self, settings: Settings) -> Changes:
        key = replace(settings, method="")
        if key not in self._changed:
            _, layers, observed = self._base(settings.equalised)
            self._changed[key] = _prepare_weights(layers, observed, self.static.levels, settings)
        return self._changed[key]

    @cached_property
    def _reference(self) -> np.ndarray:
        return self._run(self.static.source)

    def _run(self, path: Path) -> np.ndarray:
        return run_file(path, self.judged, self.static.optimised)

    def _base(self, equalised: bool) -> tuple[Path, tuple[WeightLayer, ...], Observed]:
        """The float file, its layers, and what flows through it."""
        if equalised not in self._bases:
            path = self.static.source
            layers = read_layers(path)
            if equalised:
                streams = find_streams(path)
                raises = choose_raises(path, streams, self.fitted)
                path = self.write("equalised", change_weights(path, equalise(streams, raises)))
                embed_metadata(path, {EQUALISED: _write_digits(raises)})
                layers = read_layers(path)
            self._bases[equalised] = (path, layers, observe(path, self.fitted, layers))
        return self._bases[equalised]


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, evenly from all."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(int)]


def _prepare_weights(layers: Sequence[WeightLayer], observed: Observed, levels: int, settings: Settings) -> Changes:
    """Weights on the grid that they will be held on, and biases that make up for it, as the settings ask."""
    changes: dict[str, np.ndarray] = {}
    for layer in layers:
        moments = observed.moments.get(layer.weight)
        if moments is None or layer.weight in changes:
            continue
        if settings.rounded:
            rounded = changes[layer.weight] = round_weights(layer.weights, moments, levels)
        else:
            rounded = round_to_nearest(layer.weights, levels)
        if settings.corrected and layer.bias and layer.biases is not None:
            shift = shift_of_outputs(layer.weights, rounded, moments)
            changes[layer.bias] = (layer.biases - shift).astype(np.float32)
    return changes


def _write_digits(raises: Raises) -> str:
    return json.dumps({name: "".join(map(str, steps)) for name, steps in raises.items()})


def _read_digits(text: str) -> Raises:
    return {name: np.array([int(digit) for digit in digits]) for name, digits in json.loads(text).items()}


def match_equalised(reference: Path, other: Path, folder: Path) -> Path:
    """The float file that has the same values between layers as `other`: `reference`, or that equalised in `folder`.

    Raises:
        ExportError: one of the two cannot be read, or the folder cannot be written.
    """
    digits = read_metadata(other).get(EQUALISED)
    if digits is None:
        return reference
    path = folder / reference.name
    write_file(path, change_weights(reference, equalise(find_streams(reference), _read_digits(digits))))
    return path
