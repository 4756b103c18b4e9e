"""What each format and precision costs in accuracy and in ms, by network and runtime: results/quantization.json.

    .venv/bin/python benchmarks/quantization.py --work DIR [--only NAME ...] [--run DIR] [--weights FILE.pth]
    .venv/bin/python benchmarks/quantization.py --mlperf DIR
    .venv/bin/python benchmarks/quantization.py --latency --work DIR [--mlperf DIR]

ResNet-8 has its shipped CIFAR-10 weights; `--run` adds the pruned net of a finished run of that recipe.
MobileNetV1-0.25 is trained here on CIFAR-10, once: its weights stay in the cache, as do those of the nets that are then
trained on with the rounding of int8 (`-aware`). Nets as initialised show what random weights make of the noise.
`--weights` (benchmarks/
engine_roundtrip.py says where they come from, and needs timm) adds EfficientNet-Lite0 as trained on ImageNet, fed with
crops of two photographs. Where int8 misses its target, a file of mixed precision that reaches it is added: what that
takes. The others are untrained, their batch norm calibrated on what they are fed with, noise: of
them only agreement with float can be told. tflite-runtime 2.14 and tflite-micro are added where
deploy/setup/other_runtimes.sh has built them. `--mlperf` compares the reference models of MLPerf Tiny (the folder with
the .tflite files of mlcommons/tiny) between runtimes. Rows are written as soon as a network is done, its files stay in
`--work`; `--latency` measures them there, all files of a network in turns: on a core that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import cpu_flags, describe_machine
from planner_networks import NETWORKS, mobilenet_v1
from quantization_mlperf import examine_models
from quantization_runtimes import RUNTIMES, add_latency_, other_runtimes
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.core.artifact import Artifact
from edgeprune.core.quantizing.sqnr import SQNR_LIMIT_DB, measure_sqnr_db
from edgeprune.core.target import MIXED
from edgeprune.errors import EdgepruneError
from edgeprune.exporting.artifacts import build_artifacts
from edgeprune.exporting.checks import run_torch
from edgeprune.exporting.parity.chain import compare_outputs
from edgeprune.exporting.parity.tolerances import TOLERANCES
from edgeprune.exporting.quantizing.mixed import Wishes
from edgeprune.exporting.request import ExportRequest, Processor
from edgeprune.exporting.runners import run_file
from edgeprune.graph.storage import load_model, model_sha256
from edgeprune.graph.trace import copy_program, trace_model
from edgeprune.pruning.held_out import hold_out
from edgeprune.pruning.quantization_aware import train_quantization_aware
from edgeprune.pruning.recalibrate import recalibrate_
from edgeprune.pruning.recover import Course, recover
from edgeprune.recipes.load import Finetune, load_recipe, top1_accuracy_percent
from edgeprune.run import write_json
from edgeprune.shipped import cache_dir

RESULTS = Path(__file__).parent / "results" / "quantization.json"
PRECISIONS = ("fp32", "fp16", "int8", "dynamic-int8", "int16x8")
ROWS, CALIBRATION_ROWS = 64, 512
LARGE_ROWS = 16
"""Inputs for EfficientNet-Lite0: reference kernels take a second for each."""
SLOW_ROWS = 1000
"""Labelled rows for int16x8, whose kernels are the slow reference ones in LiteRT."""
EPOCHS, LEARNING_RATE = 8, 0.2
AWARE_EPOCHS = 4
AWARE, INITIALISED = "-aware", "-initialised"
"""Endings of names: trained on with the rounding of int8; not trained at all, batch norm neither."""
TARGETS_DB = {"onnx": 35.0, "tflite": 40.0}
"""What the int8 output of convolutional nets should keep; of all others OTHER_DB."""
OTHER_DB = 25.0
CIFAR10 = ("resnet8", "resnet8-pruned", "mobilenet_v1-0.25")
CONVOLUTIONAL = (*CIFAR10, "ds_cnn", "efficientnet_lite0")

Labelled = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A network in eval mode and what it is fed with; `labelled` inputs and targets where there are any."""

    program: GraphModule
    calibration: Tensor
    inputs: np.ndarray
    weights: str
    labelled: Labelled | None = None


