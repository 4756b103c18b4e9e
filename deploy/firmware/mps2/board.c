/* An Arm MPS2 or MPS3 board, as QEMU has it: CMSDK UART 0 (Arm DDI 0479D), SysTick, and what stands before main.
 * UART_ADDRESS and TICK_HZ are those of AN385, AN386 and AN500 unless given; ../firmware.ld lays it out. */
#include <stdint.h>

#include "../edgeprune_board.h"
#include "../edgeprune_protocol.h"

#ifndef UART_ADDRESS
#define UART_ADDRESS 0x40004000
#define TICK_HZ 25000000
#endif
#define REGISTER(address) (*(volatile uint32_t *)(address))
#define UART_DATA REGISTER(UART_ADDRESS)
#define UART_STATE REGISTER(UART_ADDRESS + 4) /* bit 0: the transmitter is full; bit 1: a byte is there */
#define UART_CTRL REGISTER(UART_ADDRESS + 8)
#define UART_DIVISOR REGISTER(UART_ADDRESS + 16)
#define SYSTICK_CTRL REGISTER(0xE000E010)
#define SYSTICK_LOAD REGISTER(0xE000E014)
#define SYSTICK_VALUE REGISTER(0xE000E018)
#define RESET_CONTROL REGISTER(0xE000ED0C)
#define COPROCESSOR_ACCESS REGISTER(0xE000ED88)
#define TOP 0xFFFFFFu

const char edgeprune_board_name[] = "MPS2";
const uint32_t edgeprune_tick_hz = TICK_HZ; /* the FPGA's clock */

extern uint32_t firmware_stack_top[], firmware_data_load[], firmware_data_start[], firmware_data_end[];
extern uint32_t firmware_bss_start[], firmware_bss_end[];
static volatile uint32_t laps;

void edgeprune_board_init(void) {
    UART_DIVISOR = TICK_HZ / 115200;
    UART_CTRL = 3;
    SYSTICK_LOAD = TOP;
    SYSTICK_VALUE = 0;
    SYSTICK_CTRL = 7;
}

char edgeprune_getc(void) {
    while (!(UART_STATE & 2)) {
    }
    return (char)UART_DATA;
}

void edgeprune_putc(char letter) {
    while (UART_STATE & 1) {
    }
    UART_DATA = (uint32_t)letter;
}

uint32_t edgeprune_ticks(void) {
    uint32_t before, value;
    do {
        before = laps;
        value = SYSTICK_VALUE;
    } while (before != laps);
    return before * (TOP + 1) + (TOP - value);
}

void edgeprune_reset(void) {
    RESET_CONTROL = 0x05FA0004;
    for (;;) {
    }
}

static void count_lap(void) { laps++; }

static void stop(void) {
    edgeprune_reset(); /* a fault: the host sees that the board has begun anew */
}

void reset_handler(void) {
    COPROCESSOR_ACCESS |= 0xF00000; /* the floating-point unit, where there is one */
    uint32_t *from = firmware_data_load;
    for (uint32_t *to = firmware_data_start; to < firmware_data_end;) *to++ = *from++;
    for (uint32_t *to = firmware_bss_start; to < firmware_bss_end;) *to++ = 0;
    edgeprune_board_init();
    edgeprune_serve();
}

typedef void (*Handler)(void);
__attribute__((section(".vectors"), used)) static const Handler vectors[16] = {
    (Handler)firmware_stack_top, reset_handler, stop, stop, stop, stop, stop, 0, 0, 0, 0, stop, stop, 0, stop, count_lap,
};
