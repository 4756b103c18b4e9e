"""Nets on disk: what comes back, and what is refused before torch touches it."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.errors import GraphError
from edgeprune.graph.groups import find_groups
from edgeprune.graph.storage import load_model, model_sha256, save_model
from edgeprune.graph.surgery import apply_plan
from edgeprune.graph.trace import set_training_, trace_model

torch.set_num_threads(1)
EXAMPLE = torch.randn(1, 3, 8, 8)


class Small(nn.Module):
    """A net with a batch norm, a dropout, a split that needs a literal, and a channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.stem(x).split([3, 5], 1)
        x = torch.cat((right, left), 1)
        x = x.view(x.shape[0], 2, 4, 6, 6).transpose(1, 2).reshape(x.shape[0], 8, 6, 6)
        return self.head(self.drop(x.mean((2, 3))))


@pytest.fixture(scope="module")
def pruned() -> torch.fx.GraphModule:
    torch.manual_seed(0)
    program = trace_model(Small(), EXAMPLE)
    analysis = find_groups(program)
    keep = {group.name: range(0, group.size, 2) for group in analysis.groups if not group.frozen}
    return apply_plan(program, analysis, {name: list(kept) for name, kept in keep.items()})


@pytest.fixture
def saved(pruned: torch.fx.GraphModule, tmp_path: Path) -> Path:
    path = tmp_path / "net.pt2"
    save_model(pruned, path, EXAMPLE)
    return path


def rebuilt(path: Path, changes: dict[str, bytes]) -> Path:
    """The archive with entries (named without their folder) replaced or added."""
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    other = path.with_name("other.pt2")
    with zipfile.ZipFile(other, "w") as archive:
        for name, data in (entries | changes).items():
            archive.writestr(f"net/{name}", data)
    return other


def entry(path: Path, ending: str) -> tuple[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(ending))
        return name.partition("/")[2], archive.read(name)


def test_what_is_loaded_computes_the_same_at_any_batch(pruned: torch.fx.GraphModule, saved: Path) -> None:
    loaded, images = load_model(saved), torch.randn(5, 3, 8, 8)
    assert torch.equal(loaded(images), pruned(images))


def test_groups_and_hash_survive(pruned: torch.fx.GraphModule, saved: Path) -> None:
    loaded = load_model(saved)
    assert find_groups(loaded).groups == find_groups(pruned).groups
    assert model_sha256(loaded) == model_sha256(pruned)


def test_the_hash_sees_a_weight_and_a_literal(pruned: torch.fx.GraphModule, saved: Path) -> None:
    loaded = load_model(saved)
    with torch.no_grad():
        loaded.get_parameter("stem.0.bias")[0] += 1e-3
    assert model_sha256(loaded) != model_sha256(pruned)
    flipped = load_model(saved)
    set_training_(flipped, True)
    assert model_sha256(flipped) != model_sha256(pruned)


def test_the_same_net_gives_the_same_bytes_and_nothing_else_is_left(pruned: torch.fx.GraphModule, saved: Path) -> None:
    again = saved.with_name("again.pt2")
    save_model(pruned, again, EXAMPLE)
    assert again.read_bytes() == saved.read_bytes()
    assert sorted(path.name for path in saved.parent.iterdir()) == ["again.pt2", "net.pt2"]


def test_the_file_holds_no_pickle(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        samples = [archive.read(name) for name in archive.namelist() if "sample_inputs" in name]
        assert samples == [b""] * len(samples)
        assert not any(name.endswith(".pkl") for name in archive.namelist())


def test_it_loads_and_trains_in_a_process_without_its_source(saved: Path) -> None:
    script = (
        "import sys, torch; from pathlib import Path;"
        "from edgeprune.graph.storage import load_model;"
        "from edgeprune.graph.trace import set_training_;"
        "net = load_model(Path(sys.argv[1])); set_training_(net, True);"
        "net(torch.randn(4, 3, 8, 8)).sum().backward(); print(net.get_parameter('head.weight').grad.shape[1])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(saved)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "5"


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickled_sample_inputs_are_left_out_unread(saved: Path, tmp_path: Path) -> None:
    bomb = io.BytesIO()
    torch.save(Bomb(tmp_path / "went_off"), bomb)
    load_model(rebuilt(saved, {"data/sample_inputs/model.pt": bomb.getvalue()}))
    assert not (tmp_path / "went_off").exists()


def test_a_plain_export_with_sample_inputs_loads(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Small().eval(), (EXAMPLE,)), tmp_path / "plain.pt2")
    assert load_model(tmp_path / "plain.pt2")(EXAMPLE).shape == (1, 4)


@pytest.mark.parametrize("kind", ["archive", "legacy", "plain"])
def test_a_pickle_is_refused_with_a_way_out(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "net.pt"
    if kind == "plain":
        path.write_bytes(pickle.dumps(Bomb(tmp_path / "went_off")))
    else:
        torch.save(Bomb(tmp_path / "went_off"), path, _use_new_zipfile_serialization=kind == "archive")
    with pytest.raises(GraphError, match="can run code when it is loaded; build the model in a recipe"):
        load_model(path)
    assert not (tmp_path / "went_off").exists()


def test_a_pickled_weight_is_refused(saved: Path) -> None:
    name, data = entry(saved, "weights_config.json")
    document = json.loads(data)
    next(iter(document["config"].values()))["use_pickle"] = True
    with pytest.raises(GraphError, match="has a pickled tensor"):
        load_model(rebuilt(saved, {name: json.dumps(document).encode()}))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("torch.ops.aten.relu.default", "torch.os.system", "'torch.os.system', which is no tensor operator"),
        ("torch.ops.aten.relu.default", "torch.ops.load_library", "no tensor operator"),
        ("Symbol('", "__import__('", "is not arithmetic"),
        ("Symbol('", "open('", "is not arithmetic"),
    ],
)
def test_a_graph_that_would_run_code_is_refused(saved: Path, old: str, new: str, message: str) -> None:
    name, data = entry(saved, "models/model.json")
    assert old in data.decode()
    with pytest.raises(GraphError, match=message):
        load_model(rebuilt(saved, {name: data.decode().replace(old, new).encode()}))


def test_foreign_entries_are_refused(saved: Path) -> None:
    with pytest.raises(GraphError, match="neither weights nor a graph"):
        load_model(rebuilt(saved, {"data/aotinductor/model.so": b"\x7fELF"}))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_text("hello")
    with pytest.raises(GraphError, match=r"not a \.pt2 archive"):
        load_model(tmp_path / "net.pt2")
    with pytest.raises(GraphError, match="cannot be read"):
        load_model(tmp_path / "missing.pt2")


def test_a_failed_save_leaves_no_file(pruned: torch.fx.GraphModule, tmp_path: Path) -> None:
    with pytest.raises(GraphError):
        save_model(pruned, tmp_path / "net.pt2", torch.randn(2, 4, 8, 8))
    assert list(tmp_path.iterdir()) == []