class GruNet(nn.Module):
    """32 units over 16 steps of 6 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.last = nn.GRU(6, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 16, 6]` to `[N, 10]`."""
        logits: Tensor = self.last(self.recurrent(x)[0][:, -1])
        return logits


def cifar10(program: GraphModule, weights: str) -> Case:
    """A net for CIFAR-10, with all its test images."""
    recipe = load_recipe("cifar10-resnet8")
    inputs, targets = (torch.cat(parts) for parts in zip(*recipe.eval_data(), strict=True))
    calibration = torch.cat([inputs for inputs, _ in recipe.calibration_data()])[:CALIBRATION_ROWS]
    return Case(program, calibration, inputs[:ROWS].numpy(), weights, (inputs.numpy(), targets.numpy()))


def resnet8() -> Case:
    """The net of the built-in recipe."""
    recipe = load_recipe("cifar10-resnet8")
    return cifar10(trace_model(recipe.model(), recipe.example_input()), "trained on CIFAR-10")


def mobilenet() -> Case:
    """MobileNetV1-0.25 for 32x32: the stem keeps the size."""
    torch.manual_seed(0)
    net = mobilenet_v1(0.25, 10)
    net[0].stride = (1, 1)
    recipe = load_recipe("cifar10-resnet8")
    place = cache_dir() / "benchmarks" / "mobilenet_v1_cifar10.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)
    program = trace_model(net, recipe.example_input())
    if not place.exists():
        settings = Finetune(EPOCHS, LEARNING_RATE, distillation=0.0)
        steps = place.with_suffix(".partial")
        recipe = replace(recipe, finetune=settings)
        program = recover(program, None, recipe, lambda text: print(text, flush=True), Course(steps)).program
        save_file({name: value.contiguous() for name, value in program.state_dict().items()}, place)
    program.load_state_dict(load_file(place))
    return cifar10(program, f"trained on CIFAR-10 for {EPOCHS} epochs here")


def aware(name: str, make: Callable[[], Case]) -> Case:
    """A net of CIFAR-10 trained on with the rounding of int8, as a recipe asks for it after pruning."""
    case, recipe = make(), load_recipe("cifar10-resnet8")
    place = cache_dir() / "benchmarks" / f"{name}{AWARE}_{model_sha256(case.program)[:12]}.safetensors"
    program = copy_program(case.program)
    if not place.exists():
        settings = replace(recipe.finetune, quantization_aware_epochs=AWARE_EPOCHS)
        held_out, _ = hold_out(recipe, program)
        course = Course(held_out=held_out)
        trained_recipe = replace(recipe, finetune=settings)
        recovered = train_quantization_aware(
            program, case.program, trained_recipe, lambda text: print(text, flush=True), course
        )
        place.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in recovered.program.state_dict().items()}, place)
    program.load_state_dict(load_file(place))
    description = f"{case.weights}, then for {AWARE_EPOCHS} epochs with the rounding of int8"
    return replace(case, program=program, weights=description)


def initialised() -> Case:
    """ResNet-8 as made, weights at random, fed with noise."""
    torch.manual_seed(0)
    make, (_, *shape) = NETWORKS["ResNet-8"]
    inputs = torch.randn(CALIBRATION_ROWS + ROWS, *shape)
    program = trace_model(make(), inputs[:1])
    return Case(program, inputs[:CALIBRATION_ROWS], inputs[CALIBRATION_ROWS:].numpy(), "as initialised")


def untrained(make: Callable[[], nn.Module], shape: Sequence[int]) -> Case:
    """Random weights, fed with noise `[N, *shape]`."""
    torch.manual_seed(0)
    inputs = torch.randn(CALIBRATION_ROWS + ROWS, *shape)
    program = trace_model(make(), inputs[:1])
    calibration = inputs[:CALIBRATION_ROWS]
    recalibrate_(program, [(part, None) for part in calibration.split(64)])
    return Case(program, calibration, inputs[CALIBRATION_ROWS:].numpy(), "untrained, batch norm calibrated")


