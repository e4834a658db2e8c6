/* What the emulator's files share. */
#ifndef EMULATOR_MACHINE_H
#define EMULATOR_MACHINE_H

#include <stdarg.h>

#include <mutex>

#include "cuda_runtime.h"
#include "emulator.h"

namespace emulated {

extern struct emulator machine;
/* Of everything: one host thread at a time is in the emulator. */
extern std::recursive_mutex lock;
/* The kernel at work, for messages; NULL: none. */
extern const char *at_work;

/* Keep the first words, and print them. */
void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void report_v(const char *fmt, va_list args);

/* 0 .. n - 1 in an order of the seed's, and a number below n. */
void shuffled(int *order, int n);
uint64_t chance(uint64_t n);

/* All threads of all blocks; false: the kernel made a mistake. */
bool run_grid(const Launch &launch);

/* Copies that no thread has waited for are forgotten. */
void copies_reset();

/* ---- memory ---- */

enum Side { HOST, PINNED, DEVICE };
Side side_of(const void *mem);
int device_of(const void *mem);
/* [mem, mem + bytes) lies in one allocation. */
bool is_whole(const void *mem, size_t bytes);
cudaError_t device_alloc(int device, void **mem, size_t bytes);
cudaError_t device_free(void *mem);
cudaError_t pinned_alloc(void **mem, size_t bytes);
cudaError_t pinned_free(void *mem);
size_t device_used(int device);
void memory_reset();
/* Memory of the device can be touched while one of these lives. */
struct Touch {
	Touch();
	~Touch();
};

} // namespace emulated

#endif
