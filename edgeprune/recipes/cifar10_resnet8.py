"""ResNet-8 on CIFAR-10, the image-classification task of MLPerf Tiny, from a trained checkpoint.

Copy this file with `edgeprune recipes copy cifar10-resnet8` and change what differs for you.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeprune.recipes.data import CHECKPOINTS, Batches, crop_and_flip, load_cifar10
from edgeprune.recipes.networks import ResNet8

CHECKPOINT = CHECKPOINTS / "cifar10_resnet8.safetensors"
MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)

labels = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
preprocessing = (
    "RGB from 0 to 255: (x / 255 - mean) / deviation, mean [0.4914, 0.4822, 0.4465], deviation [0.2470, 0.2435, 0.2616]"
)
finetune = {"epochs": 80, "learning_rate": 0.1, "weight_decay": 5e-4, "distillation": 0.7}


def normalise(images: Tensor) -> Tensor:
    """uint8 images `[N, 3, 32, 32]` to floats of zero mean and unit deviation by colour."""
    return (images.float() / 255 - MEAN) / STD


def model() -> nn.Module:
    """The trained net."""
    net = ResNet8()
    net.load_state_dict(load_file(CHECKPOINT))
    return net


def example_input() -> Tensor:
    """One input, as the deployed net will get it."""
    return torch.zeros(1, 3, 32, 32)


def train_data() -> Batches:
    """50,000 training images, shuffled and augmented."""
    data = load_cifar10()
    return Batches(normalise(data["train_x"]), data["train_y"], 128, shuffle=True, augment=crop_and_flip)


def eval_data() -> Batches:
    """10,000 test images."""
    data = load_cifar10()
    return Batches(normalise(data["test_x"]), data["test_y"], 500)


def calibration_data() -> Batches:
    """2,048 training images, as they are."""
    data = load_cifar10()
    return Batches(normalise(data["train_x"][:2048]), data["train_y"][:2048], 128)
