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
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"
#include "connect.h"
#include "records.h"
#include "side.h"
#include "wait.h"

#define PAUSE (SECOND / 10) /* after a failure to accept or fork */
#define PATIENCE (SECOND * 2)
#define STARTING 4 /* processes of strangers at the same time, so that they leave time for others */
#define STATUS_EVERY (SECOND * 10)
#define STATE "SPIPE_LISTENER" /* in the environment when reloading: PID:descriptor */

struct listener {
	const struct listener_limits *limits;
	const struct places *target;
	struct report *report;
	int first, count; /* listening sockets */
	struct children children;
	struct records records;
	struct pollfd *slots; /* listening sockets, then strangers' channels */
	int64_t now, paused_until, idle_since;
	int64_t attend_next; /* when to attend to waiting connections again */
	int64_t status_due;  /* NEVER: nothing has changed */
	bool troubled;       /* the reason for the pause has been logged */
	bool ending;         /* accept no more, end with the last child */
	bool reloading;      /* once no connection waits for a process */
	bool has_terminal;   /* that can hang up */
};

static void report(int channel, uint64_t what, uint64_t bytes_in, uint64_t bytes_out)
{
	struct child_report report = { what, bytes_in, bytes_out };

	if (channel != -1)
		(void)!write(channel, &report, sizeof(report));
}

void listener_ready(int channel)
{
	report(channel, CHILD_IS_READY, 0, 0);
}

void listener_proved(int channel)
{
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
	report(channel, CHILD_HAS_PROOF, 0, 0);
}

void listener_connect(int channel)
{
	report(channel, CHILD_ASKS, 0, 0);
}

void listener_carried(int channel, uint64_t bytes_in, uint64_t bytes_out)
{
	report(channel, CHILD_CARRIED, bytes_in, bytes_out);
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static bool has_strangers(const struct listener *l)
{
	return l->limits->strangers != 0;
}

static void send_status(struct listener *l, bool ready, bool progress)
{
	const struct children *c = &l->children;
	unsigned proved = children_count(c, CHILD_PROVED, CHILD_SETTLED);
	unsigned strangers = children_count(c, CHILD_WAITING, CHILD_STRANGER);

	report_listening(l->report, ready, progress,
	    "%u connections, %u strangers; %" PRIu64 " served, %" PRIu64 " refused, %" PRIu64
	    " bytes in, %" PRIu64 " bytes out",
	    proved, strangers, c->served, c->refused, c->bytes_in, c->bytes_out);
	l->status_due = NEVER;
}

static void reap(struct listener *l)
{
	struct child ended;
	char name[128];
	int status;

	while (children_reap(&l->children, &ended, &status)) {
		if (WIFSIGNALED(status) && !ended.reported) {
			address_format(&ended.remote, name, sizeof(name));
			report_warn(l->report, "the process for %s was killed by signal %d (%s)",
			    name, WTERMSIG(status), strsignal(WTERMSIG(status)));
		}
		if (ended.state >= CHILD_PROVED && has_strangers(l) && !ended.muted)
			records_release(&l->records, &ended.source, l->now);
		else if (ended.state < CHILD_PROVED && ended.muted)
			records_leave_out(&l->records, &ended.source, l->now);
	}
}

/* Accept nothing for a moment, and say why once. */
static void pause_for(struct listener *l, const char *what, int error)
{
	l->paused_until = l->now + PAUSE;
	if (!l->troubled)
		report_warn(l->report, "cannot %s: %s; trying again", what, strerror(error));
	l->troubled = true;
}

static void connect_child(struct listener *l, struct child *child)
{
	struct outcome outcome = { 0 };
	int fd = l->children.connects
	    ? connect_begin(l->target, &outcome)
	    : fail(&outcome, EX_TEMPFAIL, "the listener was reloaded without the target");

	children_set(&l->children, child, CHILD_SETTLED);
	if (launcher_answer(child->fd, fd, &outcome) != 0) {
		close(child->fd); /* the child need not wait for its deadline */
		child->fd = -1;
	}
	if (fd != -1)
		close(fd);
}

/* How long a connection may wait for its first bytes until it gets a process all the same. */
static int64_t patience(const struct listener *l)
{
	return has_strangers(l) ? earlier(l->limits->timeout / 2, PATIENCE) : 0;
}

static bool is_waiting(const struct child *child)
{
	return child->state == CHILD_WAITING || child->state == CHILD_EVICTED;
}

static bool is_empty(const struct listener *l)
{
	return l->children.number[CHILD_NONE] == l->children.room;
}

static bool is_pausing(const struct listener *l)
{
	return l->now < l->paused_until;
}

static bool is_accepting(const struct listener *l)
{
	const struct children *c = &l->children;

	return !l->ending && !l->reloading && !is_pausing(l) &&
	    children_count(c, CHILD_PROVED, CHILD_SETTLED) < l->limits->connections &&
	    c->number[CHILD_NONE] > 0 && (has_strangers(l) || c->number[CHILD_WAITING] == 0);
}

/* Strangers make room for one more from `source`. */
static void make_room(struct listener *l, const struct source_network *source)
{
	if (source->family != 0 &&
	    children_strangers(&l->children, source) >= l->limits->per_source)
		children_make_room(&l->children, source);
	if (children_count(&l->children, CHILD_WAITING, CHILD_STRANGER) >= l->limits->strangers)
		children_make_room(&l->children, NULL);
}

/*
 * Accept from the listening socket `fd`. Returns 0, or -1 with the outcome set if nothing can ever
 * be accepted there.
 */
static int accept_from(struct listener *l, int fd, struct outcome *outcome)
{
	static const int least = LISTENER_LEAST;
	struct child child = { .state = CHILD_WAITING, .since = l->now };
	struct sockaddr_storage from = { 0 };
	socklen_t size = sizeof(from);

	child.fd = accept4(fd, (struct sockaddr *)&from, &size, SOCK_CLOEXEC);
	if (child.fd != -1) {
		side_break_on_close(child.fd); /* if nobody comes to serve it */
		address_from(&child.remote, &from, size);
		child.source = address_source(&child.remote);
		if (has_strangers(l)) {
			setsockopt(child.fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least));
			make_room(l, &child.source);
			child.muted = records_spent(&l->records, &child.source, l->now);
		}
		children_add(&l->children, child);
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

/* Fork a process for a waiting connection. Returns 1 in it, else 0. */
static int start(struct listener *l, struct child *child, struct accepted *accepted)
{
	static const int least = 1;
	bool evicted = child->state == CHILD_EVICTED;
	enum child_state state = evicted ? CHILD_LEAVING : CHILD_STARTING;
	int channel[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, channel) != 0) {
		pause_for(l, "make a channel", errno);
		return 0;
	}
	setsockopt(child->fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least));
	pid = fork();
	if (pid == 0) {
		close(channel[0]);
		/* Other signals were for the listener. */
		signal_stop = evicted ? SIGUSR2 : 0;
		*accepted = (struct accepted){ child->fd, channel[1], child->since, child->remote,
			l->children.connects, child->muted };
		return 1;
	}
	close(channel[1]);
	if (pid == -1) {
		pause_for(l, "fork", errno);
		close(channel[0]);
		return 0;
	}
	l->troubled = false;
	if (!has_strangers(l))
		state = l->children.connects ? CHILD_PROVED : CHILD_SETTLED;
	children_start(&l->children, child, state, pid, channel[0]);
	return 0;
}

