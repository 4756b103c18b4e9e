"""Published latencies on microcontrollers, in cycles, from data extracts that are not part of this repository."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from published_networks import Net, mobilenet_v2

from edgeprune.core.estimating.cycles import Array, RuntimeFacts, count_net
from edgeprune.core.latency.layers import LayerShape
from edgeprune.exporting.tflite.layers import FileLayers, read_file_layers

NET_SPREAD, LAYER_SPREAD = 0.05, 0.3
"""What to expect the model to miss a net by that is not another submission's too, and a single layer."""
SOURCES = {
    "mlperf": "MLPerf Tiny, results of v0.5 to v1.1 (MLCommons, Apache-2.0): whole nets on boards",
    "m85": "MLPerf Tiny, a later round (MLCommons, Apache-2.0): cycles of ic on Cortex-M85, runtime not stated",
    "tinyengine": "TinyEngine, README.md (mit-han-lab/tinyengine, MIT): whole nets on STM32H743",
    "espnn": "ESP-NN, README.md (espressif/esp-nn, Apache-2.0): single kernels on ESP32-S3",
    "espdl": "ESP-DL, model zoo (espressif/esp-dl, MIT): whole nets on ESP32-S3",
}
MODELS = {
    "ad": "ad01_int8.tflite",
    "ic": "pretrainedResnet_quant.tflite",
    "kws": "kws_ref_model.tflite",
    "vww": "vww_96_int8.tflite",
}
CORES = {
    "Cortex-M0+": "Cortex-M0+",
    "Cortex-M33": "Cortex-M33",
    "Cortex-M4": "Cortex-M4",
    "Cortex-M7": "Cortex-M7",
}
RUNTIMES = (
    RuntimeFacts("tflm", "TensorFlow Lite Micro with CMSIS-NN"),
    RuntimeFacts("tflm-reference", "TensorFlow Lite Micro with its reference kernels"),
    RuntimeFacts("tflm-esp-nn", "TensorFlow Lite Micro with ESP-NN"),
    RuntimeFacts("microtvm", "microTVM, native schedules"),
    RuntimeFacts("microtvm-cmsis-nn", "microTVM with CMSIS-NN"),
    RuntimeFacts("x-cube-ai", "X-CUBE-AI 8.1", drops_dead=True),
    RuntimeFacts("plumerai", "Plumerai Inference Engine 2023.05", drops_dead=True),
    RuntimeFacts("hale", "Bosch Hardware-Aware Lowering Engine 1.0"),
    RuntimeFacts("onnc", "ONNC", drops_dead=True),
    RuntimeFacts("tinyengine", "TinyEngine"),
    RuntimeFacts("esp-dl", "ESP-DL"),
)
NEWEST = {"x-cube-ai": "x-cube-ai 8.1", "plumerai": "plumerai 2023.05"}
"""The version that a runtime's prices are of, where several were published."""
DROPPING = ("x-cube-ai 8.1", "plumerai 2023.05", "onnc")
"""Versions that leave out dead channels: half of the multiply-accumulates of the reference model of `vww` are of
channels whose weights are all zero, and with the first two its time fell from 0.88 to 1.2 of that of `ic` to 0.53 to
0.59 of it."""


@dataclass(frozen=True)
class Row:
    """A result: its work and its cycles. `net` names it; `spread` is what to expect the model to miss by."""

    net: str
    work: Array
    cycles: float
    spread: float = NET_SPREAD


@dataclass
class Submission:
    """Results of one board in one runtime in one submission; `labels` are what it has in common with others."""

    name: str
    source: str
    labels: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    @property
    def core(self) -> str:
        """The core."""
        return self.labels["core"]

    @property
    def runtime(self) -> str:
        """The runtime, whatever its version."""
        return self.labels["runtime"]


def label(core: str, runtime: str, version: str = "", board: str = "", submission: str = "") -> dict[str, str]:
    """What a board's results in a runtime have in common with others."""
    labels = {"core": core, "runtime": runtime, "pair": f"{core}, {runtime}", "version": version or runtime}
    labels |= {"board": f"{board}, {runtime}"} if board else {}
    return labels | ({"submission": submission} if submission else {})


