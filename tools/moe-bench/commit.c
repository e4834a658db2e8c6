#include "bench.h"

#ifndef MOE_COMMIT
#define MOE_COMMIT ""
#endif

const char *bench_commit(void)
{
	return MOE_COMMIT;
}
