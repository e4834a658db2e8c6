/* What time brings: servers that are late, silent, or to be tried again; PINGs; batches that waited. */
#include "base/clock.h"
#include "net/client.h"

#define PING_EVERY_NS 2000000000u
/* A server that answers no PING for so long is suspect; for so long, left alone. */
#define SILENT_NS 5000000000u
#define GONE_NS 20000000000u
/* At the latest, things are looked at again after this time. */
#define LOOK_NS 250000000u

static void due_at(struct remote *r, uint64_t then)
{
	if (then < r->due)
		r->due = then;
}

/* ---- late asks ---- */

/* Ask others for what this one was to bring; without others nothing is sent twice. */
static void ask_elsewhere(struct remote *r, struct flight *f, struct ask *a)
{
	told_hedged(r, flight_double(r, f, a));
}

/* All that it has not answered is asked of others too. */
static void suspect(struct remote *r, int link)
{
	r->links[link].pulse.suspect = true;
	for (int i = 0; i < FLIGHTS; i++) {
		struct flight *f = &r->flights[i];

		for (int a = 0; f->ticket && a < f->n_asks; a++)
			if (f->asks[a].state == ASK_WAITING && f->asks[a].link == link)
				ask_elsewhere(r, f, &f->asks[a]);
	}
}

static void tend_ask(struct remote *r, struct flight *f, struct ask *a, uint64_t now)
{
	struct link *l = &r->links[a->link];

	if (now >= a->late) {
		/* Late times are learned too, or a server that is slower from now on would be suspect for ever. */
		pulse_saw(&l->pulse, a->pairs, now - a->sent);
		a->late = now + pulse_patience(&l->pulse, a->pairs, 0);
		a->hedge = UINT64_MAX;
		suspect(r, a->link);
	} else if (now >= a->hedge) {
		a->hedge = UINT64_MAX;
		ask_elsewhere(r, f, a);
	}
	due_at(r, a->late < a->hedge ? a->late : a->hedge);
}

static void tend_flights(struct remote *r, uint64_t now)
{
	for (int i = 0; i < FLIGHTS; i++) {
		struct flight *f = &r->flights[i];

		for (int a = 0; f->ticket && a < f->n_asks; a++)
			if (f->asks[a].state == ASK_WAITING)
				tend_ask(r, f, &f->asks[a], now);
		if (f->ticket && f->again)
			due_at(r, f->again);
	}
}

void tend_sent(struct remote *r, struct ask *a)
{
	const struct link *l = &r->links[a->link];
	double ahead = l->pairs * l->pair_ns;
	uint64_t hedge = pulse_hedge(&l->pulse, a->pairs, ahead, r->hedge);

	a->sent = moe_now_ns();
	a->late = a->sent + pulse_patience(&l->pulse, a->pairs, ahead);
	a->hedge = hedge == UINT64_MAX ? hedge : a->sent + hedge;
	due_at(r, a->late < a->hedge ? a->late : a->hedge);
}

/* ---- links ---- */

/* Silence: first it is suspect, then it is left alone; what it was asked it may answer all the same. */
static void tend_silence(struct remote *r, int i, uint64_t now)
{
	struct link *l = &r->links[i];
	uint64_t silent = l->asked_since && l->asked_since < now ? now - l->asked_since : 0;

	if (silent >= SILENT_NS && !l->pulse.suspect)
		suspect(r, i);
	if (silent < GONE_NS)
		return;
	l->asked_since = now;
	pulse_pause(&l->pulse, now, &r->random);
}

static void tend_ready(struct remote *r, int i, uint64_t now)
{
	struct link *l = &r->links[i];

	if (l->pulse.open_until && now >= l->pulse.open_until) {
		link_ping(l, r->terms.identity.epoch, now); /* an answer ends it */
		pulse_pause(&l->pulse, now, &r->random);
	}
	if (now - l->pinged >= PING_EVERY_NS || l->told_epoch != r->terms.identity.epoch)
		link_ping(l, r->terms.identity.epoch, now);
	tend_silence(r, i, now);
}

/* Not ready: a HELLO that was not answered, or to be repeated. */
static void tend_joining(struct remote *r, int i, uint64_t now)
{
	struct link *l = &r->links[i];

	if (l->pulse.open_until && now >= l->pulse.open_until)
		pulse_try(&l->pulse);
	if (l->greet_again && now >= l->greet_again)
		l->greet_again = 0;
	if (l->state == LINK_GREETED && now - l->greeted >= SILENT_NS && !l->lane)
		l->state = LINK_DOWN;
}

void tend(struct remote *r)
{
	uint64_t now = moe_now_ns();

	if (now < r->due)
		return;
	r->due = now + LOOK_NS;
	for (int i = 0; i < r->n; i++) {
		struct link *l = &r->links[i];

		if (!l->socket)
			continue;
		if (l->state == LINK_READY)
			tend_ready(r, i, now);
		else
			tend_joining(r, i, now);
		if (l->pulse.open_until)
			due_at(r, l->pulse.open_until);
	}
	tend_flights(r, now);
	spares_call(r, now);
	fleet_sweep(r);
	told_gauges(r);
}

void tend_fail(struct remote *r, int i, const char *reason)
{
	told_failure(r, i, reason);
	pulse_failed(&r->links[i].pulse, moe_now_ns(), &r->random);
}
