/* What a firmware needs of its board: five functions. */
#ifndef EDGEPRUNE_BOARD_H
#define EDGEPRUNE_BOARD_H

#include <stdint.h>

/* The board's name, as `NUCLEO-L4R5ZI`. */
extern const char edgeprune_board_name[];
/* How often the counter below counts in a second. */
extern const uint32_t edgeprune_tick_hz;

void edgeprune_board_init(void);
/* The next byte from the host; waits for it. */
char edgeprune_getc(void);
void edgeprune_putc(char letter);
/* A counter that runs on, modulo 2^32. */
uint32_t edgeprune_ticks(void);
/* As if the power had been off. */
void edgeprune_reset(void);

#endif
