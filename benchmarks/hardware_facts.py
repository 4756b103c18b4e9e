"""Hardware facts of the chips that profiles are for and that published rows ran on, each with where it is written.

Looked up in stored copies of the documents named here. A source that ends in "not confirmed" was not found in one:
the figure is from memory or from a lesser source, and whoever has the document may correct it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.core.estimating.estimate import Core

NOT_CONFIRMED = "not confirmed"
PEAK = {
    "Cortex-A53": {"fp32": 4, "int8": 8},
    "Cortex-A57": {"fp32": 4, "int8": 8},
    "Cortex-A72": {"fp32": 4, "int8": 8},
    "Cortex-A73": {"fp32": 4, "int8": 8},
    "Cortex-A76": {"fp32": 8, "fp16": 16, "int8": 32},
    "Cortex-A77": {"fp32": 8, "fp16": 16, "int8": 32},
    "Cortex-A78AE": {"fp32": 8, "fp16": 16, "int8": 32},
}
"""Multiply-accumulates a cycle of one core, by precision; at fp16 only where the core has such arithmetic."""
KIN = {"Cortex-A77": "Cortex-A76", "Cortex-A78AE": "Cortex-A76"}
"""Cores that count as the one before them: the same peaks, few rows or none."""
CPUFP = "pigirons/cpufp, benchmark_result/arm64"
A57_MODEL = "LLVM, AArch64SchedA57.td (after Arm's Cortex-A57 software optimization guide)"
PEAK_SOURCES = {
    "Cortex-A53": (
        f"fp32 4: {CPUFP}/RockChip_RK3399.md measures 11.255 GFLOPS, which is 3.75 at the 1.5 GHz that ncnn names "
        "(LLVM's AArch64SchedA53.td has 2); int8 8: as Cortex-A57, not confirmed"
    ),
    "Cortex-A57": (
        f"fp32 4: {A57_MODEL}: a 128-bit FMLA takes both of the 64-bit pipes; "
        "int8 8: the same model: one SMULL or SMLAL of 8 products a cycle"
    ),
    "Cortex-A72": (
        f"fp32 4: {CPUFP}/Broadcom_BCM2711.md measures 11.958 GFLOPS at 1.5 GHz; "
        "int8 8: LLVM schedules this core by its model of Cortex-A57 (AArch64SchedA57.td): one SMULL of 8 products "
        "a cycle"
    ),
    "Cortex-A73": "fp32 4, int8 8: as Cortex-A72, not confirmed",
    "Cortex-A76": (
        f"fp32 8, fp16 16, int8 32: {CPUFP}/Broadcom_BCM2712.md measures 38.369 and 76.738 GFLOPS and 153.48 GOPS "
        "(SDOT) at 2.4 GHz"
    ),
    "Cortex-A77": "fp32 8, fp16 16, int8 32: as Cortex-A76, not confirmed",
    "Cortex-A78AE": "fp32 8, fp16 16, int8 32: as Cortex-A76, not confirmed",
}
PI_DOCS = "Raspberry Pi documentation"
PI_CLOCKS = f"{PI_DOCS}, config.txt, overclocking options, table of defaults"
BCM2711, BCM2712 = f"{PI_DOCS}, Processors: BCM2711", f"{PI_DOCS}, Processors: BCM2712"
BCM2837_DTS = "Linux, arch/arm/boot/dts/broadcom/bcm2837.dtsi (after the Compute Module 3 datasheet)"
NANO_SHEET = "Jetson Nano System-on-Module data sheet DS-09366-001"
ORIN_SHEET = "Jetson Orin Nano Series data sheet"
AN_865 = "AnandTech, Qualcomm announces Snapdragon 865 and 765 (2019), table"
AN_980 = "AnandTech, The Mate 20 & Mate 20 Pro review (2018), table of Kirin SoCs"
NCNN = "ncnn, benchmark/README.md, the heading of the rows"


@dataclass(frozen=True)
class Chip:
    """A core with the figures that a profile starts from, and the source of each by its name."""

    core: Core
    sources: dict[str, str]


def _chip(name: str, *facts: tuple[float, str]) -> Chip:
    """A chip from clock in GHz, cores, shared cache in KiB and memory bandwidth in GB/s, each with its source."""
    names = ("clock_ghz", "cores", "cache_kib", "memory_gb_s")
    (clock, _), (cores, _), (cache, _), (memory, _) = facts
    sources = {key: source for key, (_, source) in zip(names, facts, strict=True)}
    core = Core(name, clock, PEAK[name], int(cores), cache, memory)
    return Chip(core, {**sources, "macs_per_cycle": PEAK_SOURCES[name]})


RPI4 = _chip(
    "Cortex-A72",
    (1.5, PI_CLOCKS + " (arm_freq 1500; 1800 with arm_boost=1 from board revision 1.4)"),
    (4, BCM2711),
    (1024, BCM2711),
    (12.8, f"{PI_CLOCKS} (sdram_freq 3200, so 3200 MT/s) times 4 bytes; the bus of 32 bits is {NOT_CONFIRMED}"),
)
RPI3 = _chip(
    "Cortex-A53",
    (1.4, f"{PI_DOCS}, Processors: BCM2837B0"),
    (4, f"{PI_DOCS}, Processors: BCM2837"),
    (512, BCM2837_DTS),
    (4.0, f"{PI_CLOCKS} (sdram_freq 500, LPDDR2: 1000 MT/s) times 4 bytes; the bus of 32 bits is {NOT_CONFIRMED}"),
)
RPI_ZERO_2W = _chip(
    "Cortex-A53",
    (1.0, f"{PI_DOCS}, Processors: RP3A0"),
    (4, f"{PI_DOCS}, Processors: RP3A0"),
    (512, f"{BCM2837_DTS}; RP3A0 holds that die ({PI_DOCS}, Processors: RP3A0)"),
    (3.6, f"{PI_CLOCKS} (sdram_freq 450, LPDDR2: 900 MT/s) times 4 bytes; the bus of 32 bits is {NOT_CONFIRMED}"),
)
RPI5 = _chip(
    "Cortex-A76", (2.4, BCM2712), (4, BCM2712), (2048, f"{BCM2712}: L3; 512 KiB of L2 a core"), (17.1, BCM2712)
)
JETSON_NANO = _chip(
    "Cortex-A57",
    (1.479, f"Jetson Linux developer guide, power modes of Jetson Nano: MAXN; {NANO_SHEET} says 1.43"),
    (4, NANO_SHEET),
    (2048, NANO_SHEET),
    (25.6, NANO_SHEET),
)
JETSON_ORIN_NANO = _chip(
    "Cortex-A78AE",
    (
        1.51,
        f"third-party tables of its 15 W mode; NVIDIA's own is {NOT_CONFIRMED} (1.7 from JetPack 6.1 on: super mode)",
    ),
    (6, f"{ORIN_SHEET}: a cluster of four and one of two"),
    (2048, f"{ORIN_SHEET}: L3 of each cluster; 256 KiB of L2 a core, 4 MiB system cache"),
    (68.3, f"{ORIN_SHEET}: LPDDR5 of 128 bits; its 4266 MT/s (68 GB/s) from third-party tables, {NOT_CONFIRMED}"),
)
SNAPDRAGON_835 = _chip(
    "Cortex-A73",
    (2.45, f"Qualcomm's slides at CES 2017 (neowin.net, dday.it); {NCNN}; that they derive from Cortex-A73: Wikipedia"),
    (4, "Qualcomm's slides at CES 2017 (neowin.net, dday.it)"),
    (2048, "Qualcomm's slides at CES 2017 (dday.it)"),
    (29.9, f"LPDDR4X-1866 on four channels (notebookcheck.com, before its release), of 16 bits: {NOT_CONFIRMED}"),
)
SNAPDRAGON_855 = _chip(
    "Cortex-A76",
    (2.84, AN_865),
    (1, f"{AN_865}: one prime core"),
    (2048, f"{AN_865}: L3"),
    (34.1, "phonedb.net, SM8150: LPDDR4X of 2133 MHz on four channels of 16 bits, 34.13 GB/s"),
)
SNAPDRAGON_865 = _chip(
    "Cortex-A77",
    (2.84, AN_865),
    (1, f"{AN_865}: one prime core"),
    (4096, f"{AN_865}: L3"),
    (44.0, "WikiChip, Snapdragon 865: LPDDR5-5500 on four channels, of 16 bits"),
)
KIRIN_980 = _chip("Cortex-A76", (2.6, AN_980), (2, AN_980), (4096, AN_980), (34.1, AN_980))
KIRIN_990 = _chip(
    "Cortex-A76",
    (2.86, "WikiChip, Kirin 990 4G"),
    (2, "WikiChip, Kirin 990 4G"),
    (4096, f"as Kirin 980, {NOT_CONFIRMED}"),
    (34.1, "WikiChip, Kirin 990 4G: LPDDR4X-4266; channels as Kirin 980"),
)
RK3399_MEMORY = (12.8, f"two channels; their rate on the boards measured is {NOT_CONFIRMED}")
RK3399_BIG = _chip(
    "Cortex-A72", (1.8, NCNN), (2, NCNN), (1024, "RK3399 datasheet, 1.2.1 Microprocessor"), RK3399_MEMORY
)
RK3399_LITTLE = _chip(
    "Cortex-A53", (1.5, NCNN), (4, NCNN), (512, "RK3399 datasheet, 1.2.1 Microprocessor"), RK3399_MEMORY
)
SNAPDRAGON_410 = _chip(
    "Cortex-A53",
    (1.2, NCNN),
    (4, NCNN),
    (512, NOT_CONFIRMED),
    (4.3, "notebookinfo.de: one channel of 32 bits, LPDDR3 of 533 MHz (others say 64 bits)"),
)
SNAPDRAGON_810 = _chip(
    "Cortex-A57",
    (2.0, NCNN),
    (4, NCNN),
    (2048, NOT_CONFIRMED),
    (25.6, "Tom's Hardware, Snapdragon 810 performance preview, table: LPDDR4-1600, two channels of 32 bits"),
)
