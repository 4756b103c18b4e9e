"""A net that int8 cannot hold, through the whole line: int8 is refused by its layer, and something right ships."""

from pathlib import Path

import pytest
from line import FOLDER, deploy


@pytest.mark.slow
def test_a_refused_file_never_ships_and_does_not_stop_the_others(tmp_path: Path) -> None:
    recipe = FOLDER / "recipes" / "uneven.py"
    report, printed = deploy(tmp_path / "run", tmp_path / "cache", "--recipe", recipe, "--precision", "auto")
    rows = {(row["role"], row["format"], row["precision"]): row for row in report["artifacts"]}
    for file_format in ("onnx", "tflite"):
        refused = rows["pruned", file_format, "int8"]
        assert "20 dB: " in refused["refused"]
        assert "is lost: another is" in refused["refused"]
        assert not {"latency", "quality"} & set(refused)
    (shipped,) = (row for row in rows.values() if row["shipped"])
    assert (shipped["role"], shipped["format"]) == ("pruned", "onnx")
    assert shipped["precision"] != "int8"
    assert any(note.startswith("refused: pruned: onnx fp32 -> onnx int8") for note in report["notes"])
    assert any(
        line.startswith("artifacts/pruned.int8.onnx") and line.endswith("refused") for line in printed.splitlines()
    )
