/* Text, inside: the parts of a tokenizer and what they offer each other.
 *
 * A text goes through: added tokens cut out (added.c) -> normalizers (normalize.c) -> added tokens that match
 * normalized text -> pre-tokenizers (pretokenize.c) -> byte pair encoding (bpe.c) -> special tokens around it.
 * Ids come back through the decoder's steps (decode.c). */
#ifndef MOE_TEXT_PRIVATE_H
#define MOE_TEXT_PRIVATE_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/json.h"
#include "text/text.h"

#define TEXT_MAX_ID (1 << 24)       /* ids are below this */
#define TEXT_MAX_INPUT (1u << 30)   /* bytes of one text */
#define TEXT_MAX_STEPS 32           /* normalizers, pre-tokenizer stages or decoder steps of one tokenizer */

/* ---- unicode.c: UTF-8 and properties of characters ---- */

/* The character at p, known to be valid; *n its length. */
uint32_t text_char(const char *p, size_t *n);
/* The length of the last character of valid text[0..len), len > 0. */
size_t text_last(const char *text, size_t len);
/* Write c as UTF-8 to p (4 bytes are enough); returns the length. */
size_t text_put(uint32_t c, char *p);
bool text_valid(const char *text, size_t len);
/* Length of the valid sequence at p; else minus the bytes that one U+FFFD stands for (a decoder's maximal subpart);
 * 0 when p[0..n) is the valid start of a longer sequence. */
int text_sequence(const char *p, size_t n);
bool text_is_space(uint32_t c);   /* White_Space */
bool text_is_numeric(uint32_t c); /* category N */
bool text_is_punct(uint32_t c);   /* category P, or ASCII punctuation */
/* Lower case of c, one or two characters, into out; returns how many. */
int text_lower(uint32_t c, uint32_t out[2]);
/* For a character younger than PCRE2's tables an older one of the same category and UTF-8 length; else c. */
uint32_t text_stand_in(uint32_t c);
/* Does normalization leave c alone?  So it is for characters younger than the reference's tables. */
bool text_is_inert(uint32_t c);

/* How far a text of len bytes may grow on its way: normal forms need 11 times, markers for spaces 3, a mad file any. */
size_t text_most(size_t len);

/* ---- forms.c: NFC and its kin ---- */

enum text_form { TEXT_NFC, TEXT_NFD, TEXT_NFKC, TEXT_NFKD };
/* text in that form, appended to out.  Linear but for sorting runs of marks. */
int text_normal_form(enum text_form form, const char *text, size_t len, struct moe_buf *out, struct moe_err *e);

/* ---- pattern.c, regex.c: what splits and replaces ---- */

struct text_pattern {
	enum { PATTERN_LITERAL, PATTERN_REGEX, PATTERN_CLASS } kind;
	char *literal; /* not empty */
	size_t len;
	pcre2_code *re;
	bool (*is)(uint32_t c);
};

/* From {"String": S} or {"Regex": R}, R in Oniguruma's spelling. */
int text_pattern_read(const struct moe_json *v, const char *what, struct text_pattern *p, struct moe_err *e);
int text_pattern_literal(const char *s, struct text_pattern *p, const char *what, struct moe_err *e);
int text_pattern_regex(const char *onig, struct text_pattern *p, const char *what, struct moe_err *e);
void text_pattern_free(struct text_pattern *p);

/* What one caller needs to run regexes; made for each call, so that a tokenizer stays as it is. */
struct text_matcher {
	pcre2_match_data *data;
	pcre2_match_context *limits;
};
int text_matcher_init(struct text_matcher *m, size_t len, struct moe_err *e);
void text_matcher_free(struct text_matcher *m);

/* A walk over the matches of one text, empty ones included but never right behind a match. */
struct text_scan {
	const struct text_pattern *p;
	struct text_matcher *m;
	const char *text, *subject;
	size_t len, pos, last_end;
	bool any;
};
/* `young` is room for a copy of text with stand-ins; it must live as long as the scan. */
int text_scan_start(struct text_scan *s, const struct text_pattern *p, struct text_matcher *m, const char *text,
                    size_t len, struct moe_buf *young, struct moe_err *e);
/* *found with text[*from..*to), or not *found at the end. */
int text_scan_next(struct text_scan *s, bool *found, size_t *from, size_t *to, struct moe_err *e);

/* The same regex as PCRE2 spells it, appended to out; what cannot be said the same way is MOE_E_UNSUPPORTED. */
int text_regex_translate(const char *onig, struct moe_buf *out, const char *what, struct moe_err *e);

/* ---- normalize.c ---- */

enum norm_kind { NORM_FORM, NORM_PREPEND, NORM_REPLACE, NORM_LOWERCASE, NORM_STRIP };
struct text_norm {
	enum norm_kind kind;
	enum text_form form;
	struct text_pattern pattern;
	char *content; /* of Prepend and Replace */
	size_t len;
	bool left, right;
};
struct text_norms {
	struct text_norm v[TEXT_MAX_STEPS];
	int n;
};
/* A stretch of text on its way.  `origin` of its bytes, from the first on, come from the very first character of the
 * whole text: Metaspace asks for that when it is to prepend "first". */
