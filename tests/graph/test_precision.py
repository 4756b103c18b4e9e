"""Programs in other floats than float32: widened exactly, whatever is cast where."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeprune.graph.groups import find_groups
from edgeprune.graph.precision import widen
from edgeprune.graph.proof import check_surgery
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import trace_model

EXAMPLE = torch.zeros(1, 3, 6, 6)
INPUTS = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


class Casting(Plain):
    """Convolutions in float16 between a norm and a head in float32, with casts and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv.half()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.to(torch.float16)) + torch.zeros(8, 1, 1, dtype=torch.float16)
        return self.last(torch.relu(self.norm(x.float())).mean((2, 3)))


class Autocast(Plain):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            x = torch.relu(self.conv(x))
        return self.last(self.norm(x.float()).mean((2, 3)))


class Double(Plain):
    """A float32 net with a table in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(0.5, 1.5, 8, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.last((x.double() * self.table).float())


@pytest.mark.parametrize(
    ("net", "kind"), [(Casting, torch.float16), (Autocast, torch.bfloat16), (Double, torch.float64)]
)
def test_a_widened_program_computes_the_same_in_float32(net: type[Plain], kind: torch.dtype) -> None:
    model = net().eval()
    traced = trace_model(model, EXAMPLE)
    program, kinds = widen(traced, EXAMPLE)
    assert kinds == (kind,)
    kinds_left = {node.meta["val"].dtype for node in program.graph.nodes if isinstance(node.meta.get("val"), Tensor)}
    assert kinds_left - {torch.int64} == {torch.float32}
    torch.testing.assert_close(program(INPUTS), model(INPUTS), atol=0.02, rtol=0.02)
    torch.testing.assert_close(program.get_parameter("conv.weight"), model.conv.weight.float(), atol=0, rtol=0)
    assert program(INPUTS[:1]).shape == (1, 4)
    analysis = find_groups(program)
    keep = {"conv": (0, 1, 4)}
    assert check_surgery(program, analysis, keep, apply_plan(program, analysis, keep), EXAMPLE) < 1e-9


def test_the_users_weights_stay_as_they_are() -> None:
    model = Casting().eval()
    widen(trace_model(model, EXAMPLE), EXAMPLE)
    assert model.conv.weight.dtype == torch.float16


def test_a_program_in_float32_is_given_back() -> None:
    traced = trace_model(Plain(), EXAMPLE)
    assert widen(traced, EXAMPLE) == (traced, ())
