"""What a net's file holds in memory at any widths, learned from files of a few widths."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeprune.core.latency.layers import Extent
from edgeprune.core.memory.learn import FileMemory, bound_overhead, learn_memory
from edgeprune.core.memory.steps import NetMemory
from edgeprune.core.planning.plan import ChannelGroup
from edgeprune.core.progress import Count
from edgeprune.errors import ExportError
from edgeprune.exporting.formats import find_format
from edgeprune.exporting.sram import count_sram
from edgeprune.graph.analysis import Analysis
from edgeprune.graph.surgery import apply_plan
from edgeprune.run import write_atomic
from edgeprune.stages.artifacts import build_variant
from edgeprune.stages.job import Job
from edgeprune.stages.net import Net
from edgeprune.stages.results import Traced

FILE = "memory.json"
FILES = 6
"""Files of random widths beside the unpruned one: few, as each settles the widths of all groups at once."""
SEED = 11
LEAST_SHARE = 0.25
DRAWS = 100


def read_net_memory(job: Job, net: Net) -> NetMemory:
    """What the files of a run's net hold in memory; learned once, and kept in the run directory.

    Raises:
        ExportError: files in this format or of this net do not tell it.
        PlanError: it follows the widths in no way that can be planned.
    """
    path, key = job.run.directory / FILE, _key(job, net)
    with suppress(OSError, ValueError, msgspec.ValidationError):
        document = json.loads(path.read_text())
        if document["key"] == key:
            return msgspec.convert(document["memory"], NetMemory)
    memory = _learn(job, net)
    _save(job, net, memory)
    whole = {group: max(widths) for group, widths in net.widths.items()}
    job.detail(
        f"unpruned, the activations take {memory.plan(whole).peak_bytes:,} bytes as the interpreter lays them out"
    )
    return memory


def _save(job: Job, net: Net, memory: NetMemory) -> None:
    document = {"key": _key(job, net), "memory": msgspec.to_builtins(memory)}
    write_atomic(job.run.directory / FILE, json.dumps(document))


def _key(job: Job, net: Net) -> dict[str, Any]:
    """All that a net's memory hangs on."""
    target = job.planned
    return {
        "model": job.read(Traced).model_sha256,
        "precision": target.fitted_precision,
        "format": target.format,
        "form": [target.input_layout, target.io],
        "groups": sorted(net.widths),
    }


def _learn(job: Job, net: Net) -> NetMemory:
    groups = [group for group in net.analysis.groups if group.name in net.widths]
    widths = draw_probes(groups, FILES)
    files, overheads = list[FileMemory](), list[int]()
    for number, chosen in enumerate(widths):
        job.detail(Count(f"files built to learn the memory from: {number + 1} of {len(widths)}"))
        keep = {group: range(width) for group, width in chosen.items()}
        path = build_variant(job, f"memory{number}", apply_plan(net.program, net.analysis, keep))
        files.append(read_file_memory(path))
        overheads.append(count_overhead(path, files[-1]))
    memory = learn_memory(files, widths, find_counts(net.analysis))
    return NetMemory(memory.tensors, memory.operators, bound_overhead(overheads, widths))


def read_file_memory(path: Path) -> FileMemory:
    """What a file holds in memory.

    Raises:
        ExportError: files of its format do not tell it.
    """
    inside = find_format(path.suffix.removeprefix(".")).inside
    if inside is None or inside.read_memory is None:
        raise ExportError(f"{path}: what {path.suffix} files hold in memory is not laid out by fixed rules")
    return inside.read_memory(path)


def count_overhead(path: Path, file: FileMemory) -> int:
    """What the interpreter needs for a file beside its activations, in bytes, by its own count."""
    sram = count_sram(path)
    return 0 if sram is None else max(0, sram.bytes - file.peak_bytes)


def find_counts(analysis: Analysis) -> tuple[Extent, ...]:
    """The channel counts that tensors of a net have, as far as they are known, without branches."""
    layers = (*analysis.layers, *analysis.operators)
    branches = {group.name: 1 for group in analysis.groups if group.is_branch}
    counts = (extent.bind(branches) for layer in layers for extent in (layer.cin, layer.cout))
    groups = (Extent(0, ((1, (group.name,)),)) for group in analysis.channel_groups)
    return tuple(dict.fromkeys(count for count in (*counts, *groups) if count.groups))


def draw_probes(groups: Sequence[ChannelGroup], count: int) -> list[dict[str, int]]:
    """The unpruned widths and random ones, such that no two groups fall alike; branches stay."""
    generator = np.random.default_rng(SEED)
    whole = {group.name: group.size for group in groups}
    for _ in range(DRAWS):
        drawn = [{group.name: _draw(group, generator) for group in groups} for _ in range(count)]
        shares = [tuple(each[group.name] / group.size for each in drawn) for group in groups if not group.is_branch]
        if len(set(shares)) == len(shares):
            break
    return [whole, *drawn]


def _draw(group: ChannelGroup, generator: np.random.Generator) -> int:
    offered = (1,) if group.is_branch else group.widths(1, max(1, round(LEAST_SHARE * group.size)))
    return int(generator.choice(offered))


def learn_from_plan(job: Job, net: Net, widths: Mapping[str, int]) -> bool:
    """Build the file of a plan and hold what it needs against what was foretold; where it needs more, that is kept
    free in all plans from now on. Tells whether it was so. Nothing is built where memory is not limited.
    """
    if job.target.budget.sram_bytes is None:
        return False
    memory = read_net_memory(job, net)
    keep = {group: range(width) for group, width in widths.items()}
    path = build_variant(job, "planned", apply_plan(net.program, net.analysis, keep))
    file = read_file_memory(path)
    missed = file.peak_bytes + count_overhead(path, file) - memory.count(widths)
    if missed > 0:
        overhead = memory.overhead_bytes
        _save(job, net, replace(memory, overhead_bytes=replace(overhead, constant=overhead.constant + missed)))
        job.detail(f"the planned file needs {missed:,} bytes more than was foretold: planning again with so many less")
    return missed > 0
