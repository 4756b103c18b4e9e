"""Whether an exported file computes what the model computes: a chain of links, each with its figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from edgeprune.core.artifact import Artifact
from edgeprune.core.metric import Metric
from edgeprune.core.quantizing.sqnr import Channel, find_weakest_channel, measure_sqnr_db
from edgeprune.errors import EdgepruneError, ParityError, RecipeError
from edgeprune.exporting.artifacts import check_artifact
from edgeprune.exporting.checks import run_torch
from edgeprune.exporting.formats import find_format
from edgeprune.exporting.parity.tolerances import TOLERANCES, Tolerance
from edgeprune.exporting.runners import run_file

INTEGER_KERNELS = ("int8", "mixed")
"""Precisions whose files run in kernels of their own."""


@dataclass(frozen=True)
class Judge:
    """The recipe's metric over the `targets` of the rows that files are compared on.

    `classifies`: outputs are logits of classes.
    """

    metric: Metric
    targets: np.ndarray
    classifies: bool = False

    def measure(self, outputs: np.ndarray) -> float | None:
        """The metric of these outputs; None where so few rows do not have it."""
        try:
            quality = float(self.metric(outputs, self.targets))
        except RecipeError:
            return None
        return quality if math.isfinite(quality) else None

    def most_drop(self, quality: float) -> float:
        """By how much a file may be worse than one of that quality: three standard errors of a share, and POINTS at
        least; of another figure half of it. Gates are narrower, and judge by all evaluation data.
        """
        if not self.metric.is_percent:
            return FIGURE * abs(quality)
        share = min(max(quality / 100, 0.0), 1.0)
        return max(POINTS, 300 * math.sqrt(share * (1 - share) / len(self.targets)))


POINTS, FIGURE = 5.0, 0.5


@dataclass(frozen=True)
class Parity:
    """One link of the chain: the figures of `other` against `reference`, and whether they are within `tolerance`.

    `top1_agreement` is a fraction, None where the output is not a vector of classes. Errors are in output units.
    `weakest` is the channel held worst. `qualities` are the metric of both, and `collapse` says where it falls apart.
    """

    link: str
    max_error: float
    mean_error: float
    relative_error: float
    sqnr_db: float
    top1_agreement: float | None
    tolerance: Tolerance
    ok: bool
    weakest: Channel | None = None
    qualities: tuple[float | None, float | None] = (None, None)
    collapse: str = ""

    def describe(self) -> str:
        """For people: the figures in one line."""
        top1 = "" if self.top1_agreement is None else f", top-1 agreement {self.top1_agreement:.1%}"
        errors = f"max error {self.max_error:.3g} (relative {self.relative_error:.3g}), mean {self.mean_error:.3g}"
        collapse = f"; {self.collapse}" if self.collapse else ""
        return f"{self.link}: {errors}, SQNR {self.sqnr_db:.1f} dB{top1}{collapse}"


def compare_outputs(
    link: str, reference: np.ndarray, other: np.ndarray, tolerance: Tolerance, judge: Judge | None = None
) -> Parity:
    """Figures of `other` against `reference`, both `[N, ...]`; `link` names what is compared, "a -> b".

    Without a `judge` outputs `[N, C]` are taken for logits.

    Raises:
        ParityError: the shapes differ, or one of the two has NaN or infinity; no figures exist then.
    """
    if reference.shape != other.shape:
        raise ParityError(f"{link}: output shapes {list(reference.shape)} and {list(other.shape)}; export again")
    for side, values in (("the reference", reference), ("the result", other)):
        if not np.isfinite(values).all():
            raise ParityError(f"{link}: {side} has NaN or infinity; {tolerance.remedy}")
    signal = reference.astype(np.float64)
    error = np.abs(other.astype(np.float64) - signal)
    figures = Parity(
        link=link,
        max_error=float(error.max()),
        mean_error=float(error.mean()),
        relative_error=float(error.max() / max(np.abs(signal).max(), np.finfo(np.float32).tiny)),
        sqnr_db=measure_sqnr_db(reference, other),
        top1_agreement=_top1_agreement(reference, other) if judge is None or judge.classifies else None,
        tolerance=tolerance,
        ok=False,
        weakest=find_weakest_channel(reference, other),
        qualities=(judge.measure(reference), judge.measure(other)) if judge else (None, None),
    )
    return _judged(figures, judge)


def check_parity(parity: Parity) -> Parity:
    """Give the link back where it is within its tolerance.

    Raises:
        ParityError: it is not; names the link, its figures, the limits and what to do.
    """
    if not parity.ok:
        limits = parity.tolerance
        raise ParityError(f"{parity.describe()}; needed {limits.describe()} ({limits.reason}); {limits.remedy}")
    return parity


def compare_each(
    program: nn.Module,
    artifacts: Sequence[Artifact],
    directory: Path,
    inputs: np.ndarray,
    same_processor: bool = True,
    judge: Judge | None = None,
) -> Iterator[tuple[Artifact, tuple[Parity, ...] | EdgepruneError]]:
    """The chain for the artifacts of one program, on `inputs` `[N, ...]`: torch -> fp32 -> the others -> int8 kernels.

    Gives the links that lead to each artifact, or the error where there are none: it is missing, stale, does not run,
    or gives outputs without figures. A file in a lower precision is compared with the fp32 file of its format, or with
    torch where there is none. Optimised static int8 kernels (in TFLite: XNNPACK) are compared with the runtime's
    reference ones; with `same_processor=False` (files for another kind of processor, whose scheme need not be right
    here) they are not used at all. `judge` knows the targets of `inputs`.

    Raises:
        ExportError: the program does not run.
    """
    rows = _Rows(inputs, {("torch", ""): run_torch(program, inputs)}, same_processor, judge)
    for artifact in sorted(artifacts, key=lambda artifact: artifact.precision != "fp32"):
        try:
            yield artifact, _compare_artifact(artifact, check_artifact(artifact, directory), rows)
        except EdgepruneError as exc:
            yield artifact, exc


@dataclass(frozen=True)
class _Rows:
    """Inputs, what they give so far by format and precision, and how to compare it."""

    inputs: np.ndarray
    outputs: dict[tuple[str, str], np.ndarray]
    same_processor: bool
    judge: Judge | None


def _compare_artifact(artifact: Artifact, path: Path, rows: _Rows) -> tuple[Parity, ...]:
    """The links to one artifact, whose output is added to those of the rows."""
    role, key = artifact.role, (artifact.format, artifact.precision)
    integers, outputs = artifact.precision in INTEGER_KERNELS, rows.outputs
    output = run_file(path, rows.inputs, optimised=not integers)
    source = (artifact.format, "fp32") if (artifact.format, "fp32") in outputs else ("torch", "")
    link = f"{role}: {' '.join(source).strip()} -> {' '.join(key)}"
    links = [compare_outputs(link, outputs[source], output, TOLERANCES[artifact.precision], rows.judge)]
    outputs[key] = output
    if integers and rows.same_processor:
        link, optimised = f"{role}: {' '.join(key)} reference kernels -> optimised kernels", run_file(path, rows.inputs)
        links.append(compare_outputs(link, output, optimised, find_format(artifact.format).kernels, rows.judge))
    return tuple(links)


def _judged(figures: Parity, judge: Judge | None) -> Parity:
    limits, collapse = figures.tolerance, _find_collapse(figures, judge)
    exact = limits.relative_error is None or figures.relative_error <= limits.relative_error
    clear = limits.sqnr_db is None or figures.sqnr_db >= limits.sqnr_db or _decisions_agree(figures)
    return replace(figures, collapse=collapse, ok=exact and clear and not collapse)


def _find_collapse(figures: Parity, judge: Judge | None) -> str:
    """What falls apart though the whole output may look well; empty where nothing does."""
    least, (before, after) = figures.tolerance.channel_db, figures.qualities
    faults = []
    if figures.weakest is not None and least is not None and figures.weakest.sqnr_db < least:
        faults.append(
            f"{figures.weakest.describe()}: others are larger; bring the channels to one scale, or split them"
        )
    if judge is not None and before is not None:
        drop = math.inf if after is None else judge.metric.drop(after, before)
        if drop > judge.most_drop(before):
            shown = judge.metric.describe(after) if after is not None else "no number"
            faults.append(f"{judge.metric.name} falls from {judge.metric.describe(before)} to {shown} on these rows")
    return "; ".join(faults)


def _decisions_agree(figures: Parity) -> bool:
    limits, agreement = figures.tolerance, figures.top1_agreement
    if limits.least_sqnr_db is None or limits.top1_agreement is None or agreement is None:
        return False
    return figures.sqnr_db >= limits.least_sqnr_db and agreement >= limits.top1_agreement


def _top1_agreement(reference: np.ndarray, other: np.ndarray) -> float | None:
    if reference.ndim != 2 or reference.shape[1] < 2:
        return None
    return float((reference.argmax(axis=1) == other.argmax(axis=1)).mean())
