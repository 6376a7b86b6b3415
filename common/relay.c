#include "relay.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "wait.h"

/*
 * A direction reads what is waiting, turns it into as many packets (or out of as many) as that
 * makes, and writes the result; it reads no more until all of that is written, which is the flow
 * control. Its buffers are address space: only what is used of them becomes memory. How much is
 * read at once starts small and grows while reads come back full.
 */
#define BATCH_FIRST 16 /* packets */
#define BATCH_MOST 256
#define PLAIN_SIZE (BATCH_MOST * PACKET_DATA)
#define WIRE_SIZE (BATCH_MOST * PACKET_SIZE)
#define MEMORY_KEPT (5 * SECOND) /* of silence, before the memory of large batches is given back */

#define SPIN_TRIES 20             /* looks before sleeping, when the last wait was short */
#define SPIN_WORTH (SECOND / 10000)

struct direction {
	struct side *from, *to;
	struct packet_state *packets;
	bool sealing;
	uint8_t *in, *out;
	size_t in_size;            /* bytes in `in`: less than a packet, but while being turned */
	size_t out_start, out_end; /* bytes in `out` yet to be written */
	size_t batch;              /* packets to read at once */
	bool readable;             /* poll said so */
	bool ended;                /* the source has no more */
	bool done;                 /* and the sink has been told */
	bool gone;                 /* nobody reads what the sink gets */
	uint64_t *count;           /* plaintext bytes */
};

static int lost(const struct side *side, int error, struct outcome *outcome)
{
	return fail(outcome, EX_IOERR, "the %s was lost: %s", side->name, strerror(error));
}

/* Write what is in hand, as far as the sink takes it. */
static int drain(struct direction *d, struct outcome *outcome)
{
	ssize_t moved;

	while (d->out_start < d->out_end) {
		moved = side_write(d->to, d->out + d->out_start, d->out_end - d->out_start);
		if (moved == -1)
			return errno == EAGAIN || errno == EINTR ? 0 :
			    lost(d->to, errno, outcome);
		d->out_start += (size_t)moved;
	}
	d->out_start = d->out_end = 0;
	return 0;
}

/* Turn what has been read: seal all of it, or open the whole packets. */
static int turn(struct direction *d, struct outcome *outcome)
{
	size_t whole = d->sealing ? d->in_size : d->in_size / PACKET_SIZE * PACKET_SIZE;
	int bad = 0;
	long made;

	if (whole == 0)
		return 0;
	if (d->sealing)
		made = packet_seal(d->packets, d->in, whole, d->out);
	else
		made = packet_open(d->packets, d->in, whole / PACKET_SIZE, d->out, &bad);
	if (bad)
		return fail(outcome, EX_PROTOCOL, "a packet from the %s failed its check: the "
		    "stream was tampered with, nothing from there on was delivered",
		    d->from->name);
	if (made < 0)
		return fail(outcome, EX_OSERR, "libcrypto failed, most likely out of memory");
	*d->count += d->sealing ? whole : (size_t)made;
	d->out_end = (size_t)made;
	d->in_size -= whole;
	memmove(d->in, d->in + whole, d->in_size);
	return 0;
}

/* Read once and turn it. Sets *active if anything came. */
static int fill(struct direction *d, bool *active, struct outcome *outcome)
{
	size_t room = d->batch * (d->sealing ? PACKET_DATA : PACKET_SIZE) - d->in_size;
	ssize_t got = side_read(d->from, d->in + d->in_size, room);

	d->readable = false;
	if (got == -1 && (errno == EAGAIN || errno == EINTR))
		return 0;
	/* A program that ended with some of its input unread: what it said stands all the same. */
	if (got == -1 && errno == ECONNRESET && d->from->in_kind == END_STREAM_UNIX)
		got = 0;
	if (got == -1)
		return lost(d->from, errno, outcome);
	*active = true;
	if (got == 0) {
		d->ended = true;
		return d->in_size == 0 ? 0 : fail(outcome, EX_PROTOCOL, "the stream from the %s "
		    "was cut inside a packet", d->from->name);
	}
	if ((size_t)got == room && d->batch < BATCH_MOST)
		d->batch *= 4;
	d->in_size += (size_t)got;
	return turn(d, outcome);
}

