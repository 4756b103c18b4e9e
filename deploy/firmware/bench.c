/* Runs a net on the rows of inputs.bin: outputs.bin has what it gives, counts.bin what it took, as 32-bit words:
   ticks of nothing, ticks of LOOP_TURNS * 2 instructions, rows, steps, then ticks and stack bytes of each row, then
   ticks of each step on the last row. */
#include <stdint.h>

#include "bknn_net.h"
#include "counter.h"
#include "semihosting.h"

enum { LOOP_TURNS = 100000, MOST_STEPS = 1024, OWN_WORDS = 32 };
static const uint32_t PAINT = 0xa5a5a5a5u;

extern uint32_t firmware_stack_bottom[];
void bknn_net_infer_steps(uint8_t *arena, const int8_t *input, int8_t *output);

_Alignas(BKNN_NET_ARENA_ALIGNMENT) static uint8_t arena[BKNN_NET_ARENA_SIZE > 0u ? BKNN_NET_ARENA_SIZE : 1u];
static int8_t input[BKNN_NET_INPUT_BYTES], output[BKNN_NET_OUTPUT_BYTES];
static uint32_t step_ticks[MOST_STEPS], steps, step_begin;

/* Called by the instrumented copy of the net before its first step and after each. */
__attribute__((noinline)) void bench_mark(int32_t step) {
    const uint32_t now = counter_read();
    if (step >= 0 && step < MOST_STEPS) {
        step_ticks[step] = now - step_begin;
        steps = (uint32_t)step + 1u;
    }
    step_begin = counter_read();
}

/* Paints what lies below the caller's frame, but for what this function needs itself. */
__attribute__((noinline)) static uint32_t *paint_stack(void) {
    uint32_t *top = (uint32_t *)__builtin_frame_address(0) - OWN_WORDS;
    for (volatile uint32_t *next = firmware_stack_bottom; next < top; next++) {
        *next = PAINT;
    }
    return top;
}

__attribute__((noinline)) static uint32_t count_nothing(void) {
    const uint32_t begin = counter_read();
    return counter_read() - begin;
}

__attribute__((noinline)) static uint32_t count_loop(void) {
    uint32_t turns = LOOP_TURNS;
    const uint32_t begin = counter_read();
    __asm__ volatile("1: subs %0, %0, #1\n\tbne 1b" : "+l"(turns) : : "cc");
    return counter_read() - begin;
}

__attribute__((noinline)) static uint32_t count_row(uint32_t *stack_bytes) {
    const uint32_t *frame = (const uint32_t *)__builtin_frame_address(0);
    const uint32_t *top = paint_stack(), *word = firmware_stack_bottom;
    uint8_t *memory = BKNN_NET_ARENA_SIZE > 0u ? arena : (uint8_t *)0;
    const uint32_t begin = counter_read();
    bknn_net_infer(memory, input, output);
    const uint32_t ticks = counter_read() - begin;
    while (word < top && *word == PAINT) {
        word++;
    }
    *stack_bytes = (uint32_t)(frame - word) * 4u; /* with this function's own frame */
    return ticks;
}

static void put(int32_t handle, uint32_t word) {
    if (host_write(handle, &word, sizeof word) != 0) {
        host_exit(4);
    }
}

int main(void) {
    const int32_t inputs = host_open("inputs.bin", HOST_READ_BINARY);
    const int32_t outputs = host_open("outputs.bin", HOST_WRITE_BINARY);
    const int32_t counts = host_open("counts.bin", HOST_WRITE_BINARY);
    if (inputs < 0 || outputs < 0 || counts < 0) {
        return 2;
    }
    counter_start();
    const uint32_t rows = (uint32_t)host_length(inputs) / BKNN_NET_INPUT_BYTES;
    put(counts, count_nothing());
    put(counts, count_loop());
    put(counts, rows);
    put(counts, BENCH_STEPS);
    for (uint32_t row = 0; row < rows; row++) {
        uint32_t stack_bytes = 0;
        if (host_read(inputs, input, sizeof input) != 0) {
            return 3;
        }
        put(counts, count_row(&stack_bytes));
        put(counts, stack_bytes);
        if (host_write(outputs, output, sizeof output) != 0) {
            return 4;
        }
    }
    if (BENCH_STEPS > 0) {
        bknn_net_infer_steps(BKNN_NET_ARENA_SIZE > 0u ? arena : (uint8_t *)0, input, output);
        for (uint32_t step = 0; step < steps; step++) {
            put(counts, step_ticks[step]);
        }
    }
    host_close(counts);
    host_close(outputs);
    return 0;
}
