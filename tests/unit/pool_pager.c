/* The pager: every byte of every expert is where the page table says, whatever the share, the pages and the way; nothing more is taken
 * than was planned, and nothing stays taken when it fails. */
#include <semaphore.h>

#include "pool_rig.h"

static const struct {
	bool from_disk, pinned;
} ways[] = {{false, false}, {false, true}, {true, false}, {true, true}};

static const double shares[] = {0, 0.05, 0.19, 0.2, 0.5, 0.77, 1};

static struct moe_pager_config config_of(struct device *d, size_t way, double share, int pages)
{
	return (struct moe_pager_config){.device = &d->base, .resident = share, .pages = pages, .from_disk = ways[way].from_disk,
	                                 .pinned = ways[way].pinned};
}

static struct moe_pager *pager_of(const struct moe_checkpoint *c, const struct moe_pager_config *config)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_pager *p;

	must(moe_pager_open(&c->model, c->tensors, config, &p, &e), &e);
	return p;
}

static int bring_page(struct moe_pager *p, const struct moe_pager_config *c, int layer, int page, int slot, struct moe_err *e)
{
	int rc = c->from_disk ? moe_pager_read(p, layer, page, e) : 0;

	rc = rc || c->pinned ? rc : moe_pager_pin(p, layer, page, e);
	return rc ? rc : moe_pager_load(p, NULL, layer, page, slot, e);
}

static void check_layer(struct moe_backend *b, const struct moe_pager *p, const struct moe_checkpoint *c, int layer, int slot)
{
	for (int i = 0; i < c->model.layers[layer].ffn.experts; i++)
		same_expert(b, &moe_pager_experts(p, layer, slot)[i], c, layer, i);
}

/* Twice through all layers, by turns into one slot and the other. */
static void go_through(struct moe_pager *p, const struct moe_checkpoint *c, const struct moe_pager_config *config)
{
	struct moe_err e = MOE_ERR_INIT;
	int slot = 0;

	for (int step = 0; step < 2; step++)
		for (int l = 0; l < c->model.n_layers; l++, slot = !slot) {
			for (int page = 0; page < config->pages; page++) {
				must(bring_page(p, config, l, page, slot, &e), &e);
				must(device_sync(config->device, NULL, &e), &e); /* the relay is used again */
			}
			check_layer(config->device, p, c, l, slot);
		}
}

static void every_expert_arrives(void **state)
{
	static const int pages[] = {1, 3, 7};

	(void)state;
	for (size_t s = 0; s < COUNT(specs); s++) {
		struct moe_checkpoint *c = synth(specs[s]);
		struct device d;

		device_open(&d, 0);
		for (size_t i = 0; i < COUNT(shares) * COUNT(ways) * COUNT(pages); i++) {
			struct moe_pager_config config = config_of(&d, i % COUNT(ways), shares[i / COUNT(ways) % COUNT(shares)],
			                                           pages[i / COUNT(ways) / COUNT(shares)]);
			struct moe_pager *p = pager_of(c, &config);

			go_through(p, c, &config);
			moe_pager_close(p);
		}
		device_close(&d);
		moe_checkpoint_close(c);
	}
}

static void plan_is_what_is_taken(void **state)
{
	struct moe_err e = MOE_ERR_INIT;

	(void)state;
	for (size_t s = 0; s < COUNT(specs); s++) {
		struct moe_checkpoint *c = synth(specs[s]);

		for (size_t i = 0; i < COUNT(shares) * COUNT(ways); i++) {
			struct device d;
			struct moe_pager_config config;
			struct moe_pager_sizes z;
			struct moe_pager *p;

			device_open(&d, 0);
			config = config_of(&d, i % COUNT(ways), shares[i / COUNT(ways)], 2);
			must(moe_pager_plan(&c->model, c->tensors, &config, &z, &e), &e);
			p = pager_of(c, &config);
			assert_int_equal(device_has(&d).used, z.resident + z.slots);
			assert_int_equal(device_has(&d).most, z.resident + z.slots);
			assert_int_equal(d.pinned, z.pinned);
			assert_int_equal(z.slots, 2 * z.layer);
			assert_int_equal(z.staging, config.from_disk && !config.pinned ? z.layer : 0);
			moe_pager_close(p);
			device_close(&d);
		}
		moe_checkpoint_close(c);
	}
}

