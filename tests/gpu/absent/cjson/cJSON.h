/* In place of cJSON: a parser of texts that lib/base/json_scan.c has found to be JSON already.  \u of ASCII only.  See ../README. */
#ifndef ABSENT_CJSON_H
#define ABSENT_CJSON_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { cJSON_NULL = 0, cJSON_False = 1, cJSON_True = 2, cJSON_Number = 8, cJSON_String = 16, cJSON_Array = 32, cJSON_Object = 64 };
typedef struct cJSON {
	struct cJSON *next, *child;
	int type;
	char *valuestring, *string;
	double valuedouble;
} cJSON;

static inline void cJSON_Delete(cJSON *c)
{
	while (c) {
		cJSON *next = c->next;

		cJSON_Delete(c->child);
		free(c->valuestring);
		free(c->string);
		free(c);
		c = next;
	}
}

static inline void absent_space(const char **p)
{
	*p += strspn(*p, " \t\r\n");
}

static inline char *absent_string(const char **p)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	char *s = malloc(strlen(*p) + 1), *at = s;

	for (++*p; s && **p != '"'; ++*p) {
		if (**p != '\\')
			*at++ = **p;
		else if (*++*p == 'u') {
			char hex[5] = {0};

			memcpy(hex, *p + 1, 4);
			*at++ = (char)strtol(hex, NULL, 16);
			*p += 4;
		} else
			*at++ = to[strchr(from, **p) - from];
	}
	++*p;
	if (s)
		*at = 0;
	return s;
}

static inline cJSON *absent_value(const char **p);

/* The members between two brackets. */
static inline cJSON *absent_members(const char **p, char end)
{
	cJSON *first = NULL, **at = &first;

	for (++*p, absent_space(p); **p != end; absent_space(p)) {
		char *name = NULL;

		if (end == '}') {
			name = absent_string(p);
			absent_space(p);
			++*p;
		}
		*at = absent_value(p);
		(*at)->string = name;
		at = &(*at)->next;
		absent_space(p);
		if (**p == ',')
			++*p;
	}
	++*p;
	return first;
}

static inline cJSON *absent_value(const char **p)
{
	cJSON *c = calloc(1, sizeof *c);

	if (!c)
		abort();
	absent_space(p);
	if (**p == '{' || **p == '[') {
		c->type = **p == '{' ? cJSON_Object : cJSON_Array;
		c->child = absent_members(p, **p == '{' ? '}' : ']');
	} else if (**p == '"') {
		c->type = cJSON_String;
		c->valuestring = absent_string(p);
	} else if (strchr("tfn", **p)) {
		c->type = **p == 't' ? cJSON_True : **p == 'f' ? cJSON_False : cJSON_NULL;
		*p += **p == 'f' ? 5 : 4;
	} else {
		char *end;

		c->type = cJSON_Number;
		c->valuedouble = strtod(*p, &end);
		*p = end;
	}
	return c;
}

static inline cJSON *cJSON_ParseWithLength(const char *text, size_t n)
{
	char *whole = malloc(n + 1);
	const char *p = whole;
	cJSON *c = NULL;

	if (whole) {
		memcpy(whole, text, n);
		whole[n] = 0;
		c = absent_value(&p);
	}
	free(whole);
	return c;
}

#endif
