"""The card of a run: one fixed set of figures, so that results of any net, method and device read alike.

docs/metrics.md defines each figure; whoever computes them so may publish such a card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean, stdev
from typing import Any

from edgeprune.core.choosing.area import measure_area, quality_retained
from edgeprune.core.choosing.points import Interval, Point, read_point
from edgeprune.core.metric import Metric, parse_metric

CARD, CARD_VERSION = "edgeprune-card", 1
NO_PLAN_SHARED = "needs several runs of the same plan and recipe with other seeds"
NOT_EXPLAINED = "no explanation.json in the run: `edgeprune explain` makes it"
INVALID = "the run is not valid: see problems"
LEAST_REPEATS = 2


@dataclass(frozen=True)
class CardFigure:
    """A figure of a card with its 95 % interval, and the unpruned net's; without a value, the reason."""

    value: float | None
    unit: str
    low: float | None = None
    high: float | None = None
    original: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class CardRun:
    """A finished run: its name, its `report.json`, and its `explanation.json` if it was explained."""

    name: str
    report: Mapping[str, Any]
    explanation: Mapping[str, Any] | None = None

    @property
    def point(self) -> Point:
        """The run as a point."""
        return read_point(self.name, self.report)

    @property
    def shipped(self) -> Mapping[str, Any]:
        """The row of the file that ships."""
        return next(row for row in self.report["artifacts"] if row.get("shipped"))

    @property
    def widths(self) -> dict[str, int]:
        """How many channels of each group stay."""
        return {row["group"]: len(row["keep"]) for row in self.report["plan"]["groups"]}


@dataclass(frozen=True)
class Evidence:
    """What a card is made from: the run it is of, its `repeats` with other seeds, and the `curve` of other budgets."""

    run: CardRun
    repeats: Sequence[CardRun] = ()
    curve: Sequence[Point] = field(default=())


def build_card(evidence: Evidence) -> dict[str, Any]:
    """The card, JSON-ready; its fields are those of docs/metrics.md and no others."""
    report = evidence.run.report
    return {
        "card": CARD,
        "version": CARD_VERSION,
        "edgeprune": report["edgeprune"],
        "created": report["created"],
        "recipe": report["recipe"],
        "target": report["target"],
        "verdict": report["verdict"],
        "runs": [evidence.run.name, *(run.name for run in evidence.repeats)],
        "metric": dict(report["metric"]),
        "conditions": _describe_conditions(evidence.run),
        "figures": {name: asdict(figure) for name, figure in _list_figures(evidence).items()},
        "problems": _find_problems(report),
    }


def _find_problems(report: Mapping[str, Any]) -> list[str]:
    """Why a run, or that of the unpruned file beside it, is not valid."""
    own = list(report["result"]["problems"])
    return [*own, *(f"the unpruned file: {problem}" for problem in report["baseline"]["problems"])]


def _describe_conditions(run: CardRun) -> dict[str, Any]:
    report, shipped = run.report, run.shipped
    device, conditions, result = report["device"], report["conditions"], report["result"]
    return {
        "cpu": device.get("cpu"),
        "machine": device.get("machine"),
        "os": device.get("os"),
        "device": device["fingerprint"],
        "runtime": report["runtime"],
        "threads": conditions["threads"],
        "affinity": list(conditions.get("affinity") or ()),
        "governor": conditions.get("governor") or None,
        "temperature_c": list(conditions.get("temperature_c") or ()),
        "format": shipped["format"],
        "precision": shipped["precision"],
        "sha256": shipped["sha256"],
        "inputs": result.get("inputs") or {},
        "latency_samples": result["latency"]["count"],
        "quality_samples": result.get("quality_samples"),
        "power": result.get("power"),
    }


def _list_figures(evidence: Evidence) -> dict[str, CardFigure]:
    report = evidence.run.report
    metric = parse_metric(report["metric"])
    return {
        **_quality_figures(report, metric),
        **_timed_figures(report),
        **_size_figures(report),
        "area_under_curve": _area_figure(evidence.curve),
        **_robustness_figures(evidence.run.explanation, metric),
        **_seed_figures(evidence, metric),
    }


def _quality_figures(report: Mapping[str, Any], metric: Metric) -> dict[str, CardFigure]:
    result, original = report["result"], report["baseline"]["quality"]
    value = result["quality"]
    if value is None:
        reason = "the metric gave no finite number"
        units = {"quality": metric.unit, "quality_drop": metric.drop_unit, "quality_retained": "1"}
        return {name: CardFigure(None, unit, reason=reason) for name, unit in units.items()}
    drop = None if original is None else metric.drop(value, original)
    retained = None if original is None else quality_retained(value, original, metric)
    no_share = "the metric has no share of the original's" if retained is None else None
    no_drop = "the metric gave no finite number for the unpruned net" if drop is None else None
    return {
        "quality": CardFigure(value, metric.unit, result.get("quality_low"), result.get("quality_high"), original),
        "quality_drop": CardFigure(drop, metric.drop_unit, reason=no_drop),
        "quality_retained": CardFigure(retained, "1", reason=no_share),
    }


