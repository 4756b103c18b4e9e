"""A net as the steps of an interpreter: which operator makes and reads which tensor, and how long each one lives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from edgeprune.core.memory.arena import ArenaPlan, Buffer, plan_arena


@dataclass(frozen=True)
class Step:
    """One operator: `op` as TFLite writes it, the tensors that it reads and makes (none that are constant), and what it
    asks for while it runs.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scratch_bytes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Activation:
    """A tensor that is not constant, for a batch of one; `type` as TFLite writes it."""

    type: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class Timeline:
    """A net in the order in which it runs.

    `tensors` by name, in the order of the file; `inputs` and `outputs` are those of the whole net.
    """

    steps: tuple[Step, ...]
    tensors: Mapping[str, Activation]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        """What has to lie in the arena, with its first and last step, as TensorFlow Lite Micro has it: the net's inputs
        from the first step on, its outputs to the last.

        Source: `AllocationInfoBuilder::MarkAllocationLifetimes` in micro_allocation_info.cc of tflite-micro.
        """
        first, last = dict.fromkeys(self.inputs, 0), dict[str, int]()
        for number, step in enumerate(self.steps):
            for name in step.outputs:
                first.setdefault(name, number)
            last |= dict.fromkeys((*step.inputs, *step.outputs), number)
        last |= dict.fromkeys(self.outputs, len(self.steps) - 1)
        alive = [name for name in self.tensors if name in first and name in last]
        tensors = [Buffer(name, self.tensors[name].size_bytes, first[name], last[name]) for name in alive]
        return (*tensors, *self._list_scratch())

    def _list_scratch(self) -> Sequence[Buffer]:
        return [
            Buffer(f"scratch {place} of step {number}", size, number, number)
            for number, step in enumerate(self.steps)
            for place, size in enumerate(step.scratch_bytes)
        ]

    @cached_property
    def labels(self) -> dict[str, str]:
        """A short name of each buffer for people; those that would be alike have a number."""
        short = {buffer.name: shorten_name(buffer.name) for buffer in self.buffers}
        used, labels = Counter[str](), dict[str, str]()
        for name, label in short.items():
            used[label] += 1
            labels[name] = f"{label} ({used[label]})" if used[label] > 1 else label
        return labels

    @cached_property
    def arena(self) -> ArenaPlan:
        """Where the activations lie."""
        return plan_arena(self.buffers)

    def list_alive(self, step: int) -> tuple[Buffer, ...]:
        """What lies in the arena at a step, the largest first."""
        alive = [buffer for buffer in self.buffers if buffer.first <= step <= buffer.last]
        return tuple(sorted(alive, key=lambda buffer: -buffer.size_bytes))

    def list_missing(self) -> dict[str, tuple[int, ...]]:
        """The steps of each operator that TensorFlow Lite Micro does not have."""
        missing = dict[str, tuple[int, ...]]()
        for number, step in enumerate(self.steps):
            if step.op not in MICRO_OPERATORS:
                missing[step.op] = (*missing.get(step.op, ()), number)
        return missing


def shorten_name(name: str, most: int = 36) -> str:
    """A tensor's name without the classes of its layers, which litert-torch puts before them, and of what is joined the
    last; where that is too long its end, which tells it from others.
    """
    parts = [part for part in name.split(";") if part and not part.isdigit()]
    last = parts[-1] if parts else name
    if "torch.nn.modules." in last:
        last = "/".join(step.rpartition(".")[2] for step in last.split("/")[1:])
    return last if len(last) <= most else f"…{last[1 - most :]}"


# fmt: off
MICRO_OPERATORS = frozenset((
    "ABS", "ADD", "ADD_N", "ARG_MAX", "ARG_MIN", "ASSIGN_VARIABLE", "AVERAGE_POOL_2D", "BATCH_MATMUL",
    "BATCH_TO_SPACE_ND", "BROADCAST_ARGS", "BROADCAST_TO", "CALL_ONCE", "CAST", "CEIL", "CONCATENATION", "CONV_2D",
    "COS", "CUMSUM", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "DYNAMIC_UPDATE_SLICE", "ELU",
    "EMBEDDING_LOOKUP", "EQUAL", "EXP", "EXPAND_DIMS", "FILL", "FLOOR", "FLOOR_DIV", "FLOOR_MOD", "FULLY_CONNECTED",
    "GATHER", "GATHER_ND", "GREATER", "GREATER_EQUAL", "HARD_SWISH", "IF", "L2_NORMALIZATION", "L2_POOL_2D",
    "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "LOGISTIC", "LOG_SOFTMAX",
    "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG", "NOT_EQUAL", "PACK", "PAD", "PADV2",
    "PRELU", "QUANTIZE", "READ_VARIABLE", "REDUCE_ALL", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RESHAPE",
    "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "ROUND", "RSQRT", "SELECT_V2", "SHAPE", "SIN", "SLICE",
    "SOFTMAX", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE",
    "SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "SVDF", "TANH", "TRANSPOSE", "TRANSPOSE_CONV",
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNPACK", "VAR_HANDLE", "WHILE", "ZEROS_LIKE",
))
# fmt: on
"""Operators of TensorFlow Lite Micro: those of all built-in ones of the schema that tflite-micro 0.dev20261023182759
and the build in mcufit 0.5.2 (18b9e6f) take; they agree on each."""
