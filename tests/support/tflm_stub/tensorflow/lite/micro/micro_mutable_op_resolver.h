/* Written for tests: what a project uses of TensorFlow Lite Micro's header of this name, and nothing else. */
#pragma once

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };

namespace tflite {
class MicroOpResolver {};

template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {
   public:
    TfLiteStatus AddAdd() { return Add(); }
    TfLiteStatus AddConv2D() { return Add(); }
    TfLiteStatus AddFullyConnected() { return Add(); }
    TfLiteStatus AddMean() { return Add(); }

   private:
    TfLiteStatus Add() { return count_++ < tOpCount ? kTfLiteOk : kTfLiteError; }
    unsigned int count_ = 0;
};
}  // namespace tflite