def _timed_figures(report: Mapping[str, Any]) -> dict[str, CardFigure]:
    """Those that rest on a run on the device: an invalid one gives none."""
    result, baseline = report["result"], report["baseline"]
    own, first = result["latency"], baseline["latency"]
    low, high = report["speedup_interval"]
    figures = {
        "latency_p50_ms": CardFigure(own["p50_ms"], "ms", own["median_low_ms"], own["median_high_ms"], first["p50_ms"]),
        **{f"latency_{name}": _tail_figure(own[name], first[name]) for name in ("p95_ms", "p99_ms")},
        "first_ms": CardFigure(result["first_ms"], "ms", original=baseline["first_ms"]),
        "init_ms": CardFigure(result["init_ms"], "ms", original=baseline["init_ms"]),
        "speedup": CardFigure(report["speedup"], "1", low, high),
        "energy_mj": _energy_figure(result, baseline),
        "peak_memory_mib": _memory_figure(result, baseline),
    }
    if not _find_problems(report):
        return figures
    return {name: CardFigure(None, figure.unit, reason=INVALID) for name, figure in figures.items()}


def _tail_figure(value_ms: float | None, original_ms: float | None) -> CardFigure:
    reason = "too few samples of single runs" if value_ms is None else None
    return CardFigure(value_ms, "ms", reason=reason, original=original_ms)


def _energy_figure(result: Mapping[str, Any], baseline: Mapping[str, Any]) -> CardFigure:
    energy, original = (figures.get("energy") or {} for figures in (result, baseline))
    value = energy.get("energy_mj")
    if value is None:
        return CardFigure(None, "mJ", reason=str(result.get("power") or "no power sensor"))
    reach = energy.get("uncertainty_mj") or 0.0
    return CardFigure(value, "mJ", value - reach, value + reach, original.get("energy_mj"))


def _memory_figure(result: Mapping[str, Any], baseline: Mapping[str, Any]) -> CardFigure:
    value = result["peak_memory_mib"]
    reason = "the board does not tell" if value is None else None
    return CardFigure(value, "MiB", original=baseline["peak_memory_mib"], reason=reason)


def _size_figures(report: Mapping[str, Any]) -> dict[str, CardFigure]:
    """Those that are counted, not measured."""
    result, baseline = report["result"], report["baseline"]

    def count(name: str, unit: str, divisor: float = 1) -> CardFigure:
        return CardFigure(result[name] / divisor, unit, original=baseline[name] / divisor)

    def compression(name: str) -> CardFigure:
        if not result[name]:
            return CardFigure(None, "1", reason="nothing is left to divide by")
        return CardFigure(baseline[name] / result[name], "1")

    return {
        "file_kb": count("file_bytes", "kB", 1000),
        "parameters": count("parameters", "1"),
        "macs": count("macs", "1"),
        "activation_kb": count("activation_bytes", "kB", 1000),
        "file_compression": compression("file_bytes"),
        "parameter_compression": compression("parameters"),
        "mac_compression": compression("macs"),
    }


def _area_figure(curve: Sequence[Point]) -> CardFigure:
    area, reason = measure_area(curve)
    if area is None:
        return CardFigure(None, "1", reason=reason)
    return CardFigure(area.value, "1", area.low, area.high)


def _robustness_figures(explanation: Mapping[str, Any] | None, metric: Metric) -> dict[str, CardFigure]:
    """The quality over all corrupted inputs, and how much more is lost there than on clean ones."""
    rows = ((explanation or {}).get("robustness") or {}).get("rows") or ()
    corrupted = [row for row in rows if row["corruption"] != "none"]
    clean = [row for row in rows if row["corruption"] == "none"]
    units = {"corrupted_quality": metric.unit, "corrupted_extra_drop": metric.drop_unit}
    values = [row[side] for row in [*corrupted, *clean] for side in ("before", "after")]
    if not corrupted or not clean or None in values:
        missing = ((explanation or {}).get("missing") or {}).get("robustness")
        reason = NOT_EXPLAINED if explanation is None else str(missing or "explanation.json has no figure of it")
        return {name: CardFigure(None, unit, reason=reason) for name, unit in units.items()}
    before, after = (mean(row[side] for row in corrupted) for side in ("before", "after"))
    extra = metric.drop(after, before) - metric.drop(clean[0]["after"], clean[0]["before"])
    return {
        "corrupted_quality": CardFigure(after, metric.unit, original=before),
        "corrupted_extra_drop": CardFigure(extra, metric.drop_unit),
    }


