"""From a recipe to its graph: what is refused before anything slow begins, and what is said of what was changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prune_nets import TinyResidual, tiny_recipe
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.utils import parametrizations

from edgeprune.core.planning.plan import GroupPlan, PruningPlan
from edgeprune.core.target import Target
from edgeprune.errors import GraphError, RecipeError
from edgeprune.graph.groups import find_groups
from edgeprune.graph.storage import load_model, save_model
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import trace_model
from edgeprune.pruning.accelerator import CPU
from edgeprune.pruning.recalibrate import evaluate
from edgeprune.pruning.recover import recover
from edgeprune.recipes.check import check_recipe
from edgeprune.recipes.load import Finetune, Recipe
from edgeprune.stages import model as stages_model
from edgeprune.stages import net as nets
from edgeprune.stages.model import check_graph, recover_accuracy, trace_recipe
from edgeprune.stages.open_net import FILE
from edgeprune.stages.results import to_document


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(2, 6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pool(torch.relu(self.conv(x))))

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@pytest.fixture(scope="module")
def learnt() -> GraphModule:
    """A net that tells stripes apart."""
    torch.manual_seed(0)
    program = trace_model(TinyResidual(), torch.zeros(1, 2, 4, 4))
    return recover(program, None, tiny_recipe(Finetune(epochs=8, learning_rate=0.05)), lambda _: None).program


def job_on(program: GraphModule, recipe: Recipe, folder: Path, said: list[str]) -> Any:
    """As much of a job as recovery needs: two channels of six are cut, and the cut net is saved."""
    analysis = find_groups(program)
    keep = {"inner": (0, 1, 2, 3)}
    plan = PruningPlan((GroupPlan("inner", 6, keep["inner"], 0.0, "a test"),), "0" * 64, 1.0, 1.0, 0.0, 0.0, ())
    (folder / "plan.json").write_text(plan.to_json())
    save_model(apply_plan(program, analysis, keep), folder / "pruned.pt2", torch.zeros(1, 2, 4, 4))
    place = SimpleNamespace(path=folder.joinpath, file=folder.joinpath, product=folder.joinpath)
    target, net = Target("local", "a board"), nets.Net(program, analysis, {}, 4, False)
    places = {"nets": {folder / FILE: net}, "run": place, "target": target, "accelerator": CPU}
    return SimpleNamespace(recipe=recipe, detail=said.append, **places)


def test_recovery_says_which_state_of_each_step_it_keeps(learnt: GraphModule, tmp_path: Path) -> None:
    said: list[str] = []
    recipe = tiny_recipe(Finetune(epochs=2, learning_rate=0.05))
    result = recover_accuracy(job_on(learnt, recipe, tmp_path, said))
    assert result.held_out == {"source": "calibration_data()", "inputs": 16}
    assert [step.step for step in result.steps] == ["re-fitting", "fine-tuning"]
    assert [len(step.standings) for step in result.steps] == [2, 3]
    assert result.notes[1].startswith("fine-tuning: ")
    assert "on 16 inputs of calibration_data()" in result.notes[1]
    assert [line for line in said if line in result.notes] == list(result.notes)
    assert evaluate(load_model(tmp_path / "recovered.pt2"), recipe.eval_data(), recipe.metric) == result.quality
    json.dumps(to_document(result), allow_nan=False)


def test_what_does_harm_is_not_kept(learnt: GraphModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a re-fit that spoils the net nor a training by a loss that the metric has nothing to do with."""

    def spoil_(pruned: GraphModule, *_: Any) -> None:
        with torch.no_grad():
            pruned.get_parameter("classifier.weight").neg_()

    monkeypatch.setattr(stages_model, "reconstruct_", spoil_)
    recipe = replace(
        tiny_recipe(Finetune(epochs=4, learning_rate=0.05, distillation=0.0)),
        loss=lambda outputs, _: 1000 * (outputs - 1).square().mean(),
    )
    result = recover_accuracy(job_on(learnt, recipe, tmp_path, []))
    assert [step.kept for step in result.steps] == [0, 0]
    assert result.quality == pytest.approx(result.quality_before, abs=1)
    assert "fine-tuning: the net as it was before is kept" in result.notes[1]
    untrained, kept = (load_model(tmp_path / name) for name in ("pruned.pt2", "recovered.pt2"))
    assert torch.equal(untrained.get_parameter("classifier.weight"), kept.get_parameter("classifier.weight"))


def test_a_net_that_got_worse_on_the_gates_data_is_said_to(
    learnt: GraphModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([98.4, 94.1])
    monkeypatch.setattr(stages_model, "evaluate", lambda *_: next(figures))
    result = recover_accuracy(job_on(learnt, tiny_recipe(Finetune(epochs=1)), tmp_path, []))
    assert result.notes[-1] == (
        "on eval_data() top-1 accuracy is 98.40 % before fine-tuning and 94.10 % after it: give validation_data(), or "
        "change finetune"
    )


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
