"""What the terminal shows: 80 columns, whatever the net is called, and names that are not known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from chain_problem import FULL, make_chain

from edgeprune.core.explaining.outputs import compare_errors
from edgeprune.core.explaining.plan import Basis, explain_plan
from edgeprune.core.explaining.render import render_explanation, render_waterfall
from edgeprune.core.explaining.render_group import find_place, render_place, select
from edgeprune.core.explaining.waterfall import Times, describe_waterfall
from edgeprune.core.planning.plan import GroupPlan, PruningPlan
from edgeprune.core.planning.planner import choose_widths, predict_ms
from edgeprune.errors import UsageError
from edgeprune.pruning.importance import keep_best

SCORES = [float(7 * channel % 64) for channel in range(64)]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """A chain at half of its ms, measured; as it is read back from a file."""
    problem = make_chain()
    cap_ms = predict_ms(problem, FULL) / 2
    choice = choose_widths(problem, cap_ms)
    entries = tuple(
        GroupPlan(name, 64, keep_best(np.array(SCORES), width), problem.loss[name][width])
        for name, width in choice.widths.items()
    )
    plan = PruningPlan(entries, "0" * 64, choice.latency_ms, cap_ms, choice.loss_increase, choice.gap)
    explained = explain_plan(plan, Basis(problem, cap_ms, dict.fromkeys(FULL, SCORES), "l2", 48))
    times = Times(1.0, 1.0, 0.6, 0.6, end="artifacts/pruned.fp32.onnx, p50")
    row = {"corruption": "none", "severity": 0, "before": 0.3, "after": None, "drop": None, "chance": None}
    document = {
        "plan": explained,
        "waterfall": describe_waterfall(explained["parts"], times, "desk: " + "a long name of a CPU " * 6, False),
        "warnings": [{"kind": "few_channels", "where": "a", "text": "8 of 64 channels are left"}],
        "outputs": {"runtime": "onnxruntime", "machine": "this machine", "note": ""},
        "errors": compare_errors(np.zeros(9), np.arange(9.0), "K"),
        "robustness": {
            "inputs": 9,
            "metric": {"name": "RMSE", "better": "lower", "unit": "K"},
            "rows": [row, *({**row, "corruption": "noise", "severity": severity} for severity in (1, 3, 5))],
        },
        "missing": {"excited": "inputs are no images", "classes": "no output a class and class an input"},
    }
    return dict(json.loads(json.dumps(document, allow_nan=False)))


def test_everything_fits_80_columns(document: dict[str, Any]) -> None:
    long = json.loads(json.dumps(document).replace('"a"', '"backbone.features.stage3.block12.conv_pw_1.0.conv"'))
    text = render_explanation(long)
    assert max(map(len, text.splitlines())) <= 80
    assert "NOT VALID" in text
    assert "warning: backbone.features.stage3.block12.conv_pw_1.0.conv: 8 of 64 channels" in text
    assert "not told: excited: inputs are no images" in text
    assert "classes" not in text  # as errors stand for them


def test_what_macs_promise_is_held_against_what_was_saved_in_the_same_precision(document: dict[str, Any]) -> None:
    times = Times(2.0, 1.0, 0.6, 0.6)
    waterfall = describe_waterfall(document["plan"]["parts"], times, "a board", True)
    share = 1 - document["plan"]["parts"]["macs_after"] / document["plan"]["parts"]["macs_before"]
    text = " ".join(render_waterfall(waterfall).split())
    assert f"of {share:.4g} ms that they promise, 0.4 were saved" in text
    assert "NOT VALID" not in text


def test_the_whole_says_what_bound_each_group_and_its_other_widths(document: dict[str, Any]) -> None:
    lines = render_explanation(document).splitlines()
    head = next(line for line in lines if line.startswith("group"))
    assert head.split()[-2:] == [f"{document['plan'][side]['share']:+.0%}" for side in ("less", "more")]
    for row in document["plan"]["groups"]:
        line = next(line for line in lines if line.startswith(f"{row['group']} "))
        cells = line.split()
        assert cells[1:5] == [str(row["width"]), "of", "64", row["bound_by"][0]]
        shown = ["=" if row[name] == row["width"] else str(row[name]) for name in ("width_at_less", "width_at_more")]
        assert cells[-2:] == shown


def test_a_group_shows_its_curve_and_the_channels_that_went_best_first(document: dict[str, Any]) -> None:
    row = next(row for row in document["plan"]["groups"] if row["width"] < 32)
    text = render_place(document, find_place(document["plan"], row["group"]))
    lines = [line.split() for line in text.splitlines()]
    for point in row["curve"]:
        assert [str(point["width"]), f"{point['loss_increase']:.4f}"] in [cells[:2] for cells in lines]
    start = lines.index(["channel", "that", "went", "l2", "score", "rank"])
    ranks = [int(cells[2]) for cells in lines[start + 2 : start + 10]]
    assert ranks == list(range(row["width"] + 1, row["width"] + 9))
    assert "planned" in text
    cut = 64 - row["width"]
    assert (f"and {cut - 40} of lower scores" in text) == (cut > 40)


def test_a_channel_is_told_with_the_width_that_it_needs(document: dict[str, Any]) -> None:
    row = next(row for row in document["plan"]["groups"] if row["cut"])
    channel = row["cut"][0]
    text = render_place(document, find_place(document["plan"], f"{row['group']}:{channel}"))
    rank = row["ranks"][channel]
    assert f"channel {channel} of {row['group']} went" in text
    assert f"rank {rank} of 64" in text
    assert f"it stays at a width of {-(-rank // 8) * 8} or more" in text
    kept = next(other for other in range(64) if other not in row["cut"])
    assert "stays" in render_place(document, find_place(document["plan"], f"{row['group']}:{kept}"))


def test_a_layer_leads_to_its_group_and_one_without_says_so(document: dict[str, Any]) -> None:
    place = find_place(document["plan"], "l0")
    assert [row["group"] for row in place.groups] == ["a"]
    assert "layer l0" in render_place(document, place)
    last = find_place(document["plan"], "l3")
    assert last.groups == ()
    assert "belong to no group that may be cut" in render_place(document, last)
    assert select(document, place)["layer"]["layer"] == "l0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("l00", "no group or layer 'l00' in this net; did you mean 'l0'?"),
        ("l00:3", "no group or layer 'l00:3' in this net; did you mean 'l0'?"),
        ("a:64", "a has channels 0 to 63, and no 64"),
        ("l3:0", "l3 has no channels that may be cut one by one; leave out :0"),
        ("a:x", "no group or layer 'a:x'"),
        ("", "no group or layer ''"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is_near(document: dict[str, Any], text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        find_place(document["plan"], text)
