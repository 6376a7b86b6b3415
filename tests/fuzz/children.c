/*
 * A listener's children: what a reload reads, and what they report. Input: a byte, then the list as text, ended by a
 * NUL; then, a byte for which child and how much, what the children write to their channels.
 */

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../common/children.h"
#include "fuzz.h"

#define MOST 64          /* children that the list may announce */
#define NO_PID (1 << 30) /* above any that a kernel gives: signals go nowhere */

/* The counts are those of the table. */
static void check(const struct children *c)
{
	unsigned number[CHILD_STATES] = { 0 };

	for (size_t i = 0; i < c->room; i++) {
		CHECK(c->child[i].pid >= 0);
		number[c->child[i].state]++;
	}
	CHECK(memcmp(number, c->number, sizeof(number)) == 0);
}

/* What is written down and read again is the same. */
static void check_again(const struct children *c)
{
	struct children again;
	int fd = memfd_create("list", MFD_CLOEXEC);
	FILE *file;
	size_t next = 0;

	CHECK(fd != -1 && children_save(c, fd) == 0 && lseek(fd, 0, SEEK_SET) == 0);
	file = fdopen(fd, "r");
	CHECK(file != NULL && children_restore(&again, 1, file) == 0);
	fclose(file);
	check(&again);
	CHECK(again.number[CHILD_NONE] > 0 &&
	    again.room - again.number[CHILD_NONE] == c->room - c->number[CHILD_NONE]);
	CHECK(again.served == c->served && again.refused == c->refused);
	CHECK(again.bytes_in == c->bytes_in && again.bytes_out == c->bytes_out);
	for (size_t i = 0; i < c->room; i++) {
		const struct child *one = &c->child[i], *other = &again.child[next];

		if (one->state == CHILD_NONE)
			continue;
		CHECK(one->pid == other->pid && one->fd == other->fd);
		CHECK(one->state == other->state && one->serial == other->serial);
		CHECK(one->muted == other->muted && source_equal(&one->source, &other->source));
		next++;
	}
	free(again.child); /* the channels are the first one's */
}

/* The children write to their channels, the listener reads. */
static void report(struct children *c, struct input *in)
{
	struct pollfd slots[MOST + 1] = { 0 };
	int writers[MOST + 1] = { 0 }, channel[2];
	uint8_t data[3 * sizeof(struct child_report)];

	for (size_t i = 0; i < c->room; i++) {
		struct child waiting = { .state = CHILD_WAITING, .fd = -1 };

		if (c->child[i].state == CHILD_NONE)
			children_add(c, waiting);
	}
	for (size_t i = 0; i < c->room; i++) {
		CHECK(pipe2(channel, O_CLOEXEC | O_NONBLOCK) == 0);
		if (c->child[i].pid != 0)
			c->child[i].pid = NO_PID + (pid_t)i;
		c->child[i].fd = channel[0];
		writers[i] = channel[1];
	}
	CHECK(c->room > 0);
	while (in->left > 0) {
		size_t i = take_byte(in) % c->room, size = take_byte(in) % sizeof(data);
		struct child *child = &c->child[i];
		nfds_t count;

		take(in, data, size);
		if (size == 0)
			children_make_room(c, i % 2 == 0 ? NULL : &child->source);
		else if (size == 1 && child->pid == 0)
			children_start(c, child, CHILD_STARTING, NO_PID + (pid_t)i, dup(child->fd));
		else if (child->fd != -1)
			CHECK(write(writers[i], data, size) == (ssize_t)size);
		count = children_watch(c, i % 2 == 0, slots);
		CHECK(count <= c->room);
		poll(slots, count, 0);
		children_hear(c, i % 2 == 0, slots);
		check(c);
	}
	for (size_t i = 0; i < c->room; i++) {
		children_remove(c, &c->child[i]);
		close(writers[i]);
	}
	CHECK(c->number[CHILD_NONE] == c->room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	size_t room = 1 + take_byte(&in) % 4;
	struct children c;
	unsigned announced;
	char text[2048];
	FILE *file;

	take_text(&in, text, sizeof(text));
	/* As many as this are no children of one listener, and take all memory. */
	/* NOLINTNEXTLINE(cert-err34-c): as children_restore reads it */
	if (sscanf(text, "%u", &announced) == 1 && announced > MOST - room)
		return 0;
	file = fmemopen(text, strlen(text) + 1, "r");
	CHECK(file != NULL && children_restore(&c, room, file) == 0);
	fclose(file);
	check(&c);
	check_again(&c);
	report(&c, &in);
	children_free(&c, -1);
	return 0;
}
