#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "children.h"
#include "connect.h"
#include "records.h"
#include "secret.h"
#include "side.h"
#include "wait.h"

#define PAUSE (SECOND / 10) /* after a failure to accept or fork */
#define STATUS_EVERY (SECOND * 10)
#define STATE "SPIPE_LISTENER" /* in the environment when reloading: a descriptor */

struct listener {
	const struct listener_limits *limits;
	const struct errand *usual;
	struct report *report;
	int first, count; /* listening sockets */
	struct children children;
	struct records records;
	struct pollfd *slots; /* listening sockets, then strangers' channels */
	int held;             /* a connection that has no child yet, or -1 */
	struct address remote;
	int64_t now, paused_until, idle_since, status_due; /* NEVER: nothing has changed */
	bool troubled;     /* the reason for the pause has been logged */
	bool connects;     /* children to the usual target */
	bool ending;       /* accept no more, end with the last child */
	bool has_terminal; /* that can hang up */
};

void listener_proved(int channel)
{
	struct child_report report = { .what = CHILD_PROVED };
	sigset_t late;

	if (channel == -1)
		return;
	signal(SIGUSR2, SIG_IGN);
	/* As long as it is blocked it would still be read, ignored or not. */
	sigemptyset(&late);
	sigaddset(&late, SIGUSR2);
	sigprocmask(SIG_UNBLOCK, &late, NULL);
	if (signal_stop == SIGUSR2)
		signal_stop = 0;
	(void)!write(channel, &report, sizeof(report));
}

void listener_connect(int channel)
{
	struct child_report report = { .what = CHILD_ASKS };

	(void)!write(channel, &report, sizeof(report));
}

void listener_carried(int channel, uint64_t bytes_in, uint64_t bytes_out)
{
	struct child_report report = { CHILD_CARRIED, bytes_in, bytes_out };

	if (channel != -1)
		(void)!write(channel, &report, sizeof(report));
}

static bool has_strangers(const struct listener *l)
{
	return l->limits->strangers != 0;
}

static void send_status(struct listener *l, bool ready, bool progress)
{
	const struct children *c = &l->children;

	report_listening(l->report, ready, progress,
	    "%u connections, %u strangers; %" PRIu64 " served, %" PRIu64 " refused, %" PRIu64
	    " bytes in, %" PRIu64 " bytes out",
	    c->proved, c->strangers, c->served, c->refused, c->bytes_in, c->bytes_out);
	l->status_due = NEVER;
}

static void reap(struct listener *l)
{
	struct child ended;

	while (children_reap(&l->children, &ended))
		if (ended.proved && has_strangers(l) && !ended.muted)
			records_release(&l->records, &ended.source, l->now);
		else if (!ended.proved && ended.muted)
			records_leave_out(&l->records, &ended.source, l->now);
}

/* Accept nothing for a moment, and say why once. */
static void pause_for(struct listener *l, const char *what, int error)
{
	l->paused_until = l->now + PAUSE;
	if (!l->troubled)
		report_warn(l->report, "cannot %s: %s; trying again", what, strerror(error));
	l->troubled = true;
}

static void connect_children(struct listener *l)
{
	struct child *child;

	while ((child = children_asking(&l->children)) != NULL) {
		struct outcome outcome = { 0 };
		int fd = l->connects
		    ? connect_begin(l->usual->to.target, l->usual->bind, &outcome)
		    : fail(&outcome, EX_TEMPFAIL, "the listener was reloaded without the target");

		launcher_answer(child->channel, fd, &outcome);
		if (fd != -1)
			close(fd);
		child->asking = false;
		child->settled = true;
	}
}

static bool is_accepting(const struct listener *l)
{
	return !l->ending && l->held == -1 && l->now >= l->paused_until &&
	    l->children.proved < l->limits->connections && l->children.processes < l->children.room;
}

/*
 * Accept from the listening socket `fd`. Returns 0, or -1 with the outcome set if nothing can ever
 * be accepted there.
 */