/*
 * Start a process for a waiting connection, if it is time. One that has gone, or has to, needs a
 * process for its record only. Returns 1 in the process, else 0.
 */
static int attend(struct listener *l, struct child *child, struct accepted *accepted)
{
	int64_t waited = l->now - child->since;
	bool late = waited >= l->limits->timeout; /* no process could be had in time */
	bool gone = child->state == CHILD_EVICTED ||
	    (child->heard & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
	bool due = gone || child->heard != 0 || waited >= patience(l) || l->reloading;

	if (!late && (is_pausing(l) || !due))
		return 0;
	if (gone && has_strangers(l))
		child->muted = records_spent(&l->records, &child->source, l->now);
	if (late || (gone && child->muted)) {
		if (has_strangers(l))
			records_leave_out(&l->records, &child->source, l->now);
		children_remove(&l->children, child);
		return 0;
	}
	if (l->children.number[CHILD_STARTING] >= (child->muted ? 1 : STARTING))
		return 0;
	child->muted = has_strangers(l) && !records_reserve(&l->records, &child->source, l->now);
	if (start(l, child, accepted) == 1)
		return 1;
	if (is_waiting(child) && has_strangers(l) && !child->muted)
		records_release(&l->records, &child->source, l->now);
	return 0;
}

/* Do what connections wait for, muted ones or the others. Returns 1 in a new process, else 0. */
static int attend_all(struct listener *l, bool muted, struct accepted *accepted)
{
	for (size_t i = 0; i < l->children.end; i++) {
		struct child *child = &l->children.child[i];
		int64_t next = child->since + patience(l);

		if (child->state == CHILD_NONE || child->muted != muted)
			continue;
		if (child->state == CHILD_ASKING)
			connect_child(l, child);
		else if (is_waiting(child) && attend(l, child, accepted) == 1)
			return 1;
		if (is_waiting(child) && next > l->now)
			l->attend_next = earlier(l->attend_next, next);
	}
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
	char text[32];

	snprintf(text, sizeof(text), "%d:%d", getpid(), state);
	if (state == -1 || children_save(&l->children, state) != 0 ||
	    lseek(state, 0, SEEK_SET) != 0 || setenv(STATE, text, 1) != 0)
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
	int state = memfd_create("state", 0);

	l->reloading = false;
	if (hand_over(l, state) == 0) {
		records_sum_up(&l->records, NEVER, l->report);
		execvp(argv[0], argv);
	}
	report_warn(l->report, "cannot reload: %s: %s", argv[0], strerror(errno));
	set_inherited(l, false);
	unsetenv(STATE);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	if (state != -1)
		close(state);
}

/*
 * What the program that executed us has left, or NULL if this is not a reload. The variable may have
 * come from another process: then it has the pid of that one.
 */
static FILE *open_state(void)
{
	const char *text = getenv(STATE);
	int pid, fd;
	FILE *state = NULL;

	/* NOLINTNEXTLINE(cert-err34-c): two numbers of our own, or of no use */
	if (text != NULL && sscanf(text, "%d:%d", &pid, &fd) == 2 && pid == getpid())
		state = fdopen(fd, "r");
	unsetenv(STATE);
	return state;
}

/* Make room for children, and take over those of a reload. Returns 0, or -1 (memory). */
static int restore(struct listener *l, FILE *state)
{
	/* Strangers may prove a key after accepting has paused; those that leave need room. */
	size_t room = l->limits->connections + 2 * (size_t)l->limits->strangers + 1;

	if (state == NULL ? children_init(&l->children, room) != 0
			  : children_restore(&l->children, room, state) != 0)
		return -1;
	l->slots = calloc(l->children.room + (size_t)l->count, sizeof(*l->slots));
	return l->slots == NULL ? -1 : 0;
}

/* Break all connections. */
static void end_all(struct listener *l)
{
	children_kill(&l->children, SIGTERM);
	children_kill(&l->children, SIGCONT); /* one that is stopped cannot end */
	for (size_t i = 0; i < l->children.end; i++)
		if (is_waiting(&l->children.child[i]))
			children_remove(&l->children, &l->children.child[i]);
}

static void obey_signals(struct listener *l)
{
	int number = signal_stop;

	signal_stop = 0;
	if (signal_progress)
		send_status(l, false, true);
	signal_progress = 0;
	if (number == SIGHUP && !l->has_terminal)
		l->reloading = !l->ending;
	else if (number != 0) {
		l->ending = true;
		l->reloading = false;
		if (number != SIGUSR2)
			end_all(l);
	}
}

/* Wait for a connection, bytes, a report from a child, a signal, or the next deadline. */
static void wait_for_news(struct listener *l)
{
	bool accepting = is_accepting(l), pausing = is_pausing(l);
	int64_t wake = earlier(earlier(l->records.end, l->status_due), l->attend_next);
	nfds_t count = (nfds_t)l->count;

	for (int i = 0; i < l->count; i++)
		l->slots[i] = (struct pollfd){ .fd = accepting ? l->first + i : -1,
			.events = POLLIN };
	count += children_watch(&l->children, !pausing, l->slots + l->count);
	if (pausing)
		wake = earlier(wake, l->paused_until);
	if (l->limits->exit_idle != 0 && is_empty(l))
		wake = earlier(wake, l->idle_since + l->limits->exit_idle);
	if (wait_poll(l->slots, count, wake) == -1) {
		if (errno != EINTR) {
			pause_for(l, "wait for connections", errno);
			wait_poll(NULL, 0, l->paused_until);
		}
		for (nfds_t i = 0; i < count; i++)
			l->slots[i].revents = 0;
	}
	children_hear(&l->children, !pausing, l->slots + l->count);
}

static bool is_over(struct listener *l)
{
	if (!is_empty(l)) {
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
		obey_signals(l);
		l->attend_next = NEVER;
		/* Strangers that will leave no record come last. */
		if (attend_all(l, false, accepted) == 1 || attend_all(l, true, accepted) == 1)
			return 1;
		if (l->reloading && children_count(&l->children, CHILD_EVICTED, CHILD_WAITING) == 0)
			reload(l, argv);
		if (is_over(l))
			return 0;
		records_sum_up(&l->records, l->now, l->report);
		if (l->now >= l->status_due)
			send_status(l, false, false);
		wait_for_news(l);
		l->now = time_now();
		l->status_due = earlier(l->status_due, l->now + STATUS_EVERY);
		for (int i = 0; i < l->count; i++)
			if (l->slots[i].revents != 0 && is_accepting(l) &&
			    accept_from(l, l->slots[i].fd, outcome) != 0)
				return -1;
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
    const struct listener_limits *limits, const struct places *target, char *const *argv,
    struct report *report, struct outcome *outcome)
{
	struct listener l = { .limits = limits,
		.target = target,
		.report = report,
		.first = descriptors->listening,
		.count = descriptors->listeners,
		.now = time_now(),
		.has_terminal = has_terminal() };
	FILE *state = open_state();
	int result;

	/* After a reload the other descriptors are our children's channels. */
	if (state == NULL)
		descriptors_close_others(descriptors);
	records_init(&l.records);
	result = restore(&l, state);
	if (state != NULL)
		fclose(state);
	if (result != 0)
		return fail(outcome, EX_OSERR, "no memory for %u connections", limits->connections);
	l.children.connects = target != NULL;
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
	children_free(&l.children, result == 1 ? accepted->fd : -1);
	free(l.slots);
	return result == 1 ? 0 : -1;
}
