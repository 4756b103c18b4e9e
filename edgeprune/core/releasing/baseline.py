"""A baseline: a release that passed, in a file of its own, which later runs are held against.

For `edgeprune.stages`, which reads and writes the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgeprune.core.answers import describe_misfit, optional, positive, text
from edgeprune.core.artifact import Artifact, parse_artifact
from edgeprune.core.measuring.energy import Energy
from edgeprune.core.measuring.measurement import DeviceFacts, Measurement, parse_device_facts, parse_measurement
from edgeprune.core.measuring.paired_quality import compare_quality, parse_quality_spread
from edgeprune.core.measuring.spread import TableSpread
from edgeprune.core.metric import HIGHER, parse_metric
from edgeprune.core.planning.limits import Costs
from edgeprune.core.releasing.document import Figures, gate_figures
from edgeprune.core.releasing.gate import PASS, QUALITY, QUALITY_METRICS, Figure, GateResult
from edgeprune.errors import BaselineError

BASELINE_VERSION = 1
MEASURED = "measured"
ID_LENGTH = 12
KERNEL_FLAGS = frozenset({
    *("avx", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8", "fma"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "neon", "vfpv4"),
})  # fmt: skip
"""Of a processor's flags those by which runtimes choose their kernels; a kernel's update adds others."""


@dataclass(frozen=True)
class Baseline:
    """What a run shipped, with everything that another is held against.

    `figures` are those of the shipped file, whose `artifact.path` is the name of its copy beside the file; `reference`
    is the unpruned file's measurement in turns with it, without its samples; `more` are figures that the measurement
    does not hold, by metric. `unit` tells one board of its kind from another, empty where nothing does; `device` has no
    address.
    """

    name: str
    created: str
    edgeprune: str
    target: str
    recipe: str
    verdict: str
    gates: tuple[GateResult, ...]
    device: DeviceFacts
    unit: str
    figures: Figures
    reference: Measurement | None = None
    more: Mapping[str, Figure] = field(default_factory=dict)
    origin: str = MEASURED

    @property
    def kind(self) -> str:
        """The kind of device that it was measured on."""
        return device_kind(self.device)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with a checksum of all that is in it."""
        figures = self.figures
        document = {
            "version": BASELINE_VERSION,
            "name": self.name,
            "created": self.created,
            "edgeprune": self.edgeprune,
            "origin": self.origin,
            "target": self.target,
            "recipe": self.recipe,
            "verdict": self.verdict,
            "gates": [result.to_dict() for result in self.gates],
            "kind": self.kind,
            "unit": self.unit,
            "device": self.device.to_dict(),
            "metric": figures.metric.to_dict(),
            "artifact": figures.artifact.to_dict(),
            "quality": figures.shown_quality,
            "quality_samples": figures.samples,
            "quality_spread": asdict(figures.spread) if figures.spread else None,
            "costs": asdict(figures.costs),
            "measurement": figures.measurement.to_dict(),
            "reference": self.reference.to_dict() if self.reference else None,
            "more": {name: asdict(figure) for name, figure in self.more.items()},
        }
        return {**document, "checksum": _checksum(document)}