static int accept_from(struct listener *l, int fd, struct outcome *outcome)
{
	struct sockaddr_storage from = { 0 };
	socklen_t size = sizeof(from);

	l->held = accept4(fd, (struct sockaddr *)&from, &size, SOCK_CLOEXEC);
	if (l->held != -1) {
		side_break_on_close(l->held); /* if nobody comes to serve it */
		l->remote = (struct address){ 0 };
		address_from(&l->remote, &from, size);
		return 0;
	}
	switch (errno) {
	case EAGAIN:
	case EINTR:
	case ECONNABORTED: return 0; /* the connection is gone, or another process took it */
	case EBADF:
	case EINVAL:
	case ENOTSOCK:
	case EOPNOTSUPP:
		return fail(outcome, EX_OSERR, "cannot accept on descriptor %d: %s", fd,
		    strerror(errno));
	default: pause_for(l, "accept a connection", errno); return 0;
	}
}

/* Strangers make room for one more from `source`. */
static void make_room(struct listener *l, const struct source_network *source)
{
	if (source->family != 0 &&
	    children_strangers(&l->children, source) >= l->limits->per_source)
		children_make_room(&l->children, source);
	if (l->children.strangers >= l->limits->strangers)
		children_make_room(&l->children, NULL);
}

/* Fork a child for the connection that is held. Returns 1 in the child, else 0. */
static int serve(struct listener *l, struct accepted *accepted)
{
	struct child child = { .source = address_source(&l->remote),
		.proved = !has_strangers(l),
		.settled = !l->connects };
	int channel[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, channel) != 0) {
		pause_for(l, "make a channel", errno);
		return 0;
	}
	child.muted = has_strangers(l) && !records_reserve(&l->records, &child.source, l->now);
	child.pid = fork();
	if (child.pid == 0) {
		signal_stop = 0; /* that was for the listener */
		*accepted = (struct accepted){ l->held, channel[1], l->remote, l->connects,
			child.muted };
		return 1;
	}
	close(channel[1]);
	if (child.pid == -1) {
		pause_for(l, "fork", errno);
		close(channel[0]);
		if (has_strangers(l) && !child.muted)
			records_release(&l->records, &child.source, l->now);
		return 0;
	}
	child.channel = channel[0];
	close(l->held);
	l->held = -1;
	l->troubled = false;
	if (has_strangers(l))
		make_room(l, &child.source);
	children_add(&l->children, child);
	return 0;
}

static void set_inherited(const struct listener *l, bool inherited)
{
	for (int fd = l->first; fd < l->first + l->count; fd++)
		fcntl(fd, F_SETFD, inherited ? 0 : FD_CLOEXEC);
	children_set_inherited(&l->children, inherited);
}

static int set_number(const char *name, int number)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", number);
	return setenv(name, text, 1);
}

/* Leave sockets and children to the program that is executed next. Returns 0, or -1 with errno set. */
static int hand_over(const struct listener *l, int state)
{
	if (state == -1 || children_save(&l->children, state) != 0 ||
	    lseek(state, 0, SEEK_SET) != 0 || set_number(STATE, state) != 0)
		return -1;
	set_inherited(l, true);
	if (l->first == STDIN_FILENO)
		return 0;
	return set_number("LISTEN_PID", getpid()) != 0 || set_number("LISTEN_FDS", l->count) != 0
	    ? -1
	    : 0;
}

/* Execute the program again. Returns only if that fails. */
static void reload(struct listener *l, char *const *argv)
{
	int state = memfd_create("state", 0), error;

	if (hand_over(l, state) == 0) {
		secret_unharden();
		records_sum_up(&l->records, NEVER, l->report);
		execvp(argv[0], argv);
		error = errno;
		secret_harden();
		errno = error;
	}
	report_warn(l->report, "cannot reload: %s: %s", argv[0], strerror(errno));
	set_inherited(l, false);
	unsetenv(STATE);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	if (state != -1)
		close(state);
}

/* Room for children, and those of the program that executed us. Returns 0, or -1 (memory). */
static int restore(struct listener *l)
{
	/* Strangers may prove a key after accepting has paused; those that leave need room. */
	size_t room = l->limits->connections + 2 * (size_t)l->limits->strangers + 1;
	const char *number = getenv(STATE);
	FILE *state;

	if (number == NULL) {
		if (children_init(&l->children, room) != 0)
			return -1;
	} else {
		state = fdopen((int)strtol(number, NULL, 10), "r");
		if (state == NULL || children_restore(&l->children, room, state) != 0)
			return -1;
		fclose(state);
		unsetenv(STATE);
	}
	l->slots = calloc(l->children.room + (size_t)l->count, sizeof(*l->slots));
	return l->slots == NULL ? -1 : 0;
}

