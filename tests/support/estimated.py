"""Shipped profiles and nets to ask them about, for the tests of estimates."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from places import ROOT

from edgeprune.core.estimating.calibrate import Measured
from edgeprune.core.estimating.estimate import EstimatedProfile, Parameter
from edgeprune.core.estimating.profiles import parse_profiles
from edgeprune.core.latency.layers import LayerShape

FOLDER = ROOT / "hardware_profiles"
FILES = sorted(FOLDER.glob("*.json"))
Net = tuple[LayerShape, ...]


def load(name: str, runtime: str = "litert", precision: str = "fp32", threads: int = 1) -> EstimatedProfile:
    path = FOLDER / f"{name}.json"
    return parse_profiles(path.read_text(), path.name).choose(runtime, precision, threads)


def conv(cin: int, cout: int, size: int = 28, kernel: int = 3, stride: int = 1, groups: int = 1) -> LayerShape:
    pad = kernel // 2
    return LayerShape("conv", cin, cout, (kernel,) * 2, (stride,) * 2, groups, (size,) * 2, (pad,) * 2)


def pool(channels: int, size: int, kernel: int, stride: int = 1) -> LayerShape:
    pad = (kernel - 1) // 2 if stride == 1 else 0
    return LayerShape("pool", channels, channels, (kernel,) * 2, (stride,) * 2, 1, (size,) * 2, (pad,) * 2)


def add(channels: int, size: int) -> LayerShape:
    return LayerShape("add", channels, channels, size=(size, size))


def plain_net(width: int, size: int, depth: int = 6) -> Net:
    half = size // 2
    body = (*[conv(width, width, half)] * depth, *[add(width, half)] * (depth // 2), pool(width, half, half, half))
    return (conv(3, width, size, 3, 2), *body, LayerShape("linear", width, 10))


def separable_net(width: int, size: int, depth: int = 6) -> Net:
    block = (conv(width, width, size, groups=width), conv(width, width, size, kernel=1))
    return (conv(3, width, size), *block * depth, pool(width, size, size, size), LayerShape("linear", width, 100))


NETS = [
    make(width, size) for make in (plain_net, separable_net) for width in (16, 40, 96, 200) for size in (14, 28, 56)
]


def mobilenet_v1() -> Net:
    """MobileNet (Howard et al. 2017)."""
    layers, channels, size = [conv(3, 32, 224, 3, 2)], 32, 112
    widths = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for cout, stride in widths:
        layers.append(conv(channels, channels, size, 3, stride, channels))
        size //= stride
        layers.append(conv(channels, cout, size, 1))
        channels = cout
    return (*layers, pool(channels, size, size, size), LayerShape("linear", channels, 1000))


def resnet18() -> Net:
    """ResNet-18 (He et al. 2016)."""
    layers = [conv(3, 64, 224, 7, 2), LayerShape("pool", 64, 64, (3, 3), (2, 2), 1, (112, 112), (1, 1))]
    channels, size = 64, 56
    for cout, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            layers += [conv(channels, cout, size, 1, stride)] if channels != cout else []
            layers += [conv(channels, cout, size, 3, stride), conv(cout, cout, size // stride)]
            channels, size = cout, size // stride
            layers.append(add(channels, size))
    return (*layers, pool(channels, size, size, size), LayerShape("linear", channels, 1000))


def distort(profile: EstimatedProfile, factors: Mapping[str, float]) -> EstimatedProfile:
    """The profile with some of its parameters multiplied."""
    moved = {
        name: Parameter(parameter.value * factors.get(name, 1), parameter.spread)
        for name, parameter in profile.parameters.items()
    }
    return replace(profile, parameters=moved)


def measure(profile: EstimatedProfile, nets: Sequence[Net], noise: float = 0.0) -> list[Measured]:
    """What nets would take on a board that is as the profile says, but for noise."""
    factors = np.exp(noise * np.random.default_rng(1).standard_normal(len(nets)))
    return [
        Measured(net, profile.predict_net(net).latency_ms * float(factor))
        for net, factor in zip(nets, factors, strict=True)
    ]
