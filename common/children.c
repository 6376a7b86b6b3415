#include "children.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int children_init(struct children *children, size_t room)
{
	memset(children, 0, sizeof(*children));
	children->room = room;
	children->number[CHILD_NONE] = (unsigned)room;
	children->child = calloc(room, sizeof(*children->child));
	return children->child == NULL ? -1 : 0;
}

static bool is_stranger(const struct child *child)
{
	return child->state >= CHILD_WAITING && child->state <= CHILD_STRANGER;
}

static bool is_proved(const struct child *child)
{
	return child->state >= CHILD_PROVED;
}

static bool is_watched(const struct child *child, bool waiting)
{
	if (child->state == CHILD_NONE || child->state == CHILD_SETTLED || child->fd == -1)
		return false;
	return child->pid != 0 || (waiting && (child->heard & ~POLLIN) == 0);
}

unsigned children_count(const struct children *children, enum child_state first,
    enum child_state last)
{
	unsigned number = 0;

	for (int state = (int)first; state <= (int)last; state++)
		number += children->number[state];
	return number;
}

void children_set(struct children *children, struct child *child, enum child_state state)
{
	children->number[child->state]--;
	child->state = state;
	children->number[state]++;
}

void children_add(struct children *children, struct child child)
{
	struct child *place = children->child;
	enum child_state state = child.state;

	while (place->state != CHILD_NONE)
		place++;
	if (place == children->child + children->end)
		children->end++;
	*place = child;
	place->state = CHILD_NONE;
	place->serial = children->serial++;
	children_set(children, place, state);
}

void children_start(struct children *children, struct child *child, enum child_state state,
    pid_t pid, int channel)
{
	close(child->fd);
	child->fd = channel;
	child->heard = 0;
	child->pid = pid;
	children_set(children, child, state);
}

void children_remove(struct children *children, struct child *child)
{
	*(is_proved(child) ? &children->served : &children->refused) += 1;
	if (child->fd != -1)
		close(child->fd);
	children_set(children, child, CHILD_NONE);
}

/* Read a process's reports: there are four at the most. */
static void hear(struct children *children, struct child *child)
{
	struct child_report report;
	ssize_t got;

	for (int i = 0; i < 4 && child->fd != -1; i++) {
		got = read(child->fd, &report, sizeof(report));
		if (got == -1)
			return;
		if (got != sizeof(report)) { /* closed */
			close(child->fd);
			child->fd = -1;
		} else if (report.what == CHILD_CARRIED) {
			child->reported = true;
			children->bytes_in += report.bytes_in;
			children->bytes_out += report.bytes_out;
		} else if (report.what == CHILD_IS_READY && child->state == CHILD_STARTING) {
			children_set(children, child, CHILD_STRANGER);
		} else if (report.what == CHILD_ASKS && child->state == CHILD_PROVED) {
			children_set(children, child, CHILD_ASKING);
		} else if (report.what == CHILD_HAS_PROOF && !is_proved(child)) {
			children_set(children, child,
			    children->connects ? CHILD_PROVED : CHILD_SETTLED);
		}
	}
}

bool children_reap(struct children *children, struct child *ended, int *status)
{
	pid_t pid;

	while ((pid = waitpid(-1, status, WNOHANG)) > 0)
		for (size_t i = 0; i < children->end; i++) {
			struct child *child = &children->child[i];

			if (child->state == CHILD_NONE || child->pid != pid)
				continue;
			hear(children, child);
			*ended = *child;
			children_remove(children, child);
			return true;
		}
	return false;
}

nfds_t children_watch(const struct children *children, bool waiting, struct pollfd *slots)
{
	nfds_t number = 0;

	for (size_t i = 0; i < children->end; i++)
		if (is_watched(&children->child[i], waiting))
			slots[number++] = (struct pollfd){ .fd = children->child[i].fd,
				.events = POLLRDHUP |
				    (children->child[i].heard == 0 ? POLLIN : 0) };
	return number;
}

