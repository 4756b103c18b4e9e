/* Commands over a serial line, in the manner of MLPerf Tiny's (docs/serial.md). */
#ifndef EDGEPRUNE_PROTOCOL_H
#define EDGEPRUNE_PROTOCOL_H

/* Answers the host for ever; call it once the board is up. */
void edgeprune_serve(void);

#endif
