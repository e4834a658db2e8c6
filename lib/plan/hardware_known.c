/* Machines that have a name.
 *
 * GPUs: rates of dense matrix units with f32 sums, from the makers' datasheets; sizes are what the driver shows.  t4 and l4
 * have the constants of MoE-Lightning's published artifact instead (fastmoe/backend/optimizer.py), so that its policies can
 * be computed again; its GB are GiB.  A link is one direction of PCIe x16 as copies from pinned memory reach it, 4/5 of the
 * line rate: 12.6e9 (3.0), 25e9 (4.0), 50e9 (5.0).
 *
 * Hosts: memory at 4/5 of what the channels promise; arithmetic as cores x operations a clock x the clock that all cores
 * hold with wide vectors, without matrix extensions, which our kernels do not use.  Networks: the line rate, and the time
 * of a small message. */
#include <string.h>

#include "plan/hardware.h"

#define GiB 1073741824.0
#define TB 1e12

static const struct moe_known_gpu gpus[] = {
	/* name, host, memory, bandwidth, {f32, f16, bf16, i8}, link */
	/* artifact: 15 GiB, 300 GiB/s, f16 65e12, link 16 GiB/s; f32 and i8 from NVIDIA's T4 datasheet (2019). No bf16. */
	{"t4", "n1", 15 * GiB, 300 * GiB, {8.1e12, 65e12, 0, 130e12}, 16 * GiB},
	/* artifact: 24 GiB, 285 GiB/s, f16 104e12, link 16 GiB/s; NVIDIA's L4 datasheet (2023) has 121e12, i8 242e12. */
	{"l4", "g2", 24 * GiB, 285 * GiB, {30.3e12, 104e12, 104e12, 242e12}, 16 * GiB},
	/* NVIDIA A10 datasheet (2021). */
	{"a10", "xeon-1s", 22.5 * GiB, 600e9, {31.2e12, 125e12, 125e12, 250e12}, 25e9},
	/* NVIDIA A100 datasheet (2021): 40GB, and 80GB SXM. */
	{"a100-40", "epyc-1s", 40 * GiB, 1.555 * TB, {19.5e12, 312e12, 312e12, 624e12}, 25e9},
	{"a100-80", "epyc-1s", 80 * GiB, 2.039 * TB, {19.5e12, 312e12, 312e12, 624e12}, 25e9},
	/* NVIDIA H100 SXM datasheet (2023): half of the rates it gives, which are with sparsity. */
	{"h100", "xeon-2s", 79.6 * GiB, 3.35 * TB, {67e12, 989e12, 989e12, 1979e12}, 50e9},
	/* NVIDIA H200 SXM datasheet (2024), halved likewise. */
	{"h200", "xeon-2s", 139 * GiB, 4.8 * TB, {67e12, 989e12, 989e12, 1979e12}, 50e9},
	/* NVIDIA GA102 whitepaper (2021), GeForce RTX 3090: f16 with f32 sums. */
	{"rtx3090", "desktop-ddr4", 24 * GiB, 936e9, {35.6e12, 71e12, 71e12, 284e12}, 25e9},
	/* NVIDIA Ada whitepaper (2022), GeForce RTX 4090. */
	{"rtx4090", "desktop-ddr5", 24 * GiB, 1008e9, {82.6e12, 165.2e12, 165.2e12, 660.6e12}, 25e9},
	/* NVIDIA RTX Blackwell whitepaper (2025), GeForce RTX 5090. */
	{"rtx5090", "desktop-ddr5", 32 * GiB, 1792e9, {104.8e12, 209.5e12, 209.5e12, 838e12}, 50e9},
};

static const struct moe_known_host hosts[] = {
	/* name, network, memory, bandwidth, {f32, f16, bf16, i8}, disk, its bandwidth */
	/* The artifact's hosts: 24 cores and 192 GB; 0.8e12 (T4's, Google's n1) and 1.6e12 (L4's, g2), 100 GiB/s. */
	{"n1", "10g", 192 * GiB, 100 * GiB, {0.8e12, 0, 0, 0}, 1 * TB, 1.2e9},
	{"g2", "10g", 192 * GiB, 100 * GiB, {1.6e12, 0, 0, 0}, 1 * TB, 1.2e9},
	/* Xeon Platinum 8480+ (Intel, 2023): 56 cores x 64 f32 at 2.6 GHz, 8 channels of DDR5-4800; VNNI and AVX512-BF16. */
	{"xeon-1s", "25g", 256 * GiB, 245e9, {9.3e12, 0, 18.6e12, 37e12}, 4 * TB, 6e9},
	{"xeon-2s", "100g", 512 * GiB, 490e9, {18.6e12, 0, 37e12, 74e12}, 8 * TB, 12e9},
	/* EPYC 9654 (AMD, 2022): 96 cores x 32 f32 at 3.1 GHz, 12 channels of DDR5-4800. */
	{"epyc-1s", "25g", 384 * GiB, 368e9, {9.5e12, 0, 19e12, 38e12}, 4 * TB, 6e9},
	{"epyc-2s", "100g", 768 * GiB, 736e9, {19e12, 0, 38e12, 76e12}, 8 * TB, 12e9},
	/* Ryzen 7 5800X (AMD, 2020): 8 cores x 32 f32 at 4.2 GHz, 2 channels of DDR4-3200; no VNNI: i8 by pairs. */
	{"desktop-ddr4", "1g", 64 * GiB, 41e9, {1.07e12, 0, 0, 2.1e12}, 1 * TB, 3e9},
	/* Ryzen 9 7950X (AMD, 2022): 16 cores x 32 f32 at 4.8 GHz, 2 channels of DDR5-5200. */
	{"desktop-ddr5", "1g", 128 * GiB, 66e9, {2.46e12, 0, 4.9e12, 9.8e12}, 2 * TB, 6e9},
};

static const struct moe_known_network networks[] = {
	{"1g", 1e9 / 8, 5e-5},   {"10g", 10e9 / 8, 5e-5},    {"25g", 25e9 / 8, 3e-5},
	{"100g", 100e9 / 8, 1e-5}, {"400g", 400e9 / 8, 5e-6},
};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

#define FIND(type, table) \
	const struct type *type(const char *name) \
	{ \
		for (size_t i = 0; i < COUNT(table); i++) \
			if (strcmp(table[i].name, name) == 0) \
				return &table[i]; \
		return NULL; \
	}
FIND(moe_known_gpu, gpus)
FIND(moe_known_host, hosts)
FIND(moe_known_network, networks)

const char *const *moe_hardware_names(void)
{
	static const char *const names[] = {
		"t4", "l4", "a10", "a100-40", "a100-80", "h100", "h200", "rtx3090", "rtx4090", "rtx5090",
		"n1", "g2", "xeon-1s", "xeon-2s", "epyc-1s", "epyc-2s", "desktop-ddr4", "desktop-ddr5", NULL,
	};

	_Static_assert(COUNT(names) == COUNT(gpus) + COUNT(hosts) + 1, "a name for each");
	return names;
}

const char *const *moe_network_names(void)
{
	static const char *const names[] = {"1g", "10g", "25g", "100g", "400g", NULL};

	_Static_assert(COUNT(names) == COUNT(networks) + 1, "a name for each");
	return names;
}
