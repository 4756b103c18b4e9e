#include "semihosting.h"

enum {
    SYS_OPEN = 0x01,
    SYS_CLOSE = 0x02,
    SYS_WRITE0 = 0x04,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_FLEN = 0x0c,
    SYS_EXIT_EXTENDED = 0x20,
    APPLICATION_EXIT = 0x20026
};

static int32_t call_host(int32_t operation, const void *arguments) {
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uint32_t measure_text(const char *text) {
    uint32_t length = 0;
    while (text[length] != '\0') {
        length++;
    }
    return length;
}

int32_t host_open(const char *name, int32_t mode) {
    const uint32_t arguments[3] = {(uint32_t)name, (uint32_t)mode, measure_text(name)};
    return call_host(SYS_OPEN, arguments);
}

int32_t host_length(int32_t handle) {
    return call_host(SYS_FLEN, &handle);
}

int32_t host_read(int32_t handle, void *bytes, uint32_t count) {
    const uint32_t arguments[3] = {(uint32_t)handle, (uint32_t)bytes, count};
    return call_host(SYS_READ, arguments);
}

int32_t host_write(int32_t handle, const void *bytes, uint32_t count) {
    const uint32_t arguments[3] = {(uint32_t)handle, (uint32_t)bytes, count};
    return call_host(SYS_WRITE, arguments);
}

int32_t host_close(int32_t handle) {
    return call_host(SYS_CLOSE, &handle);
}

void host_say(const char *text) {
    call_host(SYS_WRITE0, text);
}

void host_say_number(int32_t number) {
    char text[12];
    uint32_t place = sizeof text - 1u, rest = number < 0 ? 0u - (uint32_t)number : (uint32_t)number;
    text[place] = '\0';
    do {
        text[--place] = (char)('0' + rest % 10u);
        rest /= 10u;
    } while (rest != 0u);
    if (number < 0) {
        text[--place] = '-';
    }
    host_say(&text[place]);
}

void host_exit(int32_t status) {
    const int32_t arguments[2] = {APPLICATION_EXIT, status};
    call_host(SYS_EXIT_EXTENDED, arguments);
    for (;;) {
    }
}
