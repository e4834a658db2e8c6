/* The runtime's functions: devices, streams that put work off, events. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "machine.h"

/* A mark: how often it was recorded, and how often that has been reached. */
struct Mark {
	uint64_t recorded = 0, passed = 0;
	double ms = 0;
};

struct CUevent_st {
	int device;
	std::shared_ptr<Mark> mark;
};

/* A piece of a stream's work; of a wait, what has to be passed before. */
struct Work {
	std::function<cudaError_t()> run;
	std::shared_ptr<Mark> wait;
	uint64_t until;
	bool always;                 /* after an error too: who waits for a mark is not to wait for ever */
};

struct CUstream_st {
	int device;
	std::deque<Work> work;
};

namespace emulated {

struct emulator machine = EMULATOR_INIT;
std::recursive_mutex lock;
const char *at_work;

static const int MOST_DEVICES = 16;
static char said[512];
static uint64_t state;
static cudaError_t sticky[MOST_DEVICES];
static std::vector<CUstream_st *> streams;
static std::map<const void *, int> shared_limits;
static thread_local int current;
static thread_local cudaError_t last;

/* ---- the machine ---- */

void report_v(const char *fmt, va_list args)
{
	char words[400];

	vsnprintf(words, sizeof words, fmt, args);
	if (!said[0])
		snprintf(said, sizeof said, "%s: %s", at_work ? at_work : "host", words);
	fprintf(stderr, "emulator: %s: %s\n", at_work ? at_work : "host", words);
}

void report(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	report_v(fmt, args);
	va_end(args);
}

uint64_t chance(uint64_t n)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (state >> 33) % n;
}

void shuffled(int *order, int n)
{
	for (int i = 0; i < n; i++)
		order[i] = i;
	for (int i = n - 1; i > 0 && machine.seed; i--) {
		int j = (int)chance((uint64_t)i + 1), t = order[i];

		order[i] = order[j];
		order[j] = t;
	}
}

static void from_environment()
{
	static bool done;
	const char *s = getenv("MOE_EMULATOR");

	if (done)
		return;
	done = true;
	while (s && *s) {
		size_t n = strcspn(s, "=");
		uint64_t value = s[n] ? strtoull(s + n + 1, NULL, 10) : 0;

		if (strncmp(s, "devices", n) == 0)
			machine.devices = value < MOST_DEVICES ? (int)value : MOST_DEVICES;
		else if (strncmp(s, "sm", n) == 0)
			machine.sm = (int)value;
		else if (strncmp(s, "memory", n) == 0)
			machine.memory = value;
		else if (strncmp(s, "seed", n) == 0)
			machine.seed = value;
		s += strcspn(s, ",");
		s += *s == ',';
	}
	state = machine.seed;
}

/* Every function of the runtime holds one. */
struct Guard : std::lock_guard<std::recursive_mutex> {
	Guard() : std::lock_guard<std::recursive_mutex>(lock) { from_environment(); }
};

static cudaError_t remember(cudaError_t rc)
{
	if (rc && rc != cudaErrorNotReady)
		last = rc;
	return rc;
}

/* ---- streams ---- */

static void keep_error(int device, cudaError_t rc)
{
	if (!sticky[device])
		sticky[device] = rc;
}

/* The first of s's work, if nothing holds it up. */
static bool step(CUstream_st *s)
{
	if (s->work.empty() || (s->work.front().wait && s->work.front().wait->passed < s->work.front().until))
		return false;
	Work w = std::move(s->work.front());

	s->work.pop_front();
	if (w.run && (w.always || !sticky[s->device]))
		keep_error(s->device, w.run());
	return true;
}

/* A step of some stream. */
static bool any_step()
{
	size_t n = streams.size(), first = n && machine.seed ? chance(n) : 0;

	for (size_t i = 0; i < n; i++)
		if (step(streams[(first + i) % n]))
			return true;
	return false;
}

template <class F> static void run_until(F done)
{
	while (!done() && any_step())
		;
}

static cudaError_t run_all()
{
	run_until([] { return false; });
	return cudaSuccess;
}

static cudaError_t put(CUstream_st *s, Work &&w)
{
	if (!s) { /* the stream that waits for all, and that all wait for */
		run_all();
		if (w.run && (w.always || !sticky[current]))
			keep_error(current, w.run());
		return remember(sticky[current]);
	}
	s->work.push_back(std::move(w));
	if (!machine.seed)
		run_all();
	else if (chance(4) == 0)
		any_step();
	return remember(sticky[s->device]);
}

static size_t most_shared()
{
	return (machine.sm >= 90 ? 227 : machine.sm >= 80 ? 163 : 64) * (size_t)1024;
}

