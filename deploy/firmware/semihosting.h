/* Calls of a Cortex-M firmware to the host that debugs it (Arm semihosting, Arm document DUI0471). */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdint.h>

enum { HOST_READ_BINARY = 1, HOST_WRITE_BINARY = 5 };

int32_t host_open(const char *name, int32_t mode); /* a handle, or -1 */
int32_t host_length(int32_t handle);               /* bytes */
int32_t host_read(int32_t handle, void *bytes, uint32_t count); /* 0 where all were read */
int32_t host_write(int32_t handle, const void *bytes, uint32_t count); /* 0 where all were written */
int32_t host_close(int32_t handle);
void host_say(const char *text);
void host_say_number(int32_t number);
void host_exit(int32_t status) __attribute__((noreturn));

#endif
