// The self-check on a board with Arduino: open the serial monitor at 115200 baud.
#include <Chirale_TensorFlowLite.h>
#include <edgeprune_self_check.h>

void setup() {
    Serial.begin(115200);
    while (!Serial) {
    }
}

void loop() {
    const SelfCheck check = edgeprune_self_check();
    Serial.print("self-check: vectors ");
    Serial.print(check.vectors);
    Serial.print(", wrong ");
    Serial.print(check.wrong_vectors);
    Serial.print(", worst output off by steps of int8 ");
    Serial.print(check.steps_off);
    Serial.print(", error ");
    Serial.print(check.error);
    Serial.print(", arena used, bytes ");
    Serial.print((unsigned long)check.arena_used_bytes);
    Serial.println(!check.error && !check.wrong_vectors ? ": passed" : ": FAILED");
    delay(5000);
}
