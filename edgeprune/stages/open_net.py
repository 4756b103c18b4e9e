"""The net of a run, read from its files, and what its plans are held to."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.core.planning.limits import Limits, read_limits
from edgeprune.graph.costs import count_other_parameters
from edgeprune.graph.groups import find_groups
from edgeprune.graph.storage import load_model
from edgeprune.stages.job import Job
from edgeprune.stages.net import Net, find_width_rules
from edgeprune.stages.results import Profiled

FILE = "original.pt2"


def read_net(job: Job) -> Net:
    """The unpruned net of a run, as it was traced; read once.

    Raises:
        RunError: it was not traced yet, or its file was changed.
        RecipeError: a rule for what cannot be cut.
    """
    path = job.run.file(FILE)
    if path not in job.nets:
        program = load_model(path)
        analysis = find_groups(program)
        rules = find_width_rules(job.recipe, analysis)
        job.nets[path] = Net(program, analysis, rules, job.target.step, job.estimated)
    return job.nets[path]


def find_limits(job: Job, net: Net) -> Limits:
    """What else a plan is held to than latency.

    Raises:
        InfeasibleBudget: not even a net without weights is within them.
    """
    other_parameters = count_other_parameters(net.program, net.analysis)
    overhead = job.read(Profiled).overhead_bytes
    limits = read_limits(job.target.budget, job.planned.fitted_precision, overhead, other_parameters)
    fixed = {group: rule.fixed for group, rule in net.rules.items() if rule.fixed is not None}
    return replace(limits, fixed=fixed)
