"""What a run was taken under, and what came back of it: single lines that nothing else would miss."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from conversations import MODEL, open_board
from device_models import QUICK
from device_trees import write_tree
from edgeprune_agent.board import State
from edgeprune_agent.measure import describe_conditions
from edgeprune_agent.parsers import describe_throttled
from edgeprune_agent.prepare import find_cores
from edgeprune_agent.sustain import describe_window
from edgeprune_agent.timing import Window

from edgeprune.core.target import Target
from edgeprune.device.agent.measure import evaluate_model
from edgeprune.errors import RemoteError

COOL = State(mhz=1500.0, temperature_c=48.0, load=0.1, throttle_bits=0, throttle_events=7)
TARGET = Target("rpi4", "a board of the tests", protocol=QUICK)


def with_events(*counts: int) -> list[State]:
    return [COOL._replace(throttle_events=count) for count in counts]


@pytest.mark.parametrize(
    ("counts", "throttled"),
    [((7, 7, 7), []), ((7, 7, 8), ["thermal throttling"]), ((7, 9, 9), ["thermal throttling"]), ((0, 0), [])],
)
def test_throttle_events_count_where_they_grow_during_the_run(
    tmp_path: Path, counts: tuple[int, ...], throttled: list[str]
) -> None:
    """They are counted since the start of the board: what was before the run is no matter of it."""
    assert describe_conditions(with_events(*counts), 1, str(tmp_path))["throttled"] == throttled


@pytest.mark.parametrize(("before", "after", "said"), [(7, 7, []), (7, 8, ["thermal throttling"]), (8, 7, [])])
def test_a_window_of_a_long_run_tells_its_own_throttle_events(before: int, after: int, said: list[str]) -> None:
    first, second = with_events(before, after)
    taken = Window(0, [3, 1, 2], 6, 6, 0, 0)
    assert describe_window(1.0, taken, first, second)["throttled"] == said


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0x4, 0x0, ["throttled"]),  # at the start
        (0x0, 0x1, ["under-voltage"]),  # at the end
        (0x0, 0x20000, ["frequency capped"]),  # newly recorded between
        (0x20000, 0x20000, []),  # before the run
        (0x80008, 0x80000, ["soft temperature limit"]),
    ],
)
def test_bits_of_the_firmware_count_where_they_hold_or_are_new(before: int, after: int, said: list[str]) -> None:
    assert describe_throttled(before, after) == said


def pack(array: np.ndarray) -> bytes:
    packed = io.BytesIO()
    np.save(packed, array)
    return packed.getvalue()


def fetch(content: bytes, name: str, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Outputs that a board names, whose file comes back with other content."""
    device = open_board("evaluate", [f'{{"event": "result", "outputs": "{name}", "rows": 2}}', '{"event": "end"}'])

    def get(remote: str, local: Path) -> None:
        assert remote == f"{device.workspace}/arrays/{Path(name).name}"
        local.write_bytes(content)

    monkeypatch.setattr(device.transport, "get", get)
    return evaluate_model(device, MODEL, np.zeros((2, 3), np.float32), lambda text: None)


def test_outputs_that_are_not_what_the_board_named_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    good, other = pack(np.ones((2, 3), np.float32)), pack(np.zeros((2, 3), np.float32))
    name = hashlib.sha256(good).hexdigest() + ".npy"
    np.testing.assert_array_equal(fetch(good, name, monkeypatch), np.ones((2, 3)))
    for damaged in (other, good[:-1], good + b"\0", b""):
        with pytest.raises(RemoteError, match="board: the outputs were damaged on the way; run the same command again"):
            fetch(damaged, name, monkeypatch)


def test_outputs_that_are_whole_and_no_array_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"not an array"
    with pytest.raises(RemoteError, match="the outputs are not an array"):
        fetch(text, hashlib.sha256(text).hexdigest() + ".npy", monkeypatch)


def test_the_fastest_cores_are_as_many_as_threads(tmp_path: Path) -> None:
    clocks = {0: 1400, 1: 1800, 2: 1800, 3: 600}
    files = {
        f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq": f"{mhz}000\n" for core, mhz in clocks.items()
    }
    root = write_tree(tmp_path, files)
    assert find_cores("fastest", 1, root) == [2]
    assert find_cores("fastest", 2, root) == [1, 2]
    assert find_cores("fastest", 3, root) == [0, 1, 2]
