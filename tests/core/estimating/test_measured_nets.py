import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.estimating.measured_nets import parse_layers, parse_measurements
from edgeprune.core.estimating.work import KNOWN as KINDS
from edgeprune.core.latency.layers import LayerShape
from edgeprune.errors import ExportError, ProfileError

CONV = {"op": "conv", "cin": 3, "cout": 8, "kernel": [3, 3], "stride": [2, 2], "size": [9, 9], "padding": [1, 1]}
SHAPE = LayerShape("conv", 3, 8, (3, 3), (2, 2), 1, (9, 9), (1, 1))
LINEAR = {"op": "linear", "cin": 8, "cout": 2}
KNOWN = {"a.json": (SHAPE,), "b.onnx": (SHAPE, LayerShape("linear", 8, 2))}


def read_model(name: str) -> tuple[LayerShape, ...]:
    if name not in KNOWN:
        raise ExportError(f"{name}: no such file")
    return KNOWN[name]


def test_csv() -> None:
    rows = parse_measurements("model,ms,threads\r\na.json, 1.5 ,4\n\nb.onnx,2e1,\n", "f.csv", read_model)
    assert [(row.layers, row.latency_ms, row.threads) for row in rows] == [
        (KNOWN["a.json"], 1.5, 4),
        (KNOWN["b.onnx"], 20.0, None),
    ]


def test_precisions() -> None:
    rows = parse_measurements("model,ms,precision\na.json,1.5,int8\nb.onnx,2,\n", "f.csv", read_model)
    assert [row.precision for row in rows] == ["int8", None]
    (row,) = parse_measurements('[{"layers": [], "ms": 1}]'.replace("[]", json.dumps([LINEAR])), "f.json", read_model)
    assert row.precision is None
    text = json.dumps([{"model": "a.json", "ms": 1, "precision": "fp16"}])
    assert parse_measurements(text, "f.json", read_model)[0].precision == "fp16"


def test_columns_in_any_order() -> None:
    (row,) = parse_measurements("ms,model\n3,a.json\n", "f.csv", read_model)
    assert (row.layers, row.latency_ms, row.threads) == (KNOWN["a.json"], 3.0, None)


def test_json() -> None:
    text = json.dumps([{"model": "b.onnx", "ms": 2}, {"layers": [CONV, LINEAR], "ms": 1.5, "threads": 2}], indent=1)
    rows = parse_measurements(text, "f.json", read_model)
    assert [(row.layers, row.latency_ms, row.threads) for row in rows] == [
        (KNOWN["b.onnx"], 2.0, None),
        (KNOWN["b.onnx"], 1.5, 2),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the columns model,ms"),
        ("net,latency\na,1\n", "line 1: expected the columns model,ms.*found net,latency"),
        ("model,ms,ms\na.json,1,2\n", "line 1: expected the columns"),
        ("model,ms\na.json,1\nb.onnx,fast\n", "line 3: ms is 'fast'; expected the latency in milliseconds"),
        ("model,ms\n\n\na.json,-1\n", "line 4: ms is '-1'"),
        ("model,ms\na.json,nan\n", "line 2: ms is 'nan'"),
        ("model,ms\na.json,inf\n", "line 2: ms is 'inf'"),
        ("model,ms\na.json\n", "line 2: 1 cells; expected 2: model,ms"),
        ("model,ms\na.json,1,2\n", "line 2: 3 cells; expected 2"),
        ("model,ms\nc.onnx,1\n", r"line 2: c\.onnx: no such file"),
        ("model,ms\n,1\n", "line 2: model is ''; expected the name of"),
        ("model,ms,threads\na.json,1,two\n", "line 2: threads is 'two'; expected a whole number from 1"),
        ("model,ms,threads\na.json,1,0\n", "line 2: threads is '0'"),
        ("model,ms,precision\na.json,1,int4\n", "line 2: precision is 'int4'; expected fp32, fp16, int8"),
        ('[{"model": "a.json", "ms": 1, "precision": 8}]', "line 1: precision is 8"),
        ('[{"model": "a.json", "ms": 1, "precision": ["int8"]}]', r"line 1: precision is \['int8'\]"),
        ('model,ms\n"a.json,1\n', "not CSV|cells"),
        ('{"model": "a.json", "ms": 1}', "line 1: expected a list of rows"),
        ('[\n {"model": "a.json", "ms": 1},\n 7\n]', "line 3: expected .*found 7"),
        ('[\n\n {"model": "a.json", "ms": true}]', "line 3: ms is True"),
        ('[{"model": "a.json"}]', "line 1: ms is None"),
        ('[{"model": "a.json", "ms": 1, "thread": 2}]', "line 1: unknown key 'thread'; did you mean 'threads'"),
        ('[{"model": "a.json", "ms": 1, "threads": 2.0}]', "line 1: threads is 2.0"),
        ('[{"ms": 1}]', "line 1: expected a model or its layers"),
        ('[{"model": 3, "ms": 1}]', "line 1: model is 3"),
        ('[{"layers": [], "ms": 1}]', "line 1: expected a list of layers"),
        ('[\n{"model": "a.json" "ms": 1}]', "line 2: not JSON"),
    ],
)
def test_bad_row_names_its_line_and_what_is_expected(text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=f"rows: .*({message})"):
        parse_measurements(text, "rows", read_model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": "conw"}, "op is 'conw'; did you mean 'conv'"),
        ({"op": ["conv"]}, "op is"),
        ({"cin": 0}, "cin is 0; expected a whole number from 1"),
        ({"cout": True}, "cout is True"),
        ({"cin": 3.0}, "cin is 3.0"),
        ({"groups": 2}, "2 groups do not divide 3 and 8"),
        ({"kernel": 3}, "kernel is 3; expected a list"),
        ({"kernel": [3]}, "one number an axis each"),
        ({"padding": [-1, 1]}, "padding is"),
        ({"kernel": [12, 12]}, "larger than the padded input"),
        ({"dilation": [2]}, "dilation of conv needs one number an axis"),
        ({"dilation": [0, 1]}, "dilation is"),
        ({"dilation": [6, 6]}, "larger than the padded input"),
        ({"output": [9, 9]}, "output is"),
        ({"dilatation": [2, 2]}, "unknown key 'dilatation'"),
        ({"kernel": [], "stride": [], "size": [], "padding": []}, "one number an axis each"),
        ({"op": "attention", "cout": 3}, r"size of attention is \[9, 9, 9\]; expected 2 numbers"),
        ({"op": "resize", "cout": 3, "output": [18]}, r"size of resize is \[9, 9, 9\]; expected 1 numbers"),
    ],
)
def test_bad_layer_is_named_by_number(change: dict[str, object], message: str) -> None:
    changed = {**CONV, **change}
    if changed["op"] in ("attention", "resize"):
        changed["size"] = [9, 9, 9]
    with pytest.raises(ProfileError, match=f"net.json: layer 2: .*{message}"):
        parse_layers(json.dumps([LINEAR, changed]), "net.json")