static void obey_signals(struct listener *l, char *const *argv)
{
	int number = signal_stop;

	signal_stop = 0;
	if (signal_progress)
		send_status(l, false, true);
	signal_progress = 0;
	if (number == SIGHUP && !l->has_terminal) {
		if (l->held != -1)
			signal_stop = SIGHUP; /* later: the connection would be lost */
		else if (!l->ending)
			reload(l, argv);
		return;
	}
	if (number == 0)
		return;
	l->ending = true;
	if (number != SIGUSR2) {
		children_kill(&l->children, SIGTERM);
		children_kill(&l->children, SIGCONT); /* one that is stopped cannot end */
		if (l->held != -1)
			close(l->held);
		l->held = -1;
	}
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Wait for a connection, a report from a child, a signal, or the next deadline. */
static void wait_for_news(struct listener *l)
{
	bool accepting = is_accepting(l);
	int64_t wake = earlier(l->records.next, l->status_due);
	nfds_t count = (nfds_t)l->count;

	for (int i = 0; i < l->count; i++)
		l->slots[i] = (struct pollfd){ .fd = accepting ? l->first + i : -1,
			.events = POLLIN };
	count += children_watch(&l->children, l->slots + l->count);
	if (l->held != -1 || l->paused_until > l->now)
		wake = earlier(wake, l->paused_until);
	if (l->limits->exit_idle != 0 && l->children.processes == 0)
		wake = earlier(wake, l->idle_since + l->limits->exit_idle);
	if (wait_poll(l->slots, count, wake) != -1)
		return;
	if (errno != EINTR) {
		pause_for(l, "wait for connections", errno);
		wait_poll(NULL, 0, l->paused_until);
	}
	for (nfds_t i = 0; i < count; i++)
		l->slots[i].revents = 0;
}

static bool is_over(struct listener *l)
{
	if (l->children.processes > 0 || l->held != -1) {
		l->idle_since = l->now;
		return false;
	}
	return l->ending ||
	    (l->limits->exit_idle != 0 && l->now - l->idle_since >= l->limits->exit_idle);
}

/* The loop of listener_run. Returns 1 in a child, 0 at the listener's end, or -1 (outcome). */
static int run(struct listener *l, struct accepted *accepted, char *const *argv,
    struct outcome *outcome)
{
	for (;;) {
		l->now = time_now();
		reap(l);
		obey_signals(l, argv);
		if (is_over(l))
			return 0;
		records_sum_up(&l->records, l->now, l->report);
		if (l->now >= l->status_due)
			send_status(l, false, false);
		wait_for_news(l);
		l->now = time_now();
		l->status_due = earlier(l->status_due, l->now + STATUS_EVERY);
		children_hear(&l->children, l->slots + l->count);
		connect_children(l);
		for (int i = 0; i < l->count; i++) {
			if (l->slots[i].revents != 0 && is_accepting(l) &&
			    accept_from(l, l->slots[i].fd, outcome) != 0)
				return -1;
			if (l->held != -1 && l->now >= l->paused_until && serve(l, accepted) == 1)
				return 1;
		}
	}
}

static bool has_terminal(void)
{
	int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);

	if (fd != -1)
		close(fd);
	return fd != -1;
}

int listener_run(struct accepted *accepted, struct descriptors *descriptors,
    const struct listener_limits *limits, const struct errand *usual, char *const *argv,
    struct report *report, struct outcome *outcome)
{
	struct listener l = { .limits = limits,
		.usual = usual,
		.connects = usual->to.target != NULL && connect_can_begin(usual->to.target),
		.report = report,
		.first = descriptors->listening,
		.count = descriptors->listeners,
		.held = -1,
		.now = time_now(),
		.has_terminal = has_terminal() };
	int result;

	/* After a reload the other descriptors are our children's channels. */
	if (getenv(STATE) == NULL)
		descriptors_close_others(descriptors);
	records_init(&l.records);
	if (restore(&l) != 0)
		return fail(outcome, EX_OSERR, "no memory for %u connections", limits->connections);
	set_inherited(&l, false);
	/* Another process may accept first on these sockets: accept(2) must not wait then. */
	for (int fd = l.first; fd < l.first + l.count; fd++)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	l.idle_since = l.now;
	send_status(&l, true, false);
	result = run(&l, accepted, argv, outcome);
	if (result == 1)
		descriptors_set_near(descriptors, accepted->fd);
	else
		records_sum_up(&l.records, NEVER, report);
	children_free(&l.children);
	free(l.slots);
	return result == 1 ? 0 : -1;
}
