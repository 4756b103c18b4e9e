"""What a file computes on a board: one call of `benchmark_model` for each input, many calls in one command."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.core.progress import Count
from edgeprune.core.target import Target
from edgeprune.core.text import describe_duration
from edgeprune.core.tflite_ends import End, parse_ends
from edgeprune.device.board import ModelFile, Progress
from edgeprune.device.phone.binary import own_folder
from edgeprune.device.phone.calls import Call, check_delegate, fail_call, run_many
from edgeprune.device.phone.files import join_files, push_files, remove_folder
from edgeprune.device.transports.transport import AGAIN, Transport
from edgeprune.errors import DeviceError, ExportError, RemoteError

CHUNK_BYTES = 8 << 20
"""Of inputs that lie on the board at a time."""
MOST_ROWS = 500
"""In one command."""
FIRST_LOOK = 8
ONCE = ("--num_runs=1", "--min_secs=0", "--warmup_runs=0", "--warmup_min_secs=0")
"""One run and none before it, so that a net with a state starts from its beginning; `--dry_run` sets the same."""


def run_inputs(
    transport: Transport, model: ModelFile, words: Sequence[str], target: Target, inputs: np.ndarray, progress: Progress
) -> np.ndarray:
    """Outputs `[N, ...]` of a file with a batch of 1 for inputs `[N, ...]`; `words` begin every call.

    Raises:
        RemoteError: a call failed, or gave no output.
        NoSpace: the board's disk is full.
        DeviceError: the inputs do not fit, or anything else that goes wrong there.
    """
    try:
        source, results = parse_ends(model.path.read_bytes())
        contents = [source.encode(row[None]) for row in inputs]
    except ExportError as exc:
        raise DeviceError(f"{model.path}: {exc}") from exc
    begun, rows = time.monotonic(), list[np.ndarray]()
    every = max(1, min(MOST_ROWS, CHUNK_BYTES // max(1, source.size_bytes)))
    calls = _Calls(transport, [*words, *_ends_flags(source)], target, model.name, len(contents), progress, begun)
    for start in range(0, len(contents), every):
        outputs = _run_chunk(calls, contents[start : start + every], start, sum(end.size_bytes for end in results))
        rows += [results[0].decode(output[: results[0].size_bytes], inputs.dtype.kind == "f") for output in outputs]
    return np.concatenate(rows)


def _ends_flags(source: End) -> list[str]:
    """The input by a name of ours: the names need not be those of the file (tools/benchmark/README.md)."""
    return ["--input_layer=input", f"--input_layer_shape={','.join(map(str, source.shape))}", *ONCE]


@dataclass(frozen=True)
class _Calls:
    """What the calls of all chunks share: `total` of them, from `begun` on."""

    transport: Transport
    words: Sequence[str]
    target: Target
    name: str
    total: int
    progress: Progress
    begun: float

    def take(self, call: Call, before: int) -> None:
        """Check a call, and tell how far they are."""
        if call.exit_code != 0:
            raise fail_call(self.transport.host, call.exit_code, call.text)
        if before + call.number == 0:
            check_delegate(self.transport.host, call.text, self.target, self.name)
        count = before + call.number + 1
        if count == min(FIRST_LOOK, self.total):
            left_s = (time.monotonic() - self.begun) / count * (self.total - count)
            self.progress(f"{self.total} inputs, a call each: about {describe_duration(left_s)} more")
        elif count % 25 == 0:
            self.progress(Count(f"{count} of {self.total} inputs"))


def _run_chunk(calls: _Calls, contents: Sequence[bytes], before: int, output_bytes: int) -> list[bytes]:
    """The outputs of some inputs, which lie on the board only so long."""
    folder = f"{own_folder(calls.transport)}/run-{secrets.token_hex(4)}"
    names = [f"{number:06}" for number in range(len(contents))]
    try:
        push_files(calls.transport, f"{folder}/in", dict(zip(names, contents, strict=True)))
        calls.transport.run(["mkdir", "-p", f"{folder}/out"], timeout_s=60)
        rows = [
            f"--input_layer_value_files=input:{folder}/in/{name} --output_filepath={folder}/out/{name}"
            for name in names
        ]
        run_many(calls.transport, calls.words, rows, lambda call: calls.take(call, before))
        content = join_files(calls.transport, f"{folder}/out")
    finally:
        _clean_up(calls.transport, folder)
    if len(content) != len(contents) * output_bytes:
        raise RemoteError(
            f"{calls.transport.host}: {len(content)} bytes of outputs of {calls.name}, {len(contents) * output_bytes} "
            f"expected: is its disk full? {AGAIN}"
        )
    return [content[at : at + output_bytes] for at in range(0, len(content), output_bytes)]


def _clean_up(transport: Transport, folder: str) -> None:
    """Remove what lies there; where the link is gone, it stays for the next command's user to see."""
    try:
        remove_folder(transport, folder)
    except DeviceError:
        return
