"""For which processor a program file is made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_board import elf_head

from edgeprune.core.boards.elf import can_run, parse_elf_machine


@pytest.mark.parametrize(("number", "name"), [(183, "aarch64"), (40, "arm"), (62, "x86_64"), (8, "machine 8")])
def test_the_machine_stands_in_the_elf_head(number: int, name: str) -> None:
    assert parse_elf_machine(elf_head(number)) == parse_elf_machine(elf_head(number, big=True)) == name


@pytest.mark.parametrize(
    ("program", "machine", "runs"),
    [
        ("aarch64", "aarch64", True),
        ("arm", "aarch64", True),
        ("aarch64", "armv7l", False),
        ("arm", "armv8l", True),
        ("x86_64", "aarch64", False),
        ("i686", "x86_64", True),
        ("x86_64", "i686", False),
        ("riscv", "riscv64", True),
    ],
)
def test_a_board_runs_the_programs_of_its_kind(program: str, machine: str, runs: bool) -> None:
    assert can_run(program, machine) is runs


@given(st.binary(max_size=64))
def test_a_file_of_another_kind_has_no_machine(content: bytes) -> None:
    assert parse_elf_machine(content) == "" or content.startswith(b"\x7fELF")
