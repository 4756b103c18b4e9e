"""Graphs on disk: `.pt2` archives of raw weights and JSON. Nothing is ever unpickled, and no name in a file is called.

A `.pt2` from elsewhere is checked entry by entry and rebuilt in memory from what passed, before torch reads it: its
pickled sample inputs are left out, other pickles, code, and operators that are no tensor operators are refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.disk import describe_os_error
from edgeprune.errors import GraphError
from edgeprune.graph.nodes import operator_of
from edgeprune.graph.trace import Example, export_graph, graph_of

PLAIN = re.compile(
    r"(archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)"
    r"|data/(weights|constants)/((weight|tensor)_\d+|\w+_config\.json)|models/\w+\.json)"
)
SAMPLE_INPUTS = re.compile(r"data/sample_inputs/\w+\.pt")
TARGET = re.compile(
    r"torch\.ops\.(aten|torchvision)\.\w+(\.\w+)?|torch\.sym_\w+|torch\._sym_sqrt"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)|math\.(ceil|floor|trunc)"
)
EXPRESSION = re.compile(r"(?!.*__)(?:[\w\s+\-*/%(),<>=!|&~']|(?<=\d)\.(?=\d))*")
SYMPY_NAMES = re.compile(
    r"[suz]+f?\d+|int_oo|oo|positive|nonnegative|integer|real|true|false|True|False|Symbol|Integer|Rational|Float|Max|Min"
    r"|Mod|PythonMod|FloorDiv|CeilDiv|CeilToInt|FloorToInt|CleanDiv|IntTrueDiv|FloatTrueDiv|ToFloat|TruncToInt|Identity"
    r"|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|Pow|Add|Mul|And|Or|Not"
)
EPOCH = (1980, 1, 1, 0, 0, 0)


def save_model(program: GraphModule, path: Path, example: Example) -> None:
    """Write `program` as a `.pt2` without pickles: the same bytes for the same program, whole or not at all.

    Raises:
        GraphError: the program does not export, has a tensor that only a pickle can hold, or cannot be written.
    """
    exported = export_graph(program, example)
    exported.example_inputs = None
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    entries = _checked_entries(buffer, path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            unfinished.write_bytes(_archive(entries))
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as exc:
        raise GraphError(describe_os_error(exc, path)) from exc


def load_model(path: Path) -> GraphModule:
    """Read a `.pt2`; the source code of the model is not needed.

    Raises:
        GraphError: no such file, a pickle, an archive with anything but weights and a graph of tensor operators.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise GraphError(f"{path}: cannot be read: {exc.strerror}") from exc
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise GraphError(f"{path}: {_what_it_is(data)}")
    archive = _archive(_checked_entries(io.BytesIO(data), path))
    try:
        return graph_of(torch.export.load(io.BytesIO(archive)))
    except Exception as exc:
        raise GraphError(f"{path}: torch {torch.__version__} cannot read this .pt2: {exc}") from exc


def model_sha256(program: GraphModule) -> str:
    """A hash of the operators, their wiring and literals, and every parameter and buffer that they read."""
    digest = hashlib.sha256()
    tensors = [node for node in program.graph.nodes if isinstance(node.meta.get("val"), (Tensor, list, tuple))]
    places = {node: str(node.target) for node in tensors if node.op == "get_attr"}
    order = {node: f"%{place}" for place, node in enumerate(tensor for tensor in tensors if tensor.op != "get_attr")}
    order |= dict.fromkeys(program.graph.find_nodes(op="output"), "output")
    places |= order
    for node, place in order.items():
        operands = [_operand_text(operand, places) for operand in (*node.args, *sorted(node.kwargs.items()))]
        digest.update(f"{place} {operator_of(node)} {operands}\n".encode())
    for name in sorted({str(node.target) for node in tensors if node.op == "get_attr" and node.users}):
        value = _tensor(program, name)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensor(program: GraphModule, name: str) -> Tensor:
    owner: Any = program
    for part in name.split("."):
        owner = getattr(owner, part)
    if not isinstance(owner, Tensor):
        raise GraphError(f"{name}: a {type(owner).__name__} where a tensor was expected")
    return owner


def _operand_text(value: Any, places: dict[Node, str]) -> str:
    """An argument in a form that does not depend on the names of nodes; open sizes are all alike."""
    if isinstance(value, Node):
        return places.get(value, "open size")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_operand_text(element, places) for element in value)}]"
    return str(value)


def _checked_entries(source: io.BytesIO, path: Path) -> dict[str, bytes]:
    """The entries of an archive by name without its first folder, all of them harmless."""
    try:
        with zipfile.ZipFile(source) as archive:
            infos = archive.infolist()
            names = {info.filename for info in infos}
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or len(names) != len(infos):
                raise GraphError(f"{path}: compressed or repeated entries; save it again with torch.export.save")
            entries = {info.filename.partition("/")[2]: archive.read(info) for info in infos if not info.is_dir()}
    except zipfile.BadZipFile as exc:
        raise GraphError(f"{path}: a damaged archive: {exc}") from exc
    for name, data in entries.items():
        if SAMPLE_INPUTS.fullmatch(name):
            entries[name] = b""
        elif not PLAIN.fullmatch(name):
            raise GraphError(f"{path}: {_refusal(name)}")
        elif name.endswith(".json"):
            _check_json(_parse_json(data, name, path), name, path)
    return entries


def _refusal(name: str) -> str:
    if name.endswith(".pkl"):
        return "a pickled checkpoint (torch.save), which can run code when it is loaded; " + WAY_OUT
    return f"entry {name!r} is neither weights nor a graph; only what torch.export.save writes is read"


WAY_OUT = "build the model in a recipe and load its weights from safetensors, or save it with torch.export.save as .pt2"


def _what_it_is(data: bytes) -> str:
    if data[:1] == b"\x80":
        return "a pickle, which can run code when it is loaded; " + WAY_OUT
    return "not a .pt2 archive; save the model with torch.export.save or edgeprune"


def _parse_json(data: bytes, name: str, path: Path) -> Any:
    try:
        return json.loads(data)
    except ValueError as exc:
        raise GraphError(f"{path}: {name} is not JSON: {exc}") from exc


def _check_json(document: Any, name: str, path: Path) -> None:
    """Refuse pickled tensors, calls of anything but tensor operators, and expressions that are not arithmetic."""
    for key, value in _pairs(document):
        if key == "use_pickle" and value:
            raise GraphError(f"{path}: {name} has a pickled tensor; make it contiguous before torch.export.save")
        if key == "target" and isinstance(value, str) and name.startswith("models/") and not _is_harmless(value):
            raise GraphError(f"{path}: the graph calls {value!r}, which is no tensor operator")
        if key == "expr_str" and not _is_arithmetic(str(value)):
            raise GraphError(f"{path}: size expression {value!r} is not arithmetic")


def _is_harmless(target: str) -> bool:
    return TARGET.fullmatch(target) is not None


def _is_arithmetic(expression: str) -> bool:
    names = re.findall(r"[A-Za-z_]\w*", expression)
    return EXPRESSION.fullmatch(expression) is not None and all(SYMPY_NAMES.fullmatch(name) for name in names)


def _pairs(document: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value, at any depth."""
    todo = [document]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            yield from part.items()
            todo += part.values()
        elif isinstance(part, list):
            todo += part


def _archive(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(f"model/{name}", EPOCH), data)
    return buffer.getvalue()
