"""Published rows that no fit of the estimated profiles sees, to check what was built.

- ncnn's rows of Raspberry Pi 5, Raspberry Pi Zero 2 W, Jetson Nano and Jetson Orin Nano (benchmark/README.md of
  Tencent/ncnn, BSD-3): whole boards, predicted from the others.
- Whole nets of NAS-Bench-201 on Raspberry Pi 4 and phones (HayeonLee/HELP, MIT; those of Raspberry Pi 4 and Pixel 3 are
  HW-NAS-Bench's): the 9,444 in which every operator reaches the output, half of them by a hash of their name. The other
  half served to choose what the model has and how a calibration weighs rows, with the nets of three devices (`TUNED`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hardware_facts as facts
import numpy as np
from published_networks import nasbench201
from published_rows import read_ncnn
from scipy.stats import spearmanr

from edgeprune.core.estimating.calibrate import Measured, calibrate, score
from edgeprune.core.estimating.estimate import Core, EstimatedProfile

MakeProfile = Callable[[str, str, Core], EstimatedProfile]

NCNN_BOARDS = {
    "rpi5": ("Raspberry Pi 5 Broadcom BCM2712, Cortex-A76", facts.RPI5.core),
    "rpi-zero-2w": ("Raspberry Pi Zero 2 W", facts.RPI_ZERO_2W.core),
    "jetson-nano": ("NVIDIA Jetson Nano", facts.JETSON_NANO.core),
    "jetson-orin-nano": ("NVIDIA Jetson Orin Nano", facts.JETSON_ORIN_NANO.core),
}
"""How ncnn's page heads their rows."""
TUNED = {"raspi4": "rpi4", "pixel3": "snapdragon-835", "samsung_a50": "snapdragon-835"}
UNSEEN = {"pixel2": "snapdragon-835", "samsung_s7": "snapdragon-835", "essential_ph_1": "snapdragon-835"}
"""Devices of HELP, and the board whose profile a calibration starts from."""
STARTS = {"rpi4": facts.RPI4.core, "snapdragon-835": facts.SNAPDRAGON_835.core}
DRAWS, SIZES = 20, (5, 30)
"""How many calibrations, of how many nets each."""


def check_ncnn(page: Path, make_profile: MakeProfile) -> dict[str, dict[str, float]]:
    """Errors on ncnn's rows of each board, by precision and threads."""
    text, figures = page.read_text(), {}
    for board, (head, core) in NCNN_BOARDS.items():
        profile, rows = make_profile(board, "ncnn", core), list(_read_section(text, head, core))
        for key in sorted({(row.precision or "", row.threads or 1) for row in rows}):
            pairs = [(profile, row) for row in rows if (row.precision, row.threads) == key]
            errors = score(pairs)
            figures[f"ncnn {board} kept aside: {key[0]}, {key[1]} threads"] = _round(vars(errors))
    return figures


def _read_section(text: str, head: str, core: Core) -> Iterator[Measured]:
    """Rows of the section on the processor, the first of each network and thread count."""
    section = next(part for part in re.split(r"^### ", text, flags=re.MULTILINE) if part.startswith(head))
    earlier, threads, on_gpu = set(), 0, False
    for line in section.splitlines():
        if setting := re.match(r"(num_threads|gpu_device) = (-?\d+)", line):
            threads = int(setting[2]) if setting[1] == "num_threads" else threads
            on_gpu = int(setting[2]) >= 0 if setting[1] == "gpu_device" else on_gpu
        timed = re.match(r"\s*(\S+)\s+min =\s*([\d.]+)", line)
        if timed and not on_gpu and threads <= core.cores and (timed[1], threads) not in earlier:
            earlier.add((timed[1], threads))
            yield from read_ncnn(timed[1], float(timed[2]), threads, core)


def check_spaces(folder: Path, make_profile: MakeProfile) -> dict[str, dict[str, float]]:
    """Errors on the kept half of the nets, of the profile as it is and calibrated by a few of that half."""
    cells = _read_cells(folder)
    indices = [index for index, cell in cells.items() if hashlib.sha256(cell.encode()).digest()[0] % 2]
    nets, figures = {index: nasbench201(cells[index]) for index in indices}, {}
    for device, board in {**TUNED, **UNSEEN}.items():
        latency = _load(folder / "data" / "nasbench201" / "latency" / f"{device}.pt")
        rows = [Measured(nets[index], float(latency[index])) for index in indices]
        profile = make_profile(board, "litert", STARTS[board])
        figures[f"{device}: NAS-Bench-201 left out"] = _check(profile, rows)
        for size in SIZES:
            figures[f"{device}: NAS-Bench-201, calibrated by {size} nets"] = _check_calibrated(profile, rows, size)
    return figures


def _check_calibrated(profile: EstimatedProfile, rows: Sequence[Measured], size: int) -> dict[str, float]:
    """Means over calibrations, each checked on all other rows; the worst of them beside."""
    random, checks = np.random.default_rng(0), []
    for _ in range(DRAWS):
        sample = set(random.choice(len(rows), size, replace=False).tolist())
        calibration = calibrate(profile, [rows[index] for index in sorted(sample)])
        checks.append(_check(calibration.profile, [row for index, row in enumerate(rows) if index not in sample]))
    means = {name: float(np.mean([check[name] for check in checks])) for name in checks[0]}
    return _round(means | {"least_within_10_percent": min(check["within_10_percent"] for check in checks)})


def _check(profile: EstimatedProfile, rows: Sequence[Measured]) -> dict[str, float]:
    predicted = [profile.predict_net(row.layers).latency_ms for row in rows]
    rank = float(spearmanr(predicted, [row.latency_ms for row in rows]).statistic)
    return _round(vars(score([(profile, row) for row in rows])) | {"spearman": rank})


def _read_cells(folder: Path) -> dict[int, str]:
    """Cells in which every operator reaches the output, and none is fed with nothing."""
    index_by_cell = _load(folder / "data" / "nasbench201" / "str_arch2idx.pt")
    return {index: cell for cell, index in index_by_cell.items() if _is_whole(cell)}


def _is_whole(cell: str) -> bool:
    """Whether each edge that is not `none` starts at a node with an input and leads on to the output."""
    nodes = [[edge.split("~") for edge in node.strip("|").split("|")] for node in cell.split("+")]
    edges = [(int(source), target) for target, node in enumerate(nodes, 1) for name, source in node if name != "none"]
    fed, useful = {0}, {len(nodes)}
    for source, target in edges:
        fed |= {target} if source in fed else set()
    for source, target in reversed(edges):
        useful |= {source} if target in useful else set()
    return bool(edges) and len(nodes) in fed and all(source in fed and target in useful for source, target in edges)


def _load(path: Path) -> dict[str, int] | list[float]:
    import torch

    loaded: dict[str, int] | list[float] = torch.load(path, weights_only=True)
    return loaded


def _round(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in figures.items()}
