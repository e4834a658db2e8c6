/* The tree behind json.h, seen by its builder (json.c) and its readers (json_read.c). */
#ifndef MOE_BASE_JSON_DOC_H
#define MOE_BASE_JSON_DOC_H

#include "base/json.h"

/* Objects with more members than this have a hash table; in smaller ones comparing is as fast. */
#define MOE_JSON_SMALL 8

struct moe_json {
	uint8_t type;  /* enum moe_json_type */
	uint32_t count; /* children of arrays and objects */
	const char *name; /* in an object, else NULL */
	union {
		double num; /* numbers; 0 or 1 for booleans */
		const char *str;
		struct moe_json *kids; /* side by side, in the order of the text */
	};
	union {
		const char *literal; /* of a number too long to be sure that num tells all of it; else NULL */
		uint32_t *slots;     /* of a larger object: child + 1 by hash, 0 free; moe_json_slots(count) of them */
	};
};

/* Slots for an object of `count` members: a power of two, at most half used; 0 when it needs none. */
size_t moe_json_slots(size_t count);
/* The child of that name among the first `count`; in larger objects *slot is where its number is or belongs. */
const struct moe_json *moe_json_find(const struct moe_json *o, size_t count, const char *name, uint32_t **slot);

#endif