def read_models(folder: Path) -> dict[str, FileLayers]:
    """The four reference models of MLPerf Tiny."""
    models = folder / "mlperf_tiny_models"
    return {net: read_file_layers((models / name).read_bytes(), name) for net, name in MODELS.items()}


def read_submissions(folder: Path) -> list[Submission]:
    """All published results that the model is fitted to."""
    others = [_read_m85(folder), *_read_tinyengine(folder), *_read_espnn(folder), *_read_espdl(folder)]
    return [*read_mlperf(folder), *others]


def read_mlperf(folder: Path) -> list[Submission]:
    """Results on Cortex-M of whatever runtime; accelerators and other cores are left out."""
    models = read_models(folder)
    submissions: dict[str, Submission] = {}
    for row in _read(folder / "mlperf_tiny_v0.5-v1.1.csv"):
        core = _find_core(row["cpu"])
        if not core or row["accelerator"] or row["division"] != "closed":
            continue
        runtime, version = _find_runtime(row)
        name = f"MLPerf Tiny {row['round']} {row['org']} {row['system']}"
        labels = label(core, runtime, version, _find_board(row), name)
        submission = submissions.setdefault(name, Submission(name, "mlperf", labels))
        model, megahertz = models[row["benchmark"]], float(re.sub(r"[^\d.]", "", row["clock"]))
        work = count_net(model.live if version in DROPPING else model.whole)
        submission.rows.append(Row(row["benchmark"], work, float(row["perf_latency_us"]) * megahertz))
    return list(submissions.values())


def _find_core(cpu: str) -> str:
    match = re.search(r"Cortex[^A-Z]*-?(M\d+\+?)", cpu)
    return CORES.get(f"Cortex-{match[1]}", "") if match else ""


def _find_board(row: dict[str, str]) -> str:
    """The chip by its system's name, as one submission has another's chip in that column."""
    match = re.search(
        r"(L4R5|H7A3|U575|U585|F746|G0B1|NRF5340|M467|062|RA6M4)", f"{row['system']} {row['soc']}".upper()
    )
    return match[1].replace("U585", "U575") if match else row["soc"]


def _find_runtime(row: dict[str, str]) -> tuple[str, str]:
    """A runtime and its version as they are called here."""
    text, system = row["runtime"].lower(), row["system"].lower()
    if text.startswith("x-cube-ai"):
        return "x-cube-ai", f"x-cube-ai {'.'.join(text.split('v')[1].split('.')[:2])}"
    if text.startswith("plumerai"):
        return "plumerai", f"plumerai {'2023.05' if '2023' in text else row['round']}"
    if text.startswith("microtvm"):
        name = "microtvm-cmsis-nn" if "cmsis" in system else "microtvm"
        return name, name
    if text.startswith("tensorflow lite"):
        return "tflm", "tflm 2.3.1"
    name = "hale" if "hale" in text else text or f"unstated ({row['org']})"
    return name, name


M85_CYCLES_PER_MAC = 0.33


def _read_m85(folder: Path) -> Submission:
    """The one figure of a Cortex-M85 at hand, of `ic`; its runtime is not stated, so it says little of others."""
    model, name = read_models(folder)["ic"], "MLPerf Tiny, a later round (ic on Cortex-M85)"
    rows = [Row("ic", count_net(model.whole), M85_CYCLES_PER_MAC * model.macs)]
    return Submission(name, "m85", label("Cortex-M85", "unstated (M85)", "", "M85", name), rows)


TINYENGINE = {
    "TFLite-Micro@713b6ed": "tflm-reference",
    "CMSIS-NN@011bf32": "tflm",
    "X-CUBE-AI v7.3.0": "x-cube-ai",
    "TinyEngine@0363956": "tinyengine",
}
H743_MHZ = 480.0
"""Largest clock of STM32H743 (its data sheet); the source does not say which it was."""


