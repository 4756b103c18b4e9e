/* What a firmware runs: made for each net, beside the C of the net itself. */
#ifndef EDGEPRUNE_MODEL_H
#define EDGEPRUNE_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* SHA-256 of the .tflite file that the C was made from, in hexadecimal. */
extern const char edgeprune_model_sha256[65];
/* What made the C, with its version. */
extern const char edgeprune_model_runtime[];
/* Bytes of the input and of the output, int8 each. */
extern const uint32_t edgeprune_input_bytes, edgeprune_output_bytes;
extern int8_t edgeprune_input[], edgeprune_output[];

/* One inference from edgeprune_input to edgeprune_output; 0, or the net's own error. */
int edgeprune_model_run(void);

#ifdef __cplusplus
}
#endif

#endif
