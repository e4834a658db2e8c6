/* What usage and traces have in common: how a file says what it is of. */
#ifndef MOE_PLAN_USAGE_H
#define MOE_PLAN_USAGE_H

#include "plan/plan.h"

void moe_usage_label(const char *name, const char *fingerprint, char model[32], char hash[40]);
/* The members schema, format, model and fingerprint of an object. */
int moe_usage_read_head(const struct moe_json *j, const char *format, int newest, char model[32], char hash[40], struct moe_err *e);
int moe_usage_same_model(const char *name, const struct moe_model *m, struct moe_err *e);

#endif
