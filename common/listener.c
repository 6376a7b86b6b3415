#include "listener.h"

#include <arpa/inet.h>
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

#include "secret.h"
#include "wait.h"

#define PAUSE (SECOND / 10) /* after a failure to accept or fork */
#define STATUS_EVERY (SECOND * 10)
#define STATE "SPIPE_LISTENER" /* in the environment when reloading: a descriptor */

/* Records of strangers in the log: at most so many per source and time span. */
#define RECORDS_MOST 10
#define RECORDS_SPAN (60 * SECOND)
#define RECORDS_SOURCES 256 /* sources that are counted separately */

/* What connections are counted by: an IPv4 address or an IPv6 /64. Family 0: neither. */
struct source {
	sa_family_t family;
	uint8_t network[8];
};

struct child {
	pid_t pid;       /* 0: this place is free */
	int channel;     /* where it reports; -1: closed */
	uint64_t serial; /* the order of accepting */
	struct source source;
	bool proved;  /* its peer holds a key */
	bool leaving; /* told to make room */
	bool muted;
};

/* The recent records of one source in the log. */
struct records {
	struct source source;
	int64_t since; /* 0: free */
	unsigned made, left_out;
};

struct listener {
	const struct listener_limits *limits;
	struct report *report;
	int first, count; /* listening sockets */
	struct child *children;
	struct pollfd *slots;
	size_t room;                /* for children */
	unsigned proved, strangers; /* children by kind, without those that are leaving */
	unsigned processes;         /* all of them */
	uint64_t serial;
	int held; /* a connection that has no child yet, or -1 */
	struct address remote;
	int64_t now, paused, idle_since, status_sent, sum_up;
	bool troubled; /* the reason for the pause has been logged */
	bool ending;   /* accept no more, end with the last child */
	uint64_t served, refused, bytes_in, bytes_out;
	struct records records[RECORDS_SOURCES];
};

/* What a child reports: that its peer has proved a key, and at its end how much it carried. */
struct word {
	enum { PROVED, CARRIED } kind;
	uint64_t in, out;
};

static void say(int channel, struct word word)
{
	if (channel != -1)
		(void)!write(channel, &word, sizeof(word));
}

void listener_proved(int channel)
{
	if (channel == -1)
		return;
	signal(SIGUSR2, SIG_IGN);
	if (signal_stop == SIGUSR2)
		signal_stop = 0;
	say(channel, (struct word){ .kind = PROVED });
}

void listener_carried(int channel, uint64_t bytes_in, uint64_t bytes_out)
{
	say(channel, (struct word){ .kind = CARRIED, .in = bytes_in, .out = bytes_out });
}

static struct source source_of(const struct address *address)
{
	struct source source = { 0 };

	if (address->family == AF_INET || address->family == AF_INET6) {
		source.family = address->family;
		memcpy(source.network, address->ip, address->family == AF_INET ? 4 : 8);
	}
	return source;
}

static bool is_same(const struct source *a, const struct source *b)
{
	return a->family == b->family && memcmp(a->network, b->network, sizeof(a->network)) == 0;
}

/* --- strangers' records in the log -------------------------------------------------------- */

static void say_left_out(struct listener *l, struct records *records)
{
	uint8_t ip[16] = { 0 };
	char text[INET6_ADDRSTRLEN] = "other addresses";

	memcpy(ip, records->source.network, sizeof(records->source.network));
	if (records->source.family != 0)
		inet_ntop(records->source.family, ip, text, sizeof(text));
	if (records->left_out > 0)
		report_warn(l->report,
		    "%s%s: %u more connections that did not prove a key are not in the log", text,
		    records->source.family == AF_INET6 ? "/64" : "", records->left_out);
	memset(records, 0, sizeof(*records));
}

