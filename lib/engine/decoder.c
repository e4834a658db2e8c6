/* One pass of the model over a step's rows: embedding, layers, head.
 *
 * Rows of many sequences stand one below the other; only attention knows them apart.  Activations lie in the backend's
 * memory; what the engine itself reads (the gate's choice, logits) is copied out. */
#include <stdlib.h>

#include "base/mem.h"
#include "engine/private.h"

static int open_memory(struct moe_decoder *d, const struct moe_engine_config *c, const struct moe_engine_sizes *s,
                       struct moe_err *e)
{
	const struct moe_backend_ops *op = d->b->ops;
	struct moe_carve at;

	TRY(op->alloc(d->b, s->device_buffers, &d->device_memory, e));
	TRY(op->alloc(d->b, s->vectors, &d->vector_memory, e));
	d->host_memory = moe_aligned(s->host_buffers, "the engine's buffers", e);
	d->vectors.layers = moe_calloc((size_t)d->m->n_layers, sizeof *d->vectors.layers, "the engine's buffers", e);
	if (!d->host_memory || !d->vectors.layers)
		return MOE_E_NOMEM;
	at = (struct moe_carve){.base = d->device_memory};
	moe_buffers_place(&d->buf, d->m, s->max_rows, s->logits_rows, &at);
	at = (struct moe_carve){.base = d->vector_memory};
	moe_vectors_place(&d->vectors, d->m, &at);
	at = (struct moe_carve){.base = d->host_memory};
	moe_host_buffers_place(&d->host, d->m, s->max_rows, c->max_sequences, &at);
	d->logits_rows = s->logits_rows;
	return 0;
}

int moe_decoder_open(struct moe_decoder *d, const struct moe_model *m, const struct moe_tensors *base,
                     struct moe_backend *b, struct moe_experts *x, struct moe_kv *kv, const struct moe_engine_config *c,
                     const struct moe_engine_sizes *s, struct moe_err *e)
{
	int rc;

	*d = (struct moe_decoder){.m = m, .b = b, .x = x, .kv = kv, .step_timeout = c->step_timeout, .degrade = c->degrade,
	                          .overlap = c->overlap};
	rc = moe_bind_base(base, m, &d->w, e);
	if (rc == 0)
		rc = open_memory(d, c, s, e);
	if (rc == 0)
		rc = moe_vectors_fill(&d->vectors, m, &d->w, b, e);
	if (rc != 0)
		moe_decoder_close(d);
	return rc;
}

void moe_decoder_close(struct moe_decoder *d)
{
	if (!d->b)
		return;
	if (d->device_memory)
		d->b->ops->release(d->b, d->device_memory);
	if (d->vector_memory)
		d->b->ops->release(d->b, d->vector_memory);
	free(d->host_memory);
	free(d->vectors.layers);
	if (d->w.layers)
		moe_base_free(&d->w);
	*d = (struct moe_decoder){0};
}

/* ---- attention ---- */

struct moe_layer_on moe_decoder_layer(const struct moe_decoder *d, int layer)
{
	return (struct moe_layer_on){d->b, NULL, d->m, &d->m->layers[layer], &d->w.layers[layer], &d->vectors.layers[layer]};
}

/* x += attention(norm(x)). */
static int attend(struct moe_decoder *d, int layer, const struct moe_pass *p, const struct moe_part *part,
                  struct moe_err *e)
{
	const struct moe_backend_ops *op = d->b->ops;
	const struct moe_layer_on on = moe_decoder_layer(d, layer);
	const struct moe_attention *a = &on.layer->attn;
	const struct moe_attn_seq *seqs = p->attn + part->first;
	struct moe_kv_view kv = moe_kv_view(d->kv, layer);
	size_t row = (size_t)part->row, hidden = (size_t)d->m->hidden;
	size_t q_width = (size_t)a->heads * (size_t)a->head_dim, k_width = (size_t)a->kv_heads * (size_t)a->head_dim;
	struct moe_heads heads = {d->buf.q + row * q_width, d->buf.k + row * k_width, d->buf.v + row * k_width};
	float *x = d->buf.x + row * hidden, *h = d->buf.h + row * hidden;

	TRY(moe_layer_heads(&on, &heads, x, h, p->positions + row, part->rows, e));
	/* Rows in seqs count from the pass's first row. */
	TRY(op->kv_store(d->b, NULL, kv, d->buf.k, d->buf.v, seqs, part->n, a, e));
	TRY(op->attention(d->b, NULL, d->buf.mixed, d->buf.q, kv, seqs, part->n, a, e));
	return moe_layer_output(&on, x, d->buf.mixed + row * q_width, h, part->rows, e);
}

/* ---- the pass ---- */

/* While the experts of one part are under way, the other part's attention is computed.  A sequence that is cut in two has its
 * first rows in the first part, whose keys and values a layer stores before the second part looks at them. */
static int run_layers(struct moe_decoder *d, struct moe_pass *p, struct moe_flight *flights, struct moe_err *e)
{
	for (int l = 0; l < d->m->n_layers; l++)
		for (int i = 0; i < p->n_parts; i++) {
			TRY(moe_ffn_end(d, p, &p->part[i], &flights[i], e));
			if (p->part[i].rows == 0)
				continue;
			TRY(attend(d, l, p, &p->part[i], e));
			TRY(moe_ffn_begin(d, l, p, &p->part[i], &flights[i], e));
		}
	for (int i = 0; i < p->n_parts; i++)
		TRY(moe_ffn_end(d, p, &p->part[i], &flights[i], e));
	return 0;
}

int moe_decoder_run(struct moe_decoder *d, struct moe_pass *p, struct moe_err *e)
{
	struct moe_flight flights[2] = {{.beside = &flights[1]}, {.beside = &flights[0]}};
	int rc;

	TRY(d->b->ops->embed(d->b, NULL, d->buf.x, p->ids, p->all.rows, &d->w.embed, e));
	moe_pass_split(d, p);
	d->halved += p->n_parts > 1;
	rc = run_layers(d, p, flights, e);
	if (rc != 0) {
		moe_ffn_cancel(d, &flights[0]);
		moe_ffn_cancel(d, &flights[1]);
		return rc;
	}
	return moe_pass_join(d, p, e);
}

int moe_decoder_head(struct moe_decoder *d, const int32_t *rows, int n, struct moe_err *e)
{
	const struct moe_head_on on = {d->b, NULL, d->m, &d->w.head, d->vectors.final_norm};

	return moe_head_logits(&on, d->buf.logits, d->buf.h, d->buf.x, rows, n, e);
}

int moe_decoder_logits(struct moe_decoder *d, int i, const float **logits, struct moe_err *e)
{
	size_t vocab = (size_t)d->m->vocab;

	TRY(d->b->ops->copy_out(d->b, NULL, d->host.logits, d->buf.logits + (size_t)i * vocab, vocab * sizeof(float), e));
	*logits = d->host.logits;
	return d->b->ops->sync(d->b, NULL, e);
}
