/* A tokenizer for a synthetic checkpoint: byte-level BPE.  Special tokens at the ids the model has for them, then every
 * byte, then tokens made by merging two earlier ones, until each id has one: common words, then letters in twos and
 * fours.  So any text can be encoded, and any id that the random model draws can be decoded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "checkpoint/synth.h"

#define SPACE "\xc4\xa0" /* how byte-level BPE writes a space: U+0120 */

struct token {
	char text[28];
	int left, right;            /* the tokens it is merged from; -1: a byte */
};
struct vocabulary {
	struct token *v;
	size_t n, cap;
	struct moe_index *by_text;
};

static const char *const words[] = {
	"the", "of", "and", "to", "in", "is", "that", "for", "it", "was", "on", "are", "as", "with", "his", "they", "at",
	"be", "this", "from", "have", "or", "one", "had", "by", "word", "but", "not", "what", "all", "were", "we", "when",
	"your", "can", "said", "there", "use", "an", "each", "which", "she", "do", "how", "their", "if", "will", "up", "other",
	"about", "out", "many", "then", "them", "these", "so", "some", "her", "would", "make", "like", "him", "into", "time",
	"has", "look", "two", "more", "write", "go", "see", "number", "no", "way", "could", "people", "my", "than", "first",
	"water", "been", "call", "who", "oil", "its", "now", "find", "long", "down", "day", "did", "get", "come", "made", "may",
	"part", "over", "new", "sound", "take", "only", "little", "work", "know", "place", "year", "live", "me", "back", "give",
	"most", "very", "after", "thing", "our", "just", "name", "good", "sentence", "man", "think", "say", "great", "where",
	"help", "through", "much", "before", "line", "right", "too", "mean", "old", "any", "same", "tell", "boy", "follow",
	"came", "want", "show", "also", "around", "form", "three", "small", "set", "put", "end", "does", "another", "well",
	"large", "must", "big", "even", "such", "because", "turn", "here", "why", "ask", "went", "men", "read", "need", "land",
	"different", "home", "us", "move", "try", "kind", "hand", "picture", "again", "change", "off", "play", "spell", "air",
	"away", "animal", "house", "point", "page", "letter", "mother", "answer", "found", "study", "still", "learn", "should",
	"world", "high", "every", "near", "add", "food", "between", "own", "below", "country", "plant", "last", "school",
	"father", "keep", "tree", "never", "start", "city", "earth", "eye", "light", "thought", "head", "under", "story",
};

static bool is_full(const struct vocabulary *x)
{
	return x->n == x->cap;
}

/* The token's number, a new one if need be; -1: no room (or, for want of memory, as good as none). */
static int add_token(struct vocabulary *x, const char *text, int left, int right)
{
	struct token *t;
	uint64_t old;

	if (moe_index_get(x->by_text, text, strlen(text), &old))
		return (int)old;
	if (is_full(x) || strlen(text) >= sizeof t->text)
		return -1;
	t = &x->v[x->n];
	strcpy(t->text, text);
	t->left = left;
	t->right = right;
	if (moe_index_add(x->by_text, t->text, strlen(t->text), x->n, NULL) < 0)
		return -1;
	return (int)x->n++;
}

static int merge(struct vocabulary *x, int left, int right)
{
	char text[2 * sizeof x->v->text];

	if (left < 0 || right < 0)
		return -1;
	snprintf(text, sizeof text, "%s%s", x->v[left].text, x->v[right].text);
	return add_token(x, text, left, right);
}

static int find(const struct vocabulary *x, const char *text)
{
	uint64_t i;

	return moe_index_get(x->by_text, text, strlen(text), &i) ? (int)i : -1;
}

static int letter(const struct vocabulary *x, int c)
{
	const char text[2] = {(char)c, 0};

	return find(x, text);
}

/* GPT-2's alphabet: printable bytes of Latin-1 are themselves, the others the code points from 256 on. */
static void add_bytes(struct vocabulary *x)
{
	int next = 256;

	for (int b = 0; b < 256; b++) {
		bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
		int c = printable ? b : next++;
		char text[3] = {(char)c, 0, 0};

		if (c >= 128) {
			text[0] = (char)(0xc0 | c >> 6);
			text[1] = (char)(0x80 | (c & 0x3f));
		}
		add_token(x, text, -1, -1);
	}
}

static void add_words(struct vocabulary *x)
{
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		int t = find(x, SPACE);

		for (const char *c = words[i]; *c; c++)
			t = merge(x, t, letter(x, *c));
	}
}

static void add_twos(struct vocabulary *x)
{
	for (int a = 'a'; a <= 'z'; a++)
		for (int b = 'a'; b <= 'z'; b++)
			merge(x, letter(x, a), letter(x, b));
}

static int two(const struct vocabulary *x, int i)
{
	const char text[3] = {(char)('a' + i / 26), (char)('a' + i % 26), 0};

	return find(x, text);
}

static void add_fours(struct vocabulary *x)
{
	for (int i = 0; i < 26 * 26; i++)
		for (int j = 0; j < 26 * 26 && !is_full(x); j++)
			merge(x, two(x, i), two(x, j));
}

