/* JSON Lines: requests from stdin, an answer a line on stdout, in input order unless asked otherwise. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "client.h"
#include "input.h"
#include "metrics.h"
#include "request.h"
#include "timeline.h"

/* One request on its way.  Lives from its line's arrival until its answer is printed. */
struct job {
	struct route_client client;
	struct lines *lines;
	struct job *next;
	struct request q;
	struct moe_text_out *text;
	struct answer answer;
	uint64_t engine_id;          /* 0: never submitted */
	char *line;                  /* the answer; NULL: not finished */
	size_t line_len;
};

struct lines {
	struct route *r;
	const struct route_options *o;
	struct input in;
	struct job *first, **last;   /* in input order */
	int jobs, limit;
	uint64_t failed;
	bool out_of_memory;
	enum moe_pressure pressure;
};

static void job_free(struct job *j)
{
	request_free(&j->q);
	answer_free(&j->answer);
	moe_text_out_free(j->text);
	free(j->line);
	free(j);
}

static void finish(struct job *j, char *line)
{
	j->line = line;
	if (!line)
		j->lines->out_of_memory = true;
}

static void finish_error(struct job *j, const struct moe_err *err)
{
	j->lines->failed++;
	finish(j, answer_error_line(j->q.id, err, &j->line_len));
}

static void finish_done(struct job *j, const struct moe_event *ev)
{
	struct moe_event done = *ev;
	bool stopped = false;
	if (j->text && moe_text_out_end(j->text, &j->answer.text, &stopped, NULL))
		j->lines->out_of_memory = true;
	/* The last bytes can complete a stop string after the last token was counted. */
	if (stopped && done.finish == MOE_FINISH_LENGTH)
		done.finish = MOE_FINISH_STOP;
	if (ev->finish == MOE_FINISH_ERROR)
		j->lines->failed++;
	if (j->q.score && ev->finish == MOE_FINISH_ERROR)
		finish(j, answer_error_line(j->q.id, ev->err, &j->line_len));
	else if (j->q.score)
		finish(j, answer_score_line(&j->answer, j->q.id, ev->degraded, &j->line_len));
	else
		finish(j, answer_line(&j->answer, j->q.id, j->q.logprobs, j->text != NULL, &done, &j->line_len));
}

static int on_event(struct route_client *client, const struct moe_event *ev)
{
	struct job *j = (struct job *)client;
	if (ev->kind == MOE_EV_DONE) {
		finish_done(j, ev);
		return 0;
	}
	bool stopped = false;
	if (answer_add(&j->answer, ev->token, ev->logprob, NULL) ||
	    (ev->kind == MOE_EV_TOKEN && j->text && moe_text_out_push(j->text, ev->token, &j->answer.text, &stopped, NULL)))
		j->lines->out_of_memory = true;
	return stopped;
}

/* Does memory get short, or is there enough again?  What is done about it is the engine's. */
static void watch_memory(struct lines *l)
{
	double share;
	enum moe_pressure now = moe_run_press(l->r->run, &share);

	if (now == l->pressure)
		return;
	if (now == MOE_PRESSURE_NONE)
		moe_log(MOE_INFO, "memory: %.0f %% in use, enough again", 100 * share);
	else
		moe_log(MOE_WARN, "memory: %.0f %% in use; no prompts are kept, %s", 100 * share,
		        now == MOE_PRESSURE_HIGH ? "and requests wait while others run" : "and new requests are refused");
	l->pressure = now;
}

static int submit(struct job *j, struct moe_err *e)
{
	struct route *r = j->lines->r;
	struct request *q = &j->q;
	struct moe_request m = {
		.tokens = q->tokens.v, .n_tokens = (int)q->tokens.n, .max_tokens = q->max_tokens, .sampling = q->sampling,
		.ignore_eos = q->ignore_eos, .score = q->score, .timeout = q->timeout, .priority = q->priority, .user = j,
	};
	if (q->tokens.n > INT32_MAX)
		return moe_fail(e, MOE_E_RANGE, "%zu tokens are too many", q->tokens.n);
	watch_memory(j->lines); /* there may have been nothing to do for long */
	int rc = 0;
	if (r->text && !q->score)
		rc = moe_text_out_new(r->text, (const char *const *)q->stop, q->n_stop, &j->text, e);
	rc = rc ? rc : moe_engine_submit(r->run->engine, &m, &j->engine_id, e);
	if (!rc)
		timeline_submitted(r->timeline, r->run->engine, j->engine_id, q->id);
	return rc;
}

