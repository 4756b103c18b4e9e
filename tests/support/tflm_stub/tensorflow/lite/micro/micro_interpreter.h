/* Written for tests: what a project uses of TensorFlow Lite Micro's header of this name, for a net of 256 int8 values to
 * 3, which gives zeros. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

struct TfLiteTensor {
    union {
        char *raw;
    } data;
    size_t bytes;
};

namespace tflite {
class MicroInterpreter {
   public:
    MicroInterpreter(const Model *, const MicroOpResolver &, uint8_t *arena, size_t arena_bytes)
        : arena_(arena), arena_bytes_(arena_bytes) {}
    TfLiteStatus AllocateTensors();
    TfLiteStatus Invoke();
    TfLiteTensor *input(size_t) { return &input_; }
    TfLiteTensor *output(size_t) { return &output_; }
    size_t arena_used_bytes() const { return 259; }

   private:
    uint8_t *arena_;
    size_t arena_bytes_;
    TfLiteTensor input_, output_;
};
}  // namespace tflite
