#include "net/net.h"

const char *moe_ask_outcome_name(enum moe_ask_outcome o)
{
	switch (o) {
	case MOE_ASK_ANSWERED:
		return "answered";
	case MOE_ASK_LATE:
		return "late";
	case MOE_ASK_REFUSED:
		return "refused";
	case MOE_ASK_LOST:
		return "lost";
	}
	return "unknown";
}