/* A line becomes a job: under way, or finished at once with its error. */
static int take_line(struct lines *l, const char *line, size_t len, bool too_long, struct moe_err *e)
{
	struct job *j = moe_calloc(1, sizeof *j, "a request", e);
	struct moe_err err = MOE_ERR_INIT;
	if (!j)
		return MOE_E_NOMEM;
	j->client.on_event = on_event;
	j->lines = l;
	*l->last = j;
	l->last = &j->next;
	l->jobs++;
	int rc = request_parse(l->r, too_long ? "" : line, too_long ? 0 : len, l->in.number, &j->q, &err);
	if (too_long)
		rc = moe_fail(&err, MOE_E_INPUT, "line %llu: longer than %u MiB", (unsigned long long)l->in.number, INPUT_LINE_MAX >> 20);
	if (!j->q.id)
		return moe_fail(e, MOE_E_NOMEM, "no memory for a request");
	if (!rc && (rc = submit(j, &err)))
		moe_fail_prefix(&err, rc, "line %llu", (unsigned long long)l->in.number);
	if (rc) {
		metrics_refused(l->r->metrics, &err);
		finish_error(j, &err);
	}
	/* The engine has its own copy, and an answer may wait long for its turn. */
	moe_ids_free(&j->q.tokens);
	return 0;
}

static bool is_blank(const char *s, size_t n)
{
	return strspn(s, " \t\r") >= n;
}

/* Read what is there while there is room; with nothing under way, wait for it.  *end: no more will come. */
static int read_lines(struct lines *l, bool busy, bool *end, struct moe_err *e)
{
	while (!*end && !route_stop && l->jobs < l->limit) {
		const char *line;
		size_t len;
		switch (input_next(&l->in, !busy && !l->jobs, &line, &len, e)) {
		case INPUT_LINE:
			if (len && !is_blank(line, len) && take_line(l, line, len, false, e))
				return e->code;
			break;
		case INPUT_TOO_LONG:
			if (take_line(l, "", 0, true, e))
				return e->code;
			break;
		case INPUT_END:
			*end = true;
			break;
		case INPUT_NONE:
			return 0;
		case INPUT_FAILED:
			return e->code;
		}
	}
	return 0;
}

/* Print the answers that are next, and forget their jobs. */
static int write_answers(struct lines *l, struct moe_err *e)
{
	for (struct job **at = &l->first; *at;) {
		struct job *j = *at;
		if (!j->line && !l->o->unordered)
			break;
		if (!j->line) {
			at = &j->next;
			continue;
		}
		int rc = route_put(j->line, j->line_len, e);
		if (rc)
			return rc;
		if (!(*at = j->next))
			l->last = at;
		l->jobs--;
		job_free(j);
	}
	return 0;
}

static void cancel_all(struct lines *l)
{
	for (struct job *j = l->first; j; j = j->next)
		if (!j->line && j->engine_id)
			moe_engine_cancel(l->r->run->engine, j->engine_id);
}

/* Nothing can go on: what is under way ends with the same error, a line each. */
static int fail_all(struct lines *l, const struct moe_err *why)
{
	for (struct job *j = l->first; j; j = j->next)
		if (!j->line)
			finish_error(j, why);
	if (!l->out_of_memory)
		write_answers(l, NULL);
	return why->code;
}

static int run(struct lines *l, struct moe_err *e)
{
	bool busy = false, end = false, cancelled = false;
	while (true) {
		watch_memory(l);
		int rc = read_lines(l, busy, &end, e);
		if (rc)
			return rc;
		route_look(l->r);
		if (route_stop == 2 && !cancelled) {
			cancel_all(l);
			cancelled = true;
		}
		if (route_step(l->r, &busy, e))
			return fail_all(l, e);
		if ((rc = write_answers(l, e)))
			return rc;
		if (l->out_of_memory)
			return moe_fail(e, MOE_E_NOMEM, "no memory for an answer");
		if ((end || route_stop) && !l->jobs)
			return 0;
	}
}

int route_lines(struct route *r, const struct route_options *o, uint64_t *failed, struct moe_err *e)
{
	struct lines l = {.r = r, .o = o, .in = {.fd = STDIN_FILENO, .stop = &route_stop}, .limit = 4 * r->run->batch + 64};
	/* Who refuses must read on; answers that wait for their turn are bounded all the same. */
	if (o->max_waiting > 0)
		l.limit += 4 * (int)o->max_waiting;
	l.last = &l.first;
	int rc = run(&l, e);
	*failed = l.failed;
	while (l.first) {
		struct job *next = l.first->next;
		job_free(l.first);
		l.first = next;
	}
	moe_buf_free(&l.in.buf);
	return rc;
}
