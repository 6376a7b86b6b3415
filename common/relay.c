#include "relay.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "wait.h"

#define BATCH 256                        /* packets to read at once, at most */
#define BUFFER_SIZE ((size_t)320 * 1024) /* room for them, in whole pages of any size */
#define BUFFERS_KEPT SECOND /* of silence, before the memory of the buffers is given back */

#define GRACE (2 * SECOND) /* to deliver what is in hand, or for a peer that nobody reads to end */
#define TAKEN_RETRY (SECOND / 100) /* poll cannot report that the peer has taken everything */
#define SHORT_WAIT (SECOND / 10000)
#define DIALOGUE_SIZE 16384 /* bytes: who sends more at once is not waiting for an answer */
#define SPIN_TRIES 20

/*
 * A direction reads what is waiting, seals it or opens the packets in it, and writes the result. It
 * reads no more until all of that is written, which is the flow control.
 */
struct direction {
	struct side *from, *to;
	struct packet_state *packets;
	bool sealing;
	uint8_t *in, *out;         /* one behind the other, BUFFER_SIZE each */
	size_t in_size;            /* bytes in `in`: between rounds, less than a packet */
	size_t out_start, out_end; /* bytes in `out` yet to be written */
	bool ended;                /* the source has no more, and the output is written or void */
	bool done;                 /* ... and has been ended */
	uint64_t *count;           /* plaintext bytes */
};

/* A connection being relayed. */
struct state {
	const struct relay *relay;
	struct outcome *outcome;
	struct direction d[2]; /* near to far, far to near */
	int64_t now;           /* after the last wait */
	int64_t wake;          /* when the next one ends even if nothing happens */
	int64_t last_active;   /* the round when something last moved */
	int64_t one_way_since; /* when the first direction was done, or 0 */
	int stopping;          /* the first signal that ends us, or 0 */
	int64_t stop;          /* when to give up delivering what is in hand then */
	bool input_left;       /* the command exited without reading all its input */
	int short_waits;       /* in a row; counted up to 2 */
};

static int fail_lost(struct state *s, const struct side *side, int error)
{
	return fail(s->outcome, EX_IOERR, "the %s was lost: %s", side->name, strerror(error));
}

/* Is the other end of a UNIX socket closed in both directions? */
static bool is_closed(int fd)
{
	struct pollfd slot = { .fd = fd };

	return poll(&slot, 1, 0) == 1 && (slot.revents & POLLHUP) != 0;
}

/* Is this side a command that reads and writes plaintext? */
static bool is_plain_command(const struct state *s, const struct side *side)
{
	return s->relay->role == ROLE_DEC && s->relay->launcher != NULL && side == s->relay->far;
}