def efficientnet(weights: Path) -> Case:
    """EfficientNet-Lite0 with the weights of a file."""
    from engine_coverage import define_missing_operators
    from engine_roundtrip import crops, load_pretrained

    library = define_missing_operators()
    inputs = (crops(2 * ROWS) * 128).round() / 128  # whole pixel values, as a decoder gives them
    program = trace_model(load_pretrained(weights), inputs[:1])
    del library  # its operators are there for as long as it is
    description = "trained on ImageNet; fed with crops of two photographs"
    return Case(program, inputs[ROWS:], inputs[:LARGE_ROWS].numpy(), description)


def list_cases(run: Path | None, weights: Path | None) -> dict[str, Callable[[], Case]]:
    """Each network by name, made when it is its turn."""
    cases: dict[str, Callable[[], Case]] = {"resnet8": resnet8, "mobilenet_v1-0.25": mobilenet}
    if run is not None:
        cases["resnet8-pruned"] = lambda: cifar10(load_model(run / "recovered.pt2"), "pruned and trained on CIFAR-10")
    cases |= {
        f"{name}{AWARE}": lambda name=name, make=make: aware(name, make)  # type: ignore[misc]
        for name, make in list(cases.items())
    }
    cases[f"resnet8{INITIALISED}"] = initialised
    for name, key in (("ds_cnn", "DS-CNN"), ("small_vit", "SmallViT")):
        make, (_, *shape) = NETWORKS[key]
        cases[name] = lambda make=make, shape=shape: untrained(make, shape)  # type: ignore[misc]
    cases["gru"] = lambda: untrained(GruNet, (16, 6))
    if weights is not None:
        cases["efficientnet_lite0"] = lambda: efficientnet(weights)
    return cases


def examine(name: str, case: Case, folder: Path) -> dict[str, Any]:
    """Every file of a network, made in a folder, in every runtime that is here."""
    request = ExportRequest(
        folder, "pruned", ("onnx", "tflite"), PRECISIONS, [case.calibration],
        processor=Processor(platform.machine(), cpu_flags()), tuned=True,
    )  # fmt: skip
    expected = run_torch(case.program, case.inputs if case.labelled is None else case.labelled[0])

    def rows_of(export_request: ExportRequest, *precisions: str) -> list[dict[str, Any]]:
        artifacts = build_artifacts(
            case.program, case.calibration[:1], export_request, lambda text: print(f"  {text}", flush=True)
        )
        listed = [artifact for artifact in artifacts if artifact.precision in (precisions or export_request.precisions)]
        return [row for artifact in listed for row in _rows(artifact, folder / artifact.path, case, expected)]

    rows = rows_of(request)
    for form, target_db in TARGETS_DB.items():
        limit_db = OTHER_DB if _kind(name) == "other" else target_db
        if _find_row(rows, form, "int8").get("sqnr_db", 0.0) < limit_db:
            wishes = Wishes(partial(_keeps, case, expected, limit_db))
            with suppress(EdgepruneError):
                rows += rows_of(replace(request, formats=(form,), precisions=("fp32", MIXED), wishes=wishes), MIXED)
    return {
        "network": name,
        "weights": case.weights,
        "parameters": sum(value.numel() for value in case.program.parameters()),
        "inputs": len(case.inputs),
        "tuned": request.tuned,
        "files": rows,
    }


def _find_row(rows: Sequence[dict[str, Any]], form: str, precision: str) -> dict[str, Any]:
    """The row of a file in its format's main runtime."""
    key = (form, precision, RUNTIMES[form])
    return next(row for row in rows if (row["format"], row["precision"], row["runtime"]) == key)


def _keeps(case: Case, expected: np.ndarray, limit_db: float, path: Path) -> bool:
    """Whether a file's outputs keep so many dB."""
    inputs = case.inputs if case.labelled is None else case.labelled[0]
    outputs = run_file(path, inputs)
    return measure_sqnr_db(expected[: len(inputs)], outputs) >= limit_db