static bool fits(const Launch &l)
{
	auto limit = shared_limits.find(l.kernel);
	size_t threads = (size_t)l.block.x * l.block.y * l.block.z;

	return threads > 0 && threads <= 1024 && l.block.z <= 64 && l.grid.x > 0 && l.grid.x < 1u << 31 && l.grid.y > 0 &&
	       l.grid.y < 65536 && l.grid.z > 0 && l.grid.z < 65536 &&
	       l.shared <= (limit == shared_limits.end() ? (size_t)48 << 10 : (size_t)limit->second);
}

static cudaError_t run_kernel(const Launch &l)
{
	Touch touch;
	bool good;

	at_work = l.name;
	good = run_grid(l);
	at_work = nullptr;
	return good ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t enqueue(Launch &&l, const void *culprit, cudaStream_t stream)
{
	Guard guard;

	at_work = l.name;
	if (culprit)
		report("an argument is %p, memory of the host that is not pinned", culprit);
	if (!fits(l))
		report("%u x %u x %u blocks of %u x %u x %u threads, %zu bytes shared", l.grid.x, l.grid.y, l.grid.z, l.block.x, l.block.y,
		       l.block.z, l.shared);
	if (stream && stream->device != current)
		report("device %d is current, the stream is of device %d", current, stream->device);
	at_work = nullptr;
	if (culprit || !fits(l) || (stream && stream->device != current))
		return remember(culprit ? cudaErrorInvalidValue : fits(l) ? cudaErrorInvalidResourceHandle : cudaErrorInvalidConfiguration);
	return put(stream, {[l] { return run_kernel(l); }, nullptr, 0, false});
}

} // namespace emulated

using namespace emulated;

void emulator_set(const struct emulator *e)
{
	Guard guard;

	run_all();
	memory_reset();
	machine = *e;
	state = e->seed;
	said[0] = '\0';
	memset(sticky, 0, sizeof sticky);
	current = 0;
	last = cudaSuccess;
}

const char *emulator_report(void)
{
	return said;
}

size_t emulator_used(void)
{
	Guard guard;
	size_t all = 0;

	for (int i = 0; i < MOST_DEVICES; i++)
		all += device_used(i);
	return all;
}

/* ---- devices and memory ---- */

const char *cudaGetErrorString(cudaError_t error)
{
	switch (error) {
	case cudaSuccess: return "no error";
	case cudaErrorInvalidValue: return "invalid argument";
	case cudaErrorMemoryAllocation: return "out of memory";
	case cudaErrorInvalidConfiguration: return "invalid configuration argument";
	case cudaErrorInvalidMemcpyDirection: return "invalid copy direction for memcpy";
	case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
	case cudaErrorNoDevice: return "no CUDA-capable device is detected";
	case cudaErrorInvalidDevice: return "invalid device ordinal";
	case cudaErrorInvalidResourceHandle: return "invalid resource handle";
	case cudaErrorNotReady: return "device not ready";
	case cudaErrorLaunchFailure: return "unspecified launch failure";
	}
	return "unrecognized error code";
}

cudaError_t cudaGetLastError(void)
{
	cudaError_t rc = last;

	last = cudaSuccess;
	return rc;
}

cudaError_t cudaPeekAtLastError(void)
{
	return last;
}

cudaError_t cudaGetDeviceCount(int *count)
{
	Guard guard;

	*count = machine.devices;
	return remember(machine.devices ? cudaSuccess : cudaErrorInsufficientDriver);
}

cudaError_t cudaGetDevice(int *device)
{
	*device = current;
	return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
	Guard guard;

	if (device < 0 || device >= machine.devices)
		return remember(cudaErrorInvalidDevice);
	current = device;
	return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
	Guard guard;

	if (device < 0 || device >= machine.devices)
		return remember(cudaErrorInvalidDevice);
	*p = {};
	snprintf(p->name, sizeof p->name, "Emulated GPU");
	p->totalGlobalMem = machine.memory;
	p->sharedMemPerBlock = (size_t)48 << 10;
	p->sharedMemPerBlockOptin = most_shared();
	p->major = machine.sm / 10;
	p->minor = machine.sm % 10;
	p->multiProcessorCount = 4;
	return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
	Guard guard;

	run_all();
	return remember(sticky[current]);
}

cudaError_t cudaMalloc(void **mem, size_t bytes)
{
	Guard guard;

	return remember(device_alloc(current, mem, bytes));
}

