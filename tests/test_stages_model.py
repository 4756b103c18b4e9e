"""From a recipe to its graph: what is refused before anything slow begins, and what is said of what was changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from prune_nets import tiny_recipe
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from edgeprune.errors import GraphError, RecipeError
from edgeprune.graph.groups import find_groups
from edgeprune.recipes.check import check_recipe
from edgeprune.recipes.load import Finetune, Recipe
from edgeprune.stages.model import check_graph, trace_recipe


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(2, 6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pool(torch.relu(self.conv(x))))

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def recipe_of(net: nn.Module) -> Recipe:
    net.eval()
    return replace(tiny_recipe(Finetune()), model=lambda: net)


class Looping(Net):
    def pool(self, x: Tensor) -> Tensor:
        return torch.stack([one.mean((1, 2)) for one in x])


class Branching(Net):
    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class ThroughNumpy(Net):
    def pool(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy().mean((2, 3)))


class Selecting(Net):
    def pool(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        return x[torch.nonzero(x.sum(1) > -1e9)[:, 0]]


class ByBatch(Net):
    """Python that is decided when it is traced, by a small batch."""

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.shape[0] > 16 else x.amax((2, 3))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Looping(), r"stripes\.py: model\(\): its forward works for one number of inputs only"),
        (
            Branching(),
            rf"Branching: .* \(at {__file__}:\d+\); its forward decides .* values of a tensor; use torch.where",
        ),
        (ThroughNumpy(), rf"ThroughNumpy: .* \(at {__file__}:\d+\); its forward leaves torch for numpy"),
        (Selecting(), r"its output is \[u0, 3\]: its size hangs on the values"),
        (ByBatch(), r"its graph does not run on 300 inputs .*: the forward decides by the number of inputs"),
    ],
)
def test_what_cannot_be_traced_says_why_and_where(net: nn.Module, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        trace_recipe(recipe_of(net))


def test_a_graph_is_held_against_its_module() -> None:
    program, inputs = trace_recipe(recipe_of(Net()))[0], torch.randn(5, 2, 4, 4)
    check_graph(program, Net(), inputs, "mine.py")
    other = Net()
    with torch.no_grad():
        other.last.weight.mul_(1.01)
    with pytest.raises(GraphError, match=r"mine\.py: model\(\): its graph differs from it by 0\.0"):
        check_graph(program, other, inputs, "mine.py")
    check_graph(program, other, inputs, "mine.py", [torch.float16])


class Extension(Net):
    def pool(self, x: Tensor) -> Tensor:
        raise RuntimeError("no kernel of mine")


def test_a_failure_that_is_no_branch_is_not_called_one() -> None:
    with pytest.raises(GraphError, match=r"no kernel of mine \(at .*\)$") as caught:
        trace_recipe(recipe_of(Extension()))
    assert "torch.where" not in str(caught.value)


class Noisy(Net):
    def pool(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x.mean((2, 3)), 0.5)


class Writing(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.5))


class Mixing(Net):
    """What an input gets depends on the others of its batch."""

    def pool(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        return x - x.mean(0)


class Deciding(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(1)


class Several(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Noisy(), "gave something else when it was run again.*dropout"),
        (Writing(), r"changed its input in place.*x = x - 1"),
        (Mixing(), "gave something else for its first input when that was run alone"),
        (Deciding(), r"gave torch\.int64; expected floats"),
        (Several(), "gave a tuple of 2; wrap the net"),
    ],
)
def test_a_model_that_a_file_cannot_stand_for_is_refused(net: nn.Module, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_recipe(recipe_of(net))


def test_refused_nets_differ_from_a_sound_one_by_that_alone() -> None:
    recipe = recipe_of(Net())
    assert check_recipe(recipe) == ()
    assert trace_recipe(recipe)[1] == ()


class Half(Net):
    def __init__(self) -> None:
        super().__init__()
        self.half()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.half()).float()


def test_what_was_changed_in_a_model_is_said() -> None:
    net = Half()
    parametrizations.spectral_norm(net.conv)
    program, notes = trace_recipe(recipe_of(net))
    assert notes == (
        "weights or casts in float16: widened to float32, which is exact",
        "masks and norms of weights were multiplied out: conv.weight; training moves the plain weights",
    )
    assert [group.name for group in find_groups(program).channel_groups] == ["conv"]
    assert program.get_parameter("conv.weight").dtype == torch.float32