/* Move what can be moved in one direction. */
static int step(struct direction *d, bool stopping, bool *active, struct outcome *outcome)
{
	size_t before = d->out_end - d->out_start;

	if (d->done)
		return 0;
	if (drain(d, outcome) != 0)
		return -1;
	*active |= d->out_end - d->out_start < before;
	if (d->out_end == 0 && d->readable && !d->ended && !stopping) {
		if (fill(d, active, outcome) != 0 || drain(d, outcome) != 0)
			return -1;
	}
	if (d->out_end == 0 && d->ended) {
		side_end_output(d->to);
		d->done = true;
	}
	return 0;
}

/*
 * What poll may be asked of a descriptor: one with nothing to ask is watched for a break all the
 * same, until it has hung up, which poll would repeat for ever.
 */
struct watch {
	int fd;
	enum end_kind kind;
	bool hung_up;
};

static void ask(struct pollfd *slot, const struct watch *watch, short events)
{
	slot->fd = events == 0 && (watch->hung_up || watch->kind == END_SHARED) ? -1 : watch->fd;
	slot->events = events;
	slot->revents = 0;
}

/* A reset ends us at once, whatever else is going on. A hang-up is for read and write to tell. */
static int broken(const struct side *side, const struct pollfd *slot, struct watch *watch,
    struct outcome *outcome)
{
	int error = 0;
	socklen_t size = sizeof(error);

