/* A grid: blocks one after the other, a block's threads as fibers that change places at barriers and warp operations. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <vector>

#include "machine.h"

#ifndef __x86_64__
#include <ucontext.h>
#endif

/* The linker's names for what is __shared__, if anything is. */
extern "C" char __start_emulated_shared[] __attribute__((weak)), __stop_emulated_shared[] __attribute__((weak));

namespace emulated {

enum { STACK = 128 << 10, MOST_THREADS = 1024, MOST_WARPS = MOST_THREADS / 32, POISON = 0xff /* NaN, as f32 */ };

/* ---- fibers ---- */

/* Registers that a call must keep are pushed on the stack that is left, and popped from the one that is entered. */
#ifdef __x86_64__
extern "C" void emulator_switch(void **from, void *to);
asm(".text\n"
    ".globl emulator_switch\n"
    "emulator_switch:\n"
    "	pushq %rbp\n	pushq %rbx\n	pushq %r12\n	pushq %r13\n	pushq %r14\n	pushq %r15\n"
    "	movq %rsp, (%rdi)\n"
    "	movq %rsi, %rsp\n"
    "	popq %r15\n	popq %r14\n	popq %r13\n	popq %r12\n	popq %rbx\n	popq %rbp\n"
    "	ret\n");

struct Context {
	void *stack_pointer;

	void start(char *stack, void (*fn)())
	{
		void **top = (void **)(stack + STACK) - 2; /* so that fn finds its stack as a call leaves it */

		*top = (void *)fn;
		stack_pointer = top - 6;
	}
	void change_to(Context &next) { emulator_switch(&stack_pointer, next.stack_pointer); }
};
#else
struct Context {
	ucontext_t c;

	void start(char *stack, void (*fn)())
	{
		getcontext(&c);
		c.uc_stack.ss_sp = stack;
		c.uc_stack.ss_size = STACK;
		makecontext(&c, fn, 0);
	}
	void change_to(Context &next) { swapcontext(&c, &next.c); }
};
#endif

enum State { RUNS, AT_BARRIER, IN_WARP, ENDED };

struct Fiber : Thread {
	Context context;
	State state;
	/* what it waits for */
	const char *what;
	int line;
	void (*op)(Lane *, unsigned);
	unsigned mask;
	Lane *mine;
};

Thread *self;
uint3 block_index;
dim3 block_size, grid_size;
unsigned char *dynamic_shared;

static Fiber fibers[MOST_THREADS];
static char *stacks;
static Context scheduler;
static const std::function<void()> *program;
static int threads, ended, at_barrier;
static bool failed;

static Fiber *me()
{
	return (Fiber *)self;
}

static void leave()
{
	me()->context.change_to(scheduler);
}

void fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	report_v(fmt, args);
	va_end(args);
	failed = true;
	me()->state = ENDED;
	leave();
	abort();
}

static void fiber_main()
{
	(*program)();
	me()->state = ENDED;
	ended++;
	leave();
}

void need(const char *what, int sm)
{
	if (machine.sm < sm)
		fail("%s needs sm_%d, this is sm_%d", what, sm, machine.sm);
}

/* ---- meeting ---- */

/* All of the block that have not ended have come. */
static void open_barrier()
{
	if (at_barrier == 0 || at_barrier + ended < threads)
		return;
	for (int i = 0; i < threads; i++)
		if (fibers[i].state == AT_BARRIER)
			fibers[i].state = RUNS;
	at_barrier = 0;
}

void barrier(const char *name, int line)
{
	Fiber *f = me();

	for (int i = 0; i < threads; i++)
		if (fibers[i].state == AT_BARRIER && fibers[i].line != line)
			fail("thread %d is in the barrier of line %d, thread %d in that of line %d", f->number, line, i, fibers[i].line);
	f->what = name;
	f->line = line;
	f->state = AT_BARRIER;
	at_barrier++;
	leave();
}

static void check_lane(const Fiber *f, int lane)
{
	int number = f->number / 32 * 32 + lane;
	const Fiber *other = &fibers[number];

	if (number >= threads || other->state == ENDED)
		fail("%s of thread %d waits for thread %d, which has ended", f->what, f->number, number);
	if (other->state == IN_WARP && (other->mask >> f->number % 32 & 1) && (other->op != f->op || other->mask != f->mask))
		fail("thread %d is in %s with mask %08x, thread %d in %s with mask %08x", f->number, f->what, f->mask, number,
		     other->what, other->mask);
}

