/*
 * spipe-generator: a systemd generator that writes the units of each tunnel in /etc/spipetab, or
 * in the file that $SPIPETAB names. See spipe-generator(8) and systemd.generator(7).
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "table.h"
#include "units.h"

enum level { LEVEL_ERROR = 3, LEVEL_WARNING = 4 }; /* as the kernel's log numbers them */

static const char *table_path = "/etc/spipetab";

/* Say something about a line, or with line 0 about the whole. */
static void __attribute__((format(printf, 3, 4)))
say(enum level level, unsigned line, const char *format, ...)
{
	char text[512], place[300] = "";
	va_list arguments;
	int fd;

	if (line > 0)
		snprintf(place, sizeof(place), "%s:%u: ", table_path, line);
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	fprintf(stderr, "spipe-generator: %s%s\n", place, text);
	/* When systemd runs us, stderr is lost and no log daemon is up: the kernel's log remains. */
	if (getenv("SYSTEMD_SCOPE") == NULL)
		return;
	fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY);
	if (fd != -1) {
		dprintf(fd, "<%d>spipe-generator: %s%s\n", (int)level, place, text);
		close(fd);
	}
}

/* A key may come later, but a misspelt name should not go unnoticed until the first connection. */
static void warn_of_keys(const struct tunnel *tunnel)
{
	const struct tunnel_key *key;
	char name[NAME_MAX + 1];

	for (key = tunnel->keys; key < tunnel->keys + tunnel->key_count; key++) {
		if (access(key->path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR))
			say(LEVEL_WARNING, tunnel->line,
			    "warning: no %s %s: connections will fail without it",
			    key->directory ? "key directory" : "key file", key->path);
		else if (key->directory && units_find_unfit(key->path, name))
			say(LEVEL_WARNING, tunnel->line,
			    "warning: the name of %s/%s is too long, or not plain ASCII without a "
			    "colon: the service cannot start until it is renamed",
			    key->path, name);
	}
}

/* Report a wrong line, and have systemd show it: not every container has a kernel log. */
static void report_wrong(int dir, const struct tunnel *tunnel, const char *reason)
{
	char problem[PATH_MAX + 512];

	say(LEVEL_ERROR, tunnel->line, "%s", reason);
	snprintf(problem, sizeof(problem), "%s:%u: %s", table_path, tunnel->line, reason);
	units_write_wrong(dir, tunnel, problem);
}

/* Returns the exit status. */
static int write_all(int dir, struct table *table)
{
	struct tunnel tunnel;
	struct outcome outcome = { 0 };
	enum table_result found;
	int result = 0;

	while ((found = table_next(table, &tunnel, &outcome)) != TABLE_END) {
		if (found == TABLE_TUNNEL)
			warn_of_keys(&tunnel);
		if (found == TABLE_WRONG || units_write(dir, &tunnel, table_path, &outcome) != 0) {
			report_wrong(dir, &tunnel, outcome.reason);
			result = 1;
		}
	}
	return result;
}

int main(int argc, char **argv)
{
	const char *other = getenv("SPIPETAB");
	struct table table;
	struct outcome outcome;
	int dir, result = 1;

	if (argc < 2 || argc > 4 || argv[1][0] == '-') {
		fprintf(stderr,
		    "usage: [SPIPETAB=file] spipe-generator directory [directory directory]\n");
		return 64;
	}
	if (other != NULL && *other != '\0')
		table_path = other;
	if (table_open(&table, table_path, &outcome) != 0) {
		if (errno == ENOENT && table_path != other)
			return 0; /* no table, no tunnels */
		say(LEVEL_ERROR, 0, "%s", outcome.reason);
		return 1;
	}
	dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir == -1) {
		say(LEVEL_ERROR, 0, "%s: %s", argv[1], strerror(errno));
	} else {
		umask(022);
		result = write_all(dir, &table);
		close(dir);
	}
	table_close(&table);
	return result;
}
