"""Nets of MLPerf Tiny on microcontrollers, in bytes and instructions: results/mcu.json.

    python benchmarks/mcu.py nets --work DIR [--only NAME ...]
    python benchmarks/mcu.py run --run RUN [--name NAME]
    python benchmarks/mcu.py unseen --run RUN --work DIR

`nets`: each of the four nets whole, pruned to half the SRAM and pruned to half the instructions of a Cortex-M4.
Channels go by their weights alone (L2) and nothing is trained after, as only CIFAR-10 is at hand. The batch norm of
untrained nets is calibrated on what they are fed with, and no accuracy is told of nets that run on made inputs.

`run` adds the file that a finished run of `edgeprune deploy --target qemu-cortex-m4 --recipe cifar10-resnet8` ships.
`unseen` predicts the instructions of 50 nets of random widths by that run's table and correction, and counts them in
QEMU.

Rows are written as soon as they are done, and another call goes on from there. Counts are those of C that bakenn
generates, in QEMU: instructions, no time. Outputs are held against TensorFlow Lite Micro's own interpreter and LiteRT's
reference kernels, in steps of int8.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latency_prediction import draw_unseen, find_file, learn_correction, predict_variants
from machine import cpu_flags, describe_machine

from edgeprune.core.memory.steps import ArenaLimit, NetMemory
from edgeprune.core.planning.limits import Limits
from edgeprune.core.planning.planner import Problem, choose_widths
from edgeprune.deployment import REQUEST
from edgeprune.device.mcu.board import quantize
from edgeprune.device.mcu.counting import count_project
from edgeprune.errors import InfeasibleBudget
from edgeprune.exporting.c.generate import MODEL, generate_c
from edgeprune.exporting.runners import run_file
from edgeprune.exporting.tflite.micro import count_file
from edgeprune.exporting.tflite.run import run_tflite
from edgeprune.exporting.vectors import make_vectors
from edgeprune.graph.costs import count_macs
from edgeprune.graph.surgery import apply_plan
from edgeprune.pipeline import deploy, open_job
from edgeprune.pruning.evidence import Evidence
from edgeprune.pruning.importance import Scores, keep_best, score_channels
from edgeprune.pruning.recalibrate import recalibrate_
from edgeprune.run import read_json, write_json
from edgeprune.stages.arena import read_net_memory
from edgeprune.stages.artifacts import build_variant, evaluation_rows
from edgeprune.stages.job import Job
from edgeprune.stages.model import read_plan
from edgeprune.stages.net import Net
from edgeprune.stages.open_net import read_net

RESULTS = Path(__file__).parent / "results" / "mcu.json"
PACKAGES = ("torch", "bakenn", "mcufit", "tflite-micro", "litert-torch", "ai-edge-litert", "ai-edge-quantizer")
RECIPES = {
    "kws": "kws-dscnn",
    "vww": "vww-mobilenetv1-025",
    "ic": "cifar10-resnet8",
    "ad": "ad-autoencoder",
}
WITH_DATA = ("ic",)
BUDGETS = ("speedup", "instructions", "sram_bytes", "flash_bytes")
CORES = ("cortex-m4", "cortex-m7", "cortex-m55")
PLANNED_CORE = "cortex-m4"
WHOLE, HALF_SRAM, HALF_INSTRUCTIONS = "whole", "half the SRAM", "half the instructions"
EVALUATION_VECTORS = 12
"""Evaluation inputs beside the vectors of the self-test."""
CALIBRATION_BATCHES = 4
TRIES = 8
NEAR, AIM, MOST = 0.47, 0.485, 0.5
"""Shares of the instructions: half is met well enough from the first on, the second is tried for."""
UNSEEN, AT_ONCE = 50, 2
TFLM_ARENA_BYTES = 1 << 20


@dataclass(frozen=True)
class Bench:
    """A traced net with what its plans are made from; `scores` are L2 norms of channels by group."""

    job: Job
    net: Net
    memory: NetMemory
    scores: Mapping[str, Scores]

    @cached_property
    def losses(self) -> dict[str, dict[int, float]]:
        """The share of a group's importance that goes at each width; branches stay."""
        groups = {group.name: group for group in self.net.analysis.groups}
        widths = {name: (1,) if groups[name].is_branch else offered for name, offered in self.net.widths.items()}
        return {name: {width: self._lose(name, width) for width in offered} for name, offered in widths.items()}

    def _lose(self, name: str, width: int) -> float:
        if name not in self.scores:
            return 0.0
        squares = self.scores[name] ** 2
        return 1 - float(squares[list(keep_best(self.scores[name], width))].sum()) / (float(squares.sum()) or 1.0)

    @property
    def whole(self) -> dict[str, int]:
        """Every group at its full width."""
        return {name: max(offered) for name, offered in self.net.widths.items()}

    def choose(self, limits: Limits) -> dict[str, int]:
        """The widths of least loss within limits.

        Raises:
            InfeasibleBudget: there are none.
        """
        return choose_widths(Problem(self.net.analysis.layers, self.losses, limits=limits), inf).widths

    def build(self, name: str, widths: Mapping[str, int]) -> Path:
        """The int8 file of a net of these widths."""
        keep = {group: keep_best(self.scores[group], width) for group, width in widths.items() if group in self.scores}
        return build_variant(self.job, name.replace(" ", "_"), apply_plan(self.net.program, self.net.analysis, keep))


