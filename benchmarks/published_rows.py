"""Published latencies of whole networks and blocks, read from data extracts that are not part of this repository."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hardware_facts import KIN
from published_networks import NETWORKS, fbnet_block, fbnet_skip, fbnet_stem

from edgeprune.core.estimating.calibrate import Measured
from edgeprune.core.estimating.estimate import Core, EstimatedProfile, Parameter
from edgeprune.core.estimating.prior import PRIOR

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
RUNTIMES = {"ncnn": "ncnn", "xnnpack": "litert", "paddle": "paddle", "fbnet": "litert"}
"""The runtime that each source measured; XNNPACK is what LiteRT computes with."""
WINOGRAD = ("ncnn", "paddle")
"""Runtimes that compute 3x3 convolutions by Winograd's algorithm; XNNPACK and MLAS do not (Dukhan 2019)."""
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
    chip: str
    device: str
    core: Core
    threads: tuple[int, ...] = (1,)
    powersave: str = "0"
    relative: bool = False

    @property
    def runtime(self) -> str:
        """What ran the networks."""
        return RUNTIMES[self.source]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.source} {self.chip}"

    @property
    def labels(self) -> Mapping[str, str]:
        """What these rows have in common with others."""
        return label(self.runtime, self.chip, self.core) | {"source": self.name}

    def profile(self) -> EstimatedProfile:
        """The profile that rows are counted by; its parameters are those that are assumed before any row."""
        return start_profile(self.chip, self.runtime, self.core)

    def rows(self, folder: Path) -> list[Measured]:
        """What this source published of this chip."""
        reader = {"ncnn": _ncnn, "xnnpack": _xnnpack, "paddle": _paddle, "fbnet": _fbnet}[self.source]
        return list(reader(self, folder))


def label(runtime: str, chip: str, core: Core) -> dict[str, str]:
    """What a board's rows in a runtime have in common with others."""
    return {"runtime": runtime, "chip": chip, "core": KIN.get(core.name, core.name)}


def start_profile(board: str, runtime: str, core: Core) -> EstimatedProfile:
    """What is assumed of a board in a runtime before any row."""
    assumed = {name: Parameter(prior.value, prior.spread) for name, prior in PRIOR.items()}
    return EstimatedProfile(board, runtime, core, assumed, BLOCK_SPREAD, NET_SPREAD, winograd=runtime in WINOGRAD)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _ncnn(evidence: Evidence, folder: Path) -> Iterator[Measured]:
    """Minima: the source's averages are polluted. Rows of a GPU are left out."""
    for row in _read(folder / "ncnn_subset.csv"):
        is_wanted = row["device"].startswith(evidence.device) and row["powersave"] == evidence.powersave
        if is_wanted and row["gpu_device"] in ("-1", "") and int(row["threads"]) in evidence.threads:
            yield from read_ncnn(row["model"], float(row["min_ms"]), int(row["threads"]), evidence.core)


def read_ncnn(model: str, latency_ms: float, threads: int, core: Core) -> Iterator[Measured]:
    """A row of ncnn's, if it is of a network that is written down; where a core has fp16 arithmetic, ncnn uses it."""
    name = model.removesuffix("_int8")
    layers = NETWORKS.get(NCNN_NAMES.get(name, name))
    precision = "int8" if name != model else "fp16" if "fp16" in core.macs_per_cycle else "fp32"
    spread = HALVED_SPREAD if precision != "int8" and name in HALVED else NET_SPREAD
    if layers:
        yield Measured(layers, latency_ms, threads, (), spread, precision)


def _xnnpack(evidence: Evidence, folder: Path) -> Iterator[Measured]:
    for row in _read(folder / "xnnpack.csv"):
        threads = 1 if row["threads"].startswith("1") else evidence.core.cores
        is_wanted = row["device"].removesuffix(", ARM64)").removesuffix(")") == evidence.device
        if is_wanted and threads in evidence.threads:
            layers, precision = NETWORKS[XNNPACK_NAMES[row["model"]]], row["precision"].lower()
            yield Measured(layers, float(row["ms"]), threads, precision=precision)


def _paddle(evidence: Evidence, folder: Path) -> Iterator[Measured]:
    for row in _read(folder / "paddlelite_dense.csv"):
        name = PADDLE_NAMES.get(row["model"].removesuffix("_quant"))
        if name and (row["soc"], row["backend"]) == (evidence.device, "ARMV8 CPU"):
            yield Measured(NETWORKS[name], float(row["avg_ms"]), 1, precision=row["precision"])


def _fbnet(evidence: Evidence, folder: Path) -> Iterator[Measured]:
    """One row for each different block; the source lists it again for each position where it may stand."""
    earlier = set()
    for row in _read(folder / "fbnet_lut_raspi4_pixel3.csv"):
        place = tuple(int(row[name]) for name in ("cin", "cout", "in_hw", "stride"))
        if (row["block"], place) not in earlier:
            earlier.add((row["block"], place))
            ms, stem = float(row[f"{evidence.device}_ms_minus_skip"]), fbnet_stem()
            block, skip = fbnet_block(row["block"], *place), fbnet_skip(*place)
            yield Measured((*stem, *block), ms, 1, (*stem, *skip), BLOCK_SPREAD, "fp32")
