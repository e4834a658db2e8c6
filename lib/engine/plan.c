/* Memory, counted before anything is taken. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/opts.h"
#include "engine/pipeline.h"
#include "engine/requests.h"

#define MOST_SEQUENCES (1 << 20)
#define MOST_CHUNK (1 << 20)
#define MOST_CTX (1 << 26)

int moe_engine_max_rows(const struct moe_engine_config *c)
{
	/* Prompt rows come from a sequence that does not generate. */
	int64_t rows = (int64_t)c->max_sequences - 1 + c->chunk;
	int64_t positions = (int64_t)c->max_sequences * c->ctx;

	return (int)(rows < positions ? rows : positions);
}

static int check_config(const struct moe_model *m, const struct moe_engine_config *c, struct moe_err *e)
{
	if (c->max_sequences < 1 || c->max_sequences > MOST_SEQUENCES)
		return moe_fail(e, MOE_E_RANGE, "%d sequences at once is outside 1 to %d", c->max_sequences, MOST_SEQUENCES);
	if (c->ctx < 1 || c->ctx > MOST_CTX)
		return moe_fail(e, MOE_E_RANGE, "a context of %d positions is outside 1 to %d", c->ctx, MOST_CTX);
	if (m->max_positions > 0 && c->ctx > m->max_positions)
		return moe_fail(e, MOE_E_RANGE, "a context of %d positions is longer than the model's %d", c->ctx,
		                m->max_positions);
	if (c->chunk < 1 || c->chunk > MOST_CHUNK)
		return moe_fail(e, MOE_E_RANGE, "%d prompt rows a step is outside 1 to %d", c->chunk, MOST_CHUNK);
	if (!(c->step_timeout >= 0.0))
		return moe_fail(e, MOE_E_RANGE, "a step's timeout of %g s is below 0", c->step_timeout);
	return 0;
}

int moe_engine_kv_sizes(const struct moe_model *m, const struct moe_engine_config *c, struct moe_engine_sizes *s, struct moe_err *e)
{
	char has[32], needs[32];
	size_t blocks;

	s->blocks_per_seq = moe_kv_blocks_for(c->ctx);
	if (!moe_kv_block_bytes(m, c->kv, &s->block_bytes) ||
	    !moe_mul_size(s->block_bytes, (size_t)s->blocks_per_seq, &s->seq_bytes) ||
	    !moe_mul_size((size_t)s->blocks_per_seq, (size_t)c->max_sequences, &blocks))
		return moe_fail(e, MOE_E_NOMEM, "the KV cache's size overflows");
	if (c->kv_memory > 0 && c->kv_memory / s->block_bytes < blocks)
		blocks = c->kv_memory / s->block_bytes;
	if (blocks == 0)
		return moe_fail(e, MOE_E_NOMEM, "--kv-memory %s does not hold one block of %d positions (%s)",
		                moe_size_text((double)c->kv_memory, has), MOE_KV_BLOCK,
		                moe_size_text((double)s->block_bytes, needs));
	if (blocks > INT_MAX / MOE_KV_BLOCK)
		blocks = INT_MAX / MOE_KV_BLOCK; /* positions stay countable; far beyond what is in use */
	s->kv_blocks = (int)blocks;
	if (!moe_mul_size(blocks, s->block_bytes, &s->memory.kv))
		return moe_fail(e, MOE_E_NOMEM, "the KV cache's size overflows");
	return 0;
}

static int buffer_sizes(const struct moe_model *m, const struct moe_engine_config *c, struct moe_engine_sizes *s,
                        struct moe_err *e)
{
	struct moe_carve device = {0}, host = {0}, vectors = {0};
	struct moe_buffers b;
	struct moe_host_buffers h;
	struct moe_vectors v = {.layers = moe_calloc((size_t)m->n_layers, sizeof *v.layers, "a plan", e)};

	if (!v.layers)
		return MOE_E_NOMEM;
	moe_buffers_place(&b, m, s->max_rows, s->logits_rows, &device);
	moe_host_buffers_place(&h, m, s->max_rows, c->max_sequences, &host);
	moe_vectors_place(&v, m, &vectors);
	free(v.layers);
	s->device_buffers = device.used;
	s->host_buffers = host.used;
	s->vectors = vectors.used;
	s->memory.buffers = moe_prefix_bytes(s->kv_blocks);
	if (device.overflow || host.overflow || vectors.overflow ||
	    !moe_add_size(s->memory.buffers, device.used, &s->memory.buffers) ||
	    !moe_add_size(s->memory.buffers, host.used, &s->memory.buffers) ||
	    !moe_add_size(s->memory.buffers, vectors.used, &s->memory.buffers) ||
	    !moe_add_size(s->memory.buffers, s->memory.kv, &s->memory.total))
		return moe_fail(e, MOE_E_NOMEM, "the buffers for %d rows a step overflow", s->max_rows);
	return 0;
}

