#include "edgeprune_self_check.h"

#include <string.h>

#include "edgeprune_model.h"
#include "edgeprune_net.h"
#include "vectors.h"

static int find_worst(const int8_t *expected) {
    int worst = 0;
    for (uint32_t place = 0; place < edgeprune_output_bytes; place++) {
        const int off = edgeprune_output[place] - expected[place];
        const int size = off < 0 ? -off : off;
        worst = size > worst ? size : worst;
    }
    return worst;
}

SelfCheck edgeprune_self_check() {
    SelfCheck check = {0, 0, 0, 0, 0};
    for (; check.vectors < VECTOR_COUNT; check.vectors++) {
        memcpy(edgeprune_input, vector_inputs[check.vectors], edgeprune_input_bytes);
        check.error = edgeprune_model_run();
        if (check.error) break;
        const int worst = find_worst(vector_outputs[check.vectors]);
        check.wrong_vectors += worst > EDGEPRUNE_STEPS_ALLOWED;
        check.steps_off = worst > check.steps_off ? worst : check.steps_off;
    }
    check.arena_used_bytes = edgeprune_arena_used_bytes();
    return check;
}
