/* A device that is too small is refused, with what would fit. */
#include "base/mem.h"
#include "base/opts.h"
#include "engine/pipeline_private.h"

/* Of the device, beside the share of the experts and the slots. */
static size_t fixed(const struct moe_pipeline_sizes *s)
{
	return s->vectors + s->base + s->device;
}

static size_t needed(const struct moe_pipeline_sizes *s)
{
	return fixed(s) + s->pager.resident + s->pager.slots;
}

static void list_needs(const struct moe_pipeline_sizes *s, struct moe_buf *text)
{
	const struct {
		const char *what;
		size_t bytes;
	} needs[] = {{"attention, routers, embedding and head", s->vectors + s->base},
	             {"experts that stay", s->pager.resident},
	             {"two slots for a layer's other experts", s->pager.slots},
	             {"KV blocks on their way", s->kv},
	             {"buffers", s->device - s->kv}};
	const char *before = "";
	char size[32];

	for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
		if (needs[i].bytes > 0) {
			moe_buf_printf(text, NULL, "%s%s %s", before, needs[i].what, moe_size_text((double)needs[i].bytes, size));
			before = ", ";
		}
}

/* What the device would need with a smaller share, or smaller micro-batches. */
static bool needs_with(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c, double share,
                       int shrink, size_t *bytes)
{
	struct moe_offload o = *c->offload;
	struct moe_engine_config with = *c;
	struct moe_pipeline_sizes s;

	o.weights = share;
	o.prefill_rows = o.prefill_rows > 0 ? (o.prefill_rows - 1) / shrink + 1 : 0;
	o.micro_batch = (o.micro_batch - 1) / shrink + 1;
	with.max_sequences = with.max_sequences < o.micro_batch * o.micro_batches ? with.max_sequences : o.micro_batch * o.micro_batches;
	with.chunk = (with.chunk - 1) / shrink + 1;
	with.offload = &o;
	if (moe_pipeline_sizes(m, t, &with, &s, NULL) != 0)
		return false;
	*bytes = needed(&s);
	return true;
}

/* A share of the experts that fits: by halving what lies between one that does and one that does not. */
static double fitting_share(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c, size_t room)
{
	double fits = 0.0, too_much = c->offload->weights;
	size_t bytes;

	for (int i = 0; i < 12; i++) {
		double middle = (fits + too_much) / 2;

		if (needs_with(m, t, c, middle, 1, &bytes) && bytes <= room)
			fits = middle;
		else
			too_much = middle;
	}
	return fits;
}

static void suggest(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c,
                    const struct moe_pipeline_sizes *s, size_t room, struct moe_buf *text)
{
	bool pages = c->offload->schedule != MOE_SCHEDULE_RESIDENT;
	char size[32];
	size_t bytes;

	if (pages && s->pager.resident > 0 && needs_with(m, t, c, 0.0, 1, &bytes) && bytes <= room) {
		moe_buf_printf(text, NULL, "; a share of %.2f of the experts would fit",
		               (double)(int)(100 * fitting_share(m, t, c, room)) / 100);
		return;
	}
	for (int shrink = 2; shrink <= c->offload->micro_batch || shrink <= c->offload->prefill_rows; shrink *= 2)
		if (needs_with(m, t, c, pages ? 0.0 : c->offload->weights, shrink, &bytes) && bytes <= room) {
			moe_buf_printf(text, NULL, "; micro-batches of %d sequences", (c->offload->micro_batch - 1) / shrink + 1);
			if (c->offload->prefill_rows > 0)
				moe_buf_printf(text, NULL, " and %d prompt rows", (c->offload->prefill_rows - 1) / shrink + 1);
			moe_buf_printf(text, NULL, " would fit%s", pages && s->pager.resident > 0 ? " with a share of 0 of the experts" : "");
			return;
		}
	if (pages && needs_with(m, t, c, 0.0, 1, &bytes))
		moe_buf_printf(text, NULL, "; %s would do with no expert staying", moe_size_text((double)bytes, size));
	else if (!pages)
		moe_buf_printf(text, NULL, "; a schedule that moves weights needs less");
}

int moe_pipeline_fits(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c,
                      const struct moe_pipeline_sizes *s, struct moe_err *e)
{
	struct moe_backend *d = c->offload->device;
	struct moe_device_memory memory;
	struct moe_buf text = MOE_BUF_INIT;
	char has[32], needs[32];
	size_t room;
	int rc;

	if (s->form.all_cpu)
		return 0;
	d->ops->memory(d, &memory);
	room = memory.cap > memory.used ? memory.cap - memory.used : 0;
	if (memory.cap == 0 || needed(s) <= room)
		return 0;
	list_needs(s, &text);
	suggest(m, t, c, s, room, &text);
	rc = moe_fail(e, MOE_E_NOMEM, "the device has %s left of its memory, schedule %s needs %s: %s", moe_size_text((double)room, has),
	              moe_schedule_name(s->form.schedule), moe_size_text((double)needed(s), needs), text.data ? text.data : "");
	moe_buf_free(&text);
	return rc;
}
