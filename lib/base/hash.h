/* The hash of tables that live in this process only: seeded afresh each time, so that nobody can prepare
 * names that collide. */
#ifndef MOE_BASE_HASH_H
#define MOE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t moe_hash(const void *data, size_t len);

#endif
