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
#define BATCH_MOST 256 /* BATCH_FIRST times a power of the step, 4 */
#define WIRE_SIZE (BATCH_MOST * PACKET_SIZE)
#define MEMORY_KEPT (5 * SECOND) /* of silence, before the memory of large batches is given back */

#define LOOK_AGAIN (SECOND / 100) /* poll can't tell when the kernel has passed all of it on */
#define SPIN_TRIES 20             /* looks before sleeping, when the last two waits were short */
#define SPIN_WORTH (SECOND / 10000)

struct direction {
	struct side *from, *to;
	struct packet_state *packets;
	bool sealing;
	uint8_t *in, *out;         /* one behind the other, WIRE_SIZE each */
	size_t in_size;            /* bytes in `in`: less than a packet, but while being turned */
	size_t out_start, out_end; /* bytes in `out` yet to be written */
	size_t batch;              /* packets to read at once */
	bool active;               /* something has moved since this was cleared */
	bool readable;             /* poll said so */
	bool ended;                /* the source has no more */
	bool done;                 /* and the sink has been told */
	struct launcher *writer;   /* whose output the source is, or NULL */
	struct launcher *reader;   /* whose input, in plaintext, the sink is, or NULL */
	uint64_t *count;           /* plaintext bytes */
	bool *unread;              /* the command ended without reading all that it was sent */
};

static int lost(const struct side *side, int error, struct outcome *outcome)
{
	return fail(outcome, EX_IOERR, "the %s was lost: %s", side->name, strerror(error));
}

/* Is the other end of a UNIX socket closed altogether? */
static bool is_closed(int fd)
{
	struct pollfd slot = { .fd = fd };

	return poll(&slot, 1, 0) == 1 && (slot.revents & POLLHUP) != 0;
}