static size_t moved(const struct moe_pager *p, const struct moe_pager_config *config, int layer)
{
	size_t bytes = 0;

	for (int page = 0; page < config->pages; page++)
		bytes += moe_pager_page_bytes(p, layer, page);
	return bytes;
}

/* As many experts as fit into the share, and no layer with more than one more than another. */
static void residents_are_spread_evenly(void **state)
{
	struct moe_checkpoint *c = synth("tiny-mixtral,layers=7");
	size_t one;
	struct device d;

	(void)state;
	device_open(&d, 0);
	for (int i = 0; i <= 100; i++) {
		struct moe_pager_config config = config_of(&d, 0, i / 100.0, 1);
		struct moe_pager *p = pager_of(c, &config);
		struct moe_err e = MOE_ERR_INIT;
		struct moe_pager_sizes z;
		size_t least = SIZE_MAX, most = 0;

		must(moe_pager_plan(&c->model, c->tensors, &config, &z, &e), &e);
		one = z.all / (size_t)(z.resident_experts + z.moved_experts);
		assert_int_equal(z.resident_experts, 7 * 5 * i / 100);
		assert_int_equal(z.resident, (size_t)z.resident_experts * one);
		for (int l = 0; l < 7; l++) {
			size_t bytes = moved(p, &config, l);

			least = bytes < least ? bytes : least;
			most = bytes > most ? bytes : most;
		}
		assert_true(most - least <= one);
		assert_int_equal(most, z.layer);
		moe_pager_close(p);
	}
	device_close(&d);
	moe_checkpoint_close(c);
}

static void pages_are_equal_pieces(void **state)
{
	static const int pages[] = {1, 2, 3, 5, 64, 100000};
	struct moe_checkpoint *c = synth("tiny-mixtral,layers=3");
	struct device d;

	(void)state;
	device_open(&d, 0);
	for (size_t i = 0; i < COUNT(pages); i++) {
		struct moe_pager_config config = config_of(&d, 0, 0.4, pages[i]);
		struct moe_pager *p = pager_of(c, &config);
		struct moe_err e = MOE_ERR_INIT;
		struct moe_pager_sizes z;
		size_t all = 0;

		must(moe_pager_plan(&c->model, c->tensors, &config, &z, &e), &e);
		assert_int_equal(z.page % 64, 0);
		for (int l = 0; l < 3; l++) {
			size_t left = moved(p, &config, l);

			all += left;
			for (int page = 0; page < pages[i]; page++) {
				assert_int_equal(moe_pager_page_bytes(p, l, page), left < z.page ? left : z.page);
				left -= moe_pager_page_bytes(p, l, page);
			}
		}
		assert_int_equal(all, z.all - z.resident);
		if (pages[i] == 100000) { /* more than there are bytes */
			assert_int_equal(z.page, 64);
			go_through(p, c, &config);
		}
		moe_pager_close(p);
	}
	device_close(&d);
	moe_checkpoint_close(c);
}

/* A layer that moves nothing has no pages; one without experts neither. */
static void all_resident_moves_nothing(void **state)
{
	struct moe_checkpoint *c = synth("tiny-qwen2-moe,layers=3");
	struct device d;

	(void)state;
	device_open(&d, 0);
	for (size_t way = 0; way < COUNT(ways); way++) {
		struct moe_pager_config config = config_of(&d, way, 1, 2);
		struct moe_pager *p = pager_of(c, &config);

		assert_int_equal(d.pinned, 0);
		for (int l = 0; l < 3; l++)
			assert_int_equal(moved(p, &config, l), 0);
		atomic_store(&d.copied, 0);
		go_through(p, c, &config);
		assert_int_equal(atomic_load(&d.copied), 0);
		moe_pager_close(p);
	}
	device_close(&d);
	moe_checkpoint_close(c);
}

static void plan_without_tensors_is_the_same(void **state)
{
	static const struct {
		const char *spec;
		enum moe_quant quant;
	} cases[] = {{"tiny-mixtral,layers=3,dtype=bf16", MOE_Q_BF16}, {"tiny-olmoe,dtype=f32", MOE_Q_F32},
	             {"tiny-qwen3-moe,quant=q4", MOE_Q_Q4}, {"tiny-mixtral,quant=q2", MOE_Q_Q2}};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct moe_checkpoint *c = synth(cases[i].spec);
		struct moe_pager_config config = {.resident = 0.3, .pages = 3, .quant = cases[i].quant};
		struct moe_pager_sizes with, without;
		struct moe_err e = MOE_ERR_INIT;

		must(moe_pager_plan(&c->model, c->tensors, &config, &with, &e), &e);
		must(moe_pager_plan(&c->model, NULL, &config, &without, &e), &e);
		assert_memory_equal(&with, &without, sizeof with);
		moe_checkpoint_close(c);
	}
}

