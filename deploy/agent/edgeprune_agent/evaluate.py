"""Running a model over inputs, for its accuracy in the runtime."""

from __future__ import annotations

import hashlib
import io
import time
from typing import Any

from edgeprune_agent.errors import AgentError, first_line
from edgeprune_agent.events import Events
from edgeprune_agent.files import find_place, read_checked, write_whole
from edgeprune_agent.measure import keep_archive
from edgeprune_agent.runtimes import load_model
from edgeprune_agent.shapes import ONLY

SIGN_OF_LIFE_S = 2.0


def evaluate(request: dict[str, Any], root: str, events: Events) -> None:
    """Run the pushed inputs `[N, ...]` one by one; the result names the file with the outputs `[N, ...]`."""
    import numpy

    keep_archive(request)
    model = request["models"][0]
    read_checked(model["file"])
    read_checked(request["inputs"])
    inputs = numpy.load(find_place(request["inputs"]), mmap_mode="r", allow_pickle=False)
    loaded = load_model(
        model["runtime"], str(find_place(model["file"])), {**request, "shapes": row_shape(inputs.shape)}
    )
    packed = io.BytesIO()
    numpy.save(packed, run_rows(loaded.predict, inputs, model["name"], events), allow_pickle=False)
    name = hashlib.sha256(packed.getvalue()).hexdigest() + ".npy"
    write_whole(name, packed.getvalue())
    events.emit("result", outputs=name, rows=len(inputs))


def row_shape(inputs: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shape in which a model takes one of the inputs, as a request gives it.

    Raises:
        AgentError: there are none.
    """
    if not inputs or inputs[0] == 0:
        raise AgentError("request", f"there are no inputs: their shape is {list(inputs)}")
    return {ONLY: (1, *inputs[1:])}


def run_rows(predict: Any, inputs: Any, name: str, events: Events) -> Any:
    """Outputs `[N, ...]`, row by row.

    Raises:
        AgentError: the runtime fails on a row.
    """
    import numpy

    outputs, last_progress_s = [], time.monotonic()
    for number, row in enumerate(inputs):
        try:
            outputs.append(numpy.array(predict(numpy.array(row)[None])[0]))
        except AgentError:
            raise
        except Exception as exc:
            raise AgentError("model", f"{name}: input {number}: {first_line(exc)}") from exc
        if time.monotonic() - last_progress_s > SIGN_OF_LIFE_S:
            last_progress_s = time.monotonic()
            events.progress(f"{name}: {number + 1} of {len(inputs)} inputs")
    return numpy.stack(outputs)
