"""The progress line: time left of what counts, one line on a terminal, few lines elsewhere."""

from __future__ import annotations

import io
import logging
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.cli import progress
from edgeprune.cli.progress import clear_line, measure_share, name_count, say, say_timed, shorten, show_log
from edgeprune.core.progress import Count, put_behind


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> str:
        """What a reader sees: the lines that stay, and the one that is written over as it is now."""
        return "\n".join(line.rsplit("\x1b[K", 1)[-1] for line in self.getvalue().split("\n"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that the test sets; the display is new, and no thread draws."""
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.s))
    monkeypatch.setattr(progress, "_DISPLAY", progress.Display(ticks=True))
    monkeypatch.setattr(progress, "_STARTED", 100.0)
    return now


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("CI", raising=False)
    return stream


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("recover: epoch 3 of 12, loss 0.2", 3 / 12),
        ("sensitivity: blocks.1.conv1 (3 of 9)", 3 / 9),
        ("process 3 of 8: loading 66 models", 2 / 8),
        ("process 2 of 8, round 32 of 64", (1 + 0.5) / 8),
        ("probes 65 to 128 of 256", 64 / 256),
        ("probes 65 to 128 of 256, process 2 of 2: loading 66 models", (64 + 64 / 2) / 256),
        ("model 3 of 26, cold start 2 of 3: original", (2 + 1 / 3) / 26),
        ("classifier: 40 of 100 inputs", 0.4),
        ("0.1 of the nodes", None),
        ("64 of 12 inputs", None),
        ("0 of 12", None),
        ("others take 1.02 of 2 cores", None),
        ("local answers", None),
    ],
)
def test_a_text_says_how_far_it_is(text: str, share: float | None) -> None:
    assert measure_share(text) == (None if share is None else pytest.approx(share))


@given(st.text(st.sampled_from("0123456789 of:to,.x"), max_size=30))
def test_a_share_is_a_share_or_none(text: str) -> None:
    share = measure_share(text)
    assert share is None or 0 <= share <= 1


def test_steps_of_one_count_have_one_name_and_others_another() -> None:
    names = ["process 1 of 8: loading 2 models", "process 2 of 8, round 5 of 64", "process 1 of 4: loading 2 models"]
    assert name_count(names[0]) == name_count(names[1]) != name_count(names[2])
    assert name_count("desk: process 1 of 8") != name_count(names[0])


def test_the_time_left_follows_from_how_fast_it_went(clock: Any, terminal: Terminal) -> None:
    say_timed(Count("  sensitivity: a (2 of 10)"))
    assert "left" not in terminal.shown
    clock.s += 30
    say_timed(Count("  sensitivity: b (5 of 10)"))  # three in 30 s, five to go
    assert terminal.shown.endswith("30.0 s  sensitivity: b (5 of 10), 50 s left")
    clock.s += 20
    progress._draw()
    assert terminal.shown.endswith("50.0 s  sensitivity: b (5 of 10), 30 s left")
    clock.s += 600
    progress._draw()
    assert terminal.shown.endswith(", 0 s left")


def test_what_a_recipe_logs_is_progress(clock: Any, terminal: Terminal) -> None:
    show_log()
    show_log()
    logger = logging.getLogger("edgeprune")
    logger.info("mine: training, epoch %d of %d", 1, 10)
    clock.s += 30
    logger.info("mine: training, epoch %d of %d", 4, 10)
    assert terminal.shown.endswith("  mine: training, epoch 4 of 10, 60 s left")
    logger.warning("mine: made inputs")
    assert terminal.shown.count("mine: made inputs") == 1


def test_a_text_that_tells_it_itself_tells_it_once(clock: Any, terminal: Terminal) -> None:
    say(Count("recover: epoch 1 of 4, 9 s left"))
    clock.s += 10
    say(Count("recover: epoch 2 of 4, 6 s left"))
    assert terminal.shown.count("left") == 1


def test_a_result_with_such_numbers_stays(clock: Any, terminal: Terminal) -> None:
    say_timed("  fine-tuning: epoch 11 of 12 is kept")
    clock.s += 1
    say_timed(Count("  exporting 1 of 3: onnx"))
    say_timed("  655 of 655 layer shapes measured")
    assert re.sub(r" +[\d.]+ s  ", "", terminal.shown) == (
        "  fine-tuning: epoch 11 of 12 is kept\n  655 of 655 layer shapes measured\n"
    )


def test_words_before_a_count_leave_it_one() -> None:
    assert isinstance(put_behind("desk: ", Count("round 1 of 2")), Count)
    assert not isinstance(put_behind("desk: ", "round 1 of 2"), Count)


def test_a_count_that_begins_again_forgets_what_was(clock: Any, terminal: Terminal) -> None:
    say(Count("probes 1 to 64 of 128"))
    clock.s += 10
    say(Count("probes 65 to 128 of 128"))
    clock.s += 500
    say(Count("probes 1 to 64 of 128"))
    clock.s += 10
    say(Count("probes 65 to 128 of 128"))
    assert terminal.shown.endswith("10 s left")


def test_one_line_on_a_terminal_and_others_stay(clock: Any, terminal: Terminal) -> None:
    say_timed("[1/12] trace")
    for number in range(1, 6):
        clock.s += 1
        say_timed(Count(f"  recover: epoch {number} of 5"))
    say_timed("[2/12] profile")
    assert re.sub(r" +[\d.]+ s  ", "", terminal.shown) == "[1/12] trace\n[2/12] profile\n"


def test_what_does_not_count_tells_for_how_long_it_is_at_work(clock: Any, terminal: Terminal) -> None:
    say_timed("  measuring 24 whole nets")
    clock.s += 7
    progress._draw()
    assert terminal.shown.endswith("   7.0 s  measuring 24 whole nets, for 7 s")
    clear_line()
    assert terminal.shown.endswith("\n")
    assert not progress._DISPLAY.line


def test_no_line_is_wider_than_the_terminal(clock: Any, terminal: Terminal) -> None:
    say_timed(Count(f"  a/{'long' * 40}: 3 of 9 inputs"))
    say_timed("  " + "many words " * 30)
    assert max(map(len, terminal.shown.split("\n"))) <= 80


@pytest.mark.parametrize(("name", "value"), [("", ""), ("CI", "true"), ("TERM", "dumb")])
def test_elsewhere_a_count_takes_a_line_in_ten_seconds(
    name: str, value: str, clock: Any, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value) if name else monkeypatch.setattr(terminal, "isatty", lambda: False)
    for number in range(1, 61):
        say_timed(Count(f"  recover: epoch {number} of 60"))
        clock.s += 1
    lines = terminal.getvalue().splitlines()
    assert "\r" not in terminal.getvalue()
    assert "\x1b" not in terminal.getvalue()
    assert [int(line.split()[4]) for line in lines] == [1, 11, 21, 31, 41, 51]
    assert lines[3].endswith("epoch 31 of 60, 29 s left")


def test_a_stream_that_nobody_reads_stops_nothing(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=Gone()))
    say("local answers")
    say(Count("epoch 1 of 2"))


@given(st.text(max_size=200), st.integers(10, 100))
def test_a_shortened_text_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = shorten(text, width)
    assert len(short) <= width
    assert short == text or (text.startswith(short.split("...")[0]) and short[-2:] == text[-2:])