def open_bench(job: Job) -> Bench:
    """Trace a recipe's net, calibrate the batch norm of an untrained one, and learn its memory."""
    deploy(job, "trace")
    net = read_net(job)
    if job.recipe.name != RECIPES["ic"]:
        batches = [(torch.as_tensor(batch[0]), None) for batch in job.recipe.calibration_data()]
        recalibrate_(net.program, batches[:CALIBRATION_BATCHES])
    scores = score_channels("l2", Evidence(net.program, net.analysis, (), job.recipe.loss))
    return Bench(job, net, read_net_memory(job, net), scores)


def choose_half_sram(bench: Bench) -> dict[str, int]:
    """Widths within half of the arena that the whole net needs."""
    most_bytes = bench.memory.count(bench.whole) // 2
    return bench.choose(Limits(arena=ArenaLimit(bench.memory, most_bytes)))


def choose_half_instructions(bench: Bench) -> dict[str, int]:
    """Widths with at most half of the whole net's instructions: a limit on multiply-accumulates, moved by counts."""
    rows, macs = bench_inputs(bench)[:1], count_macs(bench.net.analysis, {})
    whole = count_on(bench.build(WHOLE, bench.whole), PLANNED_CORE, rows)["instructions"]
    above, below, best = (1.0, 1.0), (0.0, 0.0), dict[str, int]()
    for number in range(TRIES):
        share = above[0] - (above[0] - below[0]) * (above[1] - AIM) / (above[1] - below[1])
        widths = bench.choose(Limits(macs=round(share * macs)))
        ratio = count_on(bench.build(f"try{number}", widths), PLANNED_CORE, rows)["instructions"] / whole
        print(f"    {share:.3f} of the multiply-accumulates: {ratio:.3f} of the instructions", flush=True)
        if ratio > MOST:
            above = share, ratio
        else:
            below, best = (share, ratio), widths
        if NEAR <= ratio <= MOST:
            break
    if not best:
        raise InfeasibleBudget(f"no widths with half the instructions were found in {TRIES} tries")
    return best


def bench_inputs(bench: Bench) -> np.ndarray:
    """Evaluation inputs `[N, ...]` as floats."""
    return evaluation_rows(bench.job, EVALUATION_VECTORS)[0]