/* ---- what fits ---- */

static size_t need(const struct moe_checkpoint *c, double share)
{
	struct moe_pager_config config = {.resident = share, .pages = 1};
	struct moe_pager_sizes z;
	struct moe_err e = MOE_ERR_INIT;

	must(moe_pager_plan(&c->model, c->tensors, &config, &z, &e), &e);
	return z.resident + z.slots;
}

static void largest_share_that_fits_is_found(void **state)
{
	static const char *const shapes[] = {"tiny-mixtral,layers=1", "tiny-mixtral,layers=2", "tiny-mixtral,layers=5,quant=q4",
	                                     "tiny-qwen2-moe,layers=4"};

	(void)state;
	for (size_t s = 0; s < COUNT(shapes); s++) {
		struct moe_checkpoint *c = synth(shapes[s]);
		struct moe_pager_config config = {.resident = 2, .pages = 1};
		int n = moe_model_moe_layers(&c->model) * moe_model_max_experts(&c->model);
		size_t one = need(c, 1) / (size_t)n, most = (size_t)(n + 2) * one;

		for (size_t bytes = 0; bytes <= most; bytes += one / 2) {
			struct moe_err e = MOE_ERR_INIT;
			double share = -1;
			int rc = moe_pager_share_for(&c->model, c->tensors, &config, bytes, &share, &e), k = n;

			while (k >= 0 && need(c, (double)k / n) > bytes)
				k--;
			assert_int_equal(rc, k < 0 ? MOE_E_RANGE : 0);
			if (rc == 0)
				assert_true(share == (double)k / n);
			else
				assert_non_null(strstr(e.msg, "at least"));
		}
		moe_checkpoint_close(c);
	}
}

static void device_too_small_is_refused_with_numbers(void **state)
{
	struct moe_checkpoint *c = synth(specs[0]);
	struct moe_pager_config config = {.resident = 0.5, .pages = 2};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_pager_sizes z;
	struct moe_pager *p;
	struct device d;

	(void)state;
	must(moe_pager_plan(&c->model, c->tensors, &config, &z, &e), &e);
	device_open(&d, z.resident + z.slots - 1);
	config.device = &d.base;
	assert_int_equal(moe_pager_open(&c->model, c->tensors, &config, &p, &e), MOE_E_NOMEM);
	assert_non_null(strstr(e.msg, "KiB resident"));
	assert_int_equal(device_has(&d).most, 0);
	device_close(&d);
	device_open(&d, z.resident + z.slots);
	p = pager_of(c, &config);
	moe_pager_close(p);
	device_close(&d);
	moe_checkpoint_close(c);
}

static void failures_leave_nothing_taken(void **state)
{
	struct moe_checkpoint *c = synth(specs[0]);

	(void)state;
	for (size_t way = 0; way < COUNT(ways); way++)
		for (int left = 0; left < 4; left++)
			for (int copies = -1; copies < 2; copies++) {
				struct moe_err e = MOE_ERR_INIT;
				struct moe_pager_config config;
				struct moe_pager *p;
				struct device d;
				int rc;

				device_open(&d, 0);
				config = config_of(&d, way, 0.5, 2);
				d.left = left;
				atomic_store(&d.copies, copies);
				rc = moe_pager_open(&c->model, c->tensors, &config, &p, &e);
				assert_int_equal(rc, left < 3 ? MOE_E_NOMEM : copies >= 0 ? MOE_E_IO : 0);
				if (rc == 0)
					moe_pager_close(p);
				device_close(&d);
			}
	moe_checkpoint_close(c);
}

/* ---- several threads ---- */

#define LANES 3 /* read, pin, load */

struct line {
	struct moe_pager *p;
	const struct moe_checkpoint *c;
	struct moe_pager_config config;
	int steps;
	atomic_int failed;           /* stations' calls */
	sem_t done[LANES][8];        /* of each page: passed this station */
	sem_t empty[LANES][8];       /* what this station fills has been emptied */
	sem_t loaded, used;          /* whole layers */
};

