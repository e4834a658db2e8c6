/* Models that have a name: those we can make, and shapes of families that we cannot run, for planning.
 *
 * The shapes are those of the published config.json files.  What planning does not ask for is left out: sigmoid gates and
 * their groups (DeepSeek), attention sinks and biases of experts (gpt-oss). */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/words.h"
#include "checkpoint/private.h"

struct shape {
	const char *name, *type;                      /* type: model_type */
	int layers, hidden, vocab, positions;
	int heads, kv_heads, head_dim;
	int q_rank, kv_rank, rope_dims, v_dim;        /* kv_rank 0: no MLA */
	int window;                                   /* in every other layer, from the first on; 0: none */
	bool bias;
	int dense_layers, width;                      /* so many first layers are dense, of that width */
	int experts, top_k, expert_width, shared_width;
};

static const struct shape shapes[] = {
	/* layers, hidden, vocab, positions, heads, kv, dim, q rank, kv rank, rope, v, window, bias, dense, width, experts, k, expert, shared */
	{"dbrx", "dbrx", 40, 6144, 100352, 32768, 48, 8, 128, 0, 0, 128, 0, 0, false, 0, 0, 16, 4, 10752, 0},
	{"deepseek-v2-lite", "deepseek_v2", 27, 2048, 102400, 163840, 16, 16, 192, 0, 512, 64, 128, 0, false, 1, 10944, 64, 6, 1408, 2816},
	{"deepseek-v2", "deepseek_v2", 60, 5120, 102400, 163840, 128, 128, 192, 1536, 512, 64, 128, 0, false, 1, 12288, 160, 6, 1536, 3072},
	{"deepseek-v3", "deepseek_v3", 61, 7168, 129280, 163840, 128, 128, 192, 1536, 512, 64, 128, 0, false, 3, 18432, 256, 8, 2048, 2048},
	{"kimi-k2", "kimi_k2", 61, 7168, 163840, 131072, 64, 64, 192, 1536, 512, 64, 128, 0, false, 1, 18432, 384, 8, 2048, 2048},
	{"gpt-oss-20b", "gpt_oss", 24, 2880, 201088, 131072, 64, 8, 64, 0, 0, 64, 0, 128, true, 0, 0, 32, 4, 2880, 0},
	{"gpt-oss-120b", "gpt_oss", 36, 2880, 201088, 131072, 64, 8, 64, 0, 0, 64, 0, 128, true, 0, 0, 128, 4, 2880, 0},
	{"phi-3.5-moe", "phimoe", 32, 4096, 32064, 131072, 32, 8, 128, 0, 0, 128, 0, 0, true, 0, 0, 16, 2, 6400, 0},
};
#define SHAPES (sizeof shapes / sizeof shapes[0])
#define MOST_NAMES 64

static const struct shape *find(const char *name)
{
	for (size_t i = 0; i < SHAPES; i++)
		if (strcmp(shapes[i].name, name) == 0)
			return &shapes[i];
	return NULL;
}

bool moe_is_shape_only(const char *name)
{
	return find(name) != NULL;
}

bool moe_model_runs(const struct moe_model *m)
{
	return m->family != &moe_family_shape_only;
}

static const char *names[MOST_NAMES];

static void list_names(void)
{
	const char *const *synth = moe_synth_names();
	size_t n = 0;

	while (n < MOST_NAMES - SHAPES - 1 && synth[n]) {
		names[n] = synth[n];
		n++;
	}
	for (size_t i = 0; i < SHAPES; i++)
		names[n++] = shapes[i].name;
}

const char *const *moe_named_models(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, list_names);
	return names;
}

static struct moe_attention attention_of(const struct shape *s, int layer)
{
	return (struct moe_attention){
		.kind = s->kv_rank ? MOE_ATTN_MLA : MOE_ATTN_GQA,
		.heads = s->heads,
		.kv_heads = s->kv_heads,
		.head_dim = s->head_dim,
		.q_rank = s->q_rank,
		.kv_rank = s->kv_rank,
		.v_dim = s->v_dim,
		.window = layer % 2 == 0 ? s->window : 0,
		.qkv_bias = s->bias,
		.o_bias = s->bias,
		.scale = 1 / sqrtf((float)s->head_dim),
		.rope = {.theta = 1e4, .dims = s->rope_dims, .factor = 1},
	};
}

static struct moe_ffn ffn_of(const struct shape *s, int layer)
{
	if (layer < s->dense_layers)
		return (struct moe_ffn){.kind = MOE_FFN_DENSE, .width = s->width};
	return (struct moe_ffn){
		.kind = MOE_FFN_MOE,
		.experts = s->experts,
		.expert_width = s->expert_width,
		.shared_width = s->shared_width,
		.gate = {.top_k = s->top_k, .renorm = true, .factor = 1},
	};
}

static int build(const struct shape *s, struct moe_model *out, struct moe_err *e)
{
	struct moe_model m = {.family = &moe_family_shape_only, .hidden = s->hidden, .vocab = s->vocab, .n_layers = s->layers,
	                      .max_positions = s->positions, .norm_eps = 1e-5f, .bos = -1};

	snprintf(m.name, sizeof m.name, "%s", s->type);
	m.layers = moe_calloc((size_t)s->layers, sizeof *m.layers, "layers", e);
	if (!m.layers)
		return MOE_E_NOMEM;
	for (int i = 0; i < s->layers; i++) {
		m.layers[i].attn = attention_of(s, i);
		m.layers[i].ffn = ffn_of(s, i);
	}
	*out = m;
	return 0;
}

/* Is it one of the shapes that have weights, whatever options follow? */
static bool is_synth(const char *name)
{
	size_t n = strcspn(name, ",");

	for (const char *const *s = moe_synth_names(); *s; s++)
		if (strncmp(*s, name, n) == 0 && !(*s)[n])
			return true;
	return false;
}

int moe_named_model(const char *name, struct moe_model *out, struct moe_err *e)
{
	const struct shape *s = find(name);
	const char *near;

	if (s)
		return build(s, out, e);
	if (is_synth(name))
		return moe_synth_model(name, out, e);
	near = moe_nearest(name, moe_named_models());
	if (near)
		return moe_fail(e, MOE_E_MISSING, "there is no model \"%s\": is %s meant?", name, near);
	return moe_fail(e, MOE_E_MISSING, "there is no model \"%s\"", name);
}
