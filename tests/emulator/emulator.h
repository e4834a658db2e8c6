/* A CUDA GPU as a program: the runtime's functions and what kernels call, so that g++ compiles the kernels of lib/compute/cuda and the
 * CPU runs them.  It is slow and knows no time; what it is for is finding mistakes:
 *
 *   - a block's threads are fibers that change at barriers and warp operations, in an order that the seed decides; threads of
 *     one block that do not meet in the same barrier, or lanes in the same warp operation, are an error, not a hang;
 *   - work on a stream is put off until somebody waits for it (or the seed says so), and streams take turns at random: what
 *     relies on an order that nobody asked for sees another one;
 *   - memory of the device is poisoned, ends at pages that cannot be touched, and cannot be touched at all while no kernel
 *     and no copy is at work; shared memory is poisoned before each block; pointers that a kernel is given may not be the
 *     host's memory unless it is pinned.
 *
 * What went wrong is printed, told by emulator_report(), and is the device's error from then on.
 *
 * MOE_EMULATOR in the environment chooses the machine: "devices=2,sm=75,memory=16000000,seed=7". */
#ifndef EMULATOR_H
#define EMULATOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct emulator {
	int devices;                 /* 0: as on a machine without a driver */
	int sm;                      /* 75, 80, 90: what they can do, and their shared memory */
	size_t memory;               /* bytes of each device */
	uint64_t seed;               /* 0: threads in order, streams at once */
};
#define EMULATOR_INIT {1, 80, (size_t)4 << 30, 1}

/* From now on the machine is this one; nothing is open on it, errors are forgotten. */
void emulator_set(const struct emulator *e);
/* What went wrong first, or "". */
const char *emulator_report(void);
/* Bytes that are allocated on all devices. */
size_t emulator_used(void);

#ifdef __cplusplus
}
#endif
#endif
