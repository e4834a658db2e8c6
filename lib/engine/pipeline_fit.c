/* A device that is too small is refused, with what would fit. */
#include <math.h>

#include "base/mem.h"
#include "base/opts.h"
#include "engine/pipeline_private.h"

/* Bytes of the device for the KV cache, if it is there and not taken yet. */
static int kv_bytes(const struct moe_model *m, const struct moe_engine_config *c, bool taken, size_t *bytes, struct moe_err *e)
{
	struct moe_engine_sizes kv = {0};

	if (!taken && moe_pipeline_kv_on_device(c->offload))
		TRY(moe_engine_kv_sizes(m, c, &kv, e));
	*bytes = kv.memory.kv;
	return 0;
}

/* What one device is asked for. */
struct ask {
	const struct moe_model *m;
	const struct moe_tensors *t;
	const struct moe_engine_config *c;
	const struct moe_pipeline_sizes *s;
	bool kv_taken;
	size_t kv;
};

/* Beside the share of the experts and the slots. */
static size_t fixed(const struct ask *a)
{
	return a->s->vectors + a->s->base + a->s->device + a->s->work + a->kv;
}

static size_t needed(const struct ask *a)
{
	return fixed(a) + a->s->pager.resident + a->s->pager.slots;
}

static void list_needs(const struct ask *a, struct moe_buf *text)
{
	const struct moe_pipeline_sizes *s = a->s;
	const struct {
		const char *what;
		size_t bytes;
	} needs[] = {{"attention, routers, embedding and head", s->vectors + s->base},
	             {"experts that stay", s->pager.resident},
	             {"two slots for a layer's other experts", s->pager.slots},
	             {"KV cache", a->kv},
	             {"KV blocks on their way", s->kv},
	             {"buffers", s->device - s->kv},
	             {"what its operations take", s->work}};
	const char *before = "";
	char size[32];

	for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
		if (needs[i].bytes > 0) {
			moe_buf_printf(text, NULL, "%s%s %s", before, needs[i].what, moe_size_text((double)needs[i].bytes, size));
			before = ", ";
		}
}

/* What the device would need with that share, and with micro-batches that are so many times smaller. */
static bool needs_with(const struct ask *a, double share, int shrink, size_t *bytes)
{
	struct moe_engine_config c = *a->c;
	struct moe_offload o = *c.offload;
	struct moe_pipeline_sizes s;
	struct ask with = *a;

	o.weights = share;
	o.prefill_rows = o.prefill_rows > 0 ? (o.prefill_rows - 1) / shrink + 1 : 0;
	o.micro_batch = (o.micro_batch - 1) / shrink + 1;
	if (c.max_sequences > o.micro_batch * o.micro_batches)
		c.max_sequences = o.micro_batch * o.micro_batches;
	c.chunk = (c.chunk - 1) / shrink + 1;
	c.offload = &o;
	with.s = &s;
	if (moe_pipeline_sizes(a->m, a->t, &c, &s, NULL) != 0 || kv_bytes(a->m, &c, a->kv_taken, &with.kv, NULL) != 0)
		return false;
	*bytes = needed(&with);
	return true;
}

/* "a share of 0.25 of the experts would fit": rounded down, so that it does. */
static bool suggest_share(const struct ask *a, size_t room, struct moe_buf *text)
{
	struct moe_pager_config pager = moe_pipeline_pager(a->c, &a->s->form);
	double share;

	if (a->s->pager.resident == 0 || fixed(a) > room || moe_pager_share_for(a->m, a->t, &pager, room - fixed(a), &share, NULL) != 0)
		return false;
	moe_buf_printf(text, NULL, "; a share of %.4g of the experts would fit", floor(share * 1e4) / 1e4);
	return true;
}

/* "micro-batches of 4 sequences and 100 prompt rows would fit". */
static bool suggest_size(const struct ask *a, double share, size_t room, struct moe_buf *text)
{
	const struct moe_offload *o = a->c->offload;
	size_t bytes;

	for (int shrink = 2; shrink / 2 < o->micro_batch || shrink / 2 < o->prefill_rows; shrink *= 2) {
		if (!needs_with(a, share, shrink, &bytes) || bytes > room)
			continue;
		moe_buf_printf(text, NULL, "; micro-batches of %d sequences", (o->micro_batch - 1) / shrink + 1);
		if (o->prefill_rows > 0)
			moe_buf_printf(text, NULL, " and %d prompt rows", (o->prefill_rows - 1) / shrink + 1);
		moe_buf_printf(text, NULL, " would fit%s", share < o->weights ? " with a share of 0 of the experts" : "");
		return true;
	}
	return false;
}

static void suggest(const struct ask *a, size_t room, struct moe_buf *text)
{
	bool moves = a->c->offload->schedule != MOE_SCHEDULE_RESIDENT;
	char size[32];
	size_t bytes;

	if ((moves && suggest_share(a, room, text)) || suggest_size(a, moves ? 0.0 : a->c->offload->weights, room, text))
		return;
	if (!moves)
		moe_buf_printf(text, NULL, "; a schedule that moves weights needs less");
	else if (needs_with(a, 0.0, 1, &bytes))
		moe_buf_printf(text, NULL, "; %s would do with a share of 0 of the experts", moe_size_text((double)bytes, size));
}

int moe_pipeline_refuse(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c,
                        const struct moe_pipeline_sizes *s, bool kv_taken, struct moe_err *e)
{
	struct ask a = {.m = m, .t = t, .c = c, .s = s, .kv_taken = kv_taken};
	struct moe_backend *d = c->offload->device;
	struct moe_device_memory memory;
	struct moe_buf text = MOE_BUF_INIT;
	char has[32], needs[32];
	size_t room;
	int rc;

	if (s->form.all_cpu)
		return 0;
	TRY(kv_bytes(m, c, kv_taken, &a.kv, e));
	d->ops->memory(d, &memory);
	room = memory.cap > memory.used ? memory.cap - memory.used : 0;
	if (memory.cap == 0 || needed(&a) <= room)
		return 0;
	list_needs(&a, &text);
	suggest(&a, room, &text);
	rc = moe_fail(e, MOE_E_NOMEM, "the device has %s left of its memory, schedule %s needs %s: %s", moe_size_text((double)room, has),
	              moe_schedule_name(s->form.schedule), moe_size_text((double)needed(&a), needs), text.data ? text.data : "");
	moe_buf_free(&text);
	return rc;
}

int moe_pipeline_fits(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c, struct moe_err *e)
{
	struct moe_pipeline_sizes s;

	TRY(moe_pipeline_sizes(m, t, c, &s, e));
	return moe_pipeline_refuse(m, t, c, &s, false, e);
}