def _checksum(document: Mapping[str, Any]) -> str:
    content = json.dumps({key: value for key, value in document.items() if key != "checksum"}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def parse_baseline(document: Any, where: str) -> Baseline:
    """Read back what :meth:`Baseline.to_dict` gave.

    Raises:
        BaselineError: it is no such document, of a newer version, or was changed since it was written.
    """
    if not isinstance(document, dict) or "measurement" not in document or "checksum" not in document:
        raise BaselineError(f"{where}: is no baseline; expected a file that `edgeprune baseline set` has written")
    version = document.get("version")
    if version != BASELINE_VERSION:
        newer = isinstance(version, int) and version > BASELINE_VERSION
        remedy = "install the newer edgeprune that wrote it" if newer else "set it again"
        raise BaselineError(f"{where}: version {version!r}; this edgeprune reads {BASELINE_VERSION}; {remedy}")
    try:
        if _checksum(document) != document["checksum"]:
            raise BaselineError(
                f"{where}: is not what was written (its checksum differs); restore the file, or set the baseline again"
            )
        return _parse(document)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise BaselineError(f"{where}: cannot be read: {describe_misfit(exc)}; set the baseline again") from exc


def _parse(row: Mapping[str, Any]) -> Baseline:
    words = ("name", "created", "edgeprune", "target", "recipe", "verdict", "unit", "origin")
    figures = Figures(
        artifact=parse_artifact(row["artifact"]),
        measurement=parse_measurement(row["measurement"]),
        quality=optional(float)(row["quality"]),
        samples=int(row["quality_samples"]),
        costs=Costs(**row["costs"]),
        metric=parse_metric(row["metric"]),
        spread=parse_quality_spread(row["quality_spread"]),
    )
    reference = row["reference"]
    return Baseline(
        **{word: text(row[word]) for word in words},
        gates=tuple(GateResult(**result) for result in row["gates"]),
        device=parse_device_facts(row["device"]),
        figures=figures,
        reference=parse_measurement(reference) if reference is not None else None,
        more={name: Figure(**figure) for name, figure in row["more"].items()},
    )


def device_kind(facts: DeviceFacts) -> str:
    """Short hash of what boards of a kind have in common: machine, model, CPU with the flags that kernels are chosen
    by, cores and clock; neither what is installed there, nor which of them it is.
    """
    flags = sorted(KERNEL_FLAGS & {flag.lower() for flag in facts.cpu_flags})
    deciding = (facts.machine, facts.model, facts.cpu, facts.cores, facts.max_mhz, flags)
    return hashlib.sha256(repr(deciding).encode()).hexdigest()[:ID_LENGTH]


def device_unit(facts: DeviceFacts) -> str:
    """Short hash of what tells a board from others of its kind, its host key; empty where it has none."""
    return hashlib.sha256(facts.host_key.encode()).hexdigest()[:ID_LENGTH] if facts.host_key else ""


def strip_address(facts: DeviceFacts) -> DeviceFacts:
    """The facts without what leads to the board: a baseline is committed, and an address is nobody else's business."""
    return replace(facts, host="", host_key="")


def describe_device(facts: DeviceFacts) -> str:
    """A kind of device, for people."""
    clock = f", {facts.max_mhz} MHz" if facts.max_mhz else ""
    return f"{facts.model or facts.machine}, {facts.cpu}, {facts.cores} cores{clock} (kind {device_kind(facts)})"


@dataclass(frozen=True)
class Newcomer:
    """The run that is held against a baseline: its device, what it ships, the unpruned file's measurement beside it."""

    target: str
    recipe: str
    device: DeviceFacts
    figures: Figures
    reference: Measurement | None = None
    more: Mapping[str, Figure] = field(default_factory=dict)


def check_baseline(baseline: Baseline, where: str) -> None:
    """Refuse what no run may be held against.

    Raises:
        BaselineError: it did not pass, is an estimate, or its measurement is not valid.
    """
    if baseline.origin != MEASURED:
        raise BaselineError(f"{where}: is {baseline.origin}, not measured; set it from a run that a board has measured")
    if baseline.verdict != PASS:
        raise BaselineError(
            f"{where}: its verdict is {baseline.verdict!r}; only a run that passed its gates is a baseline; "
            "`edgeprune report --run DIR` shows which gate did not pass"
        )
    if baseline.figures.measurement.problems:
        problems = "; ".join(baseline.figures.measurement.problems)
        raise BaselineError(f"{where}: its run is not valid: {problems}; measure it again, and set the baseline anew")


def check_comparable(baseline: Baseline, run: Newcomer, where: str, is_interleaved: bool) -> tuple[str, ...]:
    """Refuse a baseline that says nothing of a run; gives what a reader must know where it does.

    With `is_interleaved` both files are measured now, by the runtime that is there now.

    Raises:
        BaselineError: another kind of device, number of threads, precision, sizes of inputs, metric or (unless
            interleaved) runtime, or the run itself.
    """
    refusals = [*_find_other_device(baseline, run), *_find_other_use(baseline, run)]
    runtimes = _find_other_runtime(baseline, run)
    refusals += [] if is_interleaved else [f"{text}; measure both now with --interleave" for text in runtimes]
    if baseline.figures.measurement == run.figures.measurement:
        refusals.append("is this run itself, so that nothing can differ; name an earlier one")
    if refusals:
        raise BaselineError(f"{where}: {'; '.join(refusals)}")
    return (*(runtimes if is_interleaved else ()), *_find_notes(baseline, run, is_interleaved))


def _find_other_device(baseline: Baseline, run: Newcomer) -> list[str]:
    if baseline.kind == device_kind(run.device):
        return []
    return [
        f"was measured on another kind of device, {describe_device(baseline.device)}, than this run, "
        f"{describe_device(run.device)}; set a baseline from a run on this kind"
    ]


def _find_other_use(baseline: Baseline, run: Newcomer) -> list[str]:
    """Threads, precision, sizes of inputs and the recipe's metric: what makes figures those of something else."""
    old, new = baseline.figures, run.figures
    pairs = {
        "threads": (old.measurement.conditions.threads, new.measurement.conditions.threads),
        "precision": (old.artifact.precision, new.artifact.precision),
        "input sizes": (_input_sizes(old), _input_sizes(new)),
        "the recipe's metric": (old.metric.to_dict(), new.metric.to_dict()),
    }
    return [
        f"{what}: {_show(before)} in the baseline, {_show(after)} in this run; set a baseline from a run like it"
        for what, (before, after) in pairs.items()
        if before != after
    ]


def _input_sizes(figures: Figures) -> list[list[int]]:
    measured = list(figures.measurement.inputs.values())
    return [list(shape) for shape in measured or [signature.shape for signature in figures.artifact.inputs]]


def _show(value: Any) -> str:
    return f"{value['name']} {value['unit']}, {value['better']} is better" if isinstance(value, dict) else str(value)


def _find_other_runtime(baseline: Baseline, run: Newcomer) -> list[str]:
    sides = [side.figures.measurement for side in (baseline, run)]
    before, after = (f"{side.runtime} {side.runtime_version}" for side in sides)
    return [] if before == after else [f"the baseline was measured with {before}, this run with {after}"]


def _find_notes(baseline: Baseline, run: Newcomer, is_interleaved: bool) -> list[str]:
    notes, unit = [], device_unit(run.device)
    if baseline.figures.artifact.sha256 == run.figures.artifact.sha256:
        advice = ": what differs is the session; --interleave measures both in one"
        notes.append(f"the shipped file is the baseline's, byte for byte{'' if is_interleaved else advice}")
    if baseline.unit and unit and baseline.unit != unit:
        notes.append("the baseline is of another board of the same kind")
    names = {"recipe": (baseline.recipe, run.recipe), "target": (baseline.target, run.target)}
    names["kernel of the board"] = (baseline.device.kernel, run.device.kernel)
    notes += [f"{name}: {old} in the baseline, {new} in this run" for name, (old, new) in names.items() if old != new]
    return notes


def collect_figures(side: Baseline | Newcomer) -> dict[str, Figure]:
    """Everything that one side can be held against the other by, by metric; relative to its own original nothing."""
    energy = side.figures.measurement.energy
    problem = "; ".join(side.figures.measurement.problems)
    lack = Figure(None, problem=side.figures.measurement.power)
    power = {"energy_mj": lack, "power_w": lack if energy is None else _power(energy, problem)}
    return {**power, **gate_figures(side.figures), **side.more}


def _power(energy: Energy, problem: str) -> Figure:
    """Mean power above idle in W, as uncertain as the energy is."""
    if energy.energy_mj is None or energy.power_w is None or energy.idle_w is None:
        return Figure(None, problem=energy.reason)
    power_w = energy.power_w - energy.idle_w
    error_w = abs(power_w * (energy.uncertainty_mj or 0.0) / energy.energy_mj) if energy.energy_mj else 0.0
    return Figure(power_w, power_w - error_w, power_w + error_w, problem=problem)


def match_figures(
    baseline: Baseline, run: Newcomer, is_one_meter: bool = False
) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """The figures of the run and of the baseline; without those that were taken in ways that do not compare.

    `is_one_meter`: energies of both were measured by the very same one, so that its gain cancels.
    """
    sides = [_drop_gain(figures) if is_one_meter else figures for figures in (run.figures, baseline.figures)]
    new = collect_figures(replace(run, figures=sides[0]))
    old = collect_figures(replace(baseline, figures=sides[1]))
    if (pair := _pair_quality(run.figures, baseline.figures)) is not None:
        new[QUALITY], old[QUALITY] = pair
    lacks = _find_unlike_ways(baseline, run)
    return new, {name: Figure(None, problem=lacks[name]) if name in lacks else old[name] for name in old}


def _pair_quality(new: Figures, old: Figures) -> tuple[Figure, Figure] | None:
    """The quality of both, all of their doubt in the first: how far they differ input by input. None where they were
    not judged on the same inputs.
    """
    if new.spread is None or old.spread is None or new.quality is None or old.quality is None:
        return None
    drop = compare_quality(new.metric, new.spread, old.spread)
    if drop is None:
        return None
    best, worst = (
        tuple(new.metric.worsen(old.quality, end) for end in ends) for ends in (drop.spread.lows, drop.spread.highs)
    )
    lows, highs = (worst, best) if new.metric.better == HIGHER else (best, worst)
    return replace(Figure.of(new.quality, TableSpread(lows, highs)), inputs=new.samples), Figure(old.quality)


def _drop_gain(figures: Figures) -> Figures:
    energy = figures.measurement.energy
    if energy is None:
        return figures
    return replace(figures, measurement=replace(figures.measurement, energy=energy.without_gain()))


def _find_unlike_ways(baseline: Baseline, run: Newcomer) -> dict[str, str]:
    """Why figures of both sides do not compare though both have them, by metric."""
    lacks, sides = dict[str, str](), (baseline.figures, run.figures)
    old_samples, new_samples = (side.samples for side in sides)
    if old_samples != new_samples:
        text = f"judged on {old_samples} inputs, this run on {new_samples}"
        lacks |= dict.fromkeys(QUALITY_METRICS, text)
    meters = [(energy.meter, energy.kind) for side in sides if (energy := side.measurement.energy) is not None]
    if len(set(meters)) > 1:
        lacks |= dict.fromkeys(("energy_mj", "power_w"), f"another power meter: {meters[0][0]}, now {meters[1][0]}")
    return lacks


def parse_slowdown(document: Any, sha256: str) -> Figure | None:
    """What a sustained run says, as `edgeprune measure --output` writes it: the share by which the last minute is
    slower than the first. None where it is of another file or no such document.
    """
    if not isinstance(document, dict) or document.get("sha256") != sha256 or "change" not in document:
        return None
    try:
        ratio, low, high = (positive(document["change"][name]) for name in ("ratio", "low", "high"))
    except (KeyError, TypeError, ValueError):
        return None
    problem = "; ".join(map(str, document.get("problems") or ()))
    return Figure(ratio - 1, low - 1, high - 1, problem=problem)


def find_parity(rows: Sequence[Mapping[str, Any]], artifact: Artifact) -> Figure | None:
    """The lowest signal-to-noise ratio in dB of the links that end in this file; None where no link tells."""
    file, kernels = f"{artifact.format} {artifact.precision}", "reference kernels -> optimised kernels"
    own = {f"{artifact.role}: {file} {kernels}", f"{artifact.name}: here -> on the device"}
    figures = [
        float(row["sqnr_db"])
        for row in rows
        if row["link"] in own or (row["link"].startswith(f"{artifact.role}: ") and row["link"].endswith(f" -> {file}"))
    ]
    return Figure(min(figures)) if figures else None
