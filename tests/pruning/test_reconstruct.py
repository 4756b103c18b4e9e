"""Reconstruction: what the channels that are left can express, they do afterwards."""

from pathlib import Path

import pytest
import torch
from prune_nets import TinyResidual, stripes, tiny_evidence
from torch import nn

from edgeprune.errors import EdgepruneError
from edgeprune.graph.storage import load_model, save_model
from edgeprune.graph.surgery import apply_plan
from edgeprune.pruning.evidence import Evidence
from edgeprune.pruning.reconstruct import reconstruct_


def duplicated(first: nn.Module, second: nn.Module, *between: nn.Module) -> nn.Sequential:
    """A net whose first layer makes channels 2 and 3 as twice and minus once channels 0 and 1."""
    with torch.no_grad():
        for value in first.parameters():
            value[2], value[3] = 2 * value[0], -value[1]
    return nn.Sequential(first, *between, second, nn.Flatten(1))


LINEAR_PAIRS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), *duplicated(nn.Linear(32, 4), nn.Linear(4, 3))),
    "conv": lambda: duplicated(nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)),
    "strided, dilated": lambda: duplicated(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, 2, stride=2, padding=1, dilation=2)),
    "no bias": lambda: duplicated(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, (1, 3), padding=(0, 1), bias=False)),
    "conv1d": lambda: nn.Sequential(
        nn.Flatten(2), *duplicated(nn.Conv1d(2, 4, 3), nn.Conv1d(4, 3, 3, stride=2, padding=2))
    ),
    "flatten": lambda: duplicated(nn.Conv2d(2, 4, 1), nn.Linear(64, 3), nn.Flatten()),
}


@pytest.mark.parametrize("kind", sorted(LINEAR_PAIRS))
def test_redundant_channels_are_made_up_for(kind: str) -> None:
    torch.manual_seed(0)
    evidence = tiny_evidence(model=LINEAR_PAIRS[kind]())
    group = next(group for group in evidence.analysis.groups if not group.frozen)
    keep = {group.name: (0, 1)}
    pruned = apply_plan(evidence.program, evidence.analysis, keep)
    images = stripes(20, 5)[0]
    wanted = evidence.program(images).detach()
    before = float((pruned(images).detach() - wanted).abs().max())
    fitted = reconstruct_(pruned, evidence.program, evidence.analysis, keep, evidence.batches)
    after = float((pruned(images).detach() - wanted).abs().max())
    assert len(fitted) == 1
    assert before > 0.1
    assert after < 0.2 * before


def test_outputs_come_nearer_in_a_net_with_norms_and_a_residual() -> None:
    evidence = tiny_evidence()
    batches = tuple(stripes(64, seed) for seed in range(4))
    keep = {"stem": (0, 2, 3, 5, 6), "inner": (1, 2, 4)}
    pruned = apply_plan(evidence.program, evidence.analysis, keep)
    images = stripes(200, 50)[0]
    wanted = evidence.program(images).detach()
    before = float((pruned(images).detach() - wanted).square().mean())
    fitted = reconstruct_(pruned, evidence.program, evidence.analysis, keep, batches)
    assert fitted == ("inner.weight", "outer.weight", "classifier.weight")
    assert float((pruned(images).detach() - wanted).square().mean()) < 0.5 * before


def test_nothing_changes_where_nothing_was_cut() -> None:
    evidence = tiny_evidence()
    pruned = apply_plan(evidence.program, evidence.analysis, {})
    assert reconstruct_(pruned, evidence.program, evidence.analysis, {}, evidence.batches) == ()


def test_what_reads_a_stream_without_its_branch_is_fitted_even_after_saving(tmp_path: Path) -> None:
    evidence = tiny_evidence()
    keep = {"inner:branch": ()}
    save_model(apply_plan(evidence.program, evidence.analysis, keep), tmp_path / "cut.pt2", torch.zeros(1, 2, 4, 4))
    pruned = load_model(tmp_path / "cut.pt2")  # its nodes are numbered anew
    images = stripes(64, 3)[0]
    wanted = evidence.program(images).detach()
    before = float((pruned(images).detach() - wanted).square().mean())
    fitted = reconstruct_(pruned, evidence.program, evidence.analysis, keep, evidence.batches)
    assert fitted == ("classifier.weight",)
    assert float((pruned(images).detach() - wanted).square().mean()) < before


def test_activations_that_are_not_finite_are_said() -> None:
    evidence = tiny_evidence(model=TinyResidual())
    bad = Evidence(evidence.program, evidence.analysis, ((stripes(4)[0] / 0, stripes(4)[1]),), evidence.loss)
    pruned = apply_plan(bad.program, bad.analysis, {"inner": (0, 1)})
    with pytest.raises(EdgepruneError, match="not finite"):
        reconstruct_(pruned, bad.program, bad.analysis, {"inner": (0, 1)}, bad.batches)
