/* Any bytes as a trace: every line that is handed out lies within the header, and within the model when there is one. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plan/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct moe_layer layers[3] = {
	{.ffn = {.kind = MOE_FFN_MOE, .experts = 8, .gate = {.top_k = 2}}},
	{.ffn = {.kind = MOE_FFN_DENSE}},
	{.ffn = {.kind = MOE_FFN_MOE, .experts = 8, .gate = {.top_k = 2}}},
};
static const struct moe_model model = {.name = "mixtral", .hidden = 8, .vocab = 16, .n_layers = 3, .layers = layers};

static void demand(int ok)
{
	if (!ok)
		abort();
}

static void check(const struct moe_trace_line *l, const struct moe_trace_header *h, const struct moe_model *m)
{
	demand(l->request >= 1 && l->position >= 0 && l->layer >= 0 && l->layer < h->layers && l->n >= 1 && l->n <= h->top_k);
	demand(!m || l->n <= m->layers[l->layer].ffn.gate.top_k);
	for (int i = 0; i < l->n; i++)
		demand(l->ids[i] > (i ? l->ids[i - 1] : -1) && l->ids[i] < h->experts);
}

static void read_all(const char *path, const struct moe_model *m)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_trace *t;
	struct moe_trace_line l;
	bool more = true;
	int rc = moe_trace_open(path, m, &t, &e);

	demand(rc == 0 || (e.code == rc && *e.msg));
	if (rc)
		return;
	while (rc == 0 && more) {
		rc = moe_trace_next(t, &l, &more, &e);
		demand(rc == 0 || (e.code == rc && *e.msg));
		if (rc == 0 && more)
			check(&l, moe_trace_header(t), m);
	}
	moe_trace_close(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char path[64];
	int fd = memfd_create("trace", MFD_CLOEXEC);

	demand(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	read_all(path, &model);
	read_all(path, NULL);
	close(fd);
	return 0;
}
