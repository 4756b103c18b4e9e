"""A microcontroller's estimated profile: found by its target's facts, asked as that of another board."""

from __future__ import annotations

from pathlib import Path

import pytest
from estimated import add, conv
from mcu_files import TARGET

from edgeprune.core.estimating.microcontrollers import Microcontroller, choose_runtime, find_core
from edgeprune.core.estimating.profiles import BoardProfiles
from edgeprune.core.latency.layers import LayerShape
from edgeprune.errors import ProfileError
from edgeprune.shipped import load_estimate, load_microcontroller, load_target

NET = (conv(3, 16, 32), conv(16, 32, 32, 3, 2), add(32, 16), LayerShape("linear", 32, 10))


@pytest.mark.parametrize(
    ("facts", "core"),
    [
        ([("cpu", "Arm Cortex-M4F"), ("cpu_mhz", 120)], ("Cortex-M4", 120.0)),
        ([("cpu_mhz", 133), ("cpu", "2x Cortex-M0+")], ("Cortex-M0+", 133.0)),
        ([("soc", "ESP32-S3 (2x Xtensa LX7)"), ("clock_mhz", 240)], ("ESP32-S3", 240.0)),
        ([("core", "Cortex-M33"), ("cpu_mhz", 160.0)], ("Cortex-M33", 160.0)),
        ([("cpu", "4x Cortex-A72"), ("cpu_mhz", 1500)], None),
        ([("cpu", "Cortex-M4")], None),
        ([("cpu", "Cortex-M4"), ("cpu_mhz", "fast")], None),
        ([("cpu", "Cortex-M4"), ("cpu_mhz", 0)], None),
        ([], None),
    ],
)
def test_the_core_and_its_clock_are_those_of_the_facts(
    facts: list[tuple[str, object]], core: tuple[str, float] | None
) -> None:
    assert find_core(facts) == core


def test_the_runtimes_of_targets_stand_for_published_ones() -> None:
    assert [choose_runtime(name, "Cortex-M4") for name in ("tflm", "c", "hale")] == ["tflm", "tflm", "hale"]
    assert [choose_runtime(name, "ESP32-S3") for name in ("tflm", "c", "esp-dl")] == ["tflm-esp-nn"] * 2 + ["esp-dl"]


@pytest.fixture
def board(tmp_path: Path) -> Microcontroller:
    path = tmp_path / "board.toml"
    path.write_text(TARGET)
    found = load_microcontroller(load_target(str(path)))
    assert found is not None
    return found


def test_a_layer_costs_its_cycles_at_the_clock(board: Microcontroller) -> None:
    profile = board.choose("tflm", "int8", 1)
    whole = profile.predict_net(NET)
    assert whole.kind == "estimated"
    assert whole.latency_ms == pytest.approx(sum(map(profile.prices.price, NET)) / 120e3)
    assert whole.latency_ms == pytest.approx(sum(profile.predict(shape).latency_ms for shape in NET))
    assert whole.low_ms < whole.latency_ms < whole.high_ms
    table = profile.tabulate([*NET, *NET])
    assert (table.origin, len(table.points)) == ("estimated", len(NET))
    assert "estimated" in table.key.describe()


@pytest.mark.parametrize(
    ("runtime", "precision", "threads", "message"),
    [("tflm", "fp32", 1, "int8"), ("tflm", "int8", 2, "one core"), ("litert", "int8", 1, "no estimate of Cortex-M4")],
)
def test_what_was_not_published_is_refused(
    board: Microcontroller, runtime: str, precision: str, threads: int, message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        board.choose(runtime, precision, threads)


def test_a_target_is_planned_by_its_own_file_before_its_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "rpi4.toml"
    path.write_text(TARGET)
    assert isinstance(load_estimate(load_target(str(path))), BoardProfiles)
    other = path.rename(tmp_path / "mine.toml")
    assert isinstance(load_estimate(load_target(str(other))), Microcontroller)
    other.write_text(TARGET.replace("Cortex-M4F", "Cortex-A35"))
    with pytest.raises(ProfileError, match="no estimated profile of 'mine'"):
        load_estimate(load_target(str(other)))