/* The pipeline's, and what is the engine's beside it. */
static int offload_sizes(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c,
                         struct moe_engine_sizes *s, struct moe_err *e)
{
	struct moe_engine_memory *all = &s->memory;
	size_t own;

	if (moe_pipeline_kv_on_device(c->offload)) {
		all->device = all->device_kv = all->kv;
		all->kv = 0;
	}
	all->total = all->kv;
	if (moe_pipeline_kv_place(c->offload, NULL).pinned)
		all->pinned = all->kv;
	TRY(moe_pipeline_plan(m, t, c, all, e));
	s->max_rows = moe_pipeline_rows(c);
	if (!moe_add_size(moe_prefix_bytes(s->kv_blocks), moe_turns_bytes(m, c), &own) ||
	    !moe_add_size(all->buffers, own, &all->buffers) || !moe_add_size(all->total, own, &all->total))
		return moe_fail(e, MOE_E_NOMEM, "the buffers for %d sequences overflow", c->max_sequences);
	return 0;
}

int moe_engine_sizes(const struct moe_model *m, const struct moe_tensors *t, const struct moe_engine_config *c,
                     struct moe_engine_sizes *out, struct moe_err *e)
{
	TRY(check_config(m, c, e));
	*out = (struct moe_engine_sizes){.max_rows = moe_engine_max_rows(c)};
	if (c->offload) {
		TRY(moe_engine_kv_sizes(m, c, out, e));
		return offload_sizes(m, t, c, out, e);
	}
	out->logits_rows = out->max_rows < MOE_LOGITS_ROWS ? out->max_rows : MOE_LOGITS_ROWS;
	TRY(moe_engine_kv_sizes(m, c, out, e));
	return buffer_sizes(m, c, out, e);
}

int moe_engine_plan(const struct moe_model *m, const struct moe_tensors *tensors, const struct moe_engine_config *c,
                    struct moe_engine_memory *out, struct moe_err *e)
{
	struct moe_engine_sizes s;

	TRY(moe_engine_sizes(m, tensors, c, &s, e));
	*out = s.memory;
	return 0;
}

/* What to ask for instead, into text: fewer whole sequences, or shorter ones. */
static void suggest(const struct moe_engine_config *c, const struct moe_engine_sizes *s, size_t room, struct moe_buf *text)
{
	size_t mib = room >> 20;
	size_t sequences = (mib << 20) / s->seq_bytes;
	size_t ctx = room / s->block_bytes / (size_t)c->max_sequences * MOE_KV_BLOCK;

	if (sequences > (size_t)c->max_sequences)
		sequences = (size_t)c->max_sequences;
	if (sequences > 0)
		moe_buf_printf(text, NULL, ": --kv-memory %zuM would hold %zu such sequence%s", mib, sequences,
		               sequences == 1 ? "" : "s");
	if (ctx > 0 && ctx < (size_t)c->ctx)
		moe_buf_printf(text, NULL, "%s --ctx %zu%s", text->len ? ", or" : ":", ctx, text->len ? "" : " would fit");
}

static int too_large(const struct moe_engine_config *c, const struct moe_engine_sizes *s, size_t kv, size_t room, const char *rest,
                     struct moe_err *e)
{
	struct moe_buf hint = MOE_BUF_INIT;
	char needs[32];
	int rc;

	suggest(c, s, room, &hint);
	rc = moe_fail(e, MOE_E_NOMEM, "KV cache for %d sequences of %d positions needs %s%s%s", c->max_sequences, c->ctx,
	              moe_size_text((double)kv, needs), rest, hint.data ? hint.data : "");
	moe_buf_free(&hint);
	return rc;
}

static int fits_device(const struct moe_engine_config *c, const struct moe_engine_sizes *s, struct moe_err *e)
{
	struct moe_device_memory memory;
	char has[32], rest[64];
	size_t room;

	if (s->memory.device_kv == 0)
		return 0;
	c->offload->device->ops->memory(c->offload->device, &memory);
	room = memory.cap > memory.used ? memory.cap - memory.used : 0;
	if (memory.cap == 0 || s->memory.device_kv <= room)
		return 0;
	snprintf(rest, sizeof rest, ", %s left on the device", moe_size_text((double)room, has));
	return too_large(c, s, s->memory.device_kv, room, rest, e);
}

int moe_engine_fits(const struct moe_engine_config *c, const struct moe_engine_sizes *s, size_t available,
                    struct moe_err *e)
{
	char buffers[32], has[32], rest[96];

	if (s->memory.total <= available)
		return fits_device(c, s, e);
	moe_size_text((double)s->memory.buffers, buffers);
	moe_size_text((double)available, has);
	if (s->memory.buffers >= available)
		return moe_fail(e, MOE_E_NOMEM, "buffers for %d rows a step need %s, %s available", s->max_rows, buffers, has);
	snprintf(rest, sizeof rest, " and buffers %s, %s available", buffers, has);
	return too_large(c, s, s->memory.kv, available - s->memory.buffers, rest, e);
}
