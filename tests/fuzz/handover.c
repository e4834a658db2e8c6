/* Any words at a handover of shared memory, and any bytes in it: what is taken lies within what is there. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/lane.h"

static void demand(int ok)
{
	if (!ok)
		abort();
}

/* The same bytes as a client would leave them in a slot's request. */
static void look_into(const uint8_t *data, size_t size)
{
	const struct ring_shape shape = {.slots = 1, .request = 1024, .reply = 1024};
	struct wire_frame f[WIRE_MAX_FRAMES];
	struct ring_box box;
	struct ring client, server;
	unsigned char *memory, sum = 0;
	size_t bytes;
	int n;

	demand(ring_bytes(&shape, &bytes, NULL) == 0);
	memory = moe_aligned(bytes, "fuzz", NULL);
	demand(memory != NULL);
	ring_start(&client, RING_CLIENT, &shape, memory);
	ring_start(&server, RING_SERVER, &shape, memory);
	ring_open(&client, ring_claim(&client), &box);
	memcpy(box.data - 64, data, size < 64 + 1024 ? size : 64 + 1024);
	n = ring_frames(&server, 0, f);
	demand(n >= -1 && n <= WIRE_MAX_FRAMES);
	for (int i = 0; i < n; i++) {
		const unsigned char *p = f[i].data;

		demand(p >= box.data && f[i].size <= (size_t)(box.data + 1024 - p));
		for (size_t j = 0; j < f[i].size; j++)
			sum ^= p[j];
	}
	(void)sum;
	free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lane_offer o;
	uint32_t rows;
	size_t bytes;

	if (lane_get_wish(data, size, &rows, NULL) == 0)
		demand(rows > 0 && size == LANE_WISH);
	if (lane_get_offer(data, size, &o, NULL) == 0)
		demand(o.shape.slots >= 1 && o.shape.slots <= RING_SLOTS && ring_bytes(&o.shape, &bytes, NULL) == 0);
	look_into(data, size);
	return 0;
}