def _rows(artifact: Artifact, path: Path, case: Case, expected: np.ndarray) -> Iterable[dict[str, Any]]:
    runs: dict[str, Callable[[Path, np.ndarray], np.ndarray]] = {RUNTIMES[artifact.format]: run_file}
    if artifact.format == "onnx":
        runs["onnxruntime, reference kernels"] = lambda path, inputs: run_file(path, inputs, optimised=False)
    else:
        runs |= other_runtimes()
    for runtime, run in runs.items():
        row = {
            "format": artifact.format,
            "precision": artifact.precision,
            "runtime": runtime,
            "path": artifact.path,
            "sha256": artifact.sha256,
            "bytes": artifact.bytes,
            "scheme": artifact.scheme,
        }
        inputs, targets = case.inputs, None
        if case.labelled is not None and runtime in RUNTIMES.values():
            most = SLOW_ROWS if artifact.precision == "int16x8" else len(case.labelled[0])
            inputs, targets = (part[:most] for part in case.labelled)
        try:
            outputs = run(path, inputs)
        except EdgepruneError as exc:
            yield row | {"error": " ".join(str(exc).split())[-160:]}
            print(f"    {artifact.name} in {runtime}: {exc}", flush=True)
            continue
        link = compare_outputs(runtime, expected[: len(inputs)], outputs, TOLERANCES["int8"])
        row |= {"samples": len(inputs), "sqnr_db": round(link.sqnr_db, 1), "top1_agreement": link.top1_agreement}
        if targets is not None:
            row["accuracy_percent"] = top1_accuracy_percent(outputs, targets)
        print(f"    {row}", flush=True)
        yield row


def _kind(name: str) -> str:
    """What a network's SQNR is reported under."""
    ending = next((suffix for suffix in (AWARE, INITIALISED) if name.endswith(suffix)), "")
    return ending[1:] or ("convolutional" if name in CONVOLUTIONAL else "other")


def summarise(networks: dict[str, Any]) -> dict[str, Any]:
    """The figures that the targets are about."""
    drops, least = [], {}
    for name, network in networks.items():
        rows = [row for row in network["files"] if row["runtime"] in RUNTIMES.values()]
        kind = _kind(name)
        for file_format in RUNTIMES:
            of_format = {row["precision"]: row for row in rows if row["format"] == file_format}
            key = f"{file_format}_int8_least_sqnr_db_{kind}"
            least[key] = min(least.get(key, SQNR_LIMIT_DB), of_format["int8"].get("sqnr_db", -SQNR_LIMIT_DB))
            if "accuracy_percent" in of_format["int8"]:
                drops.append(of_format["fp32"]["accuracy_percent"] - of_format["int8"]["accuracy_percent"])
    speedups = [network["int8_speedup"] for network in networks.values() if "int8_speedup" in network]
    for form in RUNTIMES if speedups else ():
        least[f"{form}_int8_median_speedup"] = round(float(np.median([speedup[form] for speedup in speedups])), 2)
    return {"cifar10_int8_max_drop_points": round(max(drops), 2) if drops else None, **least}


def write(path: Path, networks: dict[str, Any], models: dict[str, Any]) -> None:
    """The document, with its summary."""
    packages = ("torch", "onnxruntime", "litert-torch", "ai-edge-quantizer", "ai-edge-litert")
    summary = summarise(networks)
    if models:
        sqnrs_db = [row["sqnr_db"] for model in models.values() for row in model["files"] if "sqnr_db" in row]
        summary["mlperf_tiny_least_sqnr_db_between_runtimes"] = min(sqnrs_db)
    document = {"machine": describe_machine(packages), "summary": summary, "networks": networks, "mlperf_tiny": models}
    write_json(path, document)


def main() -> None:
    """Examine the networks asked for, or measure their files, and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--mlperf", type=Path)
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.latency and options.work is None:
        parser.error("--latency needs --work, the folder with the files of an earlier run")
    torch.set_num_threads(1)
    before = json.loads(options.output.read_text()) if options.output.exists() else {}
    networks, models = before.get("networks", {}), before.get("mlperf_tiny", {})
    if options.latency:
        for name, network in networks.items():
            if (options.work / name).exists() and name in (options.only or networks):
                add_latency_(network, options.work / name)
                write(options.output, networks, models)
        for name in models if options.mlperf is not None else ():
            add_latency_(models[name], options.mlperf)
        write(options.output, networks, models)
    elif options.mlperf is not None:
        write(options.output, networks, examine_models(options.mlperf))
    else:
        for name, make in list_cases(options.run, options.weights).items():
            if options.only and name not in options.only:
                continue
            print(name, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                networks[name] = examine(name, make(), (options.work or Path(folder)) / name)
            write(options.output, networks, models)


if __name__ == "__main__":
    main()
