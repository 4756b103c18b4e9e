#include "tensorflow/lite/micro/micro_interpreter.h"

#include <string.h>

namespace tflite {
TfLiteStatus MicroInterpreter::AllocateTensors() {
    if (arena_bytes_ < 259) return kTfLiteError;
    input_ = {{reinterpret_cast<char *>(arena_)}, 256};
    output_ = {{reinterpret_cast<char *>(arena_) + 256}, 3};
    return kTfLiteOk;
}

TfLiteStatus MicroInterpreter::Invoke() {
    memset(output_.data.raw, 0, output_.bytes);
    return kTfLiteOk;
}
}  // namespace tflite
