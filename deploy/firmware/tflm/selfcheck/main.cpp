/* The self-check where stdio is: on a computer, or on a board whose C library prints. Exit status 0: it passed. */
#include <stdio.h>

#include "../src/edgeprune_self_check.h"

int main() {
    const SelfCheck check = edgeprune_self_check();
    const bool passed = !check.error && !check.wrong_vectors;
    printf("self-check: %d vectors, %d wrong, worst output %d steps of int8 off, error %d\n", check.vectors,
                check.wrong_vectors, check.steps_off, check.error);
    printf("arena used: %lu bytes\n", static_cast<unsigned long>(check.arena_used_bytes));
    printf(passed ? "passed\n" : "FAILED\n");
    return !passed;
}
