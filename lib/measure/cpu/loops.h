/* The inner loops of the roofs: no compiler between them and the processor. */
#ifndef MOE_MEASURE_LOOPS_H
#define MOE_MEASURE_LOOPS_H

#include <stddef.h>
#include <stdint.h>

#include "measure/measure.h"

/* Dot products on registers: each turn does `operations`. */
struct moe_dot_loop {
	const char *name;            /* "avx512 vnni"; NULL: this CPU has none */
	double operations;
	void (*run)(uint64_t turns);
};
struct moe_dot_loop moe_dot_loop(enum moe_arithmetic a);

/* Load every byte of p[0..bytes), bytes a multiple of 512 and p of 64. */
void moe_read_loop(const void *p, size_t bytes);

#endif