void children_hear(struct children *children, bool waiting, const struct pollfd *slots)
{
	for (size_t i = 0; i < children->end; i++) {
		struct child *child = &children->child[i];

		if (!is_watched(child, waiting) || (slots++)->revents == 0)
			continue;
		if (child->pid != 0)
			hear(children, child);
		else
			child->heard |= slots[-1].revents;
	}
}

unsigned children_strangers(const struct children *children, const struct source_network *source)
{
	unsigned number = 0;

	for (size_t i = 0; i < children->end; i++)
		number += is_stranger(&children->child[i]) &&
		    source_equal(source, &children->child[i].source);
	return number;
}

void children_make_room(struct children *children, const struct source_network *source)
{
	struct child *oldest = NULL;

	for (size_t i = 0; i < children->end; i++) {
		struct child *child = &children->child[i];

		if (is_stranger(child) &&
		    (source == NULL || source_equal(source, &child->source)) &&
		    (oldest == NULL || child->serial < oldest->serial))
			oldest = child;
	}
	if (oldest == NULL)
		return;
	if (oldest->pid != 0)
		kill(oldest->pid, SIGUSR2);
	children_set(children, oldest, oldest->pid != 0 ? CHILD_LEAVING : CHILD_EVICTED);
}

void children_kill(const struct children *children, int signal)
{
	for (size_t i = 0; i < children->end; i++)
		if (children->child[i].state != CHILD_NONE && children->child[i].pid != 0)
			kill(children->child[i].pid, signal);
}

void children_set_inherited(const struct children *children, bool inherited)
{
	for (size_t i = 0; i < children->end; i++)
		if (children->child[i].state != CHILD_NONE && children->child[i].fd != -1)
			fcntl(children->child[i].fd, F_SETFD, inherited ? 0 : FD_CLOEXEC);
}

void children_free(struct children *children, int but)
{
	for (size_t i = 0; i < children->end; i++) {
		const struct child *child = &children->child[i];

		if (child->state != CHILD_NONE && child->fd != -1 && child->fd != but)
			close(child->fd);
	}
	free(children->child);
}

int children_save(const struct children *children, int fd)
{
	if (dprintf(fd, "%u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
		children_count(children, CHILD_STARTING, CHILD_SETTLED), children->served,
		children->refused, children->bytes_in, children->bytes_out) < 0)
		return -1;
	for (size_t i = 0; i < children->end; i++) {
		const struct child *child = &children->child[i];
		uint64_t network;

		memcpy(&network, child->source.network, sizeof(network));
		if (child->state != CHILD_NONE &&
		    dprintf(fd, "%d %d %d %d %" PRIu64 " %u %" PRIx64 "\n", child->state,
			child->pid, child->fd, child->muted, child->serial, child->source.family,
			network) < 0)
			return -1;
	}
	return 0;
}

/* NOLINTBEGIN(cert-err34-c): these are numbers of our own */
int children_restore(struct children *children, size_t room, FILE *file)
{
	struct child child = { 0 };
	uint64_t network, served = 0, refused = 0, in = 0, out = 0, serial, next = 0;
	int state, muted;
	unsigned processes, family;

	if (fscanf(file, "%u %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &processes, &served,
		&refused, &in, &out) != 5)
		processes = 0;
	if (children_init(children, room + processes) != 0)
		return -1;
	while (processes-- > 0 &&
	    fscanf(file, "%d %d %d %d %" SCNu64 " %u %" SCNx64, &state, &child.pid, &child.fd,
		&muted, &serial, &family, &network) == 7 &&
	    child.pid > 0 && state >= CHILD_STARTING && state <= CHILD_SETTLED) {
		child.state = (enum child_state)state;
		child.muted = muted != 0;
		child.source.family = (sa_family_t)family;
		memcpy(child.source.network, &network, sizeof(network));
		children->serial = serial; /* their order decides who makes room first */
		children_add(children, child);
		next = serial >= next ? serial + 1 : next;
	}
	children->serial = next;
	children->served = served;
	children->refused = refused;
	children->bytes_in = in;
	children->bytes_out = out;
	return 0;
}
/* NOLINTEND(cert-err34-c) */