cudaError_t cudaFree(void *mem)
{
	Guard guard;

	run_all();
	return remember(device_free(mem));
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
	Guard guard;

	*total = machine.memory;
	*free_bytes = machine.memory - device_used(current);
	return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **mem, size_t bytes, unsigned flags)
{
	Guard guard;

	return remember(flags > cudaHostAllocPortable ? cudaErrorInvalidValue : pinned_alloc(mem, bytes));
}

cudaError_t cudaFreeHost(void *mem)
{
	Guard guard;

	run_all();
	return remember(pinned_free(mem));
}

static bool goes(const void *to, const void *from, enum cudaMemcpyKind kind)
{
	bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
	bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;

	return kind == cudaMemcpyDefault || (to_device == (side_of(to) == DEVICE) && from_device == (side_of(from) == DEVICE));
}

static cudaError_t copy_now(void *to, const void *from, size_t bytes)
{
	Touch touch;

	memcpy(to, from, bytes);
	return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
	Guard guard;
	Side source = side_of(from), target = side_of(to);
	cudaError_t rc;

	if (bytes == 0)
		return cudaSuccess;
	if (!goes(to, from, kind)) {
		report("a copy of %zu bytes goes from %p to %p, which is another direction than was said", bytes, from, to);
		return remember(cudaErrorInvalidMemcpyDirection);
	}
	if ((source == DEVICE && !is_whole(from, bytes)) || (target == DEVICE && !is_whole(to, bytes))) {
		report("a copy of %zu bytes from %p to %p leaves its memory", bytes, from, to);
		return remember(cudaErrorInvalidValue);
	}
	if (source == HOST) { /* taken before the call returns */
		auto kept = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);

		return put(stream, {[=] { return copy_now(to, kept->data(), bytes); }, nullptr, 0, false});
	}
	rc = put(stream, {[=] { return copy_now(to, from, bytes); }, nullptr, 0, false});
	return target == HOST && !rc ? cudaStreamSynchronize(stream) : rc;
}

cudaError_t cudaMemsetAsync(void *mem, int value, size_t bytes, cudaStream_t stream)
{
	Guard guard;

	if (side_of(mem) != DEVICE || !is_whole(mem, bytes))
		return remember(cudaErrorInvalidValue);
	return put(stream, {[=] {
		Touch touch;

		memset(mem, value, bytes);
		return cudaSuccess;
	}, nullptr, 0, false});
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
	Guard guard;

	if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
		return cudaSuccess;
	if (value < 0 || (size_t)value > most_shared())
		return remember(cudaErrorInvalidValue);
	shared_limits[kernel] = value;
	return cudaSuccess;
}

/* ---- streams and events ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
	Guard guard;

	if (flags > cudaStreamNonBlocking)
		return remember(cudaErrorInvalidValue);
	*stream = new CUstream_st{current, {}};
	streams.push_back(*stream);
	return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
	Guard guard;

	if (stream)
		run_until([stream] { return stream->work.empty(); });
	else
		run_all();
	return remember(sticky[stream ? stream->device : current]);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	Guard guard;

	cudaStreamSynchronize(stream);
	for (size_t i = 0; i < streams.size(); i++)
		if (streams[i] == stream) {
			streams.erase(streams.begin() + (long)i);
			delete stream;
			return cudaSuccess;
		}
	return remember(cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
	Guard guard;

	(void)flags;
	*event = new CUevent_st{current, std::make_shared<Mark>()};
	return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	Guard guard;

	delete event;
	return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	Guard guard;
	std::shared_ptr<Mark> mark = event->mark;
	uint64_t n = ++mark->recorded;

	if ((stream ? stream->device : current) != event->device) {
		report("an event of device %d is recorded on device %d", event->device, stream ? stream->device : current);
		return remember(cudaErrorInvalidResourceHandle);
	}
	return put(stream, {[mark, n] {
		struct timespec t;

		clock_gettime(CLOCK_MONOTONIC, &t);
		mark->ms = (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
		mark->passed = n;
		return cudaSuccess;
	}, nullptr, 0, true});
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
	Guard guard;

	return flags ? remember(cudaErrorInvalidValue) : put(stream, {nullptr, event->mark, event->mark->recorded, false});
}

static bool is_passed(cudaEvent_t event)
{
	return event->mark->passed >= event->mark->recorded;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
	Guard guard;

	run_until([event] { return is_passed(event); });
	return remember(sticky[event->device]);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
	Guard guard;

	if (!is_passed(event))
		any_step();
	return is_passed(event) ? remember(sticky[event->device]) : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
	Guard guard;

	if (!is_passed(from) || !is_passed(to))
		return cudaErrorNotReady;
	*ms = (float)(to->mark->ms - from->mark->ms);
	return cudaSuccess;
}