/* Log the counts of the time spans that are over, or of all of them. */
static void sum_up_records(struct listener *l, bool all)
{
	l->sum_up = NEVER;
	for (size_t i = 0; i < RECORDS_SOURCES; i++) {
		struct records *records = &l->records[i];

		if (records->since == 0)
			continue;
		if (all || l->now - records->since >= RECORDS_SPAN)
			say_left_out(l, records);
		else if (records->since + RECORDS_SPAN < l->sum_up)
			l->sum_up = records->since + RECORDS_SPAN;
	}
}

/* The records of a source. When there are too many sources, the rest share the first entry. */
static struct records *records_of(struct listener *l, const struct source *source)
{
	struct records *free = NULL;

	for (size_t i = 1; i < RECORDS_SOURCES; i++) {
		struct records *records = &l->records[i];

		if (records->since != 0 && is_same(&records->source, source))
			return records;
		if (records->since == 0 && free == NULL)
			free = records;
	}
	if (free == NULL)
		free = &l->records[0];
	else
		free->source = *source;
	if (free->since == 0) {
		free->since = l->now;
		if (l->sum_up > l->now + RECORDS_SPAN)
			l->sum_up = l->now + RECORDS_SPAN;
	}
	return free;
}

/* --- children ----------------------------------------------------------------------------- */

static struct child *child_new(struct listener *l)
{
	for (size_t i = 0; i < l->room; i++)
		if (l->children[i].pid == 0)
			return &l->children[i];
	return NULL;
}

/* Add `change`, 1 or -1, to the number of children of this one's kind. */
static void count_child(struct listener *l, const struct child *child, int change)
{
	if (child->proved)
		l->proved += (unsigned)change;
	else if (!child->leaving)
		l->strangers += (unsigned)change;
}

/* Read what a child reports. */
static void hear(struct listener *l, struct child *child)
{
	struct word word;
	ssize_t got;

	while (child->channel != -1 && (got = read(child->channel, &word, sizeof(word))) != -1) {
		if (got != sizeof(word)) { /* closed */
			close(child->channel);
			child->channel = -1;
		} else if (word.kind == CARRIED) {
			l->bytes_in += word.in;
			l->bytes_out += word.out;
		} else if (!child->proved) {
			count_child(l, child, -1);
			child->proved = true;
			count_child(l, child, 1);
		}
	}
}

static void forget(struct listener *l, struct child *child)
{
	hear(l, child);
	if (child->proved)
		l->served++;
	else {
		struct records *records = records_of(l, &child->source);

		l->refused++;
		*(child->muted ? &records->left_out : &records->made) += 1;
	}
	if (child->channel != -1)
		close(child->channel);
	count_child(l, child, -1);
	l->processes--;
	child->pid = 0;
}

static void reap(struct listener *l)
{
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		for (size_t i = 0; i < l->room; i++)
			if (l->children[i].pid == pid)
				forget(l, &l->children[i]);
}

static void kill_all(const struct listener *l, int number)
{
	for (size_t i = 0; i < l->room; i++)
		if (l->children[i].pid != 0)
			kill(l->children[i].pid, number);
}

/* The oldest stranger gives way: of `source`, or of all if that is NULL. */
static void make_room(struct listener *l, const struct source *source)
{
	struct child *oldest = NULL;

	for (size_t i = 0; i < l->room; i++) {
		struct child *child = &l->children[i];

		if (child->pid != 0 && !child->proved && !child->leaving &&
		    (source == NULL || is_same(source, &child->source)) &&
		    (oldest == NULL || child->serial < oldest->serial))
			oldest = child;
	}
	if (oldest == NULL)
		return;
	kill(oldest->pid, SIGUSR2);
	count_child(l, oldest, -1);
	oldest->leaving = true;
}

static unsigned strangers_from(const struct listener *l, const struct source *source)
{
	unsigned number = 0;

	for (size_t i = 0; i < l->room; i++) {
		const struct child *child = &l->children[i];

		number += child->pid != 0 && !child->proved && !child->leaving &&
		    is_same(source, &child->source);
	}
	return number;
}

/* --- accepting ---------------------------------------------------------------------------- */