/* Write as much of the output as the side takes. */
static int drain(struct state *s, struct direction *d)
{
	ssize_t moved;

	while (d->out_start < d->out_end) {
		moved = side_write(d->to, d->out + d->out_start, d->out_end - d->out_start);
		if (moved == -1 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (moved == -1) {
			int error = errno;

			if (!is_plain_command(s, d->to) || !is_closed(d->to->out.fd))
				return fail_lost(s, d->to, error);
			/* It has exited. What it wrote is still delivered. */
			s->last_active = s->now;
			s->input_left = d->ended = true;
			break;
		}
		s->last_active = s->now;
		d->out_start += (size_t)moved;
	}
	d->out_start = d->out_end = 0;
	return 0;
}

/* Seal all of the input, or open the whole packets in it. */
static int convert(struct state *s, struct direction *d)
{
	size_t whole = d->sealing ? d->in_size : d->in_size / PACKET_SIZE * PACKET_SIZE;
	int bad = 0;
	long made;

	if (whole == 0)
		return 0;
	made = d->sealing ? packet_seal(d->packets, d->in, whole, d->out)
			  : packet_open(d->packets, d->in, whole / PACKET_SIZE, d->out, &bad);
	if (made < 0)
		return fail(s->outcome, EX_OSERR, "libcrypto failed, probably out of memory");
	if (!d->sealing)
		*d->count += (size_t)made;
	d->out_end = (size_t)made;
	if (bad) {
		drain(s, d); /* the packets before the bad one were good */
		return fail(s->outcome, EX_PROTOCOL,
		    "a packet from the %s failed its check: the stream was tampered with, and "
		    "nothing from that packet on was delivered",
		    d->from->name);
	}
	d->in_size -= whole;
	memmove(d->in, d->in + whole, d->in_size);
	return 0;
}

/* Read once, and convert. */
static int fill(struct state *s, struct direction *d)
{
	size_t room = BATCH * (d->sealing ? PACKET_DATA : PACKET_SIZE) - d->in_size;
	ssize_t got = side_read(d->from, d->in + d->in_size, room);

	if (got == -1 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got == -1 && errno == ECONNRESET && is_plain_command(s, d->from)) {
		s->input_left = true;
		got = 0;
	}
	if (got == -1)
		return fail_lost(s, d->from, errno);
	s->last_active = s->now;
	if (got == 0) {
		d->ended = true;
		if (d->in_size == 0)
			return 0;
		return fail(s->outcome, EX_PROTOCOL,
		    "the stream from the %s was cut inside a packet", d->from->name);
	}
	if (got > DIALOGUE_SIZE)
		s->short_waits = 0;
	d->in_size += (size_t)got;
	if (d->sealing)
		*d->count += (size_t)got;
	return convert(s, d);
}

/* Has the peer's kernel (for a UNIX socket, the reader) taken all that was written? */
static bool all_taken(const struct side *side)
{
	int left = 0;

	return side->out.fd == -1 || ioctl(side->out.fd, SIOCOUTQ, &left) != 0 || left == 0;
}

/*
 * Before a reset that follows good data: wait until the data has been taken, but not for ever, and
 * a moment longer for the peer to read it, since most programs notice the reset first.
 */
static void await_delivery(const struct side *side)
{
	int64_t deadline = time_now() + GRACE;

	while (!all_taken(side) && time_now() < deadline)
		wait_poll(NULL, 0, time_now() + TAKEN_RETRY);
	wait_poll(NULL, 0, time_now() + SECOND / 10);
}

static int fail_input_left(struct state *s)
{
	await_delivery(s->relay->near);
	return fail(s->outcome, EX_IOERR, "the command exited without reading all its input");
}

/* The source has ended and all of it is written: end the output too, if it was a good end. */
static int finish(struct state *s, struct direction *d)
{
	struct launcher *launcher = d->from == s->relay->far ? s->relay->launcher : NULL;

	if (launcher != NULL && d->from->in.hung_up && launcher_failed(launcher, s->outcome)) {
		await_delivery(d->to);
		return -1;
	}
	if (launcher != NULL && s->input_left)
		return fail_input_left(s);
	side_end_output(d->to);
	d->done = true;
	if (s->one_way_since == 0)
		s->one_way_since = s->now;
	return 0;
}

/* Write what is left of the output, and end it after its source. */
static int deliver(struct state *s, struct direction *d)
{
	if (d->done)
		return 0;
	if (drain(s, d) != 0)
		return -1;
	return d->ended ? finish(s, d) : 0;
}

static bool in_hand(const struct direction *d)
{
	return d->out_start < d->out_end || (!d->done && !all_taken(d->to));
}

static void wake_at(struct state *s, int64_t time)
{
	if (time < s->wake)
		s->wake = time;
}

/* Has the time `since` + `span` passed? If not, wake up then. */
static bool passed(struct state *s, int64_t since, int64_t span)
{
	if (s->now - since >= span)
		return true;
	wake_at(s, since + span);
	return false;
}

/* ssh sends its ProxyCommand SIGHUP when it is done: let the connection end. */
static bool may_read(const struct state *s)
{
	return s->stopping == 0 || s->stopping == SIGHUP;
}

/* Do what signals ask for. */
static int obey_signals(struct state *s)
{
	if (signal_progress) {
		signal_progress = 0;
		report_progress(s->relay->report);
	}
	if (signal_stop && s->stopping == 0) {
		s->stopping = signal_stop;
		s->stop = s->now + GRACE;
	}
	if (s->stopping == 0)
		return 0;
	if (s->now >= s->stop || (!may_read(s) && !in_hand(&s->d[0]) && !in_hand(&s->d[1])))
		return fail_signal(s->outcome, s->stopping, "");
	wake_at(s, s->now + TAKEN_RETRY);
	return 0;
}

/* If one direction is done: has the reader of the other one gone? */
static bool is_deserted(struct state *s)
{
	const struct direction *last = s->d[0].done ? &s->d[1] : &s->d[0];

	if (s->one_way_since == 0 || !last->to->out.hung_up || last->out_end != 0 ||
	    !passed(s, s->one_way_since, GRACE))
		return false;
	/* If closed before the data has arrived, and the peer then sends more, it is reset. */
	if (last->from->out.kind != END_TCP || all_taken(last->from))
		return true;
	wake_at(s, s->now + SECOND / 2);
	return false;
}

static int fail_silent(struct state *s, const char *what, int64_t limit)
{
	return fail(s->outcome, EX_TEMPFAIL, "%s limit of %g s", what,
	    (double)limit / (double)SECOND);
}

/* The limits on silence. */
static int check_limits(struct state *s)
{
	const struct relay *relay = s->relay;

	if (relay->idle != 0 && passed(s, s->last_active, relay->idle))
		return fail_silent(s, "both sides were silent for the idle", relay->idle);
	if (s->one_way_since != 0 && relay->linger != 0 && passed(s, s->last_active, relay->linger))
		return fail_silent(s,
		    "one direction had ended and the other was silent for the linger",
		    relay->linger);
	return 0;
}

/* After a while of silence give back the buffers' memory, and with it what they have delivered. */
static void release_buffers(struct state *s)
{
	for (struct direction *d = s->d; d < s->d + 2; d++) {
		if (d->in_size != 0 || d->out_end != 0 || !passed(s, s->last_active, BUFFERS_KEPT))
			continue;
		madvise(d->in, 2 * BUFFER_SIZE, MADV_DONTNEED);
		packet_rest(d->packets);
	}
}

/*
 * What to ask poll about an end. Even with nothing to ask, it is watched for a break, until it has
 * hung up: poll would report that again and again.
 */
static struct pollfd watch(const struct end *end, short events)
{
	bool ignored = events == 0 && end->hung_up;

	return (struct pollfd){ .fd = ignored ? -1 : end->fd, .events = events };
}

/*
 * A reset ends the relay at once, unless that side is being read: then read(2) reports it, after
 * the data that came before it.
 */
static int check_break(struct state *s, const struct pollfd *slot, const struct side *side,
    struct end *end, bool reading)
{
	int error = 0;
	socklen_t size = sizeof(error);

	if ((slot->revents & (POLLERR | POLLHUP)) == 0)
		return 0;
	if (!reading && getsockopt(end->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 &&
	    error != 0) {
		if (!is_plain_command(s, side))
			return fail_lost(s, side, error);
		s->input_left = s->d[0].ended = true; /* as in drain */
	}
	end->hung_up = true;
	return 0;
}

/*
 * wait_poll until `wake`. After two short waits in a row, this is a dialogue and the next message is
 * near: polling a few times first saves the cost of sleeping. One short wait proves nothing, as a
 * single request is answered soon, too. In bulk traffic the time is better left to others.
 */
static int poll_sides(struct state *s, struct pollfd *slots, nfds_t count)
{
	int64_t before = time_now();
	int ready = 0;

	for (int i = 0; s->short_waits == 2 && i < SPIN_TRIES && ready == 0; i++) {
		ready = wait_poll(slots, count, 0);
		if (ready == 0)
			sched_yield();
	}
	if (ready == 0)
		ready = wait_poll(slots, count, s->wake);
	s->now = time_now();
	if (s->now - before >= SHORT_WAIT)
		s->short_waits = 0;
	else if (s->short_waits < 2)
		s->short_waits++;
	return ready;
}

/* Wait until something can be moved, a signal comes, or it is time to wake. Move what has come. */
static int wait_for_work(struct state *s)
{
	struct pollfd slots[4]; /* near in, near out, far in, far out */

	for (int i = 0; i < 2; i++) {
		const struct direction *reads = &s->d[i], *writes = &s->d[1 - i];
		bool reading = !reads->ended && reads->out_end == 0 && may_read(s);

		slots[2 * i] = watch(&reads->from->in, reading ? POLLIN : 0);
		slots[2 * i + 1] = watch(&writes->to->out, writes->out_end != 0 ? POLLOUT : 0);
	}
	if (poll_sides(s, slots, 4) == -1)
		return 0;
	for (int i = 0; i < 2; i++) {
		struct direction *d = &s->d[i];
		struct side *side = d->from;
		bool reading = slots[2 * i].events != 0;

		if (check_break(s, &slots[2 * i], side, &side->in, reading) != 0 ||
		    check_break(s, &slots[2 * i + 1], side, &side->out, reading) != 0)
			return -1;
		if (reading && slots[2 * i].revents != 0 && (fill(s, d) != 0 || drain(s, d) != 0))
			return -1;
	}
	return 0;
}

static int relay_both(struct state *s)
{
	for (;;) {
		if (deliver(s, &s->d[0]) != 0 || deliver(s, &s->d[1]) != 0)
			return -1;
		if (s->d[0].done && s->d[1].done)
			break;
		s->wake = report_status(s->relay->report);
		if (obey_signals(s) != 0 || check_limits(s) != 0)
			return -1;
		if (is_deserted(s))
			break;
		release_buffers(s);
		if (wait_for_work(s) != 0)
			return -1;
	}
	return s->input_left ? fail_input_left(s) : 0;
}

/* Start direction `i`, 0 or 1. */
static void start(struct state *s, int i, uint8_t *buffers)
{
	const struct relay *relay = s->relay;
	struct direction *d = &s->d[i];

	d->from = i == 0 ? relay->near : relay->far;
	d->to = i == 0 ? relay->far : relay->near;
	d->sealing = (i == 0) == (relay->role == ROLE_ENC);
	d->packets = d->sealing ? relay->seal : relay->open;
	d->count = i == 0 ? &relay->report->bytes_in : &relay->report->bytes_out;
	d->in = buffers;
	d->out = buffers + BUFFER_SIZE;
	if (i == 0 && relay->header != NULL) {
		memcpy(d->sealing ? d->in : d->out, relay->header, relay->header_size);
		*(d->sealing ? &d->in_size : &d->out_end) = relay->header_size;
	}
}

int relay_run(const struct relay *relay, struct outcome *outcome)
{
	struct state s = { .relay = relay, .outcome = outcome };
	uint8_t *buffers = mmap(NULL, 4 * BUFFER_SIZE, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int result;

	_Static_assert(BUFFER_SIZE >= BATCH * PACKET_SIZE, "a batch fits a buffer");
	if (buffers == MAP_FAILED)
		return fail(outcome, EX_OSERR, "no memory for buffers: %s", strerror(errno));
	start(&s, 0, buffers);
	start(&s, 1, buffers + 2 * BUFFER_SIZE);
	s.now = s.last_active = time_now();
	result = convert(&s, &s.d[0]) == 0 ? relay_both(&s) : -1;
	munmap(buffers, 4 * BUFFER_SIZE);
	return result;
}