/* One station for all pages of all layers: waits for the page to come and for room, and hands it on. */
static void station(struct line *x, int lane)
{
	struct moe_err e = MOE_ERR_INIT;

	for (int turn = 0; turn < x->steps * x->c->model.n_layers; turn++) {
		int l = turn % x->c->model.n_layers;

		if (lane == LANES - 1)
			sem_wait(&x->used);
		for (int page = 0; page < x->config.pages; page++) {
			int rc;

			if (lane > 0)
				sem_wait(&x->done[lane - 1][page]);
			if (lane < LANES - 1)
				sem_wait(&x->empty[lane][page]);
			rc = lane == 0 ? moe_pager_read(x->p, l, page, &e) :
			     lane == 1 ? moe_pager_pin(x->p, l, page, &e) : moe_pager_load(x->p, NULL, l, page, turn % 2, &e);
			if (lane == LANES - 1)
				rc = rc ? rc : device_sync(x->config.device, NULL, &e);
			atomic_fetch_add(&x->failed, rc != 0);
			sem_post(&x->done[lane][page]);
			if (lane > 0)
				sem_post(&x->empty[lane - 1][page]);
		}
		if (lane == LANES - 1)
			sem_post(&x->loaded);
	}
}

static void *read_all(void *arg)
{
	station(arg, 0);
	return NULL;
}

static void *pin_all(void *arg)
{
	station(arg, 1);
	return NULL;
}

static void *load_all(void *arg)
{
	station(arg, 2);
	return NULL;
}

static void line_open(struct line *x)
{
	for (int lane = 0; lane < LANES; lane++)
		for (int page = 0; page < x->config.pages; page++) {
			sem_init(&x->done[lane][page], 0, 0);
			sem_init(&x->empty[lane][page], 0, 1);
		}
	sem_init(&x->loaded, 0, 0);
	sem_init(&x->used, 0, 2);
}

static void stations_work_at_once(void **state)
{
	static void *(*const lanes[LANES])(void *) = {read_all, pin_all, load_all};
	struct folder f;
	struct moe_checkpoint *c = folder_open(&f, "tiny-mixtral,layers=3");
	pthread_t threads[LANES];
	struct device d;
	struct line x = {.c = c, .steps = 5};

	(void)state;
	device_open(&d, 0);
	x.config = config_of(&d, 2, 0.3, 5);
	x.p = pager_of(c, &x.config);
	line_open(&x);
	for (int i = 0; i < LANES; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, lanes[i], &x), 0);
	for (int turn = 0; turn < x.steps * c->model.n_layers; turn++) {
		sem_wait(&x.loaded);
		check_layer(&d.base, x.p, c, turn % c->model.n_layers, turn % 2);
		sem_post(&x.used);
	}
	for (int i = 0; i < LANES; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&x.failed), 0);
	moe_pager_close(x.p);
	device_close(&d);
	moe_checkpoint_close(c);
	folder_remove(&f);
}

/* ---- what is wrong ---- */

static void cut_file_is_named(void **state)
{
	(void)state;
	for (size_t way = 0; way < COUNT(ways); way++) {
		struct folder f;
		struct moe_checkpoint *c = folder_open(&f, specs[0]);
		struct moe_err e = MOE_ERR_INIT;
		struct moe_pager_config config;
		struct moe_pager *p;
		struct device d;
		int rc;

		device_open(&d, 0);
		config = config_of(&d, way, 0.2, 2);
		p = pager_of(c, &config);
		go_through(p, c, &config);
		folder_cut(&f);
		rc = bring_page(p, &config, 1, 1, 0, &e);
		if (config.pinned && !config.from_disk) { /* it was read when it was opened */
			assert_int_equal(rc, 0);
			rc = moe_pager_open(&c->model, c->tensors, &config, &p, &e);
			moe_pager_close(p);
		} else {
			moe_pager_close(p);
			assert_int_equal(moe_pager_open(&c->model, c->tensors, &config, &p, NULL), MOE_E_IO);
		}
		assert_int_equal(rc, MOE_E_IO);
		assert_non_null(strstr(e.msg, "model.safetensors"));
		device_close(&d);
		moe_checkpoint_close(c);
		folder_remove(&f);
	}
}