/* Accept nothing for a moment, and say why once. */
static void pause_for(struct listener *l, const char *what, int error)
{
	l->paused = l->now + PAUSE;
	if (!l->troubled)
		report_warn(l->report, "cannot %s: %s; trying again", what, strerror(error));
	l->troubled = true;
}

static bool is_accepting(const struct listener *l)
{
	return !l->ending && l->held == -1 && l->now >= l->paused &&
	    l->proved < l->limits->connections && l->processes < l->room;
}

/*
 * Accept from the listening socket `fd`. Returns 0, or -1 with the outcome set if nothing can ever be
 * accepted there.
 */
static int accept_from(struct listener *l, int fd, struct outcome *outcome)
{
	struct sockaddr_storage from = { 0 };
	socklen_t size = sizeof(from);
	int connection = accept4(fd, (struct sockaddr *)&from, &size, SOCK_CLOEXEC);

	if (connection != -1) {
		l->held = connection;
		address_from(&l->remote, &from, size);
		return 0;
	}
	switch (errno) {
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM: pause_for(l, "accept a connection", errno); return 0;
	case EBADF:
	case EINVAL:
	case ENOTSOCK:
	case EOPNOTSUPP:
		return fail(outcome, EX_OSERR, "cannot accept on descriptor %d: %s", fd,
		    strerror(errno));
	default: return 0; /* the connection is gone, or another process took it */
	}
}

/* Fork a child for the connection that is held. Returns 1 in the child, else 0. */
static int serve(struct listener *l, struct accepted *accepted)
{
	struct child *child = child_new(l);
	struct source source = source_of(&l->remote);
	int channel[2];
	pid_t pid;

	if (pipe2(channel, O_CLOEXEC | O_NONBLOCK) != 0) {
		pause_for(l, "make a pipe", errno);
		return 0;
	}
	*accepted = (struct accepted){ .fd = l->held, .channel = channel[1], .remote = l->remote };
	if (l->limits->strangers != 0)
		accepted->muted = records_of(l, &source)->made >= RECORDS_MOST;
	pid = fork();
	if (pid == 0)
		return 1;
	close(channel[1]);
	if (pid == -1) {
		pause_for(l, "fork", errno);
		close(channel[0]);
		return 0;
	}
	close(l->held);
	l->held = -1;
	l->troubled = false;
	if (l->limits->strangers != 0) {
		if (source.family != 0 && strangers_from(l, &source) >= l->limits->per_source)
			make_room(l, &source);
		if (l->strangers >= l->limits->strangers)
			make_room(l, NULL);
	}
	*child = (struct child){ .pid = pid,
		.channel = channel[0],
		.serial = l->serial++,
		.source = source,
		.proved = l->limits->strangers == 0,
		.muted = accepted->muted };
	count_child(l, child, 1);
	l->processes++;
	return 0;
}

/* --- reloading ---------------------------------------------------------------------------- */

static void set_inherited(const struct listener *l, bool inherited)
{
	int flags = inherited ? 0 : FD_CLOEXEC;

	for (int fd = l->first; fd < l->first + l->count; fd++)
		fcntl(fd, F_SETFD, flags);
	for (size_t i = 0; i < l->room; i++)
		if (l->children[i].pid != 0 && l->children[i].channel != -1)
			fcntl(l->children[i].channel, F_SETFD, flags);
}

/* Execute the program again. Returns only if that fails. */
static void reload(struct listener *l, char *const *argv)
{
	int state = memfd_create("state", 0);
	char number[16];

	if (state == -1) {
		report_warn(l->report, "cannot reload: %s", strerror(errno));
		return;
	}
	dprintf(state, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", l->served, l->refused,
	    l->bytes_in, l->bytes_out);
	for (size_t i = 0; i < l->room; i++) {
		const struct child *child = &l->children[i];
		uint64_t network;

		memcpy(&network, child->source.network, sizeof(network));
		if (child->pid != 0)
			dprintf(state, "%d %d %d %d %d %u %" PRIx64 "\n", child->pid,
			    child->channel, child->proved, child->leaving, child->muted,
			    child->source.family, network);
	}
	lseek(state, 0, SEEK_SET);
	snprintf(number, sizeof(number), "%d", state);
	setenv(STATE, number, 1);
	if (l->first != STDIN_FILENO) {
		snprintf(number, sizeof(number), "%d", getpid());
		setenv("LISTEN_PID", number, 1);
		snprintf(number, sizeof(number), "%d", l->count);
		setenv("LISTEN_FDS", number, 1);
	}
	set_inherited(l, true);
	secret_unharden();
	execvp(argv[0], argv);
	report_warn(l->report, "cannot reload: %s: %s", argv[0], strerror(errno));
	secret_harden();
	set_inherited(l, false);
	unsetenv(STATE);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	close(state);
}

