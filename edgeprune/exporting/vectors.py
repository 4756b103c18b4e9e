"""Vectors of a self-test as C: inputs with what must come out of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeprune.exporting.files import write_file

RANDOM_VECTORS = 2
HEADER = """#pragma once

#include <stdint.h>

enum {{ VECTOR_COUNT = {count} }};

#ifdef __cplusplus
extern "C" {{
#endif
extern const int8_t vector_inputs[{count}][{inputs}];
extern const int8_t vector_outputs[{count}][{outputs}];
#ifdef __cplusplus
}}
#endif
"""


def make_vectors(shape: tuple[int, ...]) -> np.ndarray:
    """Inputs `[N, ...]` for the self-test: the least and the greatest everywhere, and random ones."""
    rng = np.random.default_rng(0)
    ends = [np.full(shape, value, np.int8) for value in (-128, 127)]
    return np.concatenate([*ends, rng.integers(-128, 128, (RANDOM_VECTORS, *shape[1:])).astype(np.int8)])


def write_vectors(folder: Path, inputs: np.ndarray, outputs: np.ndarray) -> None:
    """Write `vectors.h` and `vectors.c` with int8 inputs and outputs `[N, ...]`.

    Raises:
        ExportError: the disk is full, or the folder may not be written.
    """
    header = HEADER.format(count=len(inputs), inputs=inputs[0].size, outputs=outputs[0].size)
    write_file(folder / "vectors.h", header.encode())
    arrays = [_write_array("vector_inputs", inputs), _write_array("vector_outputs", outputs)]
    write_file(folder / "vectors.c", "\n".join(['#include "vectors.h"', *arrays, ""]).encode())


def _write_array(name: str, rows: np.ndarray) -> str:
    flat = rows.reshape(len(rows), -1)
    lines = ["    {" + ", ".join(map(str, row.tolist())) + "}," for row in flat]
    return "\n".join([f"const int8_t {name}[{len(flat)}][{flat.shape[1]}] = {{", *lines, "};"])