def _scaled_mobilenet_v2(size: int, width: float) -> tuple[LayerShape, ...]:
    """MobileNetV2 (Sandler et al. 2018) of a width, its channels rounded to multiples of 8."""

    def channels(count: int) -> int:
        rounded = max(8, int(count * width + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * count * width else rounded

    net = Net(size).conv(channels(32), 3, 2)
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, cout, count, stride in stages:
        for index in range(count):
            net.inverted(net.channels * expand, channels(cout), 3, stride if index == 0 else 1)
    return tuple(net.conv(1280 if width >= 1 else channels(1280)).linear(1000).finish())


def _read_tinyengine(folder: Path) -> list[Submission]:
    """The one net of the table whose layers a paper writes down; those of MCUNet and ProxylessNAS were searched."""
    work = count_net(_scaled_mobilenet_v2(64, 0.3))
    submissions = []
    for row in _read(folder / "tinyengine_h743.csv"):
        if row["model"] == "mbv2-w0.3-r64" and row["metric"] == "latency":
            runtime, name = TINYENGINE[row["runtime"]], f"TinyEngine {row['runtime']}"
            version = "x-cube-ai 7.3" if runtime == "x-cube-ai" else row["runtime"]
            labels = label("Cortex-M7", runtime, version, "H743", name)
            row_of = Row(row["model"], work, float(row["value"]) * H743_MHZ * 1e3, 0.15)
            submissions.append(Submission(name, "tinyengine", labels, [row_of]))
    return submissions


S3_MHZ = 240.0
"""Clock of ESP32-S3 that ESP-NN names; ESP-DL's source does not say it."""


def _read_espnn(folder: Path) -> Iterator[Submission]:
    """Single kernels, whose ticks are cycles: one by plain C, one optimised."""
    for column, runtime in (("ticks_optimized", "tflm-esp-nn"), ("ticks_ansi_c", "tflm-reference")):
        name = f"ESP-NN {column}"
        rows = [
            Row(f"{row['kernel']} {number}", count_net([shape]), float(row[column]), LAYER_SPREAD)
            for number, row in enumerate(_read(folder / "espnn_kernels.csv"))
            if row["chip"] == "ESP32-S3" and (shape := _espnn_shape(row)) is not None
        ]
        yield Submission(name, "espnn", label("ESP32-S3", runtime, runtime, "ESP32-S3", name), rows)


def _espnn_shape(row: dict[str, str]) -> LayerShape | None:
    """The layer of a kernel's row, where it is one that nets of these hold."""
    numbers = [int(text) for text in re.findall(r"\d+", row["data_info"])]
    if row["kernel"] == "convolution":  # input(h,w), filter(cout x k x k x cin), pad, stride
        height, width, cout, kernel, _, cin, pad = numbers[:7]
        return LayerShape("conv", cin, cout, (kernel,) * 2, (1, 1), 1, (height, width), (pad,) * 2)
    if row["kernel"] == "depthwise conv" and "1x3x3x16" in row["data_info"]:
        return LayerShape("conv", 16, 16, (3, 3), (1, 1), 16, tuple(numbers[:2]), (0, 0))
    if row["kernel"] in ("max pool", "avg pool"):
        return LayerShape("pool", 16, 16, (3, 3), (1, 1), 1, (16, 16), (1, 1))
    if row["kernel"] == "fully connected":
        return LayerShape("linear", numbers[0], numbers[1])
    if row["kernel"] == "elementwise_add":
        return LayerShape("add", 1, 1, size=(numbers[0],))
    return None


def _read_espdl(folder: Path) -> list[Submission]:
    """MobileNetV2 on one core, the net of that table whose layers a paper writes down."""
    rows = []
    for row in _read(folder / "espdl.csv"):
        if row["model"].startswith("mobilenetv2_s8_v1_s3") and "SINGLE" in row["model"]:
            rows.append(Row("mobilenet_v2", count_net(mobilenet_v2()), float(row["model_ms"]) * S3_MHZ * 1e3, 0.15))
    return [Submission("ESP-DL", "espdl", label("ESP32-S3", "esp-dl", "esp-dl", "ESP32-S3", "ESP-DL"), rows)]


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def list_runtimes(submissions: Iterable[Submission]) -> list[str]:
    """Runtimes that prices are written for, in their order."""
    published = {submission.runtime for submission in submissions}
    return [facts.name for facts in RUNTIMES if facts.name in published]