def count_on(path: Path, core: str, rows: np.ndarray) -> dict[str, Any]:
    """What a file takes on a core, and how its outputs differ from those of TensorFlow Lite Micro and of LiteRT's
    reference kernels, for evaluation inputs `[N, ...]` as floats and the vectors of the self-test.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        facts = generate_c(path, folder, core).facts
        shape = tuple(facts["input_shape"])
        images = rows.transpose(0, 2, 3, 1) if rows.ndim == 4 else rows
        own = quantize(images, facts["input_scale"], facts["input_zero_point"]).reshape(-1, *shape[1:])
        inputs = np.concatenate([make_vectors(shape), own])
        counts = count_project(folder, core, inputs)
        litert = run_tflite(folder / MODEL, inputs, optimised=False)
        tflm = run_tflm(folder / MODEL, inputs)
    return {
        "instructions": int(np.median(counts.instructions)),
        "instructions_range": [min(counts.instructions), max(counts.instructions)],
        "vectors": len(inputs),
        "beside_tflm": compare_steps(counts.outputs, tflm),
        "beside_litert": compare_steps(counts.outputs, litert),
        "different_outputs": len(np.unique(tflm)),
        "c_arena_bytes": counts.arena_bytes,
        "stack_bytes": counts.stack_bytes,
        "firmware_flash_bytes": sum(size for name, size in counts.sections.items() if name != ".bss"),
    }


def run_tflm(path: Path, inputs: np.ndarray) -> np.ndarray:
    """Outputs `[N, ...]` of TensorFlow Lite Micro's own interpreter, for int8 inputs `[N, ...]`."""
    from tflite_micro import runtime

    interpreter, outputs = runtime.Interpreter.from_file(str(path), arena_size=TFLM_ARENA_BYTES), list[np.ndarray]()
    for row in inputs:
        interpreter.set_input(row[None], 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0).copy())
    return np.concatenate(outputs)


