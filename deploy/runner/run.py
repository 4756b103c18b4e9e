"""Runs the model of the release that this file lies in.

python run.py INPUT      infers on a .npy file, a .json file, or - for JSON on standard input; JSON on standard output
python run.py --check    infers on zeros, to see that the release runs here

JSON input: a nested list for a model of one input, else {"input name": nested list, ...}. Shapes must be the model's
own. Types too, but for floats given to a quantized input: these are quantized by its scale, and its outputs
dequantized. Where the board names keys that it trusts, the release must be signed by one of them (see SIGNERS).
Needs Python 3.8 or newer, numpy, and onnxruntime or ai-edge-litert (tflite-runtime).
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
SIGNERS = (Path("/etc/edgeprune/allowed_signers"), HERE.parent / "allowed_signers")
"""The first of these that is there says by which keys a release must be signed (ssh-keygen(1), ALLOWED SIGNERS)."""
KEYGEN, IDENTITY, NAMESPACE = "ssh-keygen", "edgeprune", "edgeprune-release"
VERIFY_S = 30


class Refused(Exception):
    """An input, or a release, that cannot be run; the message says why."""


class Tensor(NamedTuple):
    """An input or output as the runtime describes it; `scale` is 0 where it is not quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    scale: float = 0.0
    zero: int = 0


class Model(NamedTuple):
    """A loaded model; `infer` maps arrays in the order of `inputs` to outputs by name."""

    inputs: list[Tensor]
    infer: Callable[[list[Any]], dict[str, Any]]


def main(arguments: list[str]) -> int:
    """Run once; what is refused is one line on standard error."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__, file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    try:
        manifest, content = read_release()
        model = load(manifest, content)
        inputs = make_zeros(model) if arguments[0] == "--check" else read_inputs(arguments[0], model)
        begun = time.perf_counter()
        outputs = model.infer(inputs)
        took_ms = (time.perf_counter() - begun) * 1e3
    except Refused as exc:
        print(f"run.py: {exc}", file=sys.stderr)
        return 1
    answer = {"release": HERE.name, "model_sha256": manifest["model"]["sha256"], "ms": round(took_ms, 3)}
    if arguments[0] == "--check":
        answer["shapes"] = {name: list(value.shape) for name, value in outputs.items()}
    else:
        answer["outputs"] = {name: as_json(value) for name, value in outputs.items()}
    print(json.dumps(answer))
    return 0


def read_release() -> tuple[dict[str, Any], bytes]:
    """The manifest, its signature verified, and the model verified by it."""
    try:
        manifest_bytes = (HERE / "manifest.json").read_bytes()
        check_signature(manifest_bytes)
        manifest = json.loads(manifest_bytes)
        content = (HERE / Path(manifest["model"]["file"]).name).read_bytes()
        digest = manifest["model"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise Refused(f"the release in {HERE} is not whole: {exc}") from exc
    if hashlib.sha256(content).hexdigest() != digest:
        raise Refused(f"the model in {HERE} is damaged: its sha256 is not the manifest's {digest[:16]}...")
    return manifest, content


def check_signature(manifest_bytes: bytes) -> None:
    """Refuse a manifest that is not signed by a key that this board trusts, if it names any."""
    signers = next((path for path in SIGNERS if path.is_symlink() or path.exists()), None)
    if signers is None:
        return
    command = [KEYGEN, "-Y", "verify", "-f", str(signers), "-I", IDENTITY, "-n", NAMESPACE]
    command += ["-s", str(HERE / "manifest.json.sig")]
    try:
        process = subprocess.run(command, input=manifest_bytes, capture_output=True, timeout=VERIFY_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Refused(f"the signature of the release in {HERE} cannot be verified: {exc}") from exc
    if process.returncode != 0:
        why = (process.stderr.decode(errors="replace").strip().splitlines() or [""])[0][:200]
        raise Refused(f"the release in {HERE} is not signed by a key of {signers}: {why}")


def load(manifest: dict[str, Any], content: bytes) -> Model:
    """Load the model as it was measured: the same runtime, threads and kernels."""
    loaders = {"onnxruntime": load_onnx, "litert": load_litert}
    runtime = manifest.get("runtime")
    if runtime not in loaders:
        raise Refused(f"the model runs in {runtime}, and this runner knows {' and '.join(loaders)}")
    try:
        return loaders[runtime](content, manifest["threads"])
    except Exception as exc:
        reason = f"{type(exc).__name__}: {first_line(exc)}"
        raise Refused(f"{manifest.get('runtime')} cannot load the model: {reason}") from exc


def load_onnx(content: bytes, threads: int) -> Model:
    """ONNX Runtime on its CPU provider, one operator after the other."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = {"float": "float32", "double": "float64"}
    inputs = []
    for source in session.get_inputs():
        kind = source.type[len("tensor(") : -1]
        shape = tuple(size if isinstance(size, int) and size > 0 else 1 for size in source.shape)
        inputs.append(Tensor(source.name, shape, np.dtype(names.get(kind, kind))))
    outputs = [output.name for output in session.get_outputs()]

    def infer(arrays: list[Any]) -> dict[str, Any]:
        values = session.run(outputs, {tensor.name: arrays[index] for index, tensor in enumerate(inputs)})
        return {name: values[index] for index, name in enumerate(outputs)}

    return Model(inputs, infer)


