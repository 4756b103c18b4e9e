"""Layer lists of networks that published latencies are about, written down from the papers that define them.

As `edgeprune` reads them from a model: convolutions, linear layers, pools, additions, products, concatenations and the
activations that are not part of a layer. Not listed: channel shuffles, normalization across channels (AlexNet,
GoogLeNet), ReLU before a layer (NAS-Bench-201).
"""

from __future__ import annotations

from collections.abc import Callable

from edgeprune.core.latency.layers import LayerShape

Layers = tuple[LayerShape, ...]


class Net:
    """A net being written down: the channels and the spatial size at this point, and its layers so far.

    `activation` is what follows the hidden layers of the blocks to come; none where it is part of them, as ReLU.
    """

    def __init__(self, size: int, channels: int = 3, activation: str = "") -> None:
        self.size, self.channels, self.activation = size, channels, activation
        self.layers: list[LayerShape] = []

    def conv(self, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1, pad: int | None = None) -> Net:
        """A square convolution, padded to keep the size unless told otherwise."""
        pad = kernel // 2 if pad is None else pad
        size, axes = (self.size, self.size), ((kernel,) * 2, (stride,) * 2)
        shape = LayerShape("conv", self.channels, cout, *axes, groups, size, (pad, pad))
        self.layers.append(shape)
        self.channels, self.size = cout, shape.output_size[0]
        return self

    def depthwise(self, kernel: int = 3, stride: int = 1) -> Net:
        """A convolution of each channel by itself."""
        return self.conv(self.channels, kernel, stride, self.channels)

    def pool(self, kernel: int, stride: int | None = None, pad: int = 0) -> Net:
        """Square pooling, by default of windows that do not overlap."""
        size, axes = (self.size, self.size), ((kernel,) * 2, (stride or kernel,) * 2)
        shape = LayerShape("pool", self.channels, self.channels, *axes, 1, size, (pad, pad))
        self.layers.append(shape)
        self.size = shape.output_size[0]
        return self

    def add(self, op: str = "add") -> Net:
        """An addition, or a product, of two tensors of this shape."""
        self.layers.append(LayerShape(op, self.channels, self.channels, size=(self.size**2,)))
        return self

    def activate(self) -> Net:
        """The activation, where it is not part of the layer before it."""
        if self.activation:
            self.layers.append(
                LayerShape(self.activation, self.channels, self.channels, (1,), (1,), 1, (self.size**2,), (0,))
            )
        return self

    def linear(self, cout: int, cin: int | None = None) -> Net:
        """A linear layer on the channels, pooled over space, or on `cin` flattened values."""
        if cin is None and self.size > 1:
            self.pool(self.size)
        self.layers.append(LayerShape("linear", cin or self.channels, cout))
        self.channels, self.size = cout, 1
        return self

    def squeeze(self, hidden: int) -> Net:
        """Squeeze and excitation: a pool and two linear layers beside the main line, and a product with it."""
        size, channels = self.size, self.channels
        self.linear(hidden).linear(channels)
        self.size = size
        return self.add("mul")

    def beside(self, *branches: Callable[[Net], object], channels: int | None = None) -> Net:
        """Branches that all start here and are concatenated (or, with `channels`, added)."""
        start, size, total, ends = self.channels, self.size, 0, []
        for branch in branches:
            self.channels, self.size = start, size
            branch(self)
            total += self.channels
            ends.append(self.size)
        self.channels, self.size = channels or total, ends[-1]
        return self.add("add" if channels else "concat")

    def inverted(self, hidden: int, cout: int, kernel: int = 3, stride: int = 1, squeeze: int = 0) -> Net:
        """An inverted residual block (MobileNetV2, Sandler et al. 2018)."""
        is_residual = stride == 1 and self.channels == cout
        if hidden != self.channels:
            self.conv(hidden).activate()
        self.depthwise(kernel, stride).activate()
        if squeeze:
            self.squeeze(squeeze)
        self.conv(cout)
        return self.add() if is_residual else self

    def finish(self) -> Layers:
        """The layers."""
        return tuple(self.layers)


def _convs(*rows: tuple[int, ...]) -> Callable[[Net], object]:
    """A branch of convolutions, each given by output channels and, where they differ from 1, kernel, stride, groups."""

    def branch(net: Net) -> None:
        for row in rows:
            net.conv(*row)

    return branch


def _mobilenet_v1_trunk(net: Net) -> Net:
    net.conv(32, 3, 2)
    widths = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for cout, stride in widths:
        net.depthwise(3, stride).conv(cout)
    return net


def mobilenet_v1(size: int = 224) -> Layers:
    """MobileNet (Howard et al. 2017)."""
    return _mobilenet_v1_trunk(Net(size)).linear(1000).finish()


