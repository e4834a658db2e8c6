/* The inner loops of the encoder, compiled for any machine. */
#define CODER moe_coder_base
#include "search.inc"
