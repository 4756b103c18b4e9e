/* The net in TensorFlow Lite Micro: its interpreter, in an arena of EDGEPRUNE_ARENA_BYTES. */
#include "edgeprune_net.h"

#include <string.h>

#include "edgeprune_model.h"
#include "edgeprune_operators.h"
#include "model_data.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

int8_t edgeprune_input[EDGEPRUNE_INPUT_BYTES], edgeprune_output[EDGEPRUNE_OUTPUT_BYTES];
alignas(16) static uint8_t arena[EDGEPRUNE_ARENA_BYTES];
static tflite::MicroInterpreter *interpreter;

/* Once: the operators, and the arena laid out. 0, or an error of edgeprune_net.h. */
static int prepare() {
    static EdgepruneOperators operators;
    if (edgeprune_add_operators(operators) != kTfLiteOk) return EDGEPRUNE_NO_OPERATORS;
    static tflite::MicroInterpreter built(tflite::GetModel(model_data), operators, arena, sizeof arena);
    if (built.AllocateTensors() != kTfLiteOk) return EDGEPRUNE_NO_ARENA;
    if (built.input(0)->bytes != EDGEPRUNE_INPUT_BYTES) return EDGEPRUNE_OTHER_MODEL;
    if (built.output(0)->bytes != EDGEPRUNE_OUTPUT_BYTES) return EDGEPRUNE_OTHER_MODEL;
    interpreter = &built;
    return 0;
}

int edgeprune_model_run(void) {
    static int refusal = prepare();
    if (refusal) return refusal;
    memcpy(interpreter->input(0)->data.raw, edgeprune_input, EDGEPRUNE_INPUT_BYTES);
    if (interpreter->Invoke() != kTfLiteOk) return EDGEPRUNE_NOT_RUN;
    memcpy(edgeprune_output, interpreter->output(0)->data.raw, EDGEPRUNE_OUTPUT_BYTES);
    return 0;
}

size_t edgeprune_arena_used_bytes(void) {
    return interpreter ? interpreter->arena_used_bytes() : 0;
}
