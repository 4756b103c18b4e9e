"""What files are made for a target."""

import pytest
import torch

from edgeprune.core.target import Target
from edgeprune.exporting.request import Form
from edgeprune.stages.artifacts import find_form


@pytest.mark.parametrize(
    ("shape", "nhwc"), [((1, 3, 8, 8), True), ((1, 1, 49, 10), True), ((1, 640), False), ((1, 6, 128), False)]
)
def test_a_layout_of_images_is_asked_of_images_alone(shape: tuple[int, ...], nhwc: bool) -> None:
    target = Target("board", "a board", runtime="c", precision="int8", input_layout="nhwc", io="integer")
    assert find_form(target, torch.zeros(shape)) == Form(nhwc=nhwc, integers=True)
    assert find_form(Target("board", "a board"), torch.zeros(shape)) == Form()
