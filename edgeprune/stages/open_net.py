"""The net of a run, read from its files."""

from __future__ import annotations

from edgeprune.graph.groups import find_groups
from edgeprune.graph.storage import load_model
from edgeprune.stages.job import Job
from edgeprune.stages.net import Net, find_width_rules

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
