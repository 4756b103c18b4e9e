"""ONNX files with their weights beside them, as torch writes them: made whole before they go anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from export_nets import normal
from torch import nn

from edgeprune.calibration import read_measurements
from edgeprune.errors import ExportError, RecipeError, UsageError
from edgeprune.exporting.foreign import quiet
from edgeprune.exporting.onnx import contained
from edgeprune.exporting.onnx.contained import contain
from edgeprune.exporting.runners import run_file
from edgeprune.recipes.onnx_model import load_onnx


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A net whose weights are in `net.onnx.data`."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32 * 16, 10))
    path = tmp_path / "given" / "net.onnx"
    path.parent.mkdir()
    with quiet():
        torch.onnx.export(net.eval(), (torch.zeros(1, 3, 8, 8),), str(path), dynamo=True, verbose=False)
    assert path.with_name("net.onnx.data").exists()
    return path


def test_the_copy_runs_alone_and_computes_the_same(beside: Path, tmp_path: Path) -> None:
    rows = normal(3, 3, 8, 8)
    wanted, before = run_file(beside, rows), sorted(beside.parent.iterdir())
    whole = contain(beside, tmp_path)
    assert whole == tmp_path / beside.name
    assert sorted(beside.parent.iterdir()) == before
    beside.with_name("net.onnx.data").unlink()
    np.testing.assert_array_equal(run_file(whole, rows), wanted)


def test_a_whole_file_is_left_where_it_is(beside: Path, tmp_path: Path) -> None:
    whole, other = contain(beside, tmp_path), tmp_path / "other"
    assert contain(whole, other) == whole
    assert contain(tmp_path / "net.tflite", other) == tmp_path / "net.tflite"
    assert not other.exists()


def test_weights_that_are_not_there_are_named(beside: Path, tmp_path: Path) -> None:
    beside.with_name("net.onnx.data").rename(tmp_path / "elsewhere.data")
    with pytest.raises(UsageError, match=rf"its weights lie in net\.onnx\.data, which is not in {beside.parent}"):
        contain(beside, tmp_path)
    with pytest.raises(RecipeError, match=r"net\.onnx: cannot be read: .*net\.onnx\.data"):
        load_onnx(beside)


def test_what_no_onnx_file_can_hold_is_refused(beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(one.stat().st_size for one in beside.parent.iterdir())
    monkeypatch.setattr(contained, "MOST_BYTES", size)
    contain(beside, tmp_path)
    monkeypatch.setattr(contained, "MOST_BYTES", size - 1)
    with pytest.raises(UsageError, match=rf"{size:,} bytes.*{size - 1:,} at most"):
        contain(beside, tmp_path)


def test_what_is_no_onnx_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ExportError, match=r"text\.onnx: reading"):
        contain(tmp_path / "text.onnx", tmp_path / "other")


def test_such_a_file_is_a_model_and_calibrates(beside: Path) -> None:
    rows = normal(2, 3, 8, 8)
    with torch.no_grad():
        np.testing.assert_allclose(load_onnx(beside)(torch.from_numpy(rows)), run_file(beside, rows), atol=1e-5)
    (beside.parent / "rows.csv").write_text("model,ms\n" + "net.onnx,1.5\n" * 5)
    assert read_measurements(beside.parent / "rows.csv")[0].layers[0].cin == 3


def test_several_files_and_tensors_within_nodes_are_taken_in(beside: Path, tmp_path: Path) -> None:
    """Each tensor in a file of its own, and a constant node that has its value outside too."""
    model = onnx.load(beside)
    value = onnx.numpy_helper.from_array(np.full(2048, 2.0, np.float32), "two")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["two"], value=value))
    folder = tmp_path / "many"
    folder.mkdir()
    onnx.save(
        model, folder / "net.onnx", save_as_external_data=True, all_tensors_to_one_file=False, convert_attribute=True
    )
    assert len(list(folder.iterdir())) > 3
    whole = onnx.load(contain(folder / "net.onnx", tmp_path), load_external_data=False)
    assert not contained._find_beside(whole)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(whole.graph.node[-1].attribute[0].t), 2.0)
