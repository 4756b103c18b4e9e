"""The C and C++ that is written for a net: its bytes, its operators, its numbers."""

from __future__ import annotations

from edgeprune.exporting.tflm.arena import ALIGNMENT, Arena
from edgeprune.exporting.tflm.ends import End
from edgeprune.exporting.tflm.operators import METHODS

STEPS_ALLOWED = 1
"""Of int8, by which an output may miss LiteRT's reference kernels: kernels of vendors round elsewhere."""
MODEL_HEADER = """/* The bytes of model.tflite, aligned to 16. */
#pragma once

#ifdef __cplusplus
extern "C"
#else
extern
#endif
const unsigned char model_data[{size}];
"""


def write_model(content: bytes, sha256: str, ends: tuple[End, End]) -> str:
    """The file as an array, and the constants that edgeprune_model.h asks for."""
    rows = [content[start : start + 16] for start in range(0, len(content), 16)]
    lines = ["    " + ", ".join(f"0x{byte:02x}" for byte in row) + "," for row in rows]
    return "\n".join(
        [
            '#include "model_data.h"',
            "",
            '#include "edgeprune_model.h"',
            "",
            f'const char edgeprune_model_sha256[65] = "{sha256}";',
            'const char edgeprune_model_runtime[] = "TensorFlow Lite Micro";',
            f"const uint32_t edgeprune_input_bytes = {ends[0].bytes}, edgeprune_output_bytes = {ends[1].bytes};",
            "",
            f"_Alignas({ALIGNMENT}) const unsigned char model_data[{len(content)}] = {{",
            *lines,
            "};",
            "",
        ]
    )


def write_operators(operators: tuple[str, ...]) -> str:
    """`edgeprune_operators.h`: a resolver with the operators of a net."""
    lines = [
        f"    if (operators.{METHODS[name]}() != kTfLiteOk) return kTfLiteError; /* {name} */" for name in operators
    ]
    return "\n".join(
        [
            "/* The operators of the net, and no others: each one takes flash. */",
            "#pragma once",
            "",
            '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"',
            "",
            f"using EdgepruneOperators = tflite::MicroMutableOpResolver<{max(1, len(operators))}>;",
            "",
            "inline TfLiteStatus edgeprune_add_operators(EdgepruneOperators &operators) {",
            *lines,
            "    return kTfLiteOk;",
            "}",
            "",
        ]
    )


def write_header(arena: Arena, ends: tuple[End, End]) -> str:
    """`edgeprune_net.h`: quantization, arena, errors."""
    source, result = ends
    return f"""/* The net's numbers. Real value = (int8 - zero point) * scale. */
#pragma once

#include <stddef.h>

#define EDGEPRUNE_INPUT_BYTES {source.bytes} /* {list(source.shape)} */
#define EDGEPRUNE_INPUT_SCALE {source.scale!r}f
#define EDGEPRUNE_INPUT_ZERO_POINT {source.zero_point}
#define EDGEPRUNE_OUTPUT_BYTES {result.bytes} /* {list(result.shape)} */
#define EDGEPRUNE_OUTPUT_SCALE {result.scale!r}f
#define EDGEPRUNE_OUTPUT_ZERO_POINT {result.zero_point}

/* {arena.counted_bytes} bytes {arena.counted_by}, {arena.counter}, and a margin for kernels that ask for buffers. */
#define EDGEPRUNE_ARENA_BYTES {arena.bytes}

/* By how many steps of int8 the self-check lets an output miss LiteRT's reference kernels. */
#define EDGEPRUNE_STEPS_ALLOWED {STEPS_ALLOWED}

/* What edgeprune_model_run (edgeprune_model.h) returns but 0. */
enum {{
    EDGEPRUNE_NO_OPERATORS = 1, /* an operator cannot be added */
    EDGEPRUNE_NO_ARENA = 2,     /* the arena is too small, or TFLM refuses the net: its log says which */
    EDGEPRUNE_OTHER_MODEL = 3,  /* model_data.c is of another net than this file */
    EDGEPRUNE_NOT_RUN = 4       /* an operator failed */
}};

#ifdef __cplusplus
extern "C"
#endif
/* What the interpreter has used of its arena; 0 before the first inference. */
size_t edgeprune_arena_used_bytes(void);
"""