void warp(const char *name, unsigned mask, void (*op)(Lane *, unsigned), Lane *mine)
{
	Fiber *f = me(), *first = &fibers[f->number / 32 * 32];
	Lane lanes[32];
	unsigned here = 0;

	f->what = name;
	f->op = op;
	f->mask = mask;
	f->mine = mine;
	f->state = IN_WARP;
	if (!(mask >> f->number % 32 & 1))
		fail("%s: thread %d is not in its own mask %08x", name, f->number, mask);
	for (int i = 0; i < 32; i++)
		if (mask >> i & 1) {
			check_lane(f, i);
			here |= (unsigned)(first[i].state == IN_WARP) << i;
		}
	if (here != mask) {
		leave();
		return;
	}
	for (int i = 0; i < 32; i++)
		if (mask >> i & 1)
			lanes[i] = *first[i].mine;
	op(lanes, mask);
	for (int i = 0; i < 32; i++)
		if (mask >> i & 1) {
			*first[i].mine = lanes[i];
			first[i].state = RUNS;
		}
}

void pick(Lane lanes[32], unsigned mask)
{
	Lane in[32];

	memcpy(in, lanes, sizeof in);
	for (int i = 0; i < 32; i++) {
		if (!(mask >> i & 1))
			continue;
		if (!(mask >> (in[i].word[15] & 31) & 1))
			fail("lane %d asks lane %u, which is not in mask %08x", i, in[i].word[15], mask);
		lanes[i] = in[in[i].word[15] & 31];
	}
}

void count(Lane lanes[32], unsigned mask)
{
	unsigned votes = 0;

	for (int i = 0; i < 32; i++)
		if (mask >> i & 1)
			votes |= lanes[i].word[0] << i;
	for (int i = 0; i < 32; i++)
		lanes[i].word[0] = votes;
}

/* ---- blocks ---- */

static void report_stuck()
{
	for (int i = 0; i < threads; i++)
		for (int j = 0; j < threads; j++)
			if (fibers[i].state == AT_BARRIER && fibers[j].state == IN_WARP) {
				report("thread %d waits in %s, thread %d in %s with mask %08x", i, fibers[i].what, j, fibers[j].what, fibers[j].mask);
				return;
			}
	report("threads wait for each other");
}

static void start_fibers()
{
	for (int i = 0; i < threads; i++) {
		Fiber *f = &fibers[i];

		f->number = i;
		f->index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
		f->state = RUNS;
		f->context.start(stacks + (size_t)i * STACK, fiber_main);
	}
	copies_reset();
	ended = at_barrier = 0;
	failed = false;
}

static bool run_block()
{
	int order[MOST_THREADS];

	start_fibers();
	while (ended < threads) {
		int moved = 0;

		shuffled(order, threads);
		for (int i = 0; i < threads && !failed; i++) {
			if (fibers[order[i]].state != RUNS)
				continue;
			self = &fibers[order[i]];
			scheduler.change_to(fibers[order[i]].context);
			open_barrier();
			moved++;
		}
		if (!failed && moved == 0)
			report_stuck();
		if (failed || moved == 0)
			return false;
	}
	return true;
}

bool run_grid(const Launch &launch)
{
	size_t blocks = (size_t)launch.grid.x * launch.grid.y * launch.grid.z;
	std::vector<unsigned char> shared(launch.shared + 128);
	std::vector<int> order(blocks);

	if (!stacks)
		stacks = (char *)mmap(NULL, (size_t)MOST_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stacks == MAP_FAILED)
		abort();
	program = &launch.thread;
	grid_size = launch.grid;
	block_size = launch.block;
	threads = (int)(launch.block.x * launch.block.y * launch.block.z);
	dynamic_shared = (unsigned char *)(((uintptr_t)shared.data() + 127) / 128 * 128);
	shuffled(order.data(), (int)blocks);
	for (int i : order) {
		unsigned n = (unsigned)i;

		block_index = {n % grid_size.x, n / grid_size.x % grid_size.y, n / (grid_size.x * grid_size.y)};
		memset(dynamic_shared, POISON, launch.shared);
		if (__start_emulated_shared)
			memset(__start_emulated_shared, POISON, (size_t)(__stop_emulated_shared - __start_emulated_shared));
		if (!run_block())
			return false;
	}
	return true;
}

} // namespace emulated
