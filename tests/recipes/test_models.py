"""What may be a recipe's model: modules in any float, exported programs and `.pt2` files; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import GraphModule

from edgeprune.errors import RecipeError
from edgeprune.graph.groups import find_groups
from edgeprune.graph.storage import save_model
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import is_dynamic, trace_model
from edgeprune.recipes.load import load_recipe
from edgeprune.recipes.models import build_model

EXAMPLE = torch.zeros(1, 3, 6, 6)
INPUTS = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A batch norm, a dropout, and a view that a trace for one batch writes the batch into."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop, self.last = (
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.Dropout(),
            nn.Linear(8, 4),
        )
        self.norm.running_mean.uniform_(-0.1, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.last(self.drop(x.view(x.shape[0], -1)))


class Casting(Net):
    """Weights in float16 that the forward casts to and from, beside a norm in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv.half()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.conv(x.half()).float())).mean((2, 3)))


class Merging(nn.Module):
    """A view that mixes the batch with another dimension: written for one batch, it cannot be opened."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 3 * 36).mean(0, keepdim=True).expand(x.shape[0], -1)


def built(given: Any, folder: Path | None = None) -> nn.Module:
    return build_model(given, str((folder or Path()) / "mine.py"), lambda: EXAMPLE).module


def exported(net: nn.Module, batch: int = 1, open_batch: bool = False) -> torch.export.ExportedProgram:
    shapes = ({0: Dim.AUTO},) if open_batch else None
    return torch.export.export(net.eval(), (torch.zeros(batch, 3, 6, 6),), dynamic_shapes=shapes)


@pytest.mark.parametrize("given", [lambda: Net().train(), Net, Net()])
def test_a_function_a_class_or_a_module_gives_a_module_in_eval_mode(given: Any) -> None:
    model = built(given)
    assert not model.training
    assert torch.equal(model(INPUTS), Net().eval()(INPUTS))


@pytest.mark.parametrize("how", ["program", "module", "path", "text", "attribute"])
@pytest.mark.parametrize(("batch", "open_batch"), [(1, False), (3, False), (2, True)])
def test_an_exported_program_is_a_model_for_any_batch(how: str, batch: int, open_batch: bool, tmp_path: Path) -> None:
    """As torch.export.export writes it, with the batch of its example, and with an open one."""
    program = exported(Net(), batch, open_batch)
    torch.export.save(program, tmp_path / "net.pt2")
    given: dict[str, Any] = {
        "program": lambda: torch.export.load(tmp_path / "net.pt2"),
        "module": lambda: torch.export.load(tmp_path / "net.pt2").module(),
        "path": lambda: tmp_path / "net.pt2",
        "text": "net.pt2",
        "attribute": Path("net.pt2"),
    }
    model = built(given[how], tmp_path)
    assert isinstance(model, GraphModule)
    assert is_dynamic(trace_model(model, EXAMPLE))
    torch.testing.assert_close(model(INPUTS), Net().eval()(INPUTS))
    assert all(value.requires_grad for value in model.parameters())


def test_a_pt2_is_in_eval_mode_whatever_mode_it_was_exported_in(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Net().train(), (torch.zeros(2, 3, 6, 6),)), tmp_path / "net.pt2")
    model = built("net.pt2", tmp_path)
    torch.testing.assert_close(model(INPUTS), Net().eval()(INPUTS))


def test_what_was_pruned_is_a_model_and_can_be_pruned_again(tmp_path: Path) -> None:
    program = trace_model(Net(), EXAMPLE)
    pruned = apply_plan(program, find_groups(program), {"conv": (0, 2, 3, 5, 6)})
    save_model(pruned, tmp_path / "recovered.pt2", EXAMPLE)
    again = trace_model(built("recovered.pt2", tmp_path), EXAMPLE)
    analysis = find_groups(again)
    assert [(group.name, group.size) for group in analysis.channel_groups] == [("conv", 5)]
    thinner = apply_plan(again, analysis, {"conv": (1, 2)})
    assert thinner(INPUTS).shape == (5, 4)
    assert torch.equal(again(INPUTS), pruned(INPUTS))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("as_program", [False, True])
def test_other_floats_become_float32_and_keep_their_values(kind: torch.dtype, as_program: bool) -> None:
    net = Net().to(kind).eval()
    given = torch.export.export(net, (EXAMPLE.to(kind),)) if as_program else net
    weight = net.conv.weight.detach().clone()
    model = build_model(given, "mine.py", lambda: EXAMPLE)
    held = model.module.get_parameter("conv.weight")
    assert held.dtype == torch.float32
    assert torch.equal(held, weight.float())
    assert model.module(INPUTS).dtype == torch.float32
    (note,) = model.notes
    assert str(kind).removeprefix("torch.") in note
    assert ("exact" in note) == (kind != torch.float64)


def test_a_net_that_casts_by_itself_is_left_as_it_is() -> None:
    model = build_model(Casting, "mine.py", lambda: EXAMPLE)
    assert model.module.conv.weight.dtype == torch.float16
    assert model.module(INPUTS).shape == (5, 4)


def test_frozen_nets_are_trained_and_it_is_said() -> None:
    frozen = build_model(lambda: Net().requires_grad_(False), "mine.py", lambda: EXAMPLE)
    assert all(value.requires_grad for value in frozen.module.parameters())
    assert "all are" in frozen.notes[0]

    def freeze_one() -> nn.Module:
        net = Net()
        net.conv.requires_grad_(False)
        return net

    partly = build_model(freeze_one, "mine.py", lambda: EXAMPLE)
    assert not partly.module.conv.weight.requires_grad
    assert not partly.notes


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: Net, "gave the class Net; make one"),
        (lambda: Net().state_dict(), "gave OrderedDict; .*load_state_dict"),
        (lambda: 5, "gave int; expected a torch.nn.Module"),
        (lazy, "1.weight has no size yet"),
        (lambda: Net().to("meta"), "conv.weight is on the meta device"),
        (lambda: torch.jit.script(nn.Linear(2, 2)), "gave a TorchScript module"),
        (lambda: 1 / 0, r"mine\.py: model\(\) raised ZeroDivisionError"),
        ("net.onnx", r"net\.onnx: expected a \.pt2; a network in ONNX is read by .*load_onnx"),
        ("none.pt2", r"none\.pt2: cannot be read: No such file"),
        (lambda: exported(Merging()), "exported for a batch of 1; export it with an open batch: torch.export.export"),
    ],
)
def test_what_cannot_be_a_model_says_what_to_give(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        built(given, tmp_path)


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Several(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": x * 2}


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: torch.export.export(Two(), (EXAMPLE, EXAMPLE)), "takes 2 inputs; expected one tensor"),
        (lambda: torch.export.export(Several(), (EXAMPLE,)), "gives dict; expected one tensor"),
    ],
)
def test_programs_of_several_inputs_or_outputs_are_refused(program: Callable[[], Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        built(program)


def test_a_recipe_may_name_a_pt2_in_place_of_a_function(tmp_path: Path) -> None:
    torch.export.save(exported(Net()), tmp_path / "net.pt2")
    batches = "[(torch.zeros(4, 3, 6, 6), torch.arange(4))]"
    functions = "\n".join(
        f"def {name}():\n    return {batches}" for name in ("train_data", "eval_data", "calibration_data")
    )
    (tmp_path / "mine.py").write_text(f"import torch\nmodel = 'net.pt2'\n{functions}\n")
    recipe = load_recipe(str(tmp_path / "mine.py"))
    torch.testing.assert_close(recipe.model()(INPUTS), Net().eval()(INPUTS))
    assert recipe.model_notes() == ()
