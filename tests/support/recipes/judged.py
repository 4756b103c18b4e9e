"""A net of two layers whose figure of quality is what the environment says: for tests of how runs are judged.

`JUDGED_NAME`, `JUDGED_BETTER` and `JUDGED_UNIT` describe it, `JUDGED_BEFORE` is that of the unpruned net and
`JUDGED_AFTER` that of any other.
"""

import os

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.core.metric import Metric
from edgeprune.recipes.data import Batches

finetune = {"epochs": 1}


def rows() -> Tensor:
    return torch.randn(64, 12, generator=torch.Generator().manual_seed(1))


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))


def train_data() -> Batches:
    return Batches(rows(), model()(rows()).argmax(1), 32)


eval_data = calibration_data = train_data


def figure(outputs: np.ndarray, targets: np.ndarray) -> float:
    unpruned = model()(rows()).detach().numpy()[: len(outputs)]
    return float(os.environ["JUDGED_BEFORE" if np.allclose(outputs, unpruned, atol=1e-3) else "JUDGED_AFTER"])


metric = Metric(
    os.environ["JUDGED_NAME"], figure, better=os.environ["JUDGED_BETTER"], unit=os.environ.get("JUDGED_UNIT", "")
)
