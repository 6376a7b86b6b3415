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
	children->child = calloc(room, sizeof(*children->child));
	return children->child == NULL ? -1 : 0;
}

static bool is_stranger(const struct child *child)
{
	return child->pid != 0 && !child->proved && !child->leaving;
}

static bool is_watched(const struct child *child)
{
	return child->pid != 0 && child->channel != -1 && (!child->proved || !child->settled);
}

/* Add `change`, 1 or -1, to the number of children of this one's kind. */
static void count(struct children *children, const struct child *child, int change)
{
	if (child->proved)
		children->proved += (unsigned)change;
	else if (!child->leaving)
		children->strangers += (unsigned)change;
}

void children_add(struct children *children, struct child child)
{
	struct child *place = children->child;

	while (place->pid != 0)
		place++;
	*place = child;
	place->serial = children->serial++;
	children->processes++;
	count(children, place, 1);
}

/* Read a child's reports: there are three at the most. */
static void hear(struct children *children, struct child *child)
{
	struct child_report report;
	ssize_t got;

	for (int i = 0; i < 3 && child->channel != -1; i++) {
		got = read(child->channel, &report, sizeof(report));
		if (got == -1)
			return;
		if (got != sizeof(report)) { /* closed */
			close(child->channel);
			child->channel = -1;
		} else if (report.what == CHILD_ASKS) {
			child->asking = child->proved && !child->settled;
		} else if (report.what == CHILD_CARRIED) {
			children->bytes_in += report.bytes_in;
			children->bytes_out += report.bytes_out;
		} else if (!child->proved) {
			count(children, child, -1);
			child->proved = true;
			count(children, child, 1);
		}
	}
}

bool children_reap(struct children *children, struct child *ended)
{
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		for (size_t i = 0; i < children->room; i++) {
			struct child *child = &children->child[i];

			if (child->pid != pid)
				continue;
			hear(children, child);
			if (child->channel != -1)
				close(child->channel);
			count(children, child, -1);
			children->processes--;
			*(child->proved ? &children->served : &children->refused) += 1;
			*ended = *child;
			child->pid = 0;
			return true;
		}
	return false;
}

nfds_t children_watch(const struct children *children, struct pollfd *slots)
{
	nfds_t number = 0;

	for (size_t i = 0; i < children->room; i++)
		if (is_watched(&children->child[i]))
			slots[number++] = (struct pollfd){ .fd = children->child[i].channel,
				.events = POLLIN };
	return number;
}

void children_hear(struct children *children, const struct pollfd *slots)
{
	for (size_t i = 0; i < children->room; i++)
		if (is_watched(&children->child[i]) && (slots++)->revents != 0)
			hear(children, &children->child[i]);
}

struct child *children_asking(struct children *children)
{
	for (size_t i = 0; i < children->room; i++)
		if (children->child[i].pid != 0 && children->child[i].asking)
			return &children->child[i];
	return NULL;
}

unsigned children_strangers(const struct children *children, const struct source_network *source)
{
	unsigned number = 0;

	for (size_t i = 0; i < children->room; i++)
		number += is_stranger(&children->child[i]) &&
		    source_equal(source, &children->child[i].source);
	return number;
}

void children_make_room(struct children *children, const struct source_network *source)
{
	struct child *oldest = NULL;

	for (size_t i = 0; i < children->room; i++) {
		struct child *child = &children->child[i];

		if (is_stranger(child) &&
		    (source == NULL || source_equal(source, &child->source)) &&
		    (oldest == NULL || child->serial < oldest->serial))
			oldest = child;
	}
	if (oldest == NULL)
		return;
	kill(oldest->pid, SIGUSR2);
	count(children, oldest, -1);
	oldest->leaving = true;
}

void children_kill(const struct children *children, int signal)
{
	for (size_t i = 0; i < children->room; i++)
		if (children->child[i].pid != 0)
			kill(children->child[i].pid, signal);
}

void children_set_inherited(const struct children *children, bool inherited)
{
	for (size_t i = 0; i < children->room; i++)
		if (children->child[i].pid != 0 && children->child[i].channel != -1)
			fcntl(children->child[i].channel, F_SETFD, inherited ? 0 : FD_CLOEXEC);
}

void children_free(struct children *children)
{
	for (size_t i = 0; i < children->room; i++)
		if (children->child[i].pid != 0 && children->child[i].channel != -1)
			close(children->child[i].channel);
	free(children->child);
}

int children_save(const struct children *children, int fd)
{
	if (dprintf(fd, "%u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", children->processes,
		children->served, children->refused, children->bytes_in, children->bytes_out) < 0)
		return -1;
	for (size_t i = 0; i < children->room; i++) {
		const struct child *child = &children->child[i];
		uint64_t network;

		memcpy(&network, child->source.network, sizeof(network));
		if (child->pid != 0 &&
		    dprintf(fd, "%d %d %d %d %d %u %" PRIx64 "\n", child->pid, child->channel,
			child->proved, child->leaving, child->muted, child->source.family,
			network) < 0)
			return -1;
	}
	return 0;
}

/* NOLINTBEGIN(cert-err34-c): these are numbers of our own */
int children_restore(struct children *children, size_t room, FILE *file)
{
	struct child child = { 0 };
	uint64_t network, served = 0, refused = 0, in = 0, out = 0;
	int proved, leaving, muted;
	unsigned processes, family;

	if (fscanf(file, "%u %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &processes, &served,
		&refused, &in, &out) != 5)
		processes = 0;
	if (children_init(children, room + processes) != 0)
		return -1;
	while (processes-- > 0 &&
	    fscanf(file, "%d %d %d %d %d %u %" SCNx64, &child.pid, &child.channel, &proved,
		&leaving, &muted, &family, &network) == 7 &&
	    child.pid > 0) {
		child.proved = proved != 0;
		child.leaving = leaving != 0;
		child.muted = muted != 0;
		child.source.family = (sa_family_t)family;
		memcpy(child.source.network, &network, sizeof(network));
		children_add(children, child);
	}
	children->served = served;
	children->refused = refused;
	children->bytes_in = in;
	children->bytes_out = out;
	return 0;
}
/* NOLINTEND(cert-err34-c) */