/* Take over the children of the program that executed us, and make room for more. */
static int restore(struct listener *l)
{
	const char *number = getenv(STATE);
	FILE *state = number == NULL ? NULL : fdopen((int)strtol(number, NULL, 10), "r");
	struct child child = { 0 };
	int proved, leaving, muted;
	unsigned family;
	uint64_t network;
	size_t inherited = 0;

	unsetenv(STATE);
	if (state != NULL) {
		for (int byte; (byte = getc(state)) != EOF;)
			inherited += byte == '\n';
		rewind(state);
	}
	/* Strangers may prove a key after accepting has paused, and those that leave need room too. */
	l->room = inherited + l->limits->connections + 2 * (size_t)l->limits->strangers + 1;
	l->children = calloc(l->room, sizeof(*l->children));
	l->slots = calloc(l->room + (size_t)l->count, sizeof(*l->slots));
	if (l->children == NULL || l->slots == NULL)
		return -1;
	if (state == NULL)
		return 0;
	/* NOLINTBEGIN(cert-err34-c): our own numbers */
	if (fscanf(state, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &l->served, &l->refused,
		&l->bytes_in, &l->bytes_out) == 4)
		while (fscanf(state, "%d %d %d %d %d %u %" SCNx64, &child.pid, &child.channel,
			   &proved, &leaving, &muted, &family, &network) == 7) {
			child.proved = proved != 0;
			child.leaving = leaving != 0;
			child.muted = muted != 0;
			child.serial = l->serial++;
			child.source.family = (sa_family_t)family;
			memcpy(child.source.network, &network, sizeof(network));
			count_child(l, &child, 1);
			l->children[l->processes++] = child;
		}
	/* NOLINTEND(cert-err34-c) */
	fclose(state);
	return 0;
}

/* --- the loop ----------------------------------------------------------------------------- */

static void send_status(struct listener *l, bool ready, bool progress)
{
	report_listening(l->report, ready, progress,
	    "%u connections, %u strangers; %" PRIu64 " served, %" PRIu64 " refused, %" PRIu64
	    " bytes in, %" PRIu64 " bytes out",
	    l->proved, l->strangers, l->served, l->refused, l->bytes_in, l->bytes_out);
	l->status_sent = l->now;
}

