"""As tiny.py, but half of the channels between two layers dwarf the others: 8 bits cannot hold both."""

import torch
from tiny import calibration_data, eval_data, train_data  # noqa: F401
from tiny import model as trained
from torch import Tensor, nn

finetune = {"epochs": 0}


class Uneven(nn.Module):
    """Scales that a product applies and the next layer undoes: no equalisation reaches through them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = trained()
        scales = torch.ones(64, 1, 1)
        scales[::2] = 3000.0
        self.register_buffer("scales", scales)
        with torch.no_grad():
            self.body[6].weight /= scales.view(1, 64, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body[6:](self.body[:6](x) * self.scales)


def model() -> nn.Module:
    return Uneven()
