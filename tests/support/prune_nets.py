"""Small nets and data for the tests of pruning."""

from pathlib import Path

import torch
from torch import Tensor, nn

from edgeprune.graph.groups import find_groups
from edgeprune.graph.trace import trace_model
from edgeprune.pruning.evidence import Batch, Evidence
from edgeprune.recipes.load import TOP1_ACCURACY, Finetune, Recipe
from edgeprune.recipes.reading import Data


class TinyResidual(nn.Module):
    """Convolutions, batch norm, a residual connection, a depthwise convolution and a flatten of 4x4 maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(6)
        self.outer = nn.Conv2d(6, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.classifier = nn.Linear(8 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.outer(torch.relu(self.inner_norm(self.inner(x)))))
        return self.classifier(torch.relu(self.depthwise(x)).flatten(1))


def stripes(count: int, seed: int = 0) -> Batch:
    """Images `[count, 2, 4, 4]` of three learnable kinds."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    images = torch.randn(count, 2, 4, 4, generator=generator) * 0.5
    images[labels == 0, :, :2] += 1
    images[labels == 1, :, :, :2] += 1
    return images, labels


def tiny_evidence(seed: int = 0, model: nn.Module | None = None) -> Evidence:
    """A traced net with lively batch-norm statistics, and two calibration batches."""
    torch.manual_seed(seed)
    net = model or TinyResidual()
    net.train()
    net(stripes(64)[0])
    program = trace_model(net.eval(), torch.zeros(1, 2, 4, 4))
    batches = (stripes(32, 1), stripes(16, 2))
    return Evidence(program, find_groups(program), batches, nn.functional.cross_entropy)


def tiny_recipe(finetune: Finetune, train: list[Batch] | None = None) -> Recipe:
    """A recipe of stripes for a net that is traced elsewhere."""
    images, labels = stripes(192)
    batches = train or list(zip(images.split(32), labels.split(32), strict=True))
    return Recipe(
        name="stripes",
        source=Path("stripes.py"),
        model=TinyResidual,
        train_data=lambda: Data("train_data()", "stripes.py", batches),
        eval_data=lambda: Data("eval_data()", "stripes.py", [stripes(300, 9)]),
        calibration_data=lambda: Data("calibration_data()", "stripes.py", [stripes(64, 1)]),
        example_input=lambda: torch.zeros(1, 2, 4, 4),
        loss=nn.functional.cross_entropy,
        metric=TOP1_ACCURACY,
        finetune=finetune,
    )
