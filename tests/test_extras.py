"""Extras: whatever is imported belongs to one, and where it is missing its name is told."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: texts for name, texts in PROJECT["optional-dependencies"].items() if name not in ("all", "dev")}
USES = [
    ("paramiko", "ssh", "from edgeprune.device.connect import open_transport; open_transport('rpi4', 'pi@127.0.0.1')"),
    ("paramiko", "ssh", "import edgeprune.device.ssh.login"),
    ("bakenn", "mcu", "from edgeprune.exporting.c.generate import _compile; _compile(b'', None, None)"),
    ("serial", "serial", "from edgeprune.device.serial.line import open_line; open_line(None).__enter__()"),
    ("cryptography", "sign", "from edgeprune.device.releasing.signing import load_signing_key as f; f(None, str)"),
    ("matplotlib", "report", "import edgeprune.report.pictures"),
    ("vl_convert", "report", "from edgeprune.report.charts import chart_script as f; f()"),
    ("matplotlib", "report", "import edgeprune.report.contact_sheet"),
    ("onnx2torch", "onnx-input", "from edgeprune.recipes.onnx_model import load_onnx; load_onnx('net.onnx')"),
    ("ai_edge_litert", "tflite", "from edgeprune.exporting.tflite.schema import unpack_tflite; unpack_tflite(b'')"),
    ("ai_edge_litert", "tflite", "import edgeprune.exporting.tflite.probe_operators"),
    ("ai_edge_quantizer", "tflite", "from edgeprune.exporting.tflite.libraries import import_library as f; f('NAME')"),
    ("litert_torch", "tflite", "from edgeprune.exporting.tflite.libraries import import_library as f; f('NAME')"),
    ("flatbuffers", "tflite", "import edgeprune.exporting.tflite.probes"),
    ("mcufit", "mcu", "from edgeprune.exporting.tflite.micro import count_32_bit as f; f(None, None)"),
    ("tflite_micro", "mcu", "from edgeprune.exporting.tflite.micro import count_64_bit as f; f(None, None)"),
    ("sklearn", "recipes", "from edgeprune.recipes.data import load_digits; load_digits()"),
    ("PIL", "recipes", "from edgeprune.recipes.data import _read_sheet; _read_sheet('sheet.png')"),
]


def read_names(texts: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", text)[0].lower().replace("_", "-") for text in texts}  # type: ignore[index]


def list_imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports, by name or through `import_library`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.Call(func=ast.Name(id="import_library"), args=[ast.Constant(value=str(module))]):
                yield module


def find_libraries() -> set[str]:
    imports = {
        module.partition(".")[0]
        for path in (ROOT / "edgeprune").rglob("*.py")
        for module in list_imports(ast.parse(path.read_text()))
    }
    return imports - sys.stdlib_module_names - {"edgeprune"}


def test_every_library_is_a_dependency_or_of_one_extra() -> None:
    packages, base = packages_distributions(), read_names(PROJECT["dependencies"])
    homes = {}
    for library in find_libraries():
        owners = read_names(packages[library])
        homes[library] = [name for name, texts in EXTRAS.items() if owners & read_names(texts)]
        homes[library] += ["base"] * bool(owners & base)
    assert {library: places for library, places in homes.items() if len(places) != 1} == {}
    assert {library: places[0] for library, places in homes.items() if places != ["base"]} == {
        library: extra for library, extra, _ in USES
    }


def test_all_is_every_extra() -> None:
    (text,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.findall(r"[\w-]+", text)) - {"edgeprune"} == set(EXTRAS)
    made = re.search(r"^EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert made is not None
    assert {*made[1].split(","), "onnx-input"} == set(EXTRAS)


@pytest.mark.parametrize(("library", "extra", "use"), USES, ids=lambda text: text if text.isidentifier() else "")
def test_a_missing_library_is_told_with_its_extra(library: str, extra: str, use: str) -> None:
    code = f"""
import sys
from edgeprune.errors import MissingExtra
sys.modules[{library!r}] = None
try:
    exec({use.replace("NAME", library)!r})
except MissingExtra as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert re.fullmatch(rf".*{library}.*; run: pip install 'edgeprune\[{extra}\]'\n", done.stdout), done.stderr


def test_without_matplotlib_figures_are_told_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edgeprune.cli.profile import _write_picture

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith(("matplotlib.", "edgeprune.report.pictures"))]:
        monkeypatch.delitem(sys.modules, name)
    assert _write_picture(tmp_path / "picture.png", [], "", "").startswith("none: ")
    assert list(tmp_path.iterdir()) == []
