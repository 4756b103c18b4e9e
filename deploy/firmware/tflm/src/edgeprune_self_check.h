/* Runs the net on the vectors of vectors.h. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct SelfCheck {
    int error;         /* of edgeprune_model_run: 0, or what edgeprune_net.h says of it */
    int vectors;       /* that were run */
    int wrong_vectors; /* with an output that is more than EDGEPRUNE_STEPS_ALLOWED off */
    int steps_off;     /* the worst output, in steps of int8 */
    size_t arena_used_bytes;
};

SelfCheck edgeprune_self_check();
