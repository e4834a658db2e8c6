/* --list: everything that has a name. */
#include <stdio.h>

#include "policy.h"

static void print(const char *title, const char *const *names)
{
	printf("%s:\n", title);
	for (; *names; names++)
		printf("  %s\n", *names);
}

void print_names(void)
{
	print("models", moe_named_models());
	print("hardware (xN: so many GPUs; @HOST: in that host; /NETWORK; A+B, N*A: a fleet)", moe_hardware_names());
	print("networks", moe_network_names());
	print("workloads", moe_workload_names());
	printf("schedules:\n");
	for (int s = 0; s < MOE_SCHEDULES; s++)
		printf("  %s\n", moe_schedule_name((enum moe_schedule)s));
}
