"""Estimated cycles: the shipped table against what was published, its arithmetic, and documents that are refused."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from estimated import add, conv, pool
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT

from edgeprune.core.estimating.cycles import TERMS, CycleTable, count_net, find_term, parse_cycles, render_cycles
from edgeprune.core.latency.layers import LayerShape
from edgeprune.errors import ProfileError

PATH = ROOT / "hardware_profiles" / "cycles" / "mcu.json"
TEXT = PATH.read_text()
TABLE = parse_cycles(TEXT, PATH.name)


def resnet8() -> tuple[LayerShape, ...]:
    """The image-classification net of MLPerf Tiny (Banbury et al. 2021)."""
    layers, channels, size = [conv(3, 16, 32)], 16, 32
    for cout, stride in ((16, 1), (32, 2), (64, 2)):
        layers += [conv(channels, cout, size, 3, stride), conv(cout, cout, size // stride)]
        layers += [conv(channels, cout, size, 1, stride)] if stride > 1 else []
        channels, size = cout, size // stride
        layers.append(add(channels, size))
    return (*layers, pool(64, 8, 8, 8), LayerShape("linear", 64, 10), LayerShape("softmax", 10, 10))


def ds_cnn() -> tuple[LayerShape, ...]:
    """Its keyword-spotting net."""
    stem = LayerShape("conv", 1, 64, (10, 4), (2, 2), 1, (49, 10), (5, 1), output=(25, 5))
    depthwise = LayerShape("conv", 64, 64, (3, 3), (1, 1), 64, (25, 5), (1, 1))
    pointwise = LayerShape("conv", 64, 64, (1, 1), (1, 1), 1, (25, 5), (0, 0))
    last = LayerShape("pool", 64, 64, (25, 5), (25, 5), 1, (25, 5), (0, 0))
    return (stem, *[depthwise, pointwise] * 4, last, LayerShape("linear", 64, 12), LayerShape("softmax", 12, 12))


def autoencoder() -> tuple[LayerShape, ...]:
    """Its anomaly-detection net."""
    widths = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640]
    return tuple(LayerShape("linear", *pair) for pair in pairwise(widths))


NETS = {"ic": resnet8(), "kws": ds_cnn(), "ad": autoencoder()}
PUBLISHED = [
    ("Cortex-M4", "x-cube-ai", 120, {"ad": 6.857, "ic": 213.995, "kws": 62.873}),
    ("Cortex-M7", "x-cube-ai", 280, {"ad": 1.818, "ic": 51.948, "kws": 15.353}),
    ("Cortex-M33", "x-cube-ai", 160, {"ad": 4.850, "ic": 128.205, "kws": 38.580}),
    ("Cortex-M4", "tflm", 120, {"ad": 10.052, "ic": 704.225, "kws": 181.917}),
    ("Cortex-M0+", "hale", 64, {"ad": 46.546, "ic": 1669.449, "kws": 679.348}),
    ("Cortex-M4", "microtvm-cmsis-nn", 120, {"ad": 8.605, "ic": 389.560, "kws": 99.810}),
]
"""Milliseconds of MLPerf Tiny v0.5, v1.0 and v1.1 by core, runtime and MHz."""


@pytest.mark.parametrize(("core", "runtime", "clock_mhz", "measured_ms"), PUBLISHED)
def test_published_results_lie_in_their_intervals(
    core: str, runtime: str, clock_mhz: float, measured_ms: dict[str, float]
) -> None:
    prices = TABLE.choose(core, runtime)
    for net, published_ms in measured_ms.items():
        middle_ms, low_ms, high_ms = prices.estimate(NETS[net]).at(clock_mhz)
        assert low_ms < published_ms < high_ms, (net, low_ms, high_ms)
        assert middle_ms == pytest.approx(published_ms, rel=0.15), net


def test_every_entry_says_what_it_rests_on_and_no_interval_is_narrower_without_results() -> None:
    assert all(bool(entry.submissions) == (entry.basis == "published") for entry in TABLE.entries)
    for entry in TABLE.entries:
        kin = [one.spread for one in TABLE.entries if one.runtime == entry.runtime and one.basis == "published"]
        assert entry.basis == "published" or not kin or entry.spread > max(kin)
        assert entry.prices["depthwise"] > entry.prices["pointwise"]


def test_cycles_of_a_net_are_those_of_its_layers_and_ms_follow_the_clock() -> None:
    prices, net = TABLE.choose("Cortex-M4", "tflm"), NETS["kws"]
    one, two = prices.estimate(net), prices.estimate(net * 2)
    assert two.cycles == pytest.approx(2 * one.cycles) == pytest.approx(2 * sum(map(prices.price, net)))
    assert one.low < one.cycles < one.high
    assert one.at(240)[0] == pytest.approx(one.at(120)[0] / 2) == pytest.approx(one.cycles / 240e3)


def test_work_is_counted_by_kind() -> None:
    work = dict(zip(TERMS, count_net([conv(3, 8, 10), conv(8, 8, 10, groups=8), conv(8, 4, 10, 1)]), strict=True))
    assert work == {
        "stem": 100 * 8 * 27,
        "conv": 0,
        "pointwise": 100 * 32,
        "depthwise": 100 * 8 * 9,
        "linear": 0,
        "outputs": 100 * (8 + 8 + 4),
        "packing": 100 * 27,
        "windows": 0,
        "values": 0,
        "calls": 3,
    }
    assert find_term(conv(4, 8)) == "conv"
    assert find_term(replace(conv(8, 8), groups=4)) == "stem", "two channels to each filter"
    assert count_net([add(6, 5)])[TERMS.index("values")] == 150
    assert count_net([pool(6, 4, 4, 4)])[TERMS.index("windows")] == 96
    assert not count_net([replace(conv(8, 8), cout=0)]).any()


def test_an_operator_of_no_published_net_is_refused_by_name() -> None:
    with pytest.raises(ProfileError, match="'attention'"):
        TABLE.choose("Cortex-M4", "tflm").estimate([LayerShape("attention", 8, 8, groups=2, size=(4, 4))])


def test_what_was_never_published_is_refused_with_what_was() -> None:
    with pytest.raises(ProfileError, match=r"no estimate of Cortex-M55.*Cortex-M7"):
        TABLE.choose("Cortex-M55", "tflm")
    with pytest.raises(ProfileError, match=r"in 'tfml'.*did you mean"):
        TABLE.choose("Cortex-M4", "tfml")
    with pytest.raises(ProfileError, match="esp-dl"):
        TABLE.choose("Cortex-M4", "esp-dl")


def test_a_table_is_read_as_it_was_written() -> None:
    assert parse_cycles(render_cycles(TABLE), "again") == TABLE


def broken(change: Any) -> str:
    document = json.loads(TEXT)
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.update(version=2),
        lambda table: table.update(origin="measured"),
        lambda table: table.pop("sources"),
        lambda table: table.update(entries=None),
        lambda table: table["entries"][0]["prices"].pop("conv"),
        lambda table: table["entries"][0]["prices"].update(conv=0),
        lambda table: table["entries"][0].update(spread=float("nan")),
        lambda table: table["entries"][0].update(basis="measured"),
        lambda table: table["runtimes"].pop(0),
    ],
)
def test_another_document_is_refused(change: Any) -> None:
    with pytest.raises(ProfileError, match=r"mine\.json"):
        parse_cycles(broken(change), "mine.json")


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists)
KEYS = ["version", "origin", "sources", "runtimes", "entries", "left_out"]


@given(st.one_of(JSON, st.dictionaries(st.sampled_from(KEYS), JSON | st.just(1) | st.just("estimated"))))
def test_whatever_the_document_only_its_own_error_comes(document: Any) -> None:
    with suppress(ProfileError):
        assert isinstance(parse_cycles(json.dumps(document), "mine.json"), CycleTable)