def load_litert(content: bytes, threads: int) -> Model:
    """LiteRT, or tflite-runtime, with its default delegate (XNNPACK)."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        from tflite_runtime.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    details, results = interpreter.get_input_details(), interpreter.get_output_details()
    inputs = [describe(detail) for detail in details]

    def infer(arrays: list[Any]) -> dict[str, Any]:
        floats = False
        for index, detail in enumerate(details):
            floats = floats or arrays[index].dtype.kind == "f"
            interpreter.set_tensor(detail["index"], quantize(arrays[index], inputs[index]))
        interpreter.invoke()
        return {
            result["name"]: dequantize(interpreter.get_tensor(result["index"]), describe(result), floats)
            for result in results
        }

    return Model(inputs, infer)


def describe(detail: dict[str, Any]) -> Tensor:
    """An input or output of an interpreter."""
    scale, zero = detail["quantization"]
    return Tensor(detail["name"], tuple(int(size) for size in detail["shape"]), np.dtype(detail["dtype"]), scale, zero)


def quantize(array: Any, tensor: Tensor) -> Any:
    """Floats as the input's whole numbers; its own type as it is."""
    if array.dtype == tensor.dtype:
        return array
    bounds = np.iinfo(tensor.dtype)
    return np.clip(np.rint(array / tensor.scale) + tensor.zero, bounds.min, bounds.max).astype(tensor.dtype)


def dequantize(values: Any, tensor: Tensor, floats: bool) -> Any:
    """A quantized output as floats, where floats came in."""
    if not floats or values.dtype.kind not in "iu" or not tensor.scale:
        return values
    return ((values.astype("float32") - tensor.zero) * tensor.scale).astype("float32")


def make_zeros(model: Model) -> list[Any]:
    """Zeros for every input."""
    return [np.zeros(tensor.shape, tensor.dtype) for tensor in model.inputs]


def read_inputs(source: str, model: Model) -> list[Any]:
    """The arrays of a file, checked against the model's inputs."""
    try:
        if source.endswith(".npy"):
            document: Any = np.load(source, allow_pickle=False)
        else:
            document = json.loads(sys.stdin.read() if source == "-" else Path(source).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        kind = ".npy" if source.endswith(".npy") else "JSON"
        raise Refused(f"{source}: cannot be read as {kind}: {first_line(exc)}") from exc
    names = [tensor.name for tensor in model.inputs]
    if not isinstance(document, dict):
        if len(names) != 1:
            raise Refused(f"{source}: the model takes {', '.join(names)}; give JSON with these names")
        document = {names[0]: document}
    if set(document) != set(names):
        raise Refused(f"{source}: has inputs {', '.join(document) or 'none'}; the model takes {', '.join(names)}")
    return [check(document[tensor.name], tensor, source) for tensor in model.inputs]


def check(values: Any, tensor: Tensor, source: str) -> Any:
    """An array of the input's shape and type. JSON has no types: its whole numbers may be floats, and nothing else."""
    where = f"{source}: {tensor.name}"
    if not isinstance(values, np.ndarray):
        values = from_json(values, tensor, where)
    if values.shape != tensor.shape:
        raise Refused(f"{where}: shape {list(values.shape)}; the model takes {list(tensor.shape)}")
    if values.dtype != tensor.dtype and not (values.dtype.kind == "f" and tensor.scale):
        raise Refused(f"{where}: type {values.dtype}; the model takes {tensor.dtype}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Refused(f"{where}: has values that are not finite")
    return values


def from_json(values: Any, tensor: Tensor, where: str) -> Any:
    """Nested lists of numbers as an array."""
    try:
        array = np.array(values)
    except (ValueError, OverflowError) as exc:
        raise Refused(f"{where}: is not a regular nested list of numbers") from exc
    if array.dtype.kind not in "iufb":
        raise Refused(f"{where}: is not a regular nested list of numbers")
    if tensor.dtype.kind == "f" or (array.dtype.kind == "f" and tensor.scale):
        return array.astype(tensor.dtype if tensor.dtype.kind == "f" else "float32")
    fits = array.astype(tensor.dtype)
    return fits if np.array_equal(fits, array) else array


def as_json(array: Any) -> Any:
    """Nested lists; what is not finite is null, which JSON has in its place."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        shown = array.astype(object)
        shown[~np.isfinite(array)] = None
        return shown.tolist()
    return array.tolist()


def first_line(exc: BaseException) -> str:
    """What a foreign error says, without its stack."""
    return (str(exc).strip().splitlines() or [""])[0][:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
