"""Was the board hot: temperatures, clocks and throttling around the measurements, in words and as charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.report.charts import BEFORE, Chart, colour_by, number_axis, render_chart, round_rows, tooltip
from edgeprune.report.layout import paragraph
from edgeprune.report.tables import Column, Table, render_table
from edgeprune.report.words import BEFORE_AFTER, say_plainly, say_span

HOT_C = 80.0
"""From here on boards lower their clocks ("Frequency management and thermal control" in
https://www.raspberrypi.com/documentation/computers/raspberry-pi.html: 80 to 85 C)."""
CLOCK_FALL = 0.05
"""A clock that fell by more than this share is told as a sign of heat or of lack of power."""
SHOWN = {
    "temperature_c": "temperature, C",
    "frequency_mhz": "clock, MHz",
    "throttled": "throttle flags",
    "too_warm_c": "wait for a cool start given up at, C",
    "governor": "frequency governor",
    "arithmetic_us": "fixed arithmetic by process, us",
    "load_average": "load average",
    "notes": "the board says",
}

Conditions = Mapping[str, Any]


def describe_heat(conditions: Sequence[Conditions]) -> tuple[str, str]:
    """Whether the board was hot, as a sentence, and a class of the page's style: "bad", "warn" or "".

    `conditions` are those of each measurement that figures rest on.
    """
    flags = list(dict.fromkeys(flag for row in conditions for flag in row.get("throttled") or ()))
    warm = [row["too_warm_c"] for row in conditions if row.get("too_warm_c") is not None]
    temperatures, clocks = _gather(conditions, "temperature_c"), _gather(conditions, "frequency_mhz")
    fall = _find_fall(conditions)
    state = _say_state(temperatures, clocks, flags)
    if flags:
        return f"The board throttled: {', '.join(flags)}. {state}", "bad"
    if warm:
        return f"The board was too warm to begin with, {max(warm):.1f} C, and did not cool down in time. {state}", "bad"
    if temperatures and max(temperatures) >= HOT_C:
        return f"The board was hot, where boards begin to throttle, though none was seen. {state}", "warn"
    if fall > CLOCK_FALL:
        return f"Its clock fell by {fall:.0%} meanwhile, by heat or for want of power. {state}", "warn"
    if temperatures:
        return f"The board was not hot. {state}", ""
    return f"Whether the board was hot is not known: it has no temperature sensor that can be read. {state}", "warn"


def _gather(conditions: Sequence[Conditions], name: str) -> list[float]:
    return [value for row in conditions for value in row.get(name) or () if value is not None]


def _find_fall(conditions: Sequence[Conditions]) -> float:
    """By how much of its highest value a clock was lower at the end, at the most."""
    clocks = [list(row.get("frequency_mhz") or ()) for row in conditions]
    return max((1 - values[-1] / max(values) for values in clocks if len(values) > 1 and max(values) > 0), default=0.0)


def _say_state(temperatures: Sequence[float], clocks: Sequence[float], flags: Sequence[str]) -> str:
    parts = [say_span(temperatures, "C", 1)] if temperatures else []
    parts += [f"clock {say_span(clocks, 'MHz')}" if clocks else "no clock can be read"]
    parts += [] if flags else ["no throttle flag was read"]
    text = ", ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def render_heat(before: Conditions | None, after: Conditions) -> str:
    """The answer, charts of what changed between the readings, and the figures of both measurements."""
    sides = [row for row in (before, after) if row is not None]
    answer, kind = describe_heat(sides)
    charts = [_draw_readings(name, title, before, after) for name, title in list(SHOWN.items())[:2]]
    columns = (Column("", text=True), *(Column(name, text=True, wide=True) for name in BEFORE_AFTER[-len(sides) :]))
    rows = [
        (title, *(say_plainly(row.get(name)) if _is_known(row.get(name)) else "not known" for row in sides))
        for name, title in SHOWN.items()
    ]
    table = render_table(Table(columns, rows, sorts=False))
    return paragraph(answer, kind) + "".join(render_chart(chart) for chart in charts if chart) + table


def _is_known(value: object) -> bool:
    return value not in (None, "", [], ())


def _draw_readings(name: str, title: str, before: Conditions | None, after: Conditions) -> Chart | None:
    """Readings from start to end, if they changed; both files' where they were not taken at the same moments."""
    series = {side: list((row or {}).get(name) or ()) for side, row in zip(BEFORE_AFTER, (before, after), strict=True)}
    if series["before"] == series["after"] or not series["before"]:
        series = {"both files": series["after"]}
    values = [value for readings in series.values() for value in readings]
    if len(set(values)) < 2:
        return None
    rows: list[dict[str, Any]] = [
        {"file": side, "reading": place, "value": float(value)}
        for side, readings in series.items()
        for place, value in enumerate(readings, 1)
    ]
    colours = dict(zip(series, (BEFORE, "var(--after)"), strict=False))
    spec = {
        "height": 160,
        "data": {"values": round_rows(rows)},
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": number_axis("reading", "reading, from start to end", axis={"tickMinStep": 1, "format": "d"}),
            "y": number_axis("value", title),
            "color": colour_by("file", colours),
            "tooltip": tooltip(file="file", reading="reading", value=title),
        },
    }
    alt = f"{title} from start to end of the measurement: " + "; ".join(
        f"{side} {readings[0]:.5g} first, {readings[-1]:.5g} last, highest {max(readings):.5g}"
        for side, readings in series.items()
        if readings
    )
    cells = [(row["file"], str(row["reading"]), f"{row['value']:.5g}") for row in rows]
    return Chart(spec, alt, Table((Column("file", text=True), Column("reading"), Column(title)), cells))
