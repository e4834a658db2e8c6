/* Text: tokenizer.json, read and run.
 *
 * Covers BPE in both shapes in use: byte-level with a regular-expression pre-tokenizer (GPT-2, Qwen, OLMo, Llama 3),
 * and SentencePiece-like with metaspace and byte fallback (Llama 2, Mixtral).  Semantics follow the `tokenizers`
 * library, whose output is the reference; what it has and we do not is refused by name when the file is read.
 *
 * Known differences, none in files of models that we know:
 * - Under (?i), Oniguruma matches one character against several ("ss" against a sharp s); PCRE2 does not.
 * - \X and properties that are no categories (\p{Alphabetic}) follow PCRE2's Unicode version.
 * - Added tokens that are empty when normalized, that two normalized forms make alike, or whose id the vocabulary has
 *   already given away are refused; the reference takes them, with results that vary or hide other tokens. */
#ifndef MOE_TEXT_H
#define MOE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

struct moe_tokenizer;

/* Read FOLDER/tokenizer.json (and tokenizer_config.json for bos/eos when it is there).  MOE_E_MISSING when there is none. */
int moe_tokenizer_open(const char *dir, struct moe_tokenizer **out, struct moe_err *e);
/* From the text of a tokenizer.json; `what` starts messages. */
int moe_tokenizer_parse(const char *json, size_t len, const char *what, struct moe_tokenizer **out, struct moe_err *e);
void moe_tokenizer_free(struct moe_tokenizer *t);

int moe_tokenizer_size(const struct moe_tokenizer *t);            /* highest id + 1, added tokens included */
int moe_tokenizer_id(const struct moe_tokenizer *t, const char *token); /* -1: none */
bool moe_tokenizer_is_special(const struct moe_tokenizer *t, int id);
/* bos_token and eos_token of tokenizer_config.json; -1: not named there, or no such token. */
int moe_tokenizer_bos(const struct moe_tokenizer *t);
int moe_tokenizer_eos(const struct moe_tokenizer *t);

struct moe_ids {
	int32_t *v;
	size_t n, cap;
};
#define MOE_IDS_INIT {NULL, 0, 0}
void moe_ids_free(struct moe_ids *ids);

/* text[0..len), UTF-8 (else MOE_E_INPUT), to ids, appended to *out.  add_special: run the post-processor (BOS, templates).
 * Added tokens in the text are recognised as the file says.  Thread-safe: a tokenizer is not changed by use. */
int moe_encode(const struct moe_tokenizer *t, const char *text, size_t len, bool add_special, struct moe_ids *out,
               struct moe_err *e);

/* ids to text, appended to *out; skip_special leaves special tokens out.  An id past the vocabulary: MOE_E_RANGE. */
int moe_decode(const struct moe_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct moe_buf *out,
               struct moe_err *e);

/* Streaming: push ids one at a time, get whole UTF-8 characters as soon as they are certain; the concatenation (with
 * moe_stream_end) equals moe_decode of all the ids (special tokens skipped). */
struct moe_stream;
int moe_stream_new(const struct moe_tokenizer *t, struct moe_stream **out, struct moe_err *e);
int moe_stream_push(struct moe_stream *s, int32_t id, struct moe_buf *out, struct moe_err *e); /* appends to out */
int moe_stream_end(struct moe_stream *s, struct moe_buf *out, struct moe_err *e);              /* flushes what is incomplete */
void moe_stream_free(struct moe_stream *s);

#endif
