/* The search for codes, compiled for any machine. */
#define GROUP_SEARCH moe_group_search_base
#include "search.inc"
