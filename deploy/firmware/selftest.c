/* Runs the net on the vectors of vectors.h and compares every byte. Status 0: all agree. */
#include <stdint.h>

#include "bknn_net.h"
#include "semihosting.h"
#include "vectors.h"

_Alignas(BKNN_NET_ARENA_ALIGNMENT) static uint8_t arena[BKNN_NET_ARENA_SIZE > 0u ? BKNN_NET_ARENA_SIZE : 1u];
static int8_t output[BKNN_NET_OUTPUT_BYTES];

static int32_t count_wrong(const int8_t *expected) {
    int32_t wrong = 0;
    for (uint32_t place = 0; place < BKNN_NET_OUTPUT_BYTES; place++) {
        wrong += output[place] != expected[place];
    }
    return wrong;
}

int main(void) {
    int32_t failed = 0;
    for (uint32_t row = 0; row < VECTOR_COUNT; row++) {
        bknn_net_infer(BKNN_NET_ARENA_SIZE > 0u ? arena : (uint8_t *)0, vector_inputs[row], output);
        const int32_t wrong = count_wrong(vector_outputs[row]);
        if (wrong != 0) {
            host_say("vector ");
            host_say_number((int32_t)row);
            host_say(": bytes that differ: ");
            host_say_number(wrong);
            host_say("\n");
            failed++;
        }
    }
    host_say("self-test: ");
    host_say_number((int32_t)VECTOR_COUNT);
    host_say(" vectors, ");
    host_say_number(failed);
    host_say(failed == 0 ? " wrong: passed\n" : " wrong: FAILED\n");
    return failed != 0;
}
