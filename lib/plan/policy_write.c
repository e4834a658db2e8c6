/* policy.json: a plan people read, compare and edit. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/plan.h"

static void put_int(struct moe_jw *w, const char *key, int64_t v)
{
	moe_jw_key(w, key);
	moe_jw_int(w, v);
}

static void put_num(struct moe_jw *w, const char *key, double v)
{
	moe_jw_key(w, key);
	moe_jw_num(w, v);
}

static void put_str(struct moe_jw *w, const char *key, const char *v)
{
	moe_jw_key(w, key);
	moe_jw_str(w, v);
}

/* Members of `before` whose names are none of `known`. */
static void keep_unknown(struct moe_jw *w, const struct moe_json *before, const char *const *known)
{
	for (size_t i = 0; moe_json_type(before) == MOE_JSON_OBJECT && i < moe_json_count(before); i++) {
		const struct moe_json *v = moe_json_at(before, i);
		const char *const *name = known;

		while (*name && strcmp(*name, moe_json_name(v)) != 0)
			name++;
		if (*name)
			continue;
		moe_jw_key(w, moe_json_name(v));
		moe_jw_json(w, v);
	}
}

static void write_hardware(const struct moe_policy *p, struct moe_jw *w)
{
	if (!p->hardware && !p->fleet)
		return;
	moe_jw_key(w, "hardware");
	if (p->hardware) {
		moe_jw_json(w, p->hardware);
	} else if (p->fleet->n == 1) {
		moe_hardware_write(p->fleet->hosts, w);
	} else {
		moe_jw_obj(w);
		moe_jw_key(w, "hosts");
		moe_jw_arr(w);
		for (int i = 0; i < p->fleet->n; i++)
			moe_hardware_write(&p->fleet->hosts[i], w);
		moe_jw_arr_end(w);
		moe_jw_end(w);
	}
}

static void write_model(const struct moe_model *m, const char *name, struct moe_jw *w)
{
	moe_jw_key(w, "model");
	moe_jw_obj(w);
	put_str(w, "name", name);
	put_str(w, "family", m->name);
	put_int(w, "layers", m->n_layers);
	put_int(w, "hidden", m->hidden);
	put_int(w, "experts", moe_model_max_experts(m));
	moe_jw_end(w);
}

static void write_workload(const struct moe_workload *l, struct moe_jw *w)
{
	moe_jw_key(w, "workload");
	moe_jw_obj(w);
	if (l->name[0])
		put_str(w, "name", l->name);
	put_num(w, "prompt_mean", l->prompt_mean);
	put_num(w, "prompt_max", l->prompt_max);
	put_num(w, "generate", l->generate);
	moe_jw_key(w, "padded");
	moe_jw_bool(w, l->padded);
	moe_jw_end(w);
}

/* Codes are packed when nothing else is said; what has no codes has no layout. */
static const char *layout_of(const struct moe_device *d)
{
	enum moe_quant q;

	if (d->layout[0])
		return d->layout;
	return d->quant[0] && moe_quant_parse(d->quant, &q) && moe_quant_is_coded(q) ? "packed" : "";
}

static void write_device(const struct moe_device *d, int index, const struct moe_json *before, struct moe_jw *w)
{
	static const char *const known[] = {"index", "host", "kind", "memory", "quant", "layout", NULL};

	moe_jw_obj(w);
	put_int(w, "index", index);
	put_str(w, "host", d->host);
	put_str(w, "kind", d->kind);
	put_int(w, "memory", (int64_t)d->memory);
	put_str(w, "quant", d->quant);
	put_str(w, "layout", layout_of(d));
	keep_unknown(w, before, known);
	moe_jw_end(w);
}

/* What an earlier policy says of that device, if it was on that host. */
static const struct moe_json *device_before(const struct moe_json *before, int index, const char *host)
{
	const struct moe_json *list = moe_json_get(before, "devices");

	for (size_t i = 0; i < moe_json_count(list); i++) {
		const struct moe_json *v = moe_json_at(list, i);

		if (moe_json_num(moe_json_get(v, "index"), -1) == index && strcmp(moe_json_str(moe_json_get(v, "host"), ""), host) == 0)
			return v;
	}
	return NULL;
}

static void write_shares(const struct moe_hardware *h, const char *key, const double *share, struct moe_jw *w)
{
	moe_jw_key(w, key);
	moe_jw_obj(w);
	for (int i = 0; i < h->n_levels; i++)
		if (share[i] > 0)
			put_num(w, h->levels[i].name, share[i]);
	moe_jw_end(w);
}

static void write_quants(const struct moe_quants *q, struct moe_jw *w)
{
	static const char *const names[] = {"experts", "rest", "embed", "head"};
	const enum moe_quant v[] = {q->experts, q->rest, q->embed, q->head};

	moe_jw_key(w, "quants");
	moe_jw_obj(w);
	for (int i = 0; i < 4; i++)
		put_str(w, names[i], v[i] == MOE_Q_KEEP ? "bf16" : moe_quant_name(v[i]));
	moe_jw_end(w);
}