/* Write what is in hand, as far as the sink takes it. */
static int drain(struct direction *d, struct outcome *outcome)
{
	ssize_t moved;

	while (d->out_start < d->out_end) {
		moved = side_write(d->to, d->out + d->out_start, d->out_end - d->out_start);
		if (moved == -1 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (moved == -1) {
			int error = errno;

			if (d->reader == NULL || !is_closed(d->to->out.fd))
				return lost(d->to, error, outcome);
			/* A command that has gone: what it said stands. */
			d->active = *d->unread = d->ended = true;
			break;
		}
		d->active = true;
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
	if (made < 0)
		return fail(outcome, EX_OSERR, "libcrypto failed, most likely out of memory");
	if (!d->sealing)
		*d->count += (size_t)made;
	d->out_end = (size_t)made;
	if (bad) {
		drain(d, outcome); /* what came before it was sound */
		return fail(outcome, EX_PROTOCOL,
		    "a packet from the %s failed its check: the "
		    "stream was tampered with, nothing from there on was delivered",
		    d->from->name);
	}
	d->in_size -= whole;
	memmove(d->in, d->in + whole, d->in_size);
	return 0;
}

/* Read once and turn it. */
static int fill(struct direction *d, struct outcome *outcome)
{
	size_t room = d->batch * (d->sealing ? PACKET_DATA : PACKET_SIZE) - d->in_size;
	ssize_t got = side_read(d->from, d->in + d->in_size, room);

	d->readable = false;
	if (got == -1 && (errno == EAGAIN || errno == EINTR))
		return 0;
	/* A command that has gone: what it said stands all the same. Not where it is the wire. */
	if (got == -1 && errno == ECONNRESET && d->writer != NULL && d->sealing) {
		*d->unread = true;
		got = 0;
	}
	if (got == -1)
		return lost(d->from, errno, outcome);
	d->active = true;
	if (got == 0) {
		d->ended = true;
		return d->in_size == 0 ? 0
				       : fail(outcome, EX_PROTOCOL,
					     "the stream from the %s "
					     "was cut inside a packet",
					     d->from->name);
	}
	if ((size_t)got == room && d->batch < BATCH_MOST)
		d->batch *= 4;
	d->in_size += (size_t)got;
	if (d->sealing)
		*d->count += (size_t)got;
	return turn(d, outcome);
}

/* Has the peer's machine (or for a UNIX socket, the reader) taken all we wrote? */
static bool all_taken(const struct side *side)
{
	int left = 0;

	return side->out.fd == -1 || ioctl(side->out.fd, SIOCOUTQ, &left) != 0 || left == 0;
}

/*
 * Before a reset that follows good data: wait until the data has been taken, but not for ever, and
 * a moment for it to be read. Programs look at the reset first.
 */
static void settle(const struct side *side)
{
	int64_t deadline = time_now() + RELAY_GRACE * SECOND;

	while (!all_taken(side) && time_now() < deadline)
		wait_poll(NULL, 0, time_now() + LOOK_AGAIN);
	wait_poll(NULL, 0, time_now() + SECOND / 10);
}

static int not_all_read(const struct side *near, struct outcome *outcome)
{
	settle(near);
	return fail(outcome, EX_IOERR, "the command ended without reading all that it was sent");
}

/* Move what can be moved in one direction. */
static int step(struct direction *d, struct outcome *outcome)
{
	if (d->done)
		return 0;
	if (drain(d, outcome) != 0)
		return -1;
	if (d->readable && (fill(d, outcome) != 0 || drain(d, outcome) != 0))
		return -1;
	if (d->out_end == 0 && d->ended) {
		if (d->writer != NULL && d->from->in.hung_up &&
		    launcher_failed(d->writer, outcome)) {
			settle(d->to);
			return -1;
		}
		if (d->writer != NULL && *d->unread)
			return not_all_read(d->to, outcome);
		side_end_output(d->to);
		d->done = true;
	}
	return 0;
}

/*
 * What to ask poll of an end. With nothing to ask it is watched for a break all the same, until it
 * has hung up, which poll would repeat for ever.
 */
static struct pollfd ask(const struct end *end, short events)
{
	bool ignored = events == 0 && (end->hung_up || end->kind == END_SHARED);

	return (struct pollfd){ .fd = ignored ? -1 : end->fd, .events = events };
}

/*
 * A reset ends us at once, whatever else is going on: `reading` from that side will tell, after
 * what came before the reset. A hang-up is for read and write to tell.
 */
static int check_break(const struct pollfd *slot, const struct side *side, struct end *end,
    bool reading, struct outcome *outcome)
{
	int error = 0;
	socklen_t size = sizeof(error);

	if ((slot->revents & (POLLERR | POLLHUP)) == 0)
		return 0;
	if (end->kind == END_TCP && !reading &&
	    getsockopt(end->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error != 0)
		return lost(side, error, outcome);
	end->hung_up = true;
	return 0;
}

static bool in_hand(const struct direction *d)
{
	return d->out_start < d->out_end || (!d->done && !all_taken(d->to));
}

/* The connection while it is carried. */
struct carriage {
	const struct relay *relay;
	struct direction d[2]; /* near to far, far to near */
	int64_t now;           /* as of this round of the loop */
	int64_t wake;          /* when its wait is over even if nothing happens */
	int64_t moved;         /* when a byte last moved */
	int64_t alone;         /* since when one direction only is left, or 0 */
	int stopping;          /* the signal that ends us, or 0 */
	int64_t stop;          /* when to give up delivering what is in hand then */
	bool reading;          /* no signal forbids it */
	bool over;             /* there is nobody left to wait for */
	int quick;             /* short waits in a row: up to two are counted */
	bool unread;           /* the command ended without reading all that it was sent */
};

static void wake_at(struct carriage *c, int64_t point)
{
	if (point < c->wake)
		c->wake = point;
}

/* Has a span that began at `since` passed? If not, we wake at its end. */
static bool passed(struct carriage *c, int64_t since, int64_t span)
{
	if (c->now - since >= span)
		return true;
	wake_at(c, since + span);
	return false;
}

/*
 * Wait for one of `slots`. Where the last two waits were short, request follows answer, and some
 * looks without sleeping save the price of being woken. Two: a lone request's answer is quick as
 * well, but after it nothing comes for long. Not in bulk traffic, where there is more to do.
 */
static int wait_for(struct carriage *c, struct pollfd *slots, nfds_t count)
{
	bool bulk = c->d[0].batch > BATCH_FIRST || c->d[1].batch > BATCH_FIRST;
	int64_t before = time_now();
	int ready = 0;

	for (int i = 0; c->quick == 2 && !bulk && i < SPIN_TRIES && ready == 0; i++) {
		ready = wait_poll(slots, count, 0);
		if (ready == 0)
			sched_yield();
	}
	if (ready == 0)
		ready = wait_poll(slots, count, c->wake);
	if (time_now() - before >= SPIN_WORTH)
		c->quick = 0;
	else if (c->quick < 2)
		c->quick++;
	return ready;
}

/* What signals ask for. */
static int obey_signals(struct carriage *c, struct outcome *outcome)
{
	if (signal_progress) {
		signal_progress = 0;
		report_progress(c->relay->report);
	}
	if (signal_stop && c->stopping == 0) {
		c->stopping = signal_stop;
		c->stop = c->now + RELAY_GRACE * SECOND;
		/* ssh hangs up on its ProxyCommand when all is over: let that end as it would. */
		c->reading = c->stopping == SIGHUP;
	}
	if (c->stopping == 0)
		return 0;
	if (c->now >= c->stop || (!c->reading && !in_hand(&c->d[0]) && !in_hand(&c->d[1])))
		return fail_signal(outcome, c->stopping, "");
	wake_at(c, c->now + LOOK_AGAIN);
	return 0;
}

/* The limits on silence. */
static int keep_limits(struct carriage *c, struct outcome *outcome)
{
	const struct relay *relay = c->relay;
	const struct direction *last;

	if (relay->idle != 0 && passed(c, c->moved, relay->idle))
		return fail(outcome, EX_TEMPFAIL,
		    "both sides were silent for the idle limit of %g s",
		    (double)relay->idle / (double)SECOND);
	if (!c->d[0].done && !c->d[1].done)
		return 0;
	last = c->d[0].done ? &c->d[1] : &c->d[0];
	if (c->alone == 0)
		c->alone = c->now;
	if (last->to->out.hung_up && last->out_end == 0 &&
	    passed(c, c->alone, RELAY_GRACE * SECOND)) {
		/* Closed with data on its way, the side would be reset at the peer's next byte. */
		c->over = all_taken(last->from);
		wake_at(c, c->now + LOOK_AGAIN);
	}
	if (relay->linger != 0 &&
	    passed(c, c->moved > c->alone ? c->moved : c->alone, relay->linger))
		return fail(outcome, EX_TEMPFAIL,
		    "one direction had ended and the other was silent "
		    "for the linger limit of %g s",
		    (double)relay->linger / (double)SECOND);
	return 0;
}

/* After a while of silence, give back what large batches have used. */
static void return_memory(struct carriage *c)
{
	for (struct direction *d = c->d; d < c->d + 2; d++) {
		if (d->batch == BATCH_FIRST || d->in_size != 0 || d->out_end != 0 ||
		    !passed(c, c->moved, MEMORY_KEPT))
			continue;
		madvise(d->in, 2 * WIRE_SIZE, MADV_DONTNEED);
		packet_rest(d->packets);
		d->batch = BATCH_FIRST;
	}
}

/* Wait until something can move, or it is time to wake. */
static int look(struct carriage *c, struct outcome *outcome)
{
	struct pollfd slots[4]; /* near in, near out, far in, far out */

	for (int i = 0; i < 2; i++) {
		const struct direction *reads = &c->d[i], *writes = &c->d[1 - i];
		bool reading = !reads->ended && reads->out_end == 0 && c->reading;

		slots[2 * i] = ask(&reads->from->in, reading ? POLLIN : 0);
		slots[2 * i + 1] = ask(&writes->to->out, writes->out_end != 0 ? POLLOUT : 0);
	}
	if (wait_for(c, slots, 4) == -1)
		return 0; /* a signal */
	for (int i = 0; i < 2; i++) {
		struct side *side = c->d[i].from;
		bool reading = slots[2 * i].events != 0;

		if (check_break(&slots[2 * i], side, &side->in, reading, outcome) != 0 ||
		    check_break(&slots[2 * i + 1], side, &side->out, reading, outcome) != 0)
			return -1;
		c->d[i].readable = reading && slots[2 * i].revents != 0;
	}
	return 0;
}

/* The loop of relay_run, between its buffers' birth and death. */
static int carry(struct carriage *c, struct outcome *outcome)
{
	for (;;) {
		c->d[0].active = c->d[1].active = false;
		if (step(&c->d[0], outcome) != 0 || step(&c->d[1], outcome) != 0)
			return -1;
		if ((c->d[0].done && c->d[1].done) || c->over)
			break;
		c->now = time_now();
		c->wake = NEVER;
		if (c->d[0].active || c->d[1].active)
			c->moved = c->now;
		report_status(c->relay->report);
		if (obey_signals(c, outcome) != 0 || keep_limits(c, outcome) != 0)
			return -1;
		return_memory(c);
		if (!c->over && look(c, outcome) != 0)
			return -1;
	}
	return c->unread ? not_all_read(c->relay->near, outcome) : 0;
}

int relay_run(const struct relay *relay, struct outcome *outcome)
{
	struct carriage c = { .relay = relay, .moved = time_now(), .reading = true };
	struct side *sides[2] = { relay->near, relay->far };
	struct direction *first = &c.d[0];

	for (int i = 0; i < 2; i++) {
		struct direction *d = &c.d[i];

		d->from = sides[i];
		d->to = sides[1 - i];
		d->sealing = (i == 0) == relay->near_is_plain;
		d->packets = d->sealing ? relay->seal : relay->open;
		d->count = i == 0 ? &relay->report->bytes_in : &relay->report->bytes_out;
		d->reader = i == 0 && !relay->near_is_plain ? relay->launcher : NULL;
		d->writer = i == 1 ? relay->launcher : NULL;
		d->batch = BATCH_FIRST;
		d->unread = &c.unread;
		d->in = mmap(NULL, 2 * WIRE_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (d->in == MAP_FAILED)
			return fail(outcome, EX_OSERR, "no memory for buffers: %s",
			    strerror(errno));
		d->out = d->in + WIRE_SIZE;
	}
	if (relay->header != NULL) {
		uint8_t *place = first->sealing ? first->in : first->out;
		size_t *size = first->sealing ? &first->in_size : &first->out_end;

		memcpy(place, relay->header, relay->header_size);
		*size = relay->header_size;
	}
	return turn(first, outcome) == 0 ? carry(&c, outcome) : -1;
}
