/* Memory of the device: a region of addresses for each, in which every allocation ends at a page that cannot be touched. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <mutex>

#include "machine.h"

namespace emulated {

enum { PAGE = 4096, ALIGN = 256, POISON = 0xff };
static const size_t REGION = (size_t)1 << 40;
static const int MOST_DEVICES = 16;

struct Block {
	size_t bytes;                /* asked for */
	char *pages;
	size_t mapped;
	int device;                  /* -1: pinned memory of the host */
};

static char *region;             /* one for each device, one behind the other */
static size_t taken[MOST_DEVICES]; /* addresses are not used again */
static size_t used[MOST_DEVICES];
static std::map<const char *, Block> blocks;
static int touching;

/* ---- what cannot be touched ---- */

static void on_fault(int signal, siginfo_t *info, void *context)
{
	const char *at = (const char *)info->si_addr;

	(void)context;
	if (region && at >= region && at < region + REGION * MOST_DEVICES)
		fprintf(stderr, "emulator: %s touches memory of the device at %p, where nothing is or which is not its to touch\n",
		        at_work ? at_work : "the host", (const void *)at);
	::signal(signal, SIG_DFL);
	raise(signal);
}

static void reserve()
{
	struct sigaction fault = {};

	if (region)
		return;
	region = (char *)mmap(NULL, REGION * MOST_DEVICES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (region == MAP_FAILED)
		abort();
	fault.sa_sigaction = on_fault;
	fault.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigaction(SIGSEGV, &fault, NULL);
}

static void protect(int how)
{
	for (const auto &b : blocks)
		if (b.second.device >= 0)
			mprotect(b.second.pages, b.second.mapped, how);
}

Touch::Touch()
{
	if (touching++ == 0)
		protect(PROT_READ | PROT_WRITE);
}

Touch::~Touch()
{
	if (--touching == 0)
		protect(PROT_NONE);
}

/* ---- allocations ---- */

/* The one that mem lies in, or the end. */
static std::map<const char *, Block>::iterator block_of(const void *mem)
{
	auto b = blocks.upper_bound((const char *)mem);

	if (b == blocks.begin())
		return blocks.end();
	--b;
	return (const char *)mem < b->first + b->second.bytes || mem == b->first ? b : blocks.end();
}

Side side_of(const void *mem)
{
	auto b = block_of(mem);

	if (b != blocks.end())
		return b->second.device < 0 ? PINNED : DEVICE;
	return region && (const char *)mem >= region && (const char *)mem < region + REGION * MOST_DEVICES ? DEVICE : HOST;
}

int device_of(const void *mem)
{
	auto b = block_of(mem);

	return b == blocks.end() ? -1 : b->second.device;
}

bool is_whole(const void *mem, size_t bytes)
{
	auto b = block_of(mem);

	return b != blocks.end() && bytes <= b->second.bytes - (size_t)((const char *)mem - b->first);
}

size_t device_used(int device)
{
	return used[device];
}

cudaError_t device_alloc(int device, void **mem, size_t bytes)
{
	size_t room = (bytes + ALIGN - 1) / ALIGN * ALIGN, mapped = (room + PAGE - 1) / PAGE * PAGE;
	char *pages;

	*mem = NULL;
	if (bytes == 0)
		return cudaSuccess;
	reserve();
	if (room > machine.memory || used[device] > machine.memory - room || taken[device] + mapped + PAGE > REGION)
		return cudaErrorMemoryAllocation;
	pages = region + (size_t)device * REGION + taken[device];
	if (mprotect(pages, mapped, PROT_READ | PROT_WRITE))
		return cudaErrorMemoryAllocation;
	memset(pages, POISON, mapped);
	taken[device] += mapped + PAGE;
	used[device] += room;
	*mem = pages + mapped - room;
	blocks[(char *)*mem] = {bytes, pages, mapped, device};
	if (touching == 0)
		mprotect(pages, mapped, PROT_NONE);
	return cudaSuccess;
}

cudaError_t device_free(void *mem)
{
	auto b = blocks.find((char *)mem);

	if (!mem)
		return cudaSuccess;
	if (b == blocks.end() || b->second.device < 0)
		return cudaErrorInvalidValue;
	used[b->second.device] -= (b->second.bytes + ALIGN - 1) / ALIGN * ALIGN;
	mmap(b->second.pages, b->second.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	blocks.erase(b);
	return cudaSuccess;
}

cudaError_t pinned_alloc(void **mem, size_t bytes)
{
	size_t mapped = (bytes + PAGE) / PAGE * PAGE;

	*mem = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (*mem == MAP_FAILED)
		return cudaErrorMemoryAllocation;
	blocks[(char *)*mem] = {bytes, (char *)*mem, mapped, -1};
	return cudaSuccess;
}

cudaError_t pinned_free(void *mem)
{
	auto b = blocks.find((char *)mem);

	if (!mem)
		return cudaSuccess;
	if (b == blocks.end() || b->second.device >= 0)
		return cudaErrorInvalidValue;
	munmap(b->second.pages, b->second.mapped);
	blocks.erase(b);
	return cudaSuccess;
}

void memory_reset()
{
	while (!blocks.empty()) {
		auto b = blocks.begin();

		if (b->second.device < 0)
			pinned_free((void *)b->first);
		else
			device_free((void *)b->first);
	}
}

/* Does a page lie there?  Only pages of this process can be asked about. */
static bool is_mapped(uintptr_t at)
{
	unsigned char in;

	return at >= 0x10000 && at < (uintptr_t)1 << 47 && mincore((void *)(at / PAGE * PAGE), 1, &in) == 0;
}

bool is_out_of_reach(const void *mem)
{
	std::lock_guard<std::recursive_mutex> guard(lock);

	return side_of(mem) == HOST && is_mapped((uintptr_t)mem);
}

} // namespace emulated