static void nonsense_is_refused(void **state)
{
	static const double wrong[] = {-0.1, 1.01, NAN, INFINITY};
	struct moe_checkpoint *c = synth(specs[0]);
	struct moe_err e = MOE_ERR_INIT;
	struct moe_pager_sizes z;
	struct moe_pager *p;
	struct device d;

	(void)state;
	device_open(&d, 0);
	for (size_t i = 0; i < COUNT(wrong); i++) {
		struct moe_pager_config config = config_of(&d, 0, wrong[i], 1);

		assert_int_equal(moe_pager_plan(&c->model, c->tensors, &config, &z, &e), MOE_E_RANGE);
		assert_int_equal(moe_pager_open(&c->model, c->tensors, &config, &p, &e), MOE_E_RANGE);
	}
	for (size_t way = 0; way < COUNT(ways); way++) {
		struct moe_pager_config config = config_of(&d, way, 0.5, 0);

		assert_int_equal(moe_pager_plan(&c->model, c->tensors, &config, &z, &e), MOE_E_RANGE);
		config.pages = 2;
		p = pager_of(c, &config);
		assert_int_equal(moe_pager_read(p, 0, 0, &e), config.from_disk ? 0 : MOE_E_RANGE);
		assert_int_equal(moe_pager_pin(p, 0, 0, &e), config.pinned ? MOE_E_RANGE : 0);
		assert_int_equal(moe_pager_load(p, NULL, 0, 0, 2, &e), MOE_E_RANGE);
		assert_int_equal(moe_pager_load(p, NULL, -1, 0, 0, &e), MOE_E_RANGE);
		assert_int_equal(moe_pager_load(p, NULL, c->model.n_layers, 0, 0, &e), MOE_E_RANGE);
		assert_int_equal(moe_pager_load(p, NULL, 0, 2, 0, &e), MOE_E_RANGE);
		moe_pager_close(p);
	}
	device_close(&d);
	moe_checkpoint_close(c);
}

/* The same tensors, but those of r64 said to be plain. */
static struct moe_tensors *said_plain(const struct moe_checkpoint *c)
{
	struct moe_err e = MOE_ERR_INIT;
	struct moe_tensors *s;

	must(moe_tensors_new(&s, &e), &e);
	for (size_t i = 0; i < moe_tensors_count(c->tensors); i++) {
		struct moe_tensor t = *moe_tensors_at(c->tensors, i);
		struct moe_tensor_id id;
		struct moe_matrix m;
		char name[256];

		snprintf(name, sizeof name, "%s", t.name);
		if (strlen(name) > 4 && strcmp(name + strlen(name) - 4, ".r64") == 0) {
			assert_true(moe_tensor_identify(&c->model, t.name, &id));
			must(moe_tensor_matrix(&c->model, id, &t, &m, &e), &e);
			name[strlen(name) - 4] = 0;
			t.name = name;
			moe_coded_entry(m.quant, MOE_L_PLAIN, m.rows, m.cols, t.shape);
			t.bytes = (size_t)(t.shape[0] * t.shape[1]);
		}
		must(moe_tensors_add(s, &t, &e), &e);
	}
	return s;
}

static void layout_that_no_kernel_reads_is_refused(void **state)
{
	struct moe_checkpoint *c = synth("tiny-mixtral,quant=q4");
	struct moe_tensors *plain = said_plain(c);
	struct moe_pager_config config = {.pages = 1};
	struct moe_err e = MOE_ERR_INIT;
	struct moe_pager_sizes z;

	(void)state;
	assert_int_equal(moe_pager_plan(&c->model, plain, &config, &z, &e), MOE_E_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "layer 0, expert 0"));
	assert_non_null(strstr(e.msg, "r64"));
	moe_tensors_free(plain);
	moe_checkpoint_close(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_expert_arrives),
		cmocka_unit_test(plan_is_what_is_taken),
		cmocka_unit_test(residents_are_spread_evenly),
		cmocka_unit_test(pages_are_equal_pieces),
		cmocka_unit_test(all_resident_moves_nothing),
		cmocka_unit_test(plan_without_tensors_is_the_same),
		cmocka_unit_test(largest_share_that_fits_is_found),
		cmocka_unit_test(device_too_small_is_refused_with_numbers),
		cmocka_unit_test(failures_leave_nothing_taken),
		cmocka_unit_test(stations_work_at_once),
		cmocka_unit_test(cut_file_is_named),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(layout_that_no_kernel_reads_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("pool_pager", tests, NULL, NULL);
}