struct text_piece {
	const char *text;
	size_t len, origin;
};
/* Bytes from..to of p. */
struct text_piece text_part(const struct text_piece *p, size_t from, size_t to);
int text_norms_read(const struct moe_json *v, const char *what, struct text_norms *n, struct moe_err *e);
void text_norms_free(struct text_norms *n);
/* *piece becomes its normalized form, in one of the buffers unless nothing changed. */
int text_normalize(const struct text_norms *n, struct text_matcher *m, struct moe_buf buf[3], struct text_piece *piece,
                   struct moe_err *e);

/* ---- table.c: numbers to numbers ---- */

struct text_table {
	uint64_t *key, *value;
	size_t mask, n, most;
};
int text_table_init(struct text_table *t, size_t most, const char *what, struct moe_err *e); /* room for `most` keys */
void text_table_free(struct text_table *t);
void text_table_set(struct text_table *t, uint64_t key, uint64_t value); /* replaces; key != UINT64_MAX */
bool text_table_get(const struct text_table *t, uint64_t key, uint64_t *value);

/* ---- vocab.c: the tokens ---- */

enum { TOKEN_MODEL = 1, TOKEN_ADDED = 2, TOKEN_SPECIAL = 4, TOKEN_SKIP = 8 };
struct text_token {
	const char *text; /* what decoding starts from; NULL: no token has this id */
	uint32_t len;
	uint32_t flags;
};
struct text_vocab {
	struct text_token *v; /* by id */
	int n;                /* highest id + 1 */
	int room;             /* of v: added tokens still to come */
	int model;            /* tokens of the model */
	char *strings;        /* the model's token texts */
	struct moe_index *by_text;
};
/* The model's vocabulary, with room for `added` more. */
int text_vocab_read(const struct moe_json *vocab, size_t added, const char *what, struct text_vocab *out,
                    struct moe_err *e);
void text_vocab_free(struct text_vocab *v);
int text_vocab_id(const struct text_vocab *v, const char *text, size_t len);       /* -1: none */
int text_vocab_model_id(const struct text_vocab *v, const char *text, size_t len); /* of the model itself */

/* ---- bpe.c ---- */

struct text_bpe {
	int32_t low[512];            /* the id of character c < 512, or -1 */
	struct text_table chars;     /* of the others */
	struct text_table merges;    /* left << 32 | right -> rank << 32 | merged */
	int32_t byte[256];           /* ids of <0x00> ... <0xFF>, or -1 */
	bool byte_fallback, fuse_unk, ignore_merges;
	bool marks_lead;             /* no merge joins something to a U+2581 behind it: words can be cut there */
	char *unk_token;             /* NULL: characters that are not in the vocabulary vanish */
	int unk;
};
/* Room for one word, kept between words. */
struct bpe_symbol {
	int32_t id; /* -1: merged into the one before */
	int32_t prev, next;
};
struct bpe_merge {
	uint64_t order; /* rank << 32 | position */
	int32_t id;
};
struct text_bpe_room {
	struct bpe_symbol *symbol;
	size_t symbols, n;
	struct bpe_merge *heap;
	size_t heaps, pending;
};
int text_bpe_read(const struct moe_json *model, const struct text_vocab *v, const char *what, struct text_bpe *b,
                  struct moe_err *e);
void text_bpe_free(struct text_bpe *b);
int text_bpe_word(const struct text_bpe *b, const struct text_vocab *v, struct text_bpe_room *room, const char *word,
                  size_t len, struct moe_ids *out, struct moe_err *e);
void text_bpe_room_free(struct text_bpe_room *room);
int text_ids_add(struct moe_ids *ids, int32_t id, struct moe_err *e);

/* ---- added.c: tokens found in the text before anything else ---- */

struct text_added_token {
	char *content, *pattern; /* pattern: what is looked for; may be content itself */
	size_t content_len, pattern_len;
	int id;
	bool special, single_word, left, right, normalized;
};
struct text_trie {
	bool first[256];          /* can a token start with this byte? */
	struct text_table edges;  /* node << 8 | byte -> node; the root is 0 */
	int32_t *token;           /* at a node: index into added tokens, or -1 */
	size_t nodes;
};
struct text_added {
	struct text_added_token *v;
	size_t n;
	struct text_trie raw, normalized;
	struct text_pattern word; /* one character that is part of a word */
	bool any_single;
};
/* Also enters them into the vocabulary. */
int text_added_read(const struct moe_json *list, const struct text_norms *norms, struct text_vocab *v, const char *what,
                    struct text_added *a, struct moe_err *e);
void text_added_free(struct text_added *a);

