"""What the benchmark and the runtime print of delegates, as phones have printed it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.boards.delegates import delegate_flags, parse_flags, parse_share

BOTH = """
VERBOSE: Replacing 5 out of 64 node(s) with delegate (TfLiteNnapiDelegate) node, yielding 5 partitions for the whole graph.
INFO: Explicitly applied NNAPI delegate, and the model graph will be partially executed by the delegate w/ 5 delegate kernels.
VERBOSE: Replacing 59 out of 62 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 5 partitions for the whole graph.
"""  # noqa: E501  as an MT6899 printed it
GPU = "INFO: Replacing 31 out of 31 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions"
OLD_GPU = """
INFO: Replacing 1 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions.
Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.
"""
NONE = "Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate."


@pytest.mark.parametrize(
    ("text", "provider", "share"),
    [
        (BOTH, "nnapi", 5 / 64),
        (BOTH, "cpu", 59 / 62),
        (BOTH, "gpu", None),
        (GPU, "gpu", 1.0),
        (OLD_GPU, "gpu", 1.0),
        (OLD_GPU.splitlines()[1], "gpu", None),
        (NONE, "gpu", 0.0),
        (NONE.replace("GPU", "NNAPI"), "gpu", None),
        (f"{GPU}\n{GPU.replace('31 out', '1 out')}", "gpu", 32 / 62),
        ("", "gpu", None),
    ],
)
def test_only_lines_that_name_the_delegate_say_what_it_took(text: str, provider: str, share: float | None) -> None:
    assert parse_share(text, provider) == (None if share is None else pytest.approx(share))


def test_the_gpu_computes_in_the_precision_of_the_file() -> None:
    assert delegate_flags("gpu") == ("--use_gpu=true", "--gpu_precision_loss_allowed=false")
    assert (delegate_flags("nnapi"), delegate_flags("cpu")) == (("--use_nnapi=true",), ("--use_xnnpack=true",))


def test_flags_are_those_of_the_usage() -> None:
    usage = "ERROR: usage: x <flags>\nFlags:\n\t--num_runs=50\tint32\toptional\tsee --min_secs=1\n\t--graph=\tstring\n"
    assert parse_flags(usage) == {"num_runs", "graph"}
    assert parse_flags("usage: ls [OPTION]...\n  --graph=WHEN\n") == frozenset()


@given(st.text(max_size=200) | st.lists(st.sampled_from([*BOTH.splitlines(), NONE, GPU])).map("\n".join))
def test_whatever_is_printed_is_a_share_or_nothing(text: str) -> None:
    for provider in ("cpu", "gpu", "nnapi"):
        share = parse_share(text, provider)
        assert share is None or 0 <= share <= 1
