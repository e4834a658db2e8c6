/* A race on purpose: two workers of a team add to one counter without a lock. */
#include "base/team.h"

static volatile long counter;

static void add(void *arg, size_t piece, int worker)
{
	(void)arg, (void)piece, (void)worker;
	for (int i = 0; i < 100000; i++)
		counter = counter + 1;
}

int main(void)
{
	struct moe_team *t;
	if (moe_team_new(2, &t, NULL))
		return 1;
	for (int i = 0; i < 100; i++)
		moe_team_run(t, 8, add, NULL);
	moe_team_free(t);
	return 0;
}
