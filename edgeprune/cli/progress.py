"""What a command says while it works, on standard error: a line that is written over on a terminal, else few lines.

From how fast the numbers of a Count grow comes the time left.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import click

from edgeprune.core.progress import Count
from edgeprune.core.text import describe_duration, wrap

_STARTED = time.monotonic()
COUNT = re.compile(r"(?<![.\d])(\d+)(?: to (\d+))? of (\d+)\b")
STAMP = re.compile(r"^ *[0-9.]+ s  ")
SAY_S = 10.0
"""Where lines stay, one at most in so long of what counts the same."""
TICK_S = 1.0
LEAST_S = 2.0
"""What has taken less tells no time left yet."""


@dataclass
class Course:
    """A count under way: when it began and how far it was then, as a fraction, and how far it is."""

    begun_s: float
    begun_at: float
    share: float
    said_s: float | None = None


@dataclass
class Display:
    """What is shown: the counts under way, and the line that is written over."""

    courses: dict[str, Course] = field(default_factory=dict)
    line: str = ""
    """What is at work; empty where nothing is, or nothing is written over."""
    counts: bool = False
    left_s: float | None = None
    told_s: float = 0.0
    is_drawn: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)
    ticks: bool = False


_DISPLAY = Display()


def say(text: str) -> None:
    """Progress; where nobody takes it any more, what it is about goes on."""
    _show(text, "")


def say_timed(text: str) -> None:
    """Progress, with the seconds since the start."""
    _show(text, f"{time.monotonic() - _STARTED:6.1f} s  ")


class _Progress(logging.Handler):
    """What recipes log, as progress."""

    def emit(self, record: logging.LogRecord) -> None:
        say_timed(Count(f"  {record.getMessage()}"))


def show_log() -> None:
    """Let what is logged under the package's name show as progress: a recipe's own training, what data it took."""
    logger = logging.getLogger("edgeprune")
    if not any(isinstance(handler, _Progress) for handler in logger.handlers):
        logger.addHandler(_Progress())
        logger.setLevel(logging.INFO)


def clear_line() -> None:
    """Take the line away that is written over, before anything else is printed."""
    with _DISPLAY.lock, suppress(OSError, ValueError):
        if _DISPLAY.is_drawn:
            click.echo("\r\x1b[K", nl=False, file=sys.stderr, color=True)
        _DISPLAY.line, _DISPLAY.is_drawn = "", False


def measure_share(text: str) -> float | None:
    """How far a text says that its work is, in [0, 1]; None where it does not count.

    `epoch 3 of 20` has done three. Begun and not done are `process 3 of 8: loading`, with its colon, `33 to 64 of 96`,
    and the first of `process 2 of 8, round 32 of 64`, which is half done.
    """
    share: float | None = None
    for match in reversed(list(COUNT.finditer(text))):
        first, last, total = int(match[1]), int(match[2] or match[1]), int(match[3])
        if not 0 < first <= last <= total:
            return None
        is_done = share is None and match[2] is None and text[match.end() : match.end() + 1] != ":"
        inner = 1.0 if is_done else share or 0.0
        share = (first - 1 + (last - first + 1) * inner) / total
    return share


def name_count(text: str) -> str:
    """What counts the same has the same name: the first word, and how many there are in all."""
    match = COUNT.search(text)
    return f"{text.split(maxsplit=1)[0].rstrip(':,')} of {match[3] if match else ''}"


def lives() -> bool:
    """Whether standard error is a terminal on which a line can be written over."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def _show(text: str, stamp: str) -> None:
    with _DISPLAY.lock, suppress(OSError):
        share = measure_share(text) if isinstance(text, Count) else None
        if share is None:
            clear_line()
            _keep(stamp + text)
            return
        course, now_s = _follow(text, share), time.monotonic()
        left_s = estimate_left(course, now_s)
        if lives():
            _write_over(text, left_s)
        elif course.said_s is None or now_s - course.said_s >= SAY_S:
            course.said_s = now_s
            click.echo(stamp + text + _tell_left(text, left_s), file=sys.stderr)


def _keep(line: str) -> None:
    """Print a line that stays; on a terminal it is also what is at work."""
    if lives():
        click.echo(wrap(line, shutil.get_terminal_size().columns), file=sys.stderr)
        _note(STAMP.sub("", line).strip(), None, counts=False)
    else:
        click.echo(line, file=sys.stderr)


def _follow(text: str, share: float) -> Course:
    """The count that a text belongs to, begun anew where it has gone back."""
    name = name_count(text)
    course = _DISPLAY.courses.get(name)
    if course is None or share < course.share:
        course = _DISPLAY.courses[name] = Course(time.monotonic(), share, share, course.said_s if course else None)
    course.share = share
    return course


def estimate_left(course: Course, now_s: float) -> float | None:
    """Seconds left, if the rest goes as fast as what has been; None while too little has been."""
    taken_s, gone = now_s - course.begun_s, course.share - course.begun_at
    return taken_s * (1 - course.share) / gone if taken_s >= LEAST_S and gone > 0 else None


def _tell_left(text: str, left_s: float | None) -> str:
    return "" if left_s is None or text.endswith(" left") else f", {describe_duration(left_s)} left"


def _write_over(text: str, left_s: float | None) -> None:
    _note(text.strip(), left_s, counts=True)
    _draw()


def _note(text: str, left_s: float | None, counts: bool) -> None:
    """Take a text for what is at work, to be drawn by the ticks too."""
    _DISPLAY.line, _DISPLAY.counts = text, counts
    _DISPLAY.left_s, _DISPLAY.told_s = left_s, time.monotonic()
    if not _DISPLAY.ticks:
        _DISPLAY.ticks = True
        atexit.register(clear_line)
        threading.Thread(target=_tick, daemon=True, name="progress").start()


def _draw() -> None:
    """Write the line over: with the time left of what counts, else for how long it has been at work."""
    since_s = time.monotonic() - _DISPLAY.told_s
    left_s = None if _DISPLAY.left_s is None else max(0.0, _DISPLAY.left_s - since_s)
    ending = _tell_left(_DISPLAY.line, left_s) if _DISPLAY.counts else f", for {since_s:.0f} s"
    stamp = f"{time.monotonic() - _STARTED:6.1f} s  "
    room = shutil.get_terminal_size().columns - 1 - len(stamp) - len(ending)
    line = shorten(_DISPLAY.line, max(room, 10))
    click.echo(f"\r\x1b[K{stamp}{line}{ending}", nl=False, file=sys.stderr, color=True)
    _DISPLAY.is_drawn = True


def shorten(text: str, width: int) -> str:
    """A text with dots in its middle, where it is longer than that."""
    if len(text) <= width:
        return text
    head = (width - 3) // 2
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def _tick() -> None:
    """Let the time go on, so that it is seen that something is at work."""
    while True:
        time.sleep(TICK_S)
        with _DISPLAY.lock, suppress(OSError, ValueError):
            if _DISPLAY.line and (_DISPLAY.counts or time.monotonic() - _DISPLAY.told_s >= LEAST_S):
                _draw()
