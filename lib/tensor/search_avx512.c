/* The inner loops of the encoder, compiled for AVX-512. */
#define CODER moe_coder_avx512
#include "search.inc"
