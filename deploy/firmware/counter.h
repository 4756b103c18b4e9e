/* A 32-bit counter of the machine's clock. Under `qemu -icount shift=N` the clock advances with instructions alone. */
#ifndef COUNTER_H
#define COUNTER_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))

#ifdef COUNTER_SSE /* system counter and timer frame 0 of Arm SSE-300, secure addresses */
static inline void counter_start(void) { REGISTER(0x58100000u) = 1u; }
static inline uint32_t counter_read(void) { return REGISTER(0x58000000u); }
#else /* APB timer of the Cortex-M System Design Kit; it counts down */
static inline void counter_start(void) {
    REGISTER(COUNTER_ADDRESS + 8u) = 0xffffffffu;
    REGISTER(COUNTER_ADDRESS + 4u) = 0xffffffffu;
    REGISTER(COUNTER_ADDRESS) = 1u;
}
static inline uint32_t counter_read(void) { return 0xffffffffu - REGISTER(COUNTER_ADDRESS + 4u); }
#endif

#endif
