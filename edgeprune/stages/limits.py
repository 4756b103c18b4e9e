"""What the plans of a run are held to beside latency."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.core.memory.steps import ArenaLimit
from edgeprune.core.planning.limits import Limits, read_limits
from edgeprune.graph.costs import count_other_parameters
from edgeprune.stages.arena import read_net_memory
from edgeprune.stages.job import Job
from edgeprune.stages.net import Net
from edgeprune.stages.results import Profiled


def find_limits(job: Job, net: Net) -> Limits:
    """What else a plan is held to than latency.

    Raises:
        InfeasibleBudget: not even a net without weights is within them.
    """
    other_parameters = count_other_parameters(net.program, net.analysis)
    overhead = job.read(Profiled).overhead_bytes
    limits = read_limits(job.target.budget, job.planned.fitted_precision, overhead, other_parameters)
    fixed = {group: rule.fixed for group, rule in net.rules.items() if rule.fixed is not None}
    most_bytes = job.target.budget.sram_bytes
    arena = None if most_bytes is None else ArenaLimit(read_net_memory(job, net), most_bytes)
    return replace(limits, fixed=fixed, arena=arena)