static void write_execution(const struct moe_setting *s, const struct moe_execution *x, const struct moe_json *before,
                            struct moe_jw *w)
{
	static const char *const known[] = {
		"variant", "schedule", "batch", "micro_batch", "micro_batches", "prefill_micro_batch", "attention_on", "ffn_on",
		"weights", "kv", "pinned", "quants", "kv_bytes", NULL,
	};

	moe_jw_key(w, "policy");
	moe_jw_obj(w);
	put_str(w, "variant", s->variant == MOE_VARIANT_PAPER ? "paper" : "full");
	put_str(w, "schedule", moe_schedule_name(x->schedule));
	put_int(w, "batch", x->batch);
	put_int(w, "micro_batch", x->micro_batch);
	put_int(w, "micro_batches", (x->batch + x->micro_batch - 1) / x->micro_batch);
	if (x->prefill_micro_batch > 0)
		put_int(w, "prefill_micro_batch", x->prefill_micro_batch);
	put_str(w, "attention_on", s->hardware->levels[x->attention_on].name);
	put_str(w, "ffn_on", s->hardware->levels[x->ffn_on].name);
	write_shares(s->hardware, "weights", x->weights, w);
	write_shares(s->hardware, "kv", x->kv, w);
	if (x->schedule != MOE_SCHEDULE_RESIDENT) {
		moe_jw_key(w, "pinned");
		moe_jw_bool(w, moe_schedule_pins(x->schedule));
	}
	write_quants(&s->quants, w);
	put_int(w, "kv_bytes", s->kv_bytes);
	keep_unknown(w, before, known);
	moe_jw_end(w);
}

static void write_lanes(const char *key, const struct moe_layer_time *t, struct moe_jw *w)
{
	moe_jw_key(w, key);
	moe_jw_obj(w);
	for (int l = 0; l < MOE_LANES; l++)
		if (t->lanes[l].total > 0)
			put_num(w, moe_lane_name((enum moe_lane)l), t->lanes[l].total);
	moe_jw_end(w);
}

static void write_prediction(const struct moe_hardware *h, const struct moe_prediction *p, struct moe_jw *w)
{
	moe_jw_key(w, "prediction");
	moe_jw_obj(w);
	put_num(w, "tokens_per_second", p->tokens_per_second);
	put_num(w, "decode_tokens_per_second", p->decode_tokens_per_second);
	put_num(w, "prefill_tokens_per_second", p->prefill_tokens_per_second);
	put_num(w, "step_seconds", p->step_seconds);
	put_num(w, "prefill_seconds", p->prefill_seconds);
	put_num(w, "first_token_seconds", p->first_token_seconds);
	write_lanes("layer_seconds", &p->decode, w);
	write_lanes("prefill_layer_seconds", &p->prefill, w);
	put_str(w, "bottleneck", moe_lane_name(p->decode.bottleneck));
	moe_jw_key(w, "memory");
	moe_jw_obj(w);
	for (int i = 0; i < h->n_levels; i++) {
		moe_jw_key(w, h->levels[i].name);
		moe_jw_obj(w);
		put_num(w, "used", p->memory[i].used.total);
		put_num(w, "available", p->memory[i].available);
		moe_jw_end(w);
	}
	moe_jw_end(w);
	moe_jw_end(w);
}

static void write_devices(const struct moe_policy *p, struct moe_jw *w)
{
	moe_jw_key(w, "devices");
	moe_jw_arr(w);
	for (int d = 0; d < p->placement->devices; d++)
		write_device(&p->devices[d], d, device_before(p->before, d, p->devices[d].host), w);
	moe_jw_arr_end(w);
}

int moe_policy_write(const struct moe_policy *p, struct moe_buf *out, struct moe_err *e)
{
	static const char *const known[] = {
		"schema", "hardware", "model", "workload", "devices", "policy", "prediction", "placement", NULL,
	};
	struct moe_jw w;
	size_t len;
	char *text;

	moe_jw_init(&w, true);
	moe_jw_obj(&w);
	put_int(&w, "schema", MOE_POLICY_SCHEMA);
	write_hardware(p, &w);
	write_model(p->model, p->model_name, &w);
	if (p->execution) {
		write_workload(&p->setting->workload, &w);
		write_execution(p->setting, p->execution, moe_json_get(p->before, "policy"), &w);
	}
	if (p->prediction)
		write_prediction(p->setting->hardware, p->prediction, &w);
	keep_unknown(&w, p->before, known);
	write_devices(p, &w);
	moe_jw_key(&w, "placement");
	moe_placement_write(p->placement, &w);
	moe_jw_end(&w);
	text = moe_jw_done(&w, &len, e);
	if (!text)
		return MOE_E_NOMEM;
	*out = (struct moe_buf){text, len, len + 1};
	return 0;
}