def mobilenet_v2(size: int = 224) -> Layers:
    """MobileNetV2 (Sandler et al. 2018)."""
    net = Net(size).conv(32, 3, 2)
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, cout, count, stride in stages:
        for index in range(count):
            net.inverted(net.channels * expand, cout, 3, stride if index == 0 else 1)
    return net.conv(1280).linear(1000).finish()


def _bottlenecks(net: Net, rows: str, hardswish_from: int | None = None) -> Net:
    """Rows of `kernel hidden cout squeeze stride`, separated by commas; hard swish from so many rows on."""
    for index, row in enumerate(rows.split(",")):
        kernel, hidden, cout, squeeze, stride = map(int, row.split())
        net.activation = "hardswish" if index == hardswish_from else net.activation
        net.inverted(hidden, cout, kernel, stride, squeeze)
    return net


MOBILENET_V3_LARGE = (
    "3 16 16 0 1,3 64 24 0 2,3 72 24 0 1,5 72 40 24 2,5 120 40 32 1,5 120 40 32 1,3 240 80 0 2,3 200 80 0 1,"
    "3 184 80 0 1,3 184 80 0 1,3 480 112 120 1,3 672 112 168 1,5 672 160 168 2,5 960 160 240 1,5 960 160 240 1"
)
MOBILENET_V3_SMALL = (
    "3 16 16 8 2,3 72 24 0 2,3 88 24 0 1,5 96 40 24 2,5 240 40 64 1,5 240 40 64 1,5 120 48 32 1,5 144 48 40 1,"
    "5 288 96 72 2,5 576 96 144 1,5 576 96 144 1"
)


def mobilenet_v3_large(size: int = 224) -> Layers:
    """MobileNetV3-Large (Howard et al. 2019)."""
    return _mobilenet_v3(size, MOBILENET_V3_LARGE, 6, (960, 1280))


def _mobilenet_v3(size: int, rows: str, hardswish_from: int, ends: tuple[int, int]) -> Layers:
    net = Net(size, activation="hardswish").conv(16, 3, 2).activate()
    net.activation = ""
    net = _bottlenecks(net, rows, hardswish_from).conv(ends[0]).activate()
    return net.linear(ends[1]).activate().linear(1000).finish()


def mobilenet_v3_early() -> Layers:
    """MobileNetV3-Large as early code had it, and ncnn's benchmark has: its last stage begins a block late."""
    rows = MOBILENET_V3_LARGE.replace("5 672 160 168 2,5 960 160 240 1", "5 672 160 168 1,5 672 160 168 2")
    return _mobilenet_v3(224, rows, 6, (960, 1280))


def mobilenet_v3_small(size: int = 224) -> Layers:
    """MobileNetV3-Small (Howard et al. 2019)."""
    return _mobilenet_v3(size, MOBILENET_V3_SMALL, 3, (576, 1024))


def mnasnet() -> Layers:
    """MnasNet-B1 (Tan et al. 2019)."""
    net = Net(224).conv(32, 3, 2).inverted(32, 16)
    stages = [
        (3, 24, 3, 2, 3),
        (3, 40, 3, 2, 5),
        (6, 80, 3, 2, 5),
        (6, 96, 2, 1, 3),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    ]
    for expand, cout, count, stride, kernel in stages:
        for index in range(count):
            net.inverted(net.channels * expand, cout, kernel, stride if index == 0 else 1)
    return net.conv(1280).linear(1000).finish()


PROXYLESSNAS_MOBILE = (
    "3 32 32 0 1,5 48 32 0 2,3 96 32 0 1,7 96 40 0 2,3 120 40 0 1,5 120 40 0 1,5 120 40 0 1,7 240 80 0 2,5 240 80 0 1,"
    "5 240 80 0 1,5 240 80 0 1,5 480 96 0 1,5 288 96 0 1,5 288 96 0 1,5 288 96 0 1,7 576 192 0 2,7 1152 192 0 1,"
    "7 576 192 0 1,7 576 192 0 1,7 1152 320 0 1"
)


def proxylessnas() -> Layers:
    """ProxylessNAS-Mobile (Cai et al. 2019), with the 32 channels of its first block that ncnn's copy has."""
    return _bottlenecks(Net(224).conv(32, 3, 2), PROXYLESSNAS_MOBILE).conv(1280).linear(1000).finish()


