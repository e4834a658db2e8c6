/* NAME[,layers=N][,seed=S][,dtype=T][,fused][,heavy][,quant=Q] */
#include <string.h>

#include "base/opts.h"
#include "checkpoint/synth.h"

static bool parse_dtype(const char *word, enum moe_dtype *out)
{
	for (int t = 0; t < MOE_DTYPES; t++) {
		enum moe_quant q;

		if (moe_quant_of((enum moe_dtype)t, &q) && strcmp(word, moe_quant_name(q)) == 0) {
			*out = (enum moe_dtype)t;
			return true;
		}
	}
	return false;
}

static bool parse_quant(const char *word, struct moe_quants *out)
{
	enum moe_quant q;

	return moe_quant_parse(word, &q) && moe_quant_is_coded(q) && moe_quants_parse(word, out, NULL) == 0;
}

static int parse_option(const char *word, struct moe_synth_spec *s, struct moe_err *e)
{
	int64_t n;
	bool good = false;

	if (strcmp(word, "fused") == 0) {
		s->fused = good = true;
	} else if (strcmp(word, "heavy") == 0) {
		s->heavy = good = true;
	} else if (strncmp(word, "layers=", 7) == 0) {
		good = moe_parse_int(word + 7, 1, 4096, &n);
		s->layers = good ? (int)n : 0;
	} else if (strncmp(word, "seed=", 5) == 0) {
		good = moe_parse_int(word + 5, 0, INT64_MAX, &n);
		s->seed = good ? (uint64_t)n : 0;
	} else if (strncmp(word, "dtype=", 6) == 0) {
		good = parse_dtype(word + 6, &s->dtype);
	} else if (strncmp(word, "quant=", 6) == 0) {
		good = parse_quant(word + 6, &s->quants);
	}
	return good ? 0 : moe_fail(e, MOE_E_RANGE, "synthetic checkpoint: \"%s\" is not understood", word);
}

int moe_synth_parse(const char *spec, struct moe_synth_spec *out, struct moe_err *e)
{
	struct moe_synth_spec s = {.dtype = MOE_BF16, .quants = MOE_QUANTS_INIT};
	size_t len = strcspn(spec, ",");

	if (len >= sizeof s.name)
		return moe_fail(e, MOE_E_RANGE, "synthetic checkpoint: there is no shape %.*s...", (int)sizeof s.name, spec);
	memcpy(s.name, spec, len);
	for (spec += len; *spec; spec += len) {
		char word[64];
		int rc;

		len = strcspn(++spec, ",");
		if (len >= sizeof word)
			return moe_fail(e, MOE_E_RANGE, "synthetic checkpoint: \"%.40s...\" is not understood", spec);
		memcpy(word, spec, len);
		word[len] = 0;
		rc = parse_option(word, &s, e);
		if (rc)
			return rc;
	}
	if (s.fused && s.quants.experts != MOE_Q_KEEP)
		return moe_fail(e, MOE_E_RANGE, "synthetic checkpoint: fused tensors are never coded");
	*out = s;
	return 0;
}
