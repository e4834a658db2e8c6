#include "net/spin.h"

#include "base/clock.h"

#define LUCK 8                   /* so many more misses than hits end the habit */
#define TRY_AGAIN 32             /* and this often it is tried all the same */

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

void spin_start(struct spin *s, int microseconds)
{
	*s = (struct spin){.ns = microseconds > 0 ? (uint64_t)microseconds * 1000 : 0, .luck = LUCK};
}

bool spin_until(struct spin *s, bool (*ready)(const void *arg), const void *arg)
{
	uint64_t start;

	if (ready(arg))
		return true;
	if (!s->ns || (!s->luck && ++s->times % TRY_AGAIN))
		return false;
	start = moe_now_ns();
	do {
		for (int i = 0; i < 16; i++) {
			pause_cpu();
			if (ready(arg)) {
				s->luck += s->luck < LUCK;
				return true;
			}
		}
	} while (moe_now_ns() - start < s->ns);
	if (s->luck)
		s->luck--;
	return false;
}