	if (slot->fd == -1 || (slot->revents & (POLLERR | POLLHUP)) == 0)
		return 0;
	if (watch->kind == END_STREAM_TCP &&
	    getsockopt(slot->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error != 0)
		return lost(side, error, outcome);
	watch->hung_up = true;
	return 0;
}

/*
 * Wait for one of `slots`. Where the last wait was short, request is likely to follow answer, and
 * some looks without sleeping save the price of being woken.
 */
static int wait_for(struct pollfd *slots, nfds_t count, int64_t deadline, bool *spin)
{
	int64_t before;
	int ready;

	for (int i = 0; *spin && i < SPIN_TRIES; i++) {
		ready = wait_poll(slots, count, 0);
		if (ready != 0)
			return ready;
		sched_yield();
	}
	before = time_now();
	ready = wait_poll(slots, count, deadline);
	*spin = time_now() - before < SPIN_WORTH;
	return ready;
}

/* Has the peer's machine (or for a UNIX socket, the reader) taken all we wrote? */
static bool all_taken(const struct side *side)
{
	int left = 0;

	return side->out == -1 || ioctl(side->out, SIOCOUTQ, &left) != 0 || left == 0;
}

static bool in_hand(const struct direction *d)
{
	return d->out_start < d->out_end || (!d->done && !all_taken(d->to));
}

static int ended_by_signal(int number, struct outcome *outcome)
{
	outcome->signal = number;
	return fail(outcome, EX_TEMPFAIL, "ended by signal %d (%s)", number, strsignal(number));
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* The loop of relay_run, between its buffers' birth and death. */
static int carry(const struct relay *relay, struct direction d[2], struct outcome *outcome)
{
	/* In poll's order: near in, near out, far in, far out. */
	struct side *sides[2] = { relay->near, relay->far };
	struct watch watch[4];
	struct pollfd slots[4];
	int64_t now = time_now(), moved = now, alone = 0, stop = NEVER, deadline;
	int stopping = 0;
	bool active, spin = false;

	for (int i = 0; i < 4; i++) {
		struct side *side = sides[i / 2];
		watch[i] = (struct watch){ i % 2 ? side->out : side->in,
			i % 2 ? side->out_kind : side->in_kind, false };
	}
	for (;;) {
		active = false;
		for (int i = 0; i < 2; i++)
			if (step(&d[i], stopping != 0, &active, outcome) != 0)
				return -1;
		if (d[0].done && d[1].done)
			return 0;

		now = time_now();
		if (active)
			moved = now;
		if (signal_progress) {
			signal_progress = 0;
			report_progress(relay->report);
		}
		report_status(relay->report);
		if (signal_stop && !stopping) {
			stopping = signal_stop;
			stop = now + RELAY_GRACE * SECOND;
		}
		if (stopping && (now >= stop || (!in_hand(&d[0]) && !in_hand(&d[1]))))
			return ended_by_signal(stopping, outcome);

		deadline = NEVER;
		if (stopping) /* how much of it the kernel still has can't be waited for */
			deadline = earlier(stop, now + SECOND / 100);
		if (relay->idle != 0) {
			deadline = earlier(deadline, moved + relay->idle);
			if (now >= moved + relay->idle)
				return fail(outcome, EX_TEMPFAIL, "both sides were silent for the "
				    "idle limit of %g s", (double)relay->idle / SECOND);
		}
		for (int i = 0; i < 2; i++) {
			if (!d[i].done)
				continue;
			alone = alone == 0 ? now : alone;
			/* Nobody is left to hear the other direction: give it a moment to end. */
			if (d[1 - i].gone && d[1 - i].out_end == 0) {
				deadline = earlier(deadline, alone + RELAY_GRACE * SECOND);
				if (now >= alone + RELAY_GRACE * SECOND)
					return 0;
			}
			if (relay->linger == 0)
				continue;
			deadline = earlier(deadline, (moved > alone ? moved : alone) + relay->linger);
			if (now >= (moved > alone ? moved : alone) + relay->linger)
				return fail(outcome, EX_TEMPFAIL, "one direction had ended and the "
				    "other was silent for the linger limit of %g s",
				    (double)relay->linger / SECOND);
		}
		for (int i = 0; i < 2; i++) {
			if (d[i].batch == BATCH_FIRST || d[i].in_size != 0 || d[i].out_end != 0)
				continue;
			deadline = earlier(deadline, moved + MEMORY_KEPT);
			if (now >= moved + MEMORY_KEPT) {
				madvise(d[i].in, WIRE_SIZE, MADV_DONTNEED);
				madvise(d[i].out, WIRE_SIZE, MADV_DONTNEED);
				d[i].batch = BATCH_FIRST;
			}
		}

		for (int i = 0; i < 2; i++) {
			bool reading = !d[i].ended && d[i].out_end == 0 && !stopping;
			watch[i * 2].fd = d[i].from->in;
			watch[3 - i * 2].fd = d[i].to->out;
			ask(&slots[i * 2], &watch[i * 2], reading ? POLLIN : 0);
			ask(&slots[3 - i * 2], &watch[3 - i * 2], d[i].out_end != 0 ? POLLOUT : 0);
		}
		if (wait_for(slots, 4, deadline, &spin) == -1)
			continue; /* a signal */
		for (int i = 0; i < 4; i++)
			if (broken(sides[i / 2], &slots[i], &watch[i], outcome) != 0)
				return -1;
		for (int i = 0; i < 2; i++) {
			d[i].readable |= (slots[i * 2].revents & (POLLIN | POLLHUP | POLLERR)) != 0;
			d[i].gone |= watch[3 - i * 2].hung_up;
		}
	}
}

static uint8_t *buffer(void)
{
	void *p = mmap(NULL, WIRE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int relay_run(const struct relay *relay, struct outcome *outcome)
{
	struct report *report = relay->report;
	struct direction d[2] = {
		{ .from = relay->near, .to = relay->far, .sealing = relay->near_is_plain,
		    .count = &report->bytes_in },
		{ .from = relay->far, .to = relay->near, .sealing = !relay->near_is_plain,
		    .count = &report->bytes_out },
	};
	long made = (long)relay->header_size;

	for (int i = 0; i < 2; i++) {
		d[i].packets = d[i].sealing ? relay->seal : relay->open;
		d[i].batch = BATCH_FIRST;
		d[i].in = buffer();
		d[i].out = buffer();
		if (d[i].in == NULL || d[i].out == NULL)
			return fail(outcome, EX_OSERR, "no memory for buffers: %s", strerror(errno));
	}
	if (made > 0 && d[0].sealing)
		made = packet_seal(d[0].packets, relay->header, relay->header_size, d[0].out);
	else if (made > 0)
		memcpy(d[0].out, relay->header, relay->header_size);
	if (made < 0)
		return fail(outcome, EX_OSERR, "libcrypto failed, most likely out of memory");
	d[0].out_end = (size_t)made;
	return carry(relay, d, outcome);
}
