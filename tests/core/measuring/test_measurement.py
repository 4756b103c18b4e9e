"""Measurements: which are valid, what stands when two are pooled, and what is written down."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgeprune.core.measuring.measurement import Conditions, Measurement, Protocol, parse_measurement
from edgeprune.core.measuring.pooling import pool_measurements
from edgeprune.core.measuring.validity import find_problems


def measurement(samples: list[float], throttled: tuple[str, ...] = ()) -> Measurement:
    conditions = Conditions(threads=1, throttled=throttled)
    return Measurement("a", "0" * 64, "onnxruntime", "1.0", "f", conditions, 1.0, 1.0, 10, tuple(samples), 5.0)


SHORT = Protocol(min_duration_s=0.14)


@pytest.mark.parametrize(
    ("samples", "throttled", "problem"),
    [
        ([], (), "no samples"),
        ([1.0] * 20, (), "too short: 20 samples in 0.02 s; 100 samples and 0.14 s are asked for"),
        ([1.0] * 132, (), "too short"),
        ([50.0] * 99, (), "too short"),
        ([1.0] * 180 + [2.1] * 20, (), "unstable: p95 is 2.1 times the median"),
        ([1.0] * 195 + [4.1] * 5, (), "unstable: p99 is 4.1 times the median"),
        ([1.0, 3.0] * 100, (), "unstable: spread"),
        ([1.0] * 100 + [1.4] * 200, (), "unstable: the last third"),
        ([1.0] * 200, ("under-voltage",), "throttled: under-voltage"),
    ],
)
def test_invalid_runs_say_why(samples: list[float], throttled: tuple[str, ...], problem: str) -> None:
    assert any(problem in text for text in find_problems(measurement(samples, throttled), SHORT))


def test_a_tail_of_means_is_not_called_one_of_runs() -> None:
    means = replace(measurement([1.0] * 180 + [2.1] * 20), runs_per_sample=74)
    assert find_problems(means, SHORT) == ("unstable: p95 of the means is 2.1 times the median",)


def test_steady_run_is_valid_and_survives_json() -> None:

    assert find_problems(measurement([1.0] * 134), SHORT) == ()  # nearly as long as asked for
    steady = measurement([1.0, 1.01, 0.99] * 50)
    assert find_problems(steady, SHORT) == ()
    assert parse_measurement(json.loads(json.dumps(steady.to_dict()))) == steady


def test_of_two_measurements_the_worse_condition_stands() -> None:
    first, second = measurement([1.0] * 3, ("under-voltage",)), measurement([2.0] * 2, ("frequency capped",))
    second = replace(second, conditions=replace(second.conditions, others_cores=0.5, too_warm_c=71.0))
    pooled = pool_measurements(first, second)
    assert pooled.samples_ms == (1.0, 1.0, 1.0, 2.0, 2.0)
    assert pooled.warmup_runs == 20
    assert pooled.conditions.throttled == ("under-voltage", "frequency capped")
    assert (pooled.conditions.others_cores, pooled.conditions.too_warm_c) == (0.5, 71.0)
    assert pool_measurements(second, first).conditions.others_cores == 0.5


def test_conditions_say_how_far_a_fixed_loop_varied_where_several_processes_ran_it() -> None:
    assert Conditions(1, others_cores=0.25, arithmetic_us=(10.0, 11.0)).describe_others() == (
        "others took 0.25 cores, a fixed loop of arithmetic varied by 10.0% beside it"
    )
    assert Conditions(1, arithmetic_us=(10.0,)).describe_others() == ""
