/* Commands over a serial line, in the manner of MLPerf Tiny's (docs/serial.md).
 *
 * A command ends with '%', an answer with a line "m-ready". Whatever was garbled on its way is answered by a line that
 * begins with "e-"; what a command carries or brings is told with its CRC-32, so that a byte that is lost is noticed.
 */
#include "edgeprune_protocol.h"

#include <stdint.h>
#include <string.h>

#include "edgeprune_board.h"
#include "edgeprune_model.h"

#define PROFILE "edgeprune 1"
#define LONGEST 192   /* letters of a command: "db " and 64 bytes in hexadecimal fit */
#define MOST_TIMES 64 /* inferences of one command */

static char command[LONGEST + 1];
static uint32_t times[MOST_TIMES];
static uint32_t loaded, expected;

static void put(const char *text) {
    while (*text) edgeprune_putc(*text++);
}

static void put_number(uint32_t value) {
    char digits[11];
    int place = 10;
    digits[place] = 0;
    do digits[--place] = (char)('0' + value % 10);
    while (value /= 10);
    put(digits + place);
}

static void put_line(const char *head, const char *text) {
    put(head);
    put(text);
    put("]\r\n");
}

static void put_count(const char *head, uint32_t value) {
    put(head);
    put_number(value);
    put("]\r\n");
}

/* CRC-32 as zlib has it, bit by bit: it is no part of what is timed. */
static uint32_t checksum(const int8_t *bytes, uint32_t count) {
    uint32_t crc = 0xFFFFFFFFu;
    for (uint32_t place = 0; place < count; place++) {
        crc ^= (uint8_t)bytes[place];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

/* Reads digits up to the end or a blank; -1 where there are none or too many. */
static int32_t read_number(const char **text) {
    int32_t value = 0, digits = 0;
    while (**text == ' ') (*text)++;
    for (; **text >= '0' && **text <= '9'; (*text)++, digits++) value = value * 10 + (**text - '0');
    return digits > 0 && digits < 9 ? value : -1;
}

static int hex_digit(char letter) {
    if (letter >= '0' && letter <= '9') return letter - '0';
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

static void tell_who(void) {
    put_line("m-name-dut-[", edgeprune_board_name);
    put_line("m-profile-[", PROFILE);
    put_line("m-model-[", edgeprune_model_sha256);
    put_line("m-runtime-[", edgeprune_model_runtime);
    put_count("m-input-bytes-[", edgeprune_input_bytes);
    put_count("m-output-bytes-[", edgeprune_output_bytes);
    put_count("m-tick-hz-[", edgeprune_tick_hz);
}

static void begin_load(const char *rest) {
    int32_t count = read_number(&rest);
    if (count != (int32_t)edgeprune_input_bytes) {
        put_count("e-[expected bytes: ", edgeprune_input_bytes);
        return;
    }
    loaded = 0;
    expected = (uint32_t)count;
    put_count("m-load-[", expected);
}

static void take_bytes(const char *hex) {
    while (*hex && hex[1] && loaded < expected) {
        int high = hex_digit(*hex), low = hex_digit(hex[1]);
        if (high < 0 || low < 0) break;
        edgeprune_input[loaded++] = (int8_t)(high << 4 | low);
        hex += 2;
    }
    if (*hex) put("e-[bytes in hexadecimal were expected]\r\n");
    put_count("m-loaded-[", loaded);
    put_count("m-crc-[", checksum(edgeprune_input, loaded));
}

static void infer(const char *rest) {
    int32_t count = read_number(&rest);
    if (count < 1 || count > MOST_TIMES || loaded != edgeprune_input_bytes) {
        put(count < 1 || count > MOST_TIMES ? "e-[1 to 64 inferences]\r\n" : "e-[no input is loaded]\r\n");
        return;
    }
    for (int32_t run = 0; run < count; run++) {
        uint32_t start = edgeprune_ticks();
        int error = edgeprune_model_run();
        times[run] = edgeprune_ticks() - start;
        if (error) {
            put_count("e-[the net failed: ", (uint32_t)error);
            return;
        }
    }
    put("m-ticks-[");
    for (int32_t run = 0; run < count; run++) {
        if (run) put(",");
        put_number(times[run]);
    }
    put("]\r\n");
    put_count("m-crc-[", checksum((const int8_t *)times, (uint32_t)count * sizeof times[0]));
}

static void tell_results(void) {
    static const char digits[] = "0123456789abcdef";
    put("m-results-[");
    for (uint32_t place = 0; place < edgeprune_output_bytes; place++) {
        edgeprune_putc(digits[(uint8_t)edgeprune_output[place] >> 4]);
        edgeprune_putc(digits[edgeprune_output[place] & 15]);
    }
    put("]\r\n");
    put_count("m-crc-[", checksum(edgeprune_output, edgeprune_output_bytes));
}

static int begins(const char *head) { return strncmp(command, head, strlen(head)) == 0; }

static void answer(void) {
    if (!strcmp(command, "name")) tell_who();
    else if (!strcmp(command, "timestamp")) put_count("m-lap-ticks-[", edgeprune_ticks());
    else if (begins("db load ")) begin_load(command + 8);
    else if (begins("db ")) take_bytes(command + 3);
    else if (begins("infer ")) infer(command + 6);
    else if (!strcmp(command, "results")) tell_results();
    else if (!strcmp(command, "reset")) edgeprune_reset();
    else if (command[0]) put_line("e-[unknown: ", command);
    put("m-ready\r\n");
}

void edgeprune_serve(void) {
    uint32_t length = 0;
    put("m-init-done\r\nm-ready\r\n");
    for (;;) {
        char letter = edgeprune_getc();
        if (letter == '%') {
            command[length <= LONGEST ? length : 0] = 0;
            length = 0;
            answer();
        } else if (letter != '\r' && letter != '\n') {
            if (length < LONGEST) command[length] = letter;
            length += length <= LONGEST;
        }
    }
}
