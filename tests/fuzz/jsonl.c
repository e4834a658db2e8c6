/* A request line of moe-route, with a tokenizer of bytes and without one. */
#include <stdlib.h>
#include <string.h>

#include "../../tools/moe-route/request.c"

static const char tokenizer[] =
	"{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true}],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
	"\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[\"a b\"]}}";

static void parse(const struct route *r, const char *line, size_t len)
{
	struct request q;
	struct moe_err e = MOE_ERR_INIT;
	int rc = request_parse(r, line, len, 7, &q, &e);
	if (!q.id || (rc && (e.code != rc || !*e.msg)))
		abort();
	for (size_t i = 0; !rc && i < q.tokens.n; i++)
		if (q.tokens.v[i] < 0)
			abort();
	request_free(&q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct route with, without;
	if (!with.text) {
		with.defaults.max_tokens = without.defaults.max_tokens = 16;
		with.defaults.sampling = without.defaults.sampling = (struct moe_sampling)MOE_SAMPLING_GREEDY;
		if (moe_tokenizer_parse(tokenizer, strlen(tokenizer), "tokenizer", &with.text, NULL))
			abort();
	}
	char *line = malloc(size ? size : 1); /* its own allocation, so that reading past it is seen */
	memcpy(line, data, size);
	parse(&with, line, size);
	parse(&without, line, size);
	free(line);
	return 0;
}
