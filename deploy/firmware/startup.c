/* From reset to main on any Cortex-M; a fault ends the run with a status of its own. */
#include <stdint.h>

#include "semihosting.h"

extern uint32_t firmware_stack_top[], firmware_data_load[], firmware_data_start[], firmware_data_end[];
extern uint32_t firmware_bss_start[], firmware_bss_end[];
int main(void);

static void stop_on_fault(void) {
    host_exit(99);
}

void reset_handler(void) {
    uint32_t *source = firmware_data_load;
    for (uint32_t *word = firmware_data_start; word < firmware_data_end; word++) {
        *word = *source++;
    }
    for (uint32_t *word = firmware_bss_start; word < firmware_bss_end; word++) {
        *word = 0;
    }
    host_exit(main());
}

typedef void (*Handler)(void);

__attribute__((used, section(".vectors"))) static const Handler vectors[16] = {
    (Handler)firmware_stack_top,
    reset_handler,
    stop_on_fault, /* NMI */
    stop_on_fault, /* hard fault: no other is enabled */
    stop_on_fault,
    stop_on_fault,
    stop_on_fault,
    stop_on_fault,
};