@pytest.mark.parametrize("op", KINDS)
def test_what_the_tool_lists_can_be_written_down(op: str) -> None:
    sizes = {"attention": (5, 7), "linear": ()}
    window = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1)} if op in ("conv", "transposed", "pool") else {}
    output = {"output": (18, 18)} if op == "resize" else {}
    shape = LayerShape(op, 6, 6, size=sizes.get(op, (9, 9)), **window, **output)
    assert parse_layers(json.dumps([asdict(shape)]), "net.json") == (shape,)


def test_layers_of_every_operator() -> None:
    add = {"op": "add", "cin": 4, "cout": 4, "size": [8, 8]}
    tokens = {"op": "linear", "cin": 4, "cout": 8, "kernel": [1], "stride": [1], "size": [197], "padding": [0]}
    up = {"op": "transposed", "cin": 3, "cout": 8, "kernel": [3], "stride": [2], "size": [9], "padding": [1]}
    dilated = {**CONV, "dilation": [2, 3], "output": [4, 3]}
    found = parse_layers(json.dumps([CONV, LINEAR, add, tokens, {**up, "output": [18]}, dilated]), "net.json")
    assert found[0] == SHAPE
    assert [shape.output_size for shape in found[4:]] == [(18,), (4, 3)]
    assert found[5].macs == 3 * 8 * 9 * 4 * 3
    assert found[2] == LayerShape("add", 4, 4, size=(8, 8))
    assert found[3].size == (197,)


def refusals(text: str) -> list[str]:
    """What a text was refused with, as rows and as layers; any other error goes through."""
    found = []
    for parse in (lambda: parse_measurements(text, "rows", read_model), lambda: parse_layers(text, "net.json")):
        try:
            parse()
        except ProfileError as exc:
            found.append(str(exc))
    return found


@given(st.text(max_size=80))
def test_any_other_text_is_refused_or_read(text: str) -> None:
    for refusal in refusals(text):
        assert refusal.startswith(("rows: ", "net.json: "))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["conv", "a.json", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*CONV, "model", "ms", "layers", "groups"]), inner, max_size=6)
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_refused_or_read(value: object) -> None:
    for refusal in refusals(json.dumps([value])):
        assert refusal.startswith(("rows: line 1: ", "net.json: layer 1: "))


def test_line_numbers_of_json_rows_count_what_stands_before() -> None:
    text = '[\n{"model": "a.json", "ms": 1},\n{"model":\n"a.json", "ms": 2}, {"model": "a.json", "ms": 0}]'
    with pytest.raises(ProfileError, match="line 4: ms is 0"):
        parse_measurements(text, str(Path("rows.json")), read_model)
