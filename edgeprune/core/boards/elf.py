"""For which processors a program file is made: the head of an ELF file."""

from __future__ import annotations

import struct

MAGIC = b"\x7fELF"
MACHINES = {3: "i686", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
"""e_machine: the ELF specification's registry of machines (EM_386, EM_ARM, EM_X86_64, EM_AARCH64, EM_RISCV)."""
HEAD_BYTES = 20


def parse_elf_machine(head: bytes) -> str:
    """The kind of processor that a program is for; empty where the file is no ELF file (a script may be)."""
    if len(head) < HEAD_BYTES or not head.startswith(MAGIC):
        return ""
    order = ">" if head[5] == 2 else "<"
    (number,) = struct.unpack_from(f"{order}H", head, 18)
    return MACHINES.get(number, f"machine {number}")


def can_run(program: str, machine: str) -> bool:
    """Whether a board of `uname -m` may run a program; 64-bit boards may run the 32-bit programs of their kind."""
    kinds = {
        "aarch64": ("aarch64", "arm"),
        "x86_64": ("x86_64", "i686"),
    }
    family = "arm" if machine.startswith("arm") else "riscv" if machine.startswith("riscv") else machine
    family = "i686" if family in ("i386", "i486", "i586") else family
    return program in kinds.get(family, (family,))
