"""Train the baseline of the recipe `cifar10-resnet8` and write its checkpoint and log.

    python benchmarks/train_cifar10_resnet8.py [--epochs 90]

SGD with Nesterov momentum, one cosine cycle, crops and mirror images, bfloat16 on the CPU.
The last epoch is kept: the test set chooses nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeprune.recipes import cifar10_resnet8 as recipe
from edgeprune.recipes.networks import ResNet8

WARMUP_SHARE = 0.1


def learning_rate(progress: float, peak: float) -> float:
    """Linear warm-up, then a cosine to zero, over `progress` in [0, 1]."""
    if progress < WARMUP_SHARE:
        return peak * progress / WARMUP_SHARE
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - WARMUP_SHARE) / (1 - WARMUP_SHARE)))


def evaluate(net: nn.Module, data: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Top-1 accuracy in percent."""
    net.eval()
    right = count = 0
    with torch.inference_mode():
        for images, labels in data:
            right += int((net(images).argmax(1) == labels).sum())
            count += len(labels)
    return 100 * right / count


def main() -> None:
    """Train, log one JSON line an epoch, save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    net = ResNet8().to(memory_format=torch.channels_last)
    train, test = recipe.train_data(), recipe.eval_data()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    log = recipe.CHECKPOINT.with_suffix(".log")
    lines = [{"network": "ResNet-8", "epochs": arguments.epochs, "seed": arguments.seed, "torch": torch.__version__}]
    steps = arguments.epochs * len(train)
    step, started = 0, time.monotonic()
    for epoch in range(1, arguments.epochs + 1):
        net.train()
        total = 0.0
        for images, labels in train:
            optimizer.param_groups[0]["lr"] = learning_rate(step / steps, 0.2)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(images.contiguous(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, step = total + loss.item(), step + 1
        line = {
            "epoch": epoch,
            "train_loss": round(total / len(train), 4),
            "seconds": round(time.monotonic() - started),
        }
        if epoch % 5 == 0 or epoch == arguments.epochs:
            line["test_accuracy_percent"] = round(evaluate(net, test), 2)
        lines.append(line)
        print(json.dumps(line), flush=True)
        Path(log).write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, recipe.CHECKPOINT)


if __name__ == "__main__":
    main()
