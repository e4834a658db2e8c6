/* The inner loops of the encoder, compiled for AVX2. */
#define CODER moe_coder_avx2
#include "search.inc"