static int make(struct vocabulary *x, size_t room, struct moe_err *e)
{
	const size_t most = 500000; /* more than there are to make */

	x->cap = room < most ? room : most;
	x->v = moe_calloc(x->cap, sizeof *x->v, "vocabulary", e);
	x->by_text = moe_index_new(x->cap, e);
	if (!x->v || !x->by_text)
		return MOE_E_NOMEM;
	add_bytes(x);
	add_words(x);
	add_twos(x);
	add_fours(x);
	return 0;
}

static bool is_special(const struct moe_model *m, int id)
{
	for (int i = 0; i < m->n_eos; i++)
		if (m->eos[i] == id)
			return true;
	return id == m->bos;
}

const char *moe_synth_special(const struct moe_model *m, int id, char *buf)
{
	for (int i = 0; i < m->n_eos; i++)
		if (m->eos[i] == id) {
			snprintf(buf, 32, i ? "</s%d>" : "</s>", i);
			return buf;
		}
	return "<s>";
}

static void put_bool(struct moe_jw *w, const char *key, bool v)
{
	moe_jw_key(w, key);
	moe_jw_bool(w, v);
}

static void put_null(struct moe_jw *w, const char *key)
{
	moe_jw_key(w, key);
	moe_jw_null(w);
}

static void put_str(struct moe_jw *w, const char *key, const char *v)
{
	moe_jw_key(w, key);
	moe_jw_str(w, v);
}

static void put_added(struct moe_jw *w, const struct moe_model *m)
{
	char buf[32];

	moe_jw_key(w, "added_tokens");
	moe_jw_arr(w);
	for (int id = 0; id < m->vocab; id++) {
		if (!is_special(m, id))
			continue;
		moe_jw_obj(w);
		moe_jw_key(w, "id");
		moe_jw_int(w, id);
		put_str(w, "content", moe_synth_special(m, id, buf));
		put_bool(w, "single_word", false);
		put_bool(w, "lstrip", false);
		put_bool(w, "rstrip", false);
		put_bool(w, "normalized", false);
		put_bool(w, "special", true);
		moe_jw_end(w);
	}
	moe_jw_arr_end(w);
}

static void put_byte_level(struct moe_jw *w, const char *key)
{
	moe_jw_key(w, key);
	moe_jw_obj(w);
	put_str(w, "type", "ByteLevel");
	put_bool(w, "add_prefix_space", false);
	put_bool(w, "trim_offsets", true);
	put_bool(w, "use_regex", true);
	moe_jw_end(w);
}

/* Ids count up through the tokens, past those that the special ones have. */
static void put_vocab(struct moe_jw *w, const struct moe_model *m, const struct vocabulary *x)
{
	char buf[32];
	size_t next = 0;

	moe_jw_key(w, "vocab");
	moe_jw_obj(w);
	for (int id = 0; id < m->vocab; id++) {
		if (is_special(m, id))
			moe_jw_key(w, moe_synth_special(m, id, buf));
		else if (next < x->n)
			moe_jw_key(w, x->v[next++].text);
		else
			continue;
		moe_jw_int(w, id);
	}
	moe_jw_end(w);
}

static void put_merges(struct moe_jw *w, const struct vocabulary *x)
{
	moe_jw_key(w, "merges");
	moe_jw_arr(w);
	for (size_t i = 0; i < x->n; i++) {
		char text[2 * sizeof x->v->text + 1];

		if (x->v[i].left < 0)
			continue;
		snprintf(text, sizeof text, "%s %s", x->v[x->v[i].left].text, x->v[x->v[i].right].text);
		moe_jw_str(w, text);
	}
	moe_jw_arr_end(w);
}

static void put_model(struct moe_jw *w, const struct moe_model *m, const struct vocabulary *x)
{
	moe_jw_key(w, "model");
	moe_jw_obj(w);
	put_str(w, "type", "BPE");
	put_null(w, "dropout");
	put_null(w, "unk_token");
	put_null(w, "continuing_subword_prefix");
	put_null(w, "end_of_word_suffix");
	put_bool(w, "fuse_unk", false);
	put_bool(w, "byte_fallback", false);
	put_bool(w, "ignore_merges", false);
	put_vocab(w, m, x);
	put_merges(w, x);
	moe_jw_end(w);
}

static char *print(const struct moe_model *m, const struct vocabulary *x, size_t *len, struct moe_err *e)
{
	struct moe_jw w;

	moe_jw_init(&w, true);
	moe_jw_obj(&w);
	put_str(&w, "version", "1.0");
	put_null(&w, "truncation");
	put_null(&w, "padding");
	put_added(&w, m);
	put_null(&w, "normalizer");
	put_byte_level(&w, "pre_tokenizer");
	put_null(&w, "post_processor");
	put_byte_level(&w, "decoder");
	put_model(&w, m, x);
	moe_jw_end(&w);
	return moe_jw_done(&w, len, e);
}

int moe_synth_tokenizer(const struct moe_model *m, char **text, size_t *len, struct moe_err *e)
{
	struct vocabulary x = {0};
	int room = m->vocab - m->n_eos - (m->bos >= 0), rc;

	for (int i = 0; i < m->n_eos; i++)
		room += m->eos[i] == m->bos; /* counted twice */
	*text = NULL;
	if (room < 256)
		return 0;
	rc = make(&x, (size_t)room, e);
	if (!rc) {
		*text = print(m, &x, len, e);
		rc = *text ? 0 : MOE_E_NOMEM;
	}
	moe_index_free(x.by_text);
	free(x.v);
	return rc;
}
