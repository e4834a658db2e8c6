/* Inside plan/: what the files of the model share. */
#ifndef MOE_PLAN_PRIVATE_H
#define MOE_PLAN_PRIVATE_H

#include "plan/plan.h"

/* Share of every memory that the full variant keeps free: what programs and the system take besides. */
#define PLAN_RESERVE 0.05

/* ---- sum.c: totals made of named terms ---- */

/* Add to the term of that name, which may be new; nothing for an amount of 0. */
void plan_add(struct moe_sum *s, const char *term, double amount);
/* Every term of `from`, `factor` times. */
void plan_add_sum(struct moe_sum *s, const struct moe_sum *from, double factor);
double plan_term(const struct moe_sum *s, const char *term); /* 0: there is none */

/* ---- levels.c: who computes, and where data come from ---- */

/* The last level with a processor; -1: none has one. */
int plan_host(const struct moe_hardware *h);
bool plan_has_processor(const struct moe_hardware *h, int level);
/* All devices of a level together. */
double plan_memory(const struct moe_memory_level *l);
double plan_bandwidth(const struct moe_memory_level *l);
/* FLOP/s of all devices of a level, for weights of that type; at the host in f32 for all that is not coded, as its
 * kernels do. */
double plan_flops(const struct moe_hardware *h, int level, enum moe_flops t);
/* Seconds that `bytes` in `pieces` take from one level to another: over each device's own link or the one they share. */
int plan_link_seconds(const struct moe_hardware *h, int from, int to, double bytes, double pieces, double *seconds,
                      struct moe_err *e);

/* ---- ops.c ---- */

/* What a kernel is given. */
struct plan_rows {
	double rows;                 /* tokens */
	double sequences;            /* that they are of */
	double keys;                 /* positions of its sequence that a row sees, on average and without a window */
	double stored;               /* positions of a sequence that are read, without a window */
	double element;              /* bytes of an activation */
};
/* One new token for each of `rows` sequences that have `context` positions. */
struct plan_rows plan_decode_rows(double rows, double context, double element);
/* Whole prompts of so many sequences. */
struct plan_rows plan_prefill_rows(double sequences, double prompt, double element);
/* As moe_layer_ops. */
void plan_ops(const struct moe_setting *s, int layer, const struct plan_rows *r, struct moe_op *out, int *n);
/* Bytes of the weights that moe_layer_ops counts, and of the routed experts (all of them); layer -1: embedding and head. */
double plan_base_bytes(const struct moe_setting *s, int layer);
double plan_expert_bytes(const struct moe_setting *s, int layer); /* of one */
double plan_kv_bytes(const struct moe_setting *s, int layer);     /* of one position */

/* Numbers of a token that go into attention, that are kept, and that come out: of MLA with the matrices beside what is kept
 * absorbed into the query and the output. */
struct plan_heads {
	double query, kv, out;
};
struct plan_heads plan_heads(const struct moe_attention *a);
/* All choices of an expert in a layer that usage counts, 0: none, and every expert is chosen alike; and how often a token
 * chooses an expert, 0 to 1: k times its share of them. */
double plan_choices(const struct moe_setting *s, int layer);
double plan_chance(const struct moe_setting *s, int layer, int expert, double choices);

/* ---- op_time.c ---- */

/* Seconds of an operation at a level: the slower of arithmetic and memory (equation 8), or what its kernel was measured to
 * reach, and the time every call takes. */
double plan_op_seconds(const struct moe_setting *s, int level, const struct moe_op *op);

/* ---- predict_paper.c, predict_full.c: the variants of moe_predict; the execution was checked ---- */

int plan_predict_paper(const struct moe_setting *s, const struct moe_execution *x, struct moe_prediction *out, struct moe_err *e);
int plan_predict_full(const struct moe_setting *s, const struct moe_execution *x, struct moe_prediction *out, struct moe_err *e);

/* The paper's counting of the experts of a layer of widths h1 and h2 with b rows, k experts each: all experts are read. */
double plan_paper_ffn_flops(double h1, double h2, double k, double b);
double plan_paper_ffn_bytes(double h1, double h2, double experts, double b);

/* ---- search_paper.c ---- */

/* moe_search for the paper variant: the authors' enumeration.  MOE_E_UNSUPPORTED for what they do not choose by (latency,
 * quants, a schedule that is not theirs). */
int plan_search_paper(const struct moe_setting *s, const struct moe_search *how, struct moe_found *out, struct moe_err *e);

#endif
