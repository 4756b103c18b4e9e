/* Written for tests: what a project uses of TensorFlow Lite Micro's header of this name, and nothing else. */
#pragma once

namespace tflite {
struct Model {};
inline const Model *GetModel(const void *bytes) { return static_cast<const Model *>(bytes); }
}  // namespace tflite
