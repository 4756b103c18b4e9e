"""Published latencies of whole networks and blocks, read from data extracts that are not part of this repository."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hardware_facts import PEAK
from published_networks import NETWORKS, fbnet_block, fbnet_skip

from edgeprune.core.calibrate import Measured
from edgeprune.core.estimate import Core

NET_SPREAD, BLOCK_SPREAD = 0.1, 0.35
"""What to expect a model to miss a net by, and a single block."""
HALVED, HALVED_SPREAD = ("alexnet", "vgg16"), 0.35
"""Nets whose time goes to the weights of linear layers, which ncnn keeps in half precision ("fp32/fp16-auto")."""
SOURCES = {
    "ncnn": "ncnn, benchmark/README.md (Tencent/ncnn, BSD-3): whole networks, minimum of the loops",
    "xnnpack": "XNNPACK, README.md (google/XNNPACK, BSD): MobileNet v1, v2, v3 in TensorFlow Lite",
    "paddle": "Paddle-Lite, published benchmark (PaddlePaddle/Paddle-Lite, Apache-2.0): one thread on a big core",
    "fbnet": "FBNet blocks from HELP / HW-NAS-Bench (MIT): TensorFlow Lite fp32, relative to the skip block",
}
NCNN_NAMES = {
    "mobilenet": "mobilenet_v1",
    "mobilenet_v3": "mobilenet_v3_early",
    "proxylessnasnet": "proxylessnas",
    "shufflenet": "shufflenet_v1",
}
XNNPACK_NAMES = {
    "MobileNet v1 1.0X": "mobilenet_v1",
    "MobileNet v2 1.0X": "mobilenet_v2",
    "MobileNet v3 Large": "mobilenet_v3_large",
    "MobileNet v3 Small": "mobilenet_v3_small",
}
PADDLE_NAMES = {
    "MobileNetV1": "mobilenet_v1",
    "MobileNetV2": "mobilenet_v2",
    "MobileNetV3_large_x1_0": "mobilenet_v3_large",
    "MobileNetV3_small_x1_0": "mobilenet_v3_small",
    "ResNet50": "resnet50",
}


@dataclass(frozen=True)
class Evidence:
    """Rows of one source on one chip: how the source names it, and the core that ran them.

    `threads` says which thread counts are taken; for ncnn, `powersave` is the cluster that it was told to use.
    `relative` rows were taken under conditions not stated (threads): they tell how blocks compare, not how fast.
    """

    source: str
    device: str
    core: Core
    threads: tuple[int, ...] = (1,)
    powersave: str = "0"
    relative: bool = False

    def at(self, precision: str) -> Core:
        """The core with its peak at a precision."""
        return replace(self.core, macs_per_cycle=PEAK[self.core.name][precision])

    def rows(self, folder: Path, precision: str) -> list[Measured]:
        """What this source published of this chip at a precision; may be nothing."""
        read = {"ncnn": _ncnn, "xnnpack": _xnnpack, "paddle": _paddle, "fbnet": _fbnet}[self.source]
        return list(read(self, folder, precision))


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _ncnn(evidence: Evidence, folder: Path, precision: str) -> Iterator[Measured]:
    """Minima: the source's averages are polluted. Rows of a GPU are left out."""
    for row in _read(folder / "ncnn_subset.csv"):
        name = row["model"].removesuffix("_int8")
        layers = NETWORKS.get(NCNN_NAMES.get(name, name))
        wanted = row["device"].startswith(evidence.device) and row["powersave"] == evidence.powersave
        same = (row["precision"] == "int8") == (precision == "int8") and row["gpu_device"] in ("-1", "")
        if layers and wanted and same and int(row["threads"]) in evidence.threads:
            spread = HALVED_SPREAD if precision == "fp32" and name in HALVED else NET_SPREAD
            yield Measured(layers, float(row["min_ms"]), int(row["threads"]), spread=spread)


def _xnnpack(evidence: Evidence, folder: Path, precision: str) -> Iterator[Measured]:
    for row in _read(folder / "xnnpack.csv"):
        threads = 1 if row["threads"].startswith("1") else evidence.core.cores
        wanted = row["device"].removesuffix(", ARM64)").removesuffix(")") == evidence.device
        if wanted and row["precision"].lower() == precision and threads in evidence.threads:
            yield Measured(NETWORKS[XNNPACK_NAMES[row["model"]]], float(row["ms"]), threads)


def _paddle(evidence: Evidence, folder: Path, precision: str) -> Iterator[Measured]:
    for row in _read(folder / "paddlelite_dense.csv"):
        name = PADDLE_NAMES.get(row["model"].removesuffix("_quant"))
        same = (row["soc"], row["backend"], row["precision"]) == (evidence.device, "ARMV8 CPU", precision)
        if name and same:
            yield Measured(NETWORKS[name], float(row["avg_ms"]), 1)


def _fbnet(evidence: Evidence, folder: Path, precision: str) -> Iterator[Measured]:
    """One row for each different block; the source lists it again for each position where it may stand."""
    seen = set()
    for row in _read(folder / "fbnet_lut_raspi4_pixel3.csv") if precision == "fp32" else []:
        place = tuple(int(row[name]) for name in ("cin", "cout", "in_hw", "stride"))
        if (row["block"], place) not in seen:
            seen.add((row["block"], place))
            ms, spread = float(row[f"{evidence.device}_ms_minus_skip"]), BLOCK_SPREAD
            yield Measured(fbnet_block(row["block"], *place), ms, 1, fbnet_skip(*place), spread)
