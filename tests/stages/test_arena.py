"""What a net's file holds in memory is foretold to the byte, and of each kind of net."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune.core.memory.arena import Buffer
from edgeprune.core.memory.learn import FileMemory, learn_memory
from edgeprune.core.memory.steps import NetMemory
from edgeprune.core.planning.plan import ChannelGroup
from edgeprune.graph.groups import find_groups
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import trace_model
from edgeprune.stages.arena import draw_probes, find_counts, read_file_memory
from tests.support.memory_nets import MEMORY_NETS

pytest.importorskip("litert_torch")


class Exporter:
    """Files of a net in int8 at any widths."""

    def __init__(self, name: str, folder: Path) -> None:
        torch.manual_seed(0)
        make, shape = MEMORY_NETS[name]
        self.example, self.folder = torch.randn(2, *shape), folder
        self.program = trace_model(make().eval(), self.example)
        self.analysis = find_groups(self.program)
        self.groups = [group for group in self.analysis.groups if not group.frozen]

    def read(self, widths: dict[str, int]) -> FileMemory:
        """What the file of these widths holds."""
        from edgeprune.exporting.tflite.export import export_tflite
        from edgeprune.exporting.tflite.quantize import quantize_tflite

        keep = {group: range(width) for group, width in widths.items()}
        float_file, file = self.folder / "float.tflite", self.folder / "int8.tflite"
        export_tflite(apply_plan(self.program, self.analysis, keep), self.example[:1], float_file)
        quantize_tflite(float_file, file, [self.example])
        return read_file_memory(file)

    def learn(self) -> NetMemory:
        """The memory at any widths."""
        widths = draw_probes(self.groups, 4)
        return learn_memory([self.read(each) for each in widths], widths, find_counts(self.analysis))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MEMORY_NETS))
def test_tensors_of_an_unseen_file_are_foretold_to_the_byte_at_every_step(name: str, tmp_path: Path) -> None:
    exporter = Exporter(name, tmp_path)
    memory = exporter.learn()
    generator = np.random.default_rng(5)
    for _ in range(2):
        widths = {
            group.name: 1 if group.is_branch else int(generator.choice(group.widths(1, 2))) for group in exporter.groups
        }
        file = exporter.read(widths)
        assert [_place(buffer) for buffer in memory.buffers(widths)] == [_place(buffer) for buffer in file.buffers]
        assert memory.operators == file.operators
        assert memory.count(widths) == file.peak_bytes


def _place(buffer: Buffer) -> tuple[int, int, int]:
    return buffer.size_bytes, buffer.first, buffer.last


def test_probes_tell_all_groups_apart() -> None:
    groups = [ChannelGroup(f"g{number}", 16, ()) for number in range(60)]
    whole, *drawn = draw_probes(groups, 4)
    assert set(whole.values()) == {16}
    assert len({tuple(each[group.name] for each in drawn) for group in groups}) == 60