static void obey_signals(struct listener *l, bool has_terminal, char *const *argv)
{
	int number = signal_stop;

	signal_stop = 0;
	if (signal_progress) {
		signal_progress = 0;
		send_status(l, false, true);
	}
	if (number == SIGHUP && !has_terminal && !l->ending) {
		reload(l, argv);
		return;
	}
	if (number != 0)
		l->ending = true;
	if (number != 0 && number != SIGUSR2)
		kill_all(l, SIGTERM);
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Wait for a connection, a report from a child, a signal, or the next deadline. */
static int wait_for_news(struct listener *l, struct pollfd **channels, struct outcome *outcome)
{
	bool accepting = is_accepting(l);
	int64_t wake = earlier(l->sum_up, l->status_sent + STATUS_EVERY);
	nfds_t count = 0;

	for (int i = 0; i < l->count; i++)
		l->slots[count++] = (struct pollfd){ .fd = accepting ? l->first + i : -1,
			.events = POLLIN };
	*channels = &l->slots[count];
	for (size_t i = 0; i < l->room; i++)
		if (l->children[i].pid != 0 && !l->children[i].proved)
			l->slots[count++] = (struct pollfd){ .fd = l->children[i].channel,
				.events = POLLIN };
	if (l->paused > l->now)
		wake = earlier(wake, l->paused);
	if (l->limits->exit_idle != 0 && l->processes == 0)
		wake = earlier(wake, l->idle_since + l->limits->exit_idle);
	if (wait_poll(l->slots, count, wake) != -1)
		return 0;
	for (nfds_t i = 0; i < count; i++)
		l->slots[i].revents = 0;
	return errno == EINTR
	    ? 0
	    : fail(outcome, EX_OSERR, "cannot wait for connections: %s", strerror(errno));
}

/* Read the reports of the strangers that have sent one. */
static void hear_strangers(struct listener *l, const struct pollfd *channels)
{
	for (size_t i = 0; i < l->room; i++)
		if (l->children[i].pid != 0 && !l->children[i].proved && (channels++)->revents != 0)
			hear(l, &l->children[i]);
}

static bool is_over(struct listener *l)
{
	if (l->processes > 0 || l->held != -1)
		l->idle_since = l->now;
	return l->processes == 0 && l->held == -1 &&
	    (l->ending ||
		(l->limits->exit_idle != 0 && l->now - l->idle_since >= l->limits->exit_idle));
}

/* Give up what a child must not have. */
static void leave(struct listener *l)
{
	for (size_t i = 0; i < l->room; i++)
		if (l->children[i].pid != 0 && l->children[i].channel != -1)
			close(l->children[i].channel);
	free(l->children);
	free(l->slots);
}

/* The loop of listener_run. Returns 1 in a child, 0 at the listener's end, or -1 (outcome). */
static int run(struct listener *l, struct accepted *accepted, bool has_terminal, char *const *argv,
    struct outcome *outcome)
{
	struct pollfd *channels;

	for (;;) {
		l->now = time_now();
		reap(l);
		obey_signals(l, has_terminal, argv);
		if (is_over(l))
			return 0;
		if (l->now >= l->sum_up)
			sum_up_records(l, false);
		if (l->now - l->status_sent >= STATUS_EVERY)
			send_status(l, false, false);
		if (wait_for_news(l, &channels, outcome) != 0)
			return -1;
		l->now = time_now();
		hear_strangers(l, channels);
		for (int i = 0; i < l->count; i++) {
			if (l->slots[i].fd != -1 && l->slots[i].revents != 0 && l->held == -1 &&
			    accept_from(l, l->slots[i].fd, outcome) != 0)
				return -1;
			if (l->held != -1 && l->now >= l->paused && serve(l, accepted) == 1)
				return 1;
		}
	}
}

int listener_run(struct accepted *accepted, struct descriptors *descriptors,
    const struct listener_limits *limits, char *const *argv, struct report *report,
    struct outcome *outcome)
{
	int first = descriptors->listening, count = descriptors->listeners;
	struct listener l = { .limits = limits,
		.report = report,
		.first = first,
		.count = count,
		.held = -1,
		.now = time_now(),
		.sum_up = NEVER };
	int terminal = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC), result;

	if (terminal != -1)
		close(terminal);
	if (getenv(STATE) == NULL)
		descriptors_close_others(
		    descriptors); /* after a reload they are our children's channels */
	if (restore(&l) != 0)
		return fail(outcome, EX_OSERR, "no memory for %u connections", limits->connections);
	set_inherited(&l, false);
	/* Another process may accept first on these sockets: accept(2) must not wait then. */
	for (int fd = first; fd < first + count; fd++)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	l.idle_since = l.now;
	send_status(&l, true, false);
	result = run(&l, accepted, terminal != -1, argv, outcome);
	if (result != 1)
		sum_up_records(&l, true);
	leave(&l);
	if (result == 1)
		descriptors_set_near(descriptors, accepted->fd);
	return result == 1 ? 0 : -1;
}