def efficientnet_b0() -> Layers:
    """EfficientNet-B0 (Tan and Le 2019)."""
    net = Net(224, activation="silu").conv(32, 3, 2).activate()
    stages = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5)]
    for expand, cout, count, stride, kernel in [*stages, (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)]:
        for index in range(count):
            cin = net.channels
            net.inverted(cin * expand, cout, kernel, stride if index == 0 else 1, squeeze=max(1, cin // 4))
    return net.conv(1280).activate().linear(1000).finish()


def squeezenet() -> Layers:
    """SqueezeNet 1.1 (Iandola et al. 2016) on 227x227."""
    net = Net(227).conv(64, 3, 2, pad=0)
    for index, narrow in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        if index in (0, 2, 4):
            net.pool(3, 2, net.size % 2 == 0)
        wide = 4 * narrow
        net.conv(narrow).beside(_convs((wide,)), _convs((wide, 3)))
    net.conv(1000, pad=1)
    return net.pool(net.size).finish()


def _residual(net: Net, cout: int, stride: int, main: Callable[[Net], object]) -> Net:
    if stride == 1 and net.channels == cout:
        return net.beside(main, channels=cout)
    return net.beside(_convs((cout, 1, stride)), main, channels=cout)


def resnet18(size: int = 224) -> Layers:
    """ResNet-18 (He et al. 2016)."""
    net = Net(size).conv(64, 7, 2).pool(3, 2, 1)
    for cout, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first, 1):
            _residual(net, cout, stride, _convs((cout, 3, stride), (cout, 3)))
    return net.linear(1000).finish()


def resnet50(stride_first: bool = True, size: int = 224) -> Layers:
    """ResNet-50 (He et al. 2016); `stride_first` is the original, with the stride in the first 1x1 convolution."""
    net = Net(size).conv(64, 7, 2).pool(3, 2, 1)
    for width, count, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(count):
            stride = first if index == 0 else 1
            early, late = (stride, 1) if stride_first else (1, stride)
            _residual(net, 4 * width, stride, _convs((width, 1, early), (width, 3, late), (4 * width,)))
    return net.linear(1000).finish()


def vgg16() -> Layers:
    """VGG-16 (Simonyan and Zisserman 2015)."""
    net = Net(224)
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            net.conv(width, 3)
        net.pool(2)
    return net.linear(4096, 512 * 49).linear(4096).linear(1000).finish()


def alexnet() -> Layers:
    """AlexNet (Krizhevsky et al. 2012), its grouped form on 227x227."""
    net = Net(227).conv(96, 11, 4, pad=0).pool(3, 2).conv(256, 5, groups=2).pool(3, 2)
    net.conv(384, 3).conv(384, 3, groups=2).conv(256, 3, groups=2).pool(3, 2)
    return net.linear(4096, 9216).linear(4096).linear(1000).finish()


GOOGLENET = (
    "64 96 128 16 32 32,128 128 192 32 96 64,192 96 208 16 48 64,160 112 224 24 64 64,128 128 256 24 64 64,"
    "112 144 288 32 64 64,256 160 320 32 128 128,256 160 320 32 128 128,384 192 384 48 128 128"
)


def _pooled(cout: int, kernel: int = 3, stride: int = 1, pad: int = 1) -> Callable[[Net], object]:
    return lambda net: net.pool(kernel, stride, pad).conv(cout)


def googlenet() -> Layers:
    """GoogLeNet (Szegedy et al. 2015)."""
    net = Net(224).conv(64, 7, 2).pool(3, 2, 1).conv(64).conv(192, 3).pool(3, 2, 1)
    for index, row in enumerate(GOOGLENET.split(",")):
        a, b, c, d, e, f = map(int, row.split())
        if index in (2, 7):
            net.pool(3, 2, 1)
        net.beside(_convs((a,)), _convs((b,), (c, 3)), _convs((d,), (e, 5)), _pooled(f))
    return net.linear(1000).finish()


def shufflenet_v1() -> Layers:
    """ShuffleNet 1x with three groups (Zhang et al. 2018)."""
    net = Net(224).conv(24, 3, 2).pool(3, 2, 1)
    for width, count in ((240, 4), (480, 8), (960, 4)):
        cin = net.channels
        net.beside(_shuffled(width - cin, 2, 1 if cin == 24 else 3), lambda net: net.pool(3, 2, 1))
        for _ in range(count - 1):
            net.beside(_shuffled(width, 1, 3), channels=width)
    return net.linear(1000).finish()


def _shuffled(cout: int, stride: int, groups: int) -> Callable[[Net], object]:
    return lambda net: net.conv(cout // 4, groups=groups).depthwise(3, stride).conv(cout, groups=3)


def shufflenet_v2() -> Layers:
    """ShuffleNetV2 1x (Ma et al. 2018)."""
    net = Net(224).conv(24, 3, 2).pool(3, 2, 1)
    for width, count in ((116, 4), (232, 8), (464, 4)):
        cin, half = net.channels, width // 2
        net.beside(_convs((cin, 3, 2, cin), (half,)), _convs((half,), (half, 3, 2, half), (half,)))
        for _ in range(count - 1):
            net.channels = half
            net.conv(half).depthwise().conv(half)
            net.channels = width
            net.add("concat")
    return net.conv(1024).linear(1000).finish()


def _regnet_block(width: int, stride: int, hidden: int) -> Callable[[Net], object]:
    return lambda net: net.conv(width).conv(width, 3, stride, width // 8).squeeze(hidden).conv(width)


def regnety_400m() -> Layers:
    """RegNetY-400MF (Radosavovic et al. 2020): groups of eight channels, squeeze and excitation."""
    net = Net(224).conv(32, 3, 2)
    for width, count in ((48, 1), (104, 3), (208, 6), (440, 6)):
        for index in range(count):
            stride = 2 if index == 0 else 1
            _residual(net, width, stride, _regnet_block(width, stride, net.channels // 4))
    return net.linear(1000).finish()


def mobilenet_ssd() -> Layers:
    """SSD (Liu et al. 2016) for 21 classes on MobileNet, 300x300."""
    net = _mobilenet_v1_trunk(Net(300))
    heads = [(512, 19, 3), (1024, 10, 6)]
    for narrow, wide in ((256, 512), (128, 256), (128, 256), (64, 128)):
        net.conv(narrow).conv(wide, 3, 2)
        heads.append((wide, net.size, 6))
    for channels, size, boxes in heads:
        for values in (4, 21):
            net.channels, net.size = channels, size
            net.conv(boxes * values)
    return net.finish()


def mobilenet_yolo() -> Layers:
    """YOLO heads for 20 classes on MobileNet, 416x416, at two scales."""
    net = _mobilenet_v1_trunk(Net(416)).depthwise().conv(1024).conv(125)
    net.channels, net.size = 512, 26
    return net.depthwise().conv(1024).conv(125).finish()


def _fbnet_place(net: Net, name: str, cout: int, stride: int) -> Net:
    """A candidate block of FBNet (Wu et al. 2019), such as `k5_e6`, `k3_e1_g2` or `skip`."""
    is_residual = stride == 1 and net.channels == cout
    if name == "skip":
        return net if is_residual else net.conv(cout, 1, stride)
    kernel, expand, groups, *_ = [int(part[1:]) for part in name.split("_")] + [1]
    net.conv(net.channels * expand, groups=groups).depthwise(kernel, stride).conv(cout, groups=groups)
    return net.add() if is_residual else net


def fbnet_stem() -> Layers:
    """The first convolution of FBNet on 32x32."""
    return Net(32).conv(16, 3).finish()


def fbnet_block(name: str, cin: int, cout: int, size: int, stride: int) -> Layers:
    """A candidate block of FBNet by itself."""
    return _fbnet_place(Net(size, cin), name, cout, stride).finish()


def fbnet_skip(cin: int, cout: int, size: int, stride: int) -> Layers:
    """What FBNet's block is measured against: nothing, or a 1x1 convolution where the shape changes."""
    return fbnet_block("skip", cin, cout, size, stride)


def nasbench201(cell: str) -> Layers:
    """A network of NAS-Bench-201 (Dong and Yang 2020) on 32x32 for 10 classes, by what its three nodes read:
    `|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|`."""
    nodes = [[edge.split("~")[0] for edge in node.strip("|").split("|")] for node in cell.split("+")]
    net = Net(32).conv(16, 3)
    for width in (16, 32, 64):
        if width > 16:
            net.beside(_convs((width, 3, 2), (width, 3)), _pooled(width, 2, 2, 0), channels=width)
        for node in nodes * 5:
            _nasbench201_node(net, [edge for edge in node if edge != "none"])
    return net.linear(10).finish()


def _nasbench201_node(net: Net, edges: list[str]) -> None:
    """Edges that are added up."""
    for edge in edges:
        if edge.startswith("nor_conv"):
            net.conv(net.channels, int(edge[-1]))
        elif edge == "avg_pool_3x3":
            net.pool(3, 1, 1)
    for _ in edges[1:]:
        net.add()


NETWORKS: dict[str, Layers] = {
    "alexnet": alexnet(),
    "efficientnet_b0": efficientnet_b0(),
    "googlenet": googlenet(),
    "mnasnet": mnasnet(),
    "mobilenet_ssd": mobilenet_ssd(),
    "mobilenet_v1": mobilenet_v1(),
    "mobilenet_v2": mobilenet_v2(),
    "mobilenet_v3_early": mobilenet_v3_early(),
    "mobilenet_v3_large": mobilenet_v3_large(),
    "mobilenet_v3_small": mobilenet_v3_small(),
    "mobilenet_yolo": mobilenet_yolo(),
    "proxylessnas": proxylessnas(),
    "regnety_400m": regnety_400m(),
    "resnet18": resnet18(),
    "resnet50": resnet50(),
    "shufflenet_v1": shufflenet_v1(),
    "shufflenet_v2": shufflenet_v2(),
    "squeezenet": squeezenet(),
    "vgg16": vgg16(),
}
