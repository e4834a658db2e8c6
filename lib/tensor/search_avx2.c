/* The search for codes, compiled for AVX2. */
#define GROUP_SEARCH moe_group_search_avx2
#include "search.inc"