def _seed_figures(evidence: Evidence, metric: Metric) -> dict[str, CardFigure]:
    """Mean and standard deviation over runs that differ in their seeds."""
    points = [run.point for run in (evidence.run, *evidence.repeats)]
    qualities = [point.quality for point in points if point.quality]
    speedups = [point.speedup for point in points if point.speedup and not point.problems]
    return {
        "seeds": CardFigure(len(points), "1"),
        **_spread("seed_quality", qualities, metric.unit),
        **_spread("seed_speedup", speedups, "1"),
    }


def _spread(name: str, values: Sequence[Interval], unit: str) -> dict[str, CardFigure]:
    if len(values) < LEAST_REPEATS:
        return {f"{name}_{kind}": CardFigure(None, unit, reason=NO_PLAN_SHARED) for kind in ("mean", "sd")}
    numbers = [interval.value for interval in values]
    return {f"{name}_mean": CardFigure(mean(numbers), unit), f"{name}_sd": CardFigure(stdev(numbers), unit)}


def find_misfit(run: CardRun, other: CardRun) -> str:
    """Why another run is no repeat of a run with other seeds; empty where it is one."""
    if run.point.setting != other.point.setting:
        return "it was measured in another setting"
    if _asked(run) != _asked(other):
        return "it has another budget"
    if run.widths != other.widths:
        return "its plan keeps other widths"
    return "it ships the same file" if run.shipped["sha256"] == other.shipped["sha256"] else ""


def is_of_one_curve(run: CardRun, other: CardRun) -> bool:
    """Whether two runs cut the same net, by its file, to different budgets."""
    files = [
        next((row["sha256"] for row in report["artifacts"] if row["path"] == report["baseline"]["artifact"]), name)
        for name, report in ((run.name, run.report), (other.name, other.report))
    ]
    return files[0] == files[1] and _asked(run) != _asked(other)


def _asked(run: CardRun) -> dict[str, Any]:
    return {name: value for name, value in run.report["budget"].items() if name.startswith("asked_")}


def render_card(card: Mapping[str, Any]) -> str:
    """The card as Markdown: a line in words, the figures, the conditions."""
    conditions, figures = card["conditions"], card["figures"]
    rows = [
        f"| {name} | {_show(row['value'])} | {_show_interval(row)} | {_show(row['original'])} | {_unit(row)} |"
        for name, row in figures.items()
    ]
    reasons: dict[str, list[str]] = {}
    for name, row in figures.items():
        if row["reason"]:
            reasons.setdefault(row["reason"], []).append(name)
    facts = [f"| {name} | {_cell(value)} |" for name, value in conditions.items()]
    problems = [f"- not valid: {_cell(problem)}" for problem in card["problems"]]
    return "\n".join(
        [
            f"# {_cell(card['recipe'])} on {_cell(card['target'])}",
            "",
            _headline(card),
            "",
            "| figure | value | 95 % interval | unpruned | unit |",
            "|---|---|---|---|---|",
            *rows,
            "",
            *(["Without a value:", ""] if reasons else []),
            *(f"- {', '.join(names)}: {_cell(reason)}" for reason, names in reasons.items()),
            *([""] if reasons else []),
            *([*problems, ""] if problems else []),
            "| condition | |",
            "|---|---|",
            *facts,
            "",
            f"{card['card']} version {card['version']}, edgeprune {card['edgeprune']}, {card['created']}, "
            f"runs: {_cell(', '.join(card['runs']))}",
        ]
    )


def _headline(card: Mapping[str, Any]) -> str:
    """Quality at ms, mJ and kB."""
    figures, metric = card["figures"], parse_metric(card["metric"])
    names = {"latency_p50_ms": "ms", "energy_mj": "mJ", "file_kb": "kB"}
    costs = [
        f"{_show(figures[name]['value'])} {unit}" for name, unit in names.items() if figures[name]["value"] is not None
    ]
    return f"{metric.name} {metric.describe(figures['quality']['value'])} at {', '.join(costs)}: {card['verdict']}"


def _show(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1e5 else f"{value:.4g}"


def _show_interval(row: Mapping[str, Any]) -> str:
    return "-" if row["low"] is None or row["high"] is None else f"{_show(row['low'])} to {_show(row['high'])}"


def _unit(row: Mapping[str, Any]) -> str:
    return "" if row["unit"] == "1" else str(row["unit"])


def _cell(value: Any) -> str:
    """A value in a cell of Markdown; lists by a name are the shapes of inputs."""
    if isinstance(value, Mapping):
        shapes = {key: " x ".join(map(_cell, item)) if isinstance(item, list) else item for key, item in value.items()}
        return ", ".join(f"{_cell(key)} {_cell(item)}" for key, item in shapes.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value)) or "-"
    text = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
