/* Coded weights on their way to a kernel: plain codes become tiles, in memory that is planned, and keep their values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "shard/private.h"

static char dir[] = "/tmp/moe-shard-quant-XXXXXX", path[64];

/* Cut a synthetic checkpoint over two devices into `path`, coded in layout l. */
static void cut(const char *spec, enum moe_layout l)
{
	struct moe_quant_plan plan = MOE_QUANT_PLAN_INIT;
	struct moe_shard_options o = MOE_SHARD_OPTIONS_INIT;
	struct moe_shard_report report;
	const struct moe_checkpoint *c;
	struct moe_placement p;
	struct moe_source *s;

	plan.layout = l;
	plan.layout_said = true;
	o.quants = &plan;
	snprintf(path, sizeof path, "%s/set", dir);
	assert_int_equal(moe_source_open(spec, &s, NULL), 0);
	assert_int_equal(moe_source_whole(s, &c, NULL), 0);
	assert_int_equal(moe_place_round_robin(&s->model, 2, &p, NULL), 0);
	assert_int_equal(moe_shard_write(c, &p, &o, path, &report, NULL), 0);
	moe_placement_free(&p);
	moe_source_close(s);
}

static void drop(void)
{
	char command[96];

	snprintf(command, sizeof command, "rm -rf '%s'", path);
	assert_int_equal(system(command), 0);
}

static void assert_same_matrix(const struct moe_matrix *a, const struct moe_matrix *b)
{
	float x[256], y[256];

	assert_int_equal(a->quant, b->quant);
	assert_int_equal(a->rows, b->rows);
	assert_int_equal(a->cols, b->cols);
	for (int64_t r = 0; r < a->rows; r++) {
		moe_matrix_row(a, r, x);
		moe_matrix_row(b, r, y);
		assert_memory_equal(x, y, (size_t)a->cols * sizeof *x);
	}
}

static void assert_same_experts(const struct moe_model *m, const struct moe_tensors *a, const struct moe_tensors *b)
{
	for (int l = 0; l < m->n_layers; l++)
		for (int x = 0; x < m->layers[l].ffn.experts; x++) {
			struct moe_expert_weights u, v;

			assert_int_equal(moe_bind_expert(a, m, l, x, &u, NULL), 0);
			assert_int_equal(moe_bind_expert(b, m, l, x, &v, NULL), 0);
			assert_int_equal(u.gate.layout, MOE_L_R64);
			assert_same_matrix(&u.gate, &v.gate);
			assert_same_matrix(&u.up, &v.up);
			assert_same_matrix(&u.down, &v.down);
		}
}

static void plain_codes_become_tiles(void **state)
{
	static const char *const quants[] = {"q8", "q4", "q3", "q2"};

	(void)state;
	for (int i = 0; i < 8; i++) {
		enum moe_layout l = i < 4 ? MOE_L_PLAIN : MOE_L_R64;
		struct moe_source *set, *made;
		struct moe_tensors *t, *views;
		char spec[64], words[256];

		snprintf(spec, sizeof spec, "synth:tiny-qwen2-moe,quant=%s", quants[i % 4]);
		cut(spec, l);
		assert_int_equal(moe_source_open(path, &set, NULL), 0);
		assert_int_equal(moe_source_open(spec, &made, NULL), 0);
		assert_int_equal(moe_source_tensors(set, MOE_ALL, &t, NULL), 0);
		assert_true((set->made_bytes > 0) == (l == MOE_L_PLAIN));
		assert_true((moe_source_made_words(set, words, sizeof words) != NULL) == (l == MOE_L_PLAIN));
		assert_int_equal(moe_source_views(made, MOE_ALL, &views, NULL), 0);
		assert_same_experts(&set->model, t, views);
		moe_tensors_free(t);
		moe_tensors_free(views);
		moe_source_close(set);
		moe_source_close(made);
		drop();
	}
}

/* What a made row costs is what the piece says: units, scratch, both forms. */
static void a_piece_is_made_in_any_cut(void **state)
{
	struct moe_source *s;
	struct moe_pieces p;

	(void)state;
	assert_int_equal(moe_source_open("synth:tiny-mixtral,quant=q3", &s, NULL), 0);
	assert_int_equal(moe_pieces_of(&s->model, s->checkpoint->tensors, &p, NULL), 0);
	for (size_t i = 0; i < p.n; i++) {
		const struct moe_piece *x = &p.v[i];
		size_t tiles = (size_t)moe_piece_bytes(x, MOE_L_R64), plain = x->view.bytes;
		unsigned char *out = malloc(tiles), *whole = malloc(plain), *cut = malloc(plain);
		float *scratch = malloc(moe_piece_scratch(x) * sizeof *scratch);

		assert_true(out && whole && cut && scratch);
		if (x->packed_name) {
			assert_false(moe_piece_is_there(x, MOE_L_PLAIN));
			assert_int_equal(moe_piece_make(x, MOE_L_R64, 0, x->rows, out, whole, scratch, NULL), 0);
			assert_memory_equal(out, x->from->data, tiles);
			for (int64_t row = 0; row < x->rows; row += MOE_TILE_ROWS) {
				int64_t n = x->rows - row < MOE_TILE_ROWS ? x->rows - row : MOE_TILE_ROWS;

				assert_int_equal(moe_piece_make(x, MOE_L_PLAIN, row, n, cut + (size_t)row * moe_piece_row_bytes(x), NULL,
				                                scratch, NULL), 0);
			}
			assert_memory_equal(whole, cut, plain);
		}
		free(out);
		free(whole);
		free(cut);
		free(scratch);
	}
	moe_pieces_free(&p);
	moe_source_close(s);
}

static void replicas_share_one_quant(void **state)
{
	struct moe_device devices[2] = {{.quant = "q4"}, {.quant = "q8"}};
	struct moe_quant_plan plan = MOE_QUANT_PLAN_INIT;
	struct moe_err e = MOE_ERR_INIT;
	struct moe_placement p;
	struct moe_source *s;
	struct moe_pieces v;
	struct moe_json *j;
	static const char text[] = "{\"placement\": [[[0, 1], 0, 0, 1, 1], [0, 0, 0, 1, 1]]}";

	(void)state;
	plan.devices = devices;
	plan.n_devices = 2;
	assert_int_equal(moe_source_open("synth:tiny-mixtral", &s, NULL), 0);
	assert_int_equal(moe_json_parse(text, sizeof text - 1, "p", &j, NULL), 0);
	assert_int_equal(moe_placement_from_json(j, "p", &s->model, 2, &p, NULL), 0);
	assert_int_equal(moe_pieces_of(&s->model, s->checkpoint->tensors, &v, NULL), 0);
	assert_int_equal(moe_pieces_recode(&s->model, &v, &plan, &p, &e), MOE_E_INPUT);
	assert_non_null(strstr(e.msg, "in two quants"));
	strcpy(devices[1].quant, "q4");
	strcpy(devices[1].layout, "plain");
	assert_int_equal(moe_pieces_recode(&s->model, &v, &plan, &p, &e), 0);
	assert_int_equal(moe_quant_plan_layout_of(&plan, 0), MOE_L_R64);
	assert_int_equal(moe_quant_plan_layout_of(&plan, 1), MOE_L_PLAIN);
	moe_pieces_free(&v);
	moe_placement_free(&p);
	moe_json_free(j);
	moe_source_close(s);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_codes_become_tiles),
		cmocka_unit_test(a_piece_is_made_in_any_cut),
		cmocka_unit_test(replicas_share_one_quant),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("shard_quant", tests, make_dir, remove_dir);
}
