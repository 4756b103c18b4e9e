"""`edgeprune fit`: verdicts, exit codes and the page; and what is refused of a target that nothing here times."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run_command
from micro_files import build_residual

from edgeprune.core.memory.fit import COUNTED_32, PLANNED, ArenaCount
from edgeprune.exporting.tflite import micro

TARGET = """
description = "a part"
runtime = "tflm"
precision = "int8"
io = "integer"
[memory]
sram_bytes = {sram}
flash_bytes = "1MiB"
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose arena is 2,048 bytes of activations and 952 of the interpreter's."""
    monkeypatch.chdir(tmp_path)
    count = ArenaCount(2048, 952, COUNTED_32, "a stand-in")
    monkeypatch.setattr(micro, "count_arena", lambda *_: (count, ()))
    for sram in (2999, 3000):
        Path(f"{sram}.toml").write_text(TARGET.format(sram=sram))
    Path("net.tflite").write_bytes(build_residual())
    return Path("net.tflite")


def test_all_targets_with_a_memory_are_told(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run_command(capsys, "fit", net)
    assert code == 0
    assert "arena: 3,000 bytes, counted by TFLM (32-bit); a stand-in" in printed
    assert "peak: step 2 (CONV_2D), 2,048 bytes alive" in printed
    assert "nrf52840" in printed
    assert "rpi4" not in printed


@pytest.mark.parametrize(("names", "code"), [(("3000",), 0), (("2999",), 3), (("3000", "2999"), 3)])
def test_the_exit_code_is_of_those_that_are_named(
    net: Path, names: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for name in names for word in ("--target", f"{name}.toml")]
    ended, printed, _ = run_command(capsys, "fit", net, *words)
    assert ended == code
    assert ("too big by 1 bytes at step 2 (CONV_2D)" in printed) == (code == 3)


def test_what_is_not_known_is_no_fit(
    net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = ArenaCount(2048, None, PLANNED, "edgeprune")
    monkeypatch.setattr(micro, "count_arena", lambda *_: (count, ("install it",)))
    code, printed, _ = run_command(capsys, "fit", net, "--target", "3000.toml")
    assert code == 4
    assert "unknown" in printed
    assert "install it" in printed


def test_the_page_is_written(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = run_command(capsys, "fit", net, "--target", "2999.toml", "--html", "page.html")
    page = Path("page.html").read_text()
    assert code == 3
    assert "fits 0 of 1 targets" in page
    assert "too big by 1 bytes" in page


def test_a_target_without_memory_is_refused(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, told = run_command(capsys, "fit", net, "--target", "rpi4")
    assert code == 2
    assert "target rpi4: has no [memory]" in told


@pytest.mark.parametrize(
    "words",
    [
        ("deploy", "--speedup", "2", "--host", "local"),
        ("profile", "--host", "local"),
        ("measure", "net.tflite", "--host", "local"),
        ("devices", "setup", "--host", "local"),
        ("devices", "doctor", "--host", "local"),
    ],
    ids=" ".join,
)
def test_nothing_is_begun_on_what_is_not_timed(
    words: tuple[str, ...], net: Path, no_devices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = run_command(capsys, *words, "--target", "nrf52840")
    assert code == 2
    assert "target nrf52840: nothing here runs or times files with tflm" in told
    assert "edgeprune fit MODEL.tflite --target nrf52840" in told


@pytest.mark.parametrize(
    "words",
    [("deploy",), ("deploy", "--dry-run", "--speedup", "2"), ("profile",), ("measure", "net.tflite")],
    ids=" ".join,
)
def test_nothing_is_begun_on_a_core_that_is_neither_here_nor_emulated(
    words: tuple[str, ...], net: Path, no_devices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = run_command(capsys, *words, "--target", "rp2040")
    assert code == 2
    assert "target rp2040: nothing says where a board is, and its core (two Cortex-M0+" in told
    assert "edgeprune fit MODEL.tflite --target rp2040" in told


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--latency-ms", "5"), "a budget of time or energy, but its board is a core in QEMU"),
        ((), "no budget; give --instructions or --speedup"),
        (("--gates", "gates.toml", "--speedup", "2"), "a gate on latency_p50_ms, but its board is a core in QEMU"),
    ],
)
@pytest.mark.parametrize("target", ["qemu-cortex-m4", "stm32l4r5"])
def test_limits_in_ms_are_refused_where_instructions_are_counted(
    target: str, words: tuple[str, ...], reason: str, net: Path, no_devices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("gates.toml").write_text('[[gates]]\nmetric = "latency_p50_ms"\nat_most = 5\n')
    code, _, told = run_command(capsys, "deploy", "--target", target, *words)
    assert (code, reason in told) == (2, True), told


def test_a_limit_on_instructions_is_refused_where_a_board_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, told = run_command(capsys, "deploy", "--target", "local", "--instructions", "1000")
    assert (code, "instructions are counted in QEMU only" in told) == (2, True), told


def test_a_sweep_over_counts_is_refused(no_devices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, told = run_command(capsys, "sweep", "--target", "qemu-cortex-m4", "--speedup", "1.5,2")
    assert (code, "a core in QEMU has none" in told) == (2, True), told