/* A stretch found by text_added_find: an added token (id >= 0) or text (id -1). */
struct text_found {
	size_t from, to;
	int id;
};
/* Cut text at the tokens of `trie`, calling fn for every stretch that is not empty, in order. */
int text_added_cut(const struct text_added *a, const struct text_trie *trie, struct text_matcher *m, const char *text,
                   size_t len, int (*fn)(void *arg, const struct text_found *f, struct moe_err *e), void *arg,
                   struct moe_err *e);

/* ---- pretokenize.c ---- */

enum split_behavior { SPLIT_ISOLATED, SPLIT_REMOVED, SPLIT_WITH_PREVIOUS, SPLIT_WITH_NEXT, SPLIT_CONTIGUOUS };
enum text_prepend { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };
enum pre_kind { PRE_SPLIT, PRE_SPACE, PRE_BYTES, PRE_META };
struct text_pre {
	enum pre_kind kind;
	struct text_pattern pattern; /* PRE_SPLIT */
	enum split_behavior behavior;
	bool invert;
	char rep[5];                 /* PRE_META: what stands for a space */
	enum text_prepend prepend;
};
struct text_pres {
	struct text_pre v[TEXT_MAX_STEPS];
	int n;
};
int text_pres_read(const struct moe_json *v, const char *what, struct text_pres *p, struct moe_err *e);
void text_pres_free(struct text_pres *p);
/* Metaspace as pre-tokenizers and decoders write it. */
int text_read_metaspace(const struct moe_json *v, char rep[5], enum text_prepend *prepend, bool *split,
                        const char *what, struct moe_err *e);
/* What the pre-tokenizers of one call share; fn gets the words. */
struct text_pre_run {
	const struct text_pres *p;
	struct text_matcher *m;
	struct moe_buf buf[TEXT_MAX_STEPS]; /* by stage */
	size_t most;                        /* bytes that a piece may grow to */
	int (*fn)(void *arg, const char *word, size_t len, struct moe_err *e);
	void *arg;
};
int text_pretokenize(struct text_pre_run *r, const struct text_piece *piece, struct moe_err *e);
void text_pre_run_free(struct text_pre_run *r);

/* ---- bytes.c: the alphabet of byte-level tokenizers ---- */

uint32_t text_byte_char(unsigned char b); /* the character that stands for a byte */
int text_char_byte(uint32_t c);           /* and back; -1: stands for none */

/* ---- post.c ---- */

struct text_post {
	struct moe_ids before, after; /* special tokens around a text */
	bool done;                    /* there was a template */
};
int text_post_read(const struct moe_json *v, const struct text_vocab *vocab, const char *what, struct text_post *p,
                   struct moe_err *e);
void text_post_free(struct text_post *p);

/* ---- decode.c ---- */

enum dec_kind { DEC_BYTES, DEC_FALLBACK, DEC_FUSE, DEC_REPLACE, DEC_STRIP, DEC_META, DEC_SPACES };
struct text_dec {
	enum dec_kind kind;
	bool fused;                  /* what comes in is one token, in parts */
	struct text_pattern pattern; /* DEC_REPLACE */
	char *content;
	size_t content_len;
	char c[5];                   /* DEC_STRIP, DEC_META: the character; "" never */
	size_t c_len;
	size_t start, stop;          /* DEC_STRIP */
	bool keep_first;             /* DEC_META: replace in the first token too, do not drop */
};
struct text_decs {
	struct text_dec v[TEXT_MAX_STEPS];
	int n;
};
int text_decs_read(const struct moe_json *v, const char *what, struct text_decs *d, struct moe_err *e);
void text_decs_free(struct text_decs *d);

/* One decoding under way.  moe_decode and streams are the same machine, so they cannot differ. */
struct text_decoding {
	const struct moe_tokenizer *t;
	bool skip_special;
	struct dec_state {
		bool begun, bad;     /* a token was seen; FALLBACK: this run of bytes is no UTF-8 */
		size_t count;        /* STRIP: characters dropped at the start; FALLBACK: bytes held that are whole characters */
		struct moe_buf held; /* not yet certain */
	} state[TEXT_MAX_STEPS];
	struct moe_buf young;
	struct text_matcher m;
};
int text_decoding_start(struct text_decoding *d, const struct moe_tokenizer *t, bool skip_special, struct moe_err *e);
int text_decoding_push(struct text_decoding *d, int32_t id, struct moe_buf *out, struct moe_err *e);
int text_decoding_end(struct text_decoding *d, struct moe_buf *out, struct moe_err *e);
void text_decoding_free(struct text_decoding *d);

/* ---- the whole ---- */

struct moe_tokenizer {
	struct text_vocab vocab;
	struct text_bpe bpe;
	struct text_norms norms;
	struct text_added added;
	struct text_pres pres;
	struct text_post post;
	struct text_decs decs;
	int bos, eos;
};

#endif