def compare_steps(outputs: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """By how many steps of int8 the worst output is off, and the share of outputs that are equal."""
    off = np.abs(outputs.astype(int) - expected.astype(int))
    return {"worst_steps_off": int(off.max()), "equal": round(float((off == 0).mean()), 4)}


def describe_file(path: Path, memory: NetMemory, widths: Mapping[str, int], rows: np.ndarray) -> dict[str, Any]:
    """The bytes of a file, as planned and as the interpreter counts them, and what it takes on each core."""
    counted = count_file(path)
    assert counted is not None, "TensorFlow Lite Micro counts this file"
    planned_bytes = memory.count(widths)
    return {
        "planned_activation_bytes": memory.plan(widths).peak_bytes,
        "activation_bytes": counted.activation_bytes,
        "planned_arena_bytes": planned_bytes,
        "arena_bytes": counted.total_bytes,
        "arena_error": round(planned_bytes / counted.total_bytes - 1, 5),
        "counted_by": counted.counted_by,
        "file_bytes": path.stat().st_size,
        "cores": {core: count_on(path, core, rows) for core in CORES},
    }


def measure_accuracy(job: Job, path: Path) -> float:
    """The recipe's metric of a file over all its evaluation data, in LiteRT here."""
    inputs, targets = evaluation_rows(job, None)
    return round(float(job.recipe.metric(run_file(path, inputs), targets)), 4)


def examine(bench: Bench, name: str, variant: str) -> dict[str, Any]:
    """The row of a net in one variant."""
    row: dict[str, Any] = {"net": name, "variant": variant}
    chosen = {
        WHOLE: lambda bench: bench.whole,
        HALF_SRAM: choose_half_sram,
        HALF_INSTRUCTIONS: choose_half_instructions,
    }
    try:
        widths = chosen[variant](bench)
    except InfeasibleBudget as exc:
        return {**row, "infeasible": str(exc)}
    path = bench.build(variant, widths)
    row |= describe_file(path, bench.memory, widths, bench_inputs(bench))
    quality = measure_accuracy(bench.job, path) if name in WITH_DATA else "no data"
    return {**row, "accuracy": quality, "trained_after": False, "widths": widths}


def make_request(recipe: str) -> dict[str, Any]:
    """A request for the line on an emulated Cortex-M4."""
    return {**dict.fromkeys(REQUEST), "target": "qemu-cortex-m4", "recipe": recipe, "speedup": 2.0, "history": ""}


def examine_nets(work: Path, only: list[str]) -> None:
    """Add the rows of nets that are not there yet."""
    for name in only:
        missing = [each for each in (WHOLE, HALF_SRAM, HALF_INSTRUCTIONS) if (name, each) not in _keys()]
        if not missing:
            continue
        with open_job(work / name, make_request(RECIPES[name]), lambda text: print(text, flush=True)) as job:
            bench = open_bench(job)
            for variant in missing:
                add_row(examine(bench, name, variant))


def examine_run(run: Path, name: str) -> None:
    """Add the row of the file that a finished run ships."""
    with open_copy(run) as job:
        net = read_net(job)
        widths = {group: len(keep) for group, keep in read_plan(job).keep.items()}
        path = job.run.file("artifacts/pruned.int8.tflite")
        row: dict[str, Any] = {"net": "ic", "variant": name, "trained_after": asdict(job.recipe.finetune)}
        row["budget"] = {key: value for key, value in job.run.request.items() if key in BUDGETS and value is not None}
        row |= describe_file(path, read_net_memory(job, net), widths, evaluation_rows(job, EVALUATION_VECTORS)[0])
        original = job.run.file("artifacts/original.int8.tflite")
        row |= {"accuracy": measure_accuracy(job, path), "accuracy_whole": measure_accuracy(job, original)}
    add_row({**row, "widths": widths})


def predict_unseen(run: Path, work: Path) -> None:
    """How far the instructions of nets that the correction has not seen are missed; written after every few nets."""
    with open_copy(run) as job:
        variants, correction = draw_unseen(job, UNSEEN), learn_correction(job)
        predicted = [prediction.latency_ms for prediction in predict_variants(job, variants, correction)]
        path = work / "unseen.json"
        counted: list[int] = read_json(path) if path.exists() else []
        rows = evaluation_rows(job, 1)[0]
        for start in range(len(counted), UNSEEN, AT_ONCE):
            batch = [find_file(job, f"unseen{n}", variants[n]) for n in range(start, min(UNSEEN, start + AT_ONCE))]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                counts = pool.map(lambda file: count_on(file, PLANNED_CORE, rows)["instructions"], batch)
                counted += list(counts)
            write_json(path, counted)
            print(f"  {len(counted)} of {UNSEEN} unseen nets counted", flush=True)
            unseen = summarise_errors(predicted[: len(counted)], counted, correction.error)
            write_json(RESULTS, {**read_results(), "unseen": {**unseen, "machine": describe_here()}})


def summarise_errors(predicted: Sequence[float], counted: Sequence[int], leave_one_out: float | None) -> dict[str, Any]:
    """Errors of predictions as fractions of what was counted."""
    errors = np.array(predicted) / np.array(counted) - 1
    return {
        "nets": len(errors),
        "within_5_percent": float(np.mean(np.abs(errors) <= 0.05)),
        "mean_error": round(float(np.mean(np.abs(errors))), 5),
        "worst_error": round(float(np.max(np.abs(errors))), 5),
        "leave_one_out_error": leave_one_out,
        "instructions": list(counted),
        "errors": [round(float(error), 5) for error in errors],
    }


@contextmanager
def open_copy(run: Path) -> Iterator[Job]:
    """A copy of a run, opened: the run itself may still be at work, and stays as it is."""
    with tempfile.TemporaryDirectory() as place:
        folder = shutil.copytree(run, Path(place) / "run")
        with open_job(folder, read_json(run / "request.json"), lambda text: print(text, flush=True)) as job:
            yield job


def read_results() -> dict[str, Any]:
    """The document as it is, or an empty one."""
    return read_json(RESULTS) if RESULTS.exists() else {"rows": [], "unseen": {}}


def describe_here() -> dict[str, str]:
    """This machine, with what its processor can do."""
    return describe_machine(PACKAGES) | {"architecture": platform.machine(), "flags": " ".join(cpu_flags())}


def add_row(row: dict[str, Any]) -> None:
    """Write a row in place of an earlier one of the same net and variant."""
    document = read_results()
    others = [other for other in document["rows"] if (other["net"], other["variant"]) != (row["net"], row["variant"])]
    write_json(RESULTS, {**document, "rows": [*others, {**row, "machine": describe_here()}]})
    print({key: value for key, value in row.items() if key != "widths"}, flush=True)


def _keys() -> set[tuple[str, str]]:
    return {(row["net"], row["variant"]) for row in read_results()["rows"]}


def main() -> None:
    """Do the part asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("nets", "run", "unseen"))
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--name", default="deployed")
    options = parser.parse_args()
    if options.work is None and options.part != "run":
        parser.error(f"{options.part} needs --work, the folder in which it keeps what it makes")
    if options.run is None and options.part != "nets":
        parser.error(f"{options.part} needs --run, the directory of a run of edgeprune deploy")
    torch.set_num_threads(1)
    if options.part == "nets":
        examine_nets(options.work, options.only)
    elif options.part == "run":
        examine_run(options.run, options.name)
    else:
        predict_unseen(options.run, options.work)


if __name__ == "__main__":
    main()
