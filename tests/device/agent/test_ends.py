"""An agent whose client is gone ends, with all that it has started, whatever it is in the middle of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.device.agent.client import pack_agent
from edgeprune.device.board import ModelFile
from edgeprune.exporting.files import write_file

SOON_S = 15.0


def write_endless(path: Path) -> ModelFile:
    """A model whose one inference does not end."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["again"]), helper.make_node("Add", ["sum", "sum"], ["next"])],
        "inner",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 4]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1, 4]),
        ],
    )
    constants = [
        numpy_helper.from_array(np.array(1 << 62, np.int64), "count"),
        numpy_helper.from_array(np.array(True), "true"),
    ]
    graph = helper.make_graph(
        [helper.make_node("Loop", ["count", "true", "x"], ["y"], body=inner)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    write_file(path, model.SerializeToString())
    return ModelFile.of(path, "onnxruntime")


def list_agents(place: Path) -> list[int]:
    """Processes that run an agent which lies in a folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(place).encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_for(place: Path, count: int) -> int:
    """How many of them there are once there are so many, or after a while."""
    end = time.monotonic() + SOON_S
    while len(list_agents(place)) != count and time.monotonic() < end:
        time.sleep(0.1)
    return len(list_agents(place))


@pytest.mark.parametrize(("command", "processes"), [("measure", 2), ("sustain", 1)])
def test_an_agent_in_the_middle_of_an_inference_ends_with_its_client(
    command: str, processes: int, tmp_path: Path
) -> None:
    board = tmp_path / "board"
    (board / "models").mkdir(parents=True)
    agent = board / "agent.pyz"
    agent.write_bytes(pack_agent())
    model = write_endless(tmp_path / "endless.onnx")
    (board / "models" / model.file).write_bytes(model.path.read_bytes())
    request = {"command": command, "models": [model.to_request()], "archive": None, "threads": 1}
    request |= {"min_samples": 1, "min_duration_s": 1.0, "rounds": 1, "processes": 1, "max_warmup_s": 0.1}
    request |= {"duration_s": 60.0, "start_temperature_c": None, "max_cooldown_s": 1.0}
    with subprocess.Popen(
        [sys.executable, "-I", "-B", str(agent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        try:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(json.dumps(request))
            client.stdin.close()
            assert wait_for(board, processes) == processes
            time.sleep(2.0)
            assert len(list_agents(board)) == processes, "the inference has ended, which it should not"
            client.stdout.close()
            assert wait_for(board, 0) == 0
        finally:
            for pid in list_agents(board):
                os.kill(pid, signal.SIGKILL)
