/* Quantities as people write them: "15GiB", "10Gb/s", "0.8e12", "5us". */
#include <math.h>
#include <string.h>

#include "base/opts.h"
#include "plan/hardware.h"

struct scale {
	const char *text;
	double factor;
};

/* Letters between a number and its unit. */
static double prefix(const char **s)
{
	static const struct scale scales[] = {
		{"Ki", 1024.0}, {"Mi", 1048576.0}, {"Gi", 1073741824.0}, {"Ti", 1099511627776.0},
		{"K", 1e3}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"P", 1e15},
	};

	for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++)
		if (strncmp(*s, scales[i].text, strlen(scales[i].text)) == 0) {
			*s += strlen(scales[i].text);
			return scales[i].factor;
		}
	return 1;
}

/* The factor of exactly that word; 0: it is none of them. */
static double whole(const char *s, const struct scale *units)
{
	for (; units->text; units++)
		if (strcmp(s, units->text) == 0)
			return units->factor;
	return 0;
}

static double unit_factor(const char *s, enum moe_unit unit)
{
	static const struct scale bytes[] = {{"", 1}, {"B", 1}, {NULL, 0}};
	static const struct scale rates[] = {{"", 1}, {"B", 1}, {"B/s", 1}, {"b/s", 0.125}, {"bit/s", 0.125}, {NULL, 0}};
	static const struct scale flops[] = {{"", 1}, {"FLOP/s", 1}, {"FLOPS", 1}, {"OP/s", 1}, {NULL, 0}};
	static const struct scale seconds[] = {{"", 1}, {"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}, {NULL, 0}};
	double scale = 1;

	switch (unit) {
	case MOE_UNIT_BYTES:
		scale = prefix(&s);
		return scale * whole(s, bytes);
	case MOE_UNIT_BYTES_PER_SECOND:
		scale = prefix(&s);
		return scale * whole(s, rates);
	case MOE_UNIT_FLOPS:
		scale = prefix(&s);
		return scale * whole(s, flops);
	case MOE_UNIT_SECONDS:
		return whole(s, seconds);
	default:
		return *s ? 0 : 1;
	}
}

bool moe_quantity_parse(const char *text, enum moe_unit unit, double *out)
{
	char digits[64];
	size_t n = strspn(text, "0123456789.+-eE");
	double v, factor;

	if (unit == MOE_UNIT_SWITCH) {
		if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
			return false;
		*out = text[0] == 't';
		return true;
	}
	if (n == 0 || n >= sizeof digits)
		return false;
	memcpy(digits, text, n);
	digits[n] = 0;
	text += n;
	factor = unit_factor(text + (*text == ' '), unit);
	if (!moe_parse_num(digits, &v) || !(factor > 0) || !(v * factor > 0) || !isfinite(v * factor))
		return false;
	if (unit == MOE_UNIT_COUNT && v != floor(v))
		return false;
	*out = v * factor;
	return true;
}

const char *moe_unit_example(enum moe_unit unit)
{
	static const char *const words[] = {
		[MOE_UNIT_COUNT] = "a whole number such as 4", [MOE_UNIT_BYTES] = "bytes such as 15GiB",
		[MOE_UNIT_BYTES_PER_SECOND] = "bytes or bits a second such as 16GiB/s or 10Gb/s",
		[MOE_UNIT_FLOPS] = "operations a second such as 65TFLOP/s", [MOE_UNIT_SECONDS] = "a time such as 10us",
		[MOE_UNIT_SWITCH] = "true or false",
	};

	return words[unit];
}
