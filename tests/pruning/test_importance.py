"""Importance: every criterion against the formula of its paper, computed another way."""

import numpy as np
import pytest
import torch
from prune_nets import TinyResidual, stripes, tiny_evidence
from torch import Tensor, nn

from edgeprune.errors import EdgepruneError, PlanError, UsageError
from edgeprune.pruning.evidence import Evidence
from edgeprune.pruning.importance import IMPORTANCE, keep_best, score_channels


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return tiny_evidence()


def weight(evidence: Evidence, name: str) -> np.ndarray:
    return evidence.tensors[name].detach().double().numpy()


@pytest.mark.parametrize("method", sorted(IMPORTANCE.keys() - {"batchnorm"}))
def test_every_criterion_scores_every_channel(method: str, evidence: Evidence) -> None:
    scores = score_channels(method, evidence)
    assert {name: len(score) for name, score in scores.items()} == {"stem": 8, "inner": 6, "inner:branch": 1}
    for score in scores.values():
        assert score.dtype == np.float64
        assert np.isfinite(score).all()
        assert (score >= 0).all()
        assert len(np.unique(score)) > 1 or method == "hrank" or len(score) == 1
    again = score_channels(method, tiny_evidence())
    for name, score in scores.items():
        np.testing.assert_allclose(score, again[name], rtol=1e-4, atol=1e-7)


def test_norms_sum_over_all_that_makes_a_channel(evidence: Evidence) -> None:
    makers = [weight(evidence, f"{name}.weight") for name in ("stem", "outer", "depthwise")]
    expected = sum(np.abs(one).reshape(8, -1).sum(1) for one in makers)
    np.testing.assert_allclose(score_channels("l1", evidence)["stem"], expected)
    squares = sum((one**2).reshape(8, -1).sum(1) for one in makers)
    np.testing.assert_allclose(score_channels("l2", evidence)["stem"] ** 2, squares)


def test_lamp_ranks_as_l2_and_gives_the_largest_one(evidence: Evidence) -> None:
    lamp, l2 = score_channels("lamp", evidence)["inner"], score_channels("l2", evidence)["inner"]
    assert lamp.argsort().tolist() == l2.argsort().tolist()
    assert lamp.max() == 1.0
    smallest = l2.argmin()
    assert lamp[smallest] == pytest.approx(l2[smallest] ** 2 / (l2**2).sum())


def test_fpgm_is_the_sum_of_distances(evidence: Evidence) -> None:
    rows = weight(evidence, "inner.weight").reshape(6, -1)
    expected = [sum(np.linalg.norm(one - other) for other in rows) for one in rows]
    np.testing.assert_allclose(score_channels("fpgm", evidence)["inner"], expected)


def test_batchnorm_takes_the_scales() -> None:
    net = TinyResidual()
    nn.init.uniform_(net.norm.weight, -1, 1)
    evidence = tiny_evidence(model=net)
    np.testing.assert_allclose(score_channels("batchnorm", evidence)["stem"], net.norm.weight.abs().detach().numpy())
    plain = nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.ReLU(), nn.Linear(5, 3))
    with pytest.raises(PlanError, match="'1' has no batch norm"):
        score_channels("batchnorm", tiny_evidence(model=plain))


def test_taylor_squares_the_gradients_of_small_batches(evidence: Evidence) -> None:
    inputs, targets = (torch.cat([batch[part] for batch in evidence.batches]) for part in (0, 1))
    parameter, squares = evidence.tensors["inner.weight"], []
    for start in range(0, 48, 16):
        piece = slice(start, start + 16)
        loss = nn.functional.cross_entropy(evidence.program(inputs[piece]), targets[piece])
        squares.append((torch.autograd.grad(loss, [parameter])[0] * parameter).square().sum((1, 2, 3)))
    expected = torch.stack(squares).mean(0).detach().numpy()
    np.testing.assert_allclose(score_channels("taylor", evidence)["inner"], expected, rtol=1e-3)


class Gated(nn.Module):
    """TinyResidual with a factor on every channel that the stem's group is made of."""

    def __init__(self, net: TinyResidual) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        net, factor = self.net, gate[:, None, None]
        x = torch.relu(net.norm(net.stem(x)) * factor)
        x = torch.relu(x + net.outer(torch.relu(net.inner_norm(net.inner(x)))) * factor)
        return net.classifier(torch.relu(net.depthwise(x)).flatten(1))


def test_gates_are_the_derivative_by_a_factor_on_the_channel() -> None:
    net = TinyResidual()
    evidence = tiny_evidence(model=net)
    gated = Gated(net.eval())
    rows = []
    for inputs, targets in evidence.batches:
        for one, target in zip(inputs, targets, strict=True):
            gate = torch.ones(8, requires_grad=True)
            loss = nn.functional.cross_entropy(gated(one[None], gate), target[None])
            rows.append(torch.autograd.grad(loss, [gate])[0])
    expected = torch.stack(rows)
    np.testing.assert_allclose(evidence.gates["stem"], expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(score_channels("gate_taylor", evidence)["stem"], expected.abs().mean(0), rtol=1e-3)
    np.testing.assert_allclose(score_channels("fisher", evidence)["stem"], expected.square().mean(0) / 2, rtol=1e-3)


def test_activations_are_taken_where_layers_read_them() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    evidence = tiny_evidence(model=net)
    inputs = torch.cat([batch for batch, _ in evidence.batches])
    maps = net[1](net[0](inputs)).detach()
    scores = score_channels("activation_mean", evidence)["0"]
    np.testing.assert_allclose(scores, maps.mean((0, 2, 3)), rtol=1e-5)
    alive = (maps > 0).float().mean((0, 2, 3))
    np.testing.assert_allclose(score_channels("apoz", evidence)["0"], alive, rtol=1e-5)


def test_hrank_is_the_mean_rank_of_the_maps(evidence: Evidence) -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
        net[0].weight[2, 0] = 1.0
    judged = Evidence(*_traced(net), evidence.batches, lambda outputs, _: outputs.sum())
    images = evidence.batches[0][0]
    rank = np.mean([np.linalg.matrix_rank(one.numpy()) for one in images[:, 0]])
    np.testing.assert_allclose(score_channels("hrank", judged)["0"], [0, 1, rank])


def _traced(net: nn.Module) -> tuple[object, object]:
    made = tiny_evidence(model=net)
    return made.program, made.analysis


def test_linear_layers_have_ranks_and_gates() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.ReLU(), nn.Linear(5, 3))
    evidence = tiny_evidence(model=plain)
    for method in ("hrank", "fisher", "taylor"):
        assert len(score_channels(method, evidence)["1"]) == 5


def test_an_unknown_criterion_names_the_nearest(evidence: Evidence) -> None:
    with pytest.raises(UsageError, match="did you mean 'fisher'"):
        score_channels("fischer", evidence)


def test_a_loss_that_is_not_finite_is_said(evidence: Evidence) -> None:
    bad = Evidence(evidence.program, evidence.analysis, (stripes(4),), lambda outputs, _: outputs.sum() * float("nan"))
    with pytest.raises(EdgepruneError, match="loss is not finite"):
        score_channels("taylor", bad)


@pytest.mark.parametrize(
    ("scores", "width", "kept"),
    [([3, 1, 2], 2, (0, 2)), ([1, 1, 1, 1], 2, (0, 1)), ([1, 5, 5, 0], 1, (1,)), ([0, 1], 2, (0, 1))],
)
def test_the_best_channels_stay_in_order(scores: list[float], width: int, kept: tuple[int, ...]) -> None:
    assert keep_best(np.array(scores, np.float64), width) == kept
