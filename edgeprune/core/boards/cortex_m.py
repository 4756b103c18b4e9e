"""Cortex-M cores that C is generated for, and the QEMU machine that runs each."""

from __future__ import annotations

import re
from dataclasses import dataclass

COUNT_SHIFT = 7
"""QEMU's `-icount shift`: an instruction advances the machine's clock by 2**7 ns, which is over two ticks of every
counter here, so that a count of ticks tells the number of instructions exactly."""
_MIB = 1 << 20


@dataclass(frozen=True)
class QemuMachine:
    """A machine of qemu-system-arm. Origins are addresses; a counter without an address is that of Arm SSE-300.
    The UART is the CMSDK's number 0, at its secure address where there are two.

    Memory maps are those of hw/arm/mps2.c, mps2-tz.c and mps3 in QEMU 7.2, and of Arm's application notes AN385, AN386,
    AN500, AN505 and AN547. The clock is that of the counter.
    """

    name: str
    clock_mhz: int
    vectors_origin: int
    code_origin: int
    code_bytes: int
    data_origin: int
    data_bytes: int
    counter_address: int | None
    uart_address: int = 0x40004000

    @property
    def ticks_per_instruction(self) -> float:
        """Ticks of its counter while one instruction runs."""
        return (1 << COUNT_SHIFT) * self.clock_mhz / 1000

    @property
    def places(self) -> dict[str, int]:
        """Where it has memory, by the names that `deploy/firmware/firmware.ld` asks for."""
        names = ("vectors_origin", "code_origin", "code_bytes", "data_origin", "data_bytes")
        return {name.upper(): getattr(self, name) for name in names}


def _mps2(name: str) -> QemuMachine:
    """The MPS2 and MPS2+ boards of Armv7-M, which have one memory map."""
    return QemuMachine(name, 25, 0, 0x400, 4 * _MIB - 0x400, 0x20000000, 4 * _MIB, 0x40000000)


@dataclass(frozen=True)
class Core:
    """A kind of Cortex-M. `flags` are the compiler's; `has_dsp`: it has the SIMD instructions of Armv7E-M (Armv8-M's
    DSP extension has the same)."""

    name: str
    flags: tuple[str, ...]
    has_dsp: bool
    machine: QemuMachine


CORES = {
    core.name: core
    for core in (
        Core(
            "cortex-m3",
            ("-mcpu=cortex-m3", "-mthumb", "-mfloat-abi=soft"),
            False,
            _mps2("mps2-an385"),
        ),
        Core(
            "cortex-m4",
            ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft"),
            True,
            _mps2("mps2-an386"),
        ),
        Core(
            "cortex-m7",
            ("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=soft"),
            True,
            _mps2("mps2-an500"),
        ),
        Core(
            "cortex-m33",
            ("-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=soft"),
            True,
            QemuMachine(
                "mps2-an505",
                20,
                0x10000000,
                0x10000400,
                4 * _MIB - 0x400,
                0x38000000,
                4 * _MIB,
                0x50000000,
                0x50200000,
            ),
        ),
        Core(
            "cortex-m55",
            ("-mcpu=cortex-m55+nomve", "-mthumb", "-mfloat-abi=soft"),
            True,
            QemuMachine("mps3-an547", 32, 0, 0x01000000, 2 * _MIB, 0x31000000, 4 * _MIB, None, 0x59303000),
        ),
    )
}
"""Cores by name. Helium (MVE) of the Cortex-M55 is left unused: the generator's kernels do not plan memory for it."""


def find_core(text: str) -> Core | None:
    """The first core that words such as "two Cortex-M33, 150 MHz" name; None where it is none of CORES."""
    match = re.search(r"cortex-m[0-9]+", text.lower())
    return CORES.get(match[0]) if match else None
