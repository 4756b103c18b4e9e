"""How long tensors live, step by step."""

from __future__ import annotations

import pytest

from edgeprune.core.memory.arena import Buffer
from edgeprune.core.memory.timeline import Activation, Step, Timeline, shorten_name


def make_timeline(*steps: Step, sizes: dict[str, int], outputs: tuple[str, ...] = ("out",)) -> Timeline:
    tensors = {name: Activation("INT8", (1, size), size) for name, size in sizes.items()}
    return Timeline(steps, tensors, ("in",), outputs)


def test_inputs_live_from_the_start_and_outputs_to_the_end() -> None:
    steps = Step("CONV_2D", ("in",), ("out",)), Step("ADD", ("in",), ("side",)), Step("RELU", ("side",), ("rest",))
    timeline = make_timeline(*steps, sizes={"in": 8, "out": 4, "side": 2, "rest": 1})
    spans = {buffer.name: (buffer.first, buffer.last) for buffer in timeline.buffers}
    assert spans == {"in": (0, 1), "out": (0, 2), "side": (1, 2), "rest": (2, 2)}


def test_a_tensor_lives_until_its_last_reader() -> None:
    steps = (
        Step("CONV_2D", ("in",), ("stem",)),
        Step("CONV_2D", ("stem",), ("wide",)),
        Step("ADD", ("stem", "wide"), ("out",)),
    )
    timeline = make_timeline(*steps, sizes={"in": 8, "stem": 4, "wide": 2, "out": 1})
    assert [buffer.name for buffer in timeline.list_alive(1)] == ["stem", "wide"]
    assert timeline.buffers[1] == Buffer("stem", 4, 0, 2)


def test_scratch_lives_for_one_step_and_comes_last() -> None:
    steps = Step("MEAN", ("in",), ("mid",), (64,)), Step("RELU", ("mid",), ("out",))
    timeline = make_timeline(*steps, sizes={"in": 16, "mid": 16, "out": 16})
    assert timeline.buffers[-1] == Buffer("scratch 0 of step 0", 64, 0, 0)
    assert timeline.arena.alive_bytes == (96, 32)


def test_an_input_that_nothing_reads_takes_no_place() -> None:
    timeline = make_timeline(Step("RELU", ("in",), ("out",)), sizes={"in": 16, "out": 16, "unread": 99})
    assert [buffer.name for buffer in timeline.buffers] == ["in", "out"]


def test_operators_that_are_missing_are_named_with_their_steps() -> None:
    steps = Step("GELU", ("in",), ("a",)), Step("CONV_2D", ("a",), ("b",)), Step("GELU", ("b",), ("out",))
    assert make_timeline(*steps, sizes={}).list_missing() == {"GELU": (0, 2)}


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("model/conv2d/Relu;model/conv2d/Conv2D", "model/conv2d/Conv2D"),
        ("a.Net/torch.nn.modules.container.Sequential_a/torch.nn.modules.conv.Conv2d_0;1", "Sequential_a/Conv2d_0"),
        ("app.Net/torch.nn.modules.conv.Conv2d_a;;app.Net/torch.nn.modules.conv.Conv2d_b;", "Conv2d_b"),
        ("x" * 80, "…" + "x" * 35),
        ("", ""),
    ],
)  # fmt: skip
def test_names_are_short(name: str, short: str) -> None:
    assert shorten_name(name) == short


def test_short_names_that_are_alike_have_numbers() -> None:
    names = ("in", "a;same", "b;same")
    timeline = make_timeline(Step("RELU", ("in",), names[1:]), sizes=dict.fromkeys(names, 1), outputs=(names[1],))
    assert timeline.labels == {"in": "in", "a;same": "same", "b;same": "same (2)"}
