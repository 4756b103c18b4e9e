"""The unpruned net under the runtime's profiler, beside what its latency table predicts of each layer."""

from __future__ import annotations

from edgeprune.core.formats import RUNTIMES
from edgeprune.core.latency.breakdown import LayerTime, break_down
from edgeprune.device.board import ModelFile
from edgeprune.errors import TargetError
from edgeprune.exporting.formats import look_inside
from edgeprune.stages.job import Job
from edgeprune.stages.latency import measure_beside_original, read_correction, read_table, unpruned_file
from edgeprune.stages.open_net import read_net
from edgeprune.stages.record import read_originals


def break_down_net(job: Job) -> tuple[list[LayerTime], float]:
    """Layers of the unpruned net in the precision that is planned for, and what that net takes, in ms.

    Raises:
        TargetError: the target's runtime does not tell its nodes apart.
        RunError: the net was not profiled yet.
    """
    if not RUNTIMES[job.planned.runtime].tells_nodes:
        runtimes = " or ".join(name for name, runtime in RUNTIMES.items() if runtime.tells_nodes)
        raise TargetError(f"target {job.target.name}: {job.planned.runtime} runs a net as one node; use {runtimes}")
    path = job.run.file(unpruned_file(job))
    times = measure_beside_original(job, read_originals(job), {"net": path})
    model = ModelFile.of(path, job.planned.runtime)
    nodes = job.board.nodes(model, job.target.threads, job.detail)
    net = read_net(job)
    widths = {group: offered[-1] for group, offered in net.widths.items()}
    sorted_nodes = look_inside(path).sort_nodes(path, nodes, net.analysis.layers)
    return break_down(net.layers, widths, read_table(job), read_correction(job), sorted_nodes), times.latency_ms["net"]
