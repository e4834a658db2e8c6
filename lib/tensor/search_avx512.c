/* The search for codes, compiled for AVX-512. */
#define GROUP_SEARCH moe_group_search_avx512
#include "search.inc"
