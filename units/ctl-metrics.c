/* spipectl metrics: what the tunnels do, and have done, for Prometheus. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctl-tunnels.h"
#include "ctl.h"
#include "parse.h"

#define CURSOR "# cursor " /* of the journal: how far it was counted */

enum {
	LISTENING,
	CONNECTIONS,
	STRANGERS,
	ENDED,
	LEFT_OUT,
	KEY_ENDED,
	KEY_IN,
	KEY_OUT,
	KEY_LAST,
	METRICS
};

static const struct {
	const char *name, *type, *help;
} metrics[METRICS] = {
	[LISTENING] = { "spipe_listening", "gauge", "Whether the tunnel listens." },
	[CONNECTIONS] = { "spipe_connections", "gauge",
	    "Connections now whose peer has proved a key." },
	[STRANGERS] = { "spipe_strangers", "gauge",
	    "Connections now whose peer has not proved a key." },
	[ENDED] = { "spipe_connections_ended_total", "counter",
	    "Connections that have ended, by result as in the journal." },
	[LEFT_OUT] = { "spipe_strangers_left_out_total", "counter",
	    "Connections of strangers without a record in the journal." },
	[KEY_ENDED] = { "spipe_key_connections_ended_total", "counter",
	    "Connections with a key that have ended." },
	[KEY_IN] = { "spipe_key_in_bytes_total", "counter",
	    "Bytes from the near side to the far side, of connections that have ended." },
	[KEY_OUT] = { "spipe_key_out_bytes_total", "counter",
	    "Bytes from the far side to the near side, of connections that have ended." },
	[KEY_LAST] = { "spipe_key_last_used_timestamp_seconds", "gauge",
	    "When the last connection with a key ended." },
};

/* The lines of each. */
static struct {
	struct line {
		char *labels; /* "{...}" */
		uint64_t value;
	} * line;
	size_t count;
} lines[METRICS];

/* The line with these labels. If there is none, it is made, with value 0. */
static struct line *get_line(int metric, const char *labels)
{
	struct line *line = lines[metric].line;

	for (; line < lines[metric].line + lines[metric].count; line++)
		if (strcmp(line->labels, labels) == 0)
			return line;
	line = ctl_add_one(&lines[metric].line, &lines[metric].count, sizeof(*line));
	line->labels = strdup(labels);
	if (line->labels == NULL)
		abort();
	return line;
}

/* The line for a tunnel, and something of it: a label and its value, or "". */
static struct line *line_of(int metric, const struct tunnel_state *tunnel, const char *label,
    const char *value)
{
	char *labels;
	size_t size;
	FILE *text = open_memstream(&labels, &size);
	struct line *line;

	if (text == NULL)
		abort();
	fputs("{tunnel=", text);
	ctl_put_quoted(text, tunnel->name);
	if (*label != '\0') {
		fprintf(text, ",%s=", label);
		ctl_put_quoted(text, value);
	}
	putc('}', text);
	fclose(text);
	line = get_line(metric, labels);
	free(labels);
	return line;
}

static void add_tunnel(const struct tunnel_state *tunnel)
{
	if (tunnel_is_here(tunnel)) {
		line_of(LISTENING, tunnel, "", "")->value = tunnel_is_listening(tunnel);
		line_of(CONNECTIONS, tunnel, "", "")->value = tunnel_live(tunnel, false);
		line_of(STRANGERS, tunnel, "", "")->value = tunnel_live(tunnel, true);
	}
	line_of(LEFT_OUT, tunnel, "", "")->value += tunnel->left_out;
	for (size_t r = 0; r < REPORT_RESULTS; r++)
		line_of(ENDED, tunnel, "result", report_results[r].word)
		    ->value += tunnel_ended(tunnel, r);
	for (const struct key_use *key = tunnel->keys + 1; key < tunnel->keys + tunnel->key_count;
	     key++) {
		line_of(KEY_ENDED, tunnel, "key", key->name)->value += key_use_ended(key);
		line_of(KEY_IN, tunnel, "key", key->name)->value += key->bytes_in;
		line_of(KEY_OUT, tunnel, "key", key->name)->value += key->bytes_out;
		if (key->last != 0)
			line_of(KEY_LAST, tunnel, "key", key->name)->value = (uint64_t)key->last;
	}
}

/* Take a line of the file that was written before, if what it says still counts. */
static void load_line(char *line)
{
	char *labels = strchr(line, '{'), *value = strrchr(line, ' ');
	uint64_t number;

	if (*line == '#' || labels == NULL || value == NULL || value < labels)
		return;
	*value++ = '\0';
	if (!parse_number(value, 0, UINT64_MAX, &number))
		return;
	for (int i = ENDED; i < METRICS; i++) /* those before it are about now */
		if (strlen(metrics[i].name) == (size_t)(labels - line) &&
		    strncmp(metrics[i].name, line, (size_t)(labels - line)) == 0)
			get_line(i, labels)->value = number;
}

/*
 * Go on from the file that was written before, if there is one. Without a cursor it does not say
 * which records it has counted, so they are all counted again.
 */
static int load(const char *path, char **cursor, struct outcome *outcome)
{
	struct stat st;
	FILE *file = NULL;
	char *line = NULL;
	size_t room = 0;

	/* A device or a link would be replaced by a file. */
	if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return fail(outcome, EX_CANTCREAT, "%s is not a regular file", path);
	file = fopen(path, "re");
	while (file != NULL && getline(&line, &room, file) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, CURSOR, strlen(CURSOR)) == 0) {
			free(*cursor);
			*cursor = strdup(line + strlen(CURSOR));
		} else
			load_line(line);
	}
	free(line);
	if (file != NULL)
		fclose(file);
	for (int i = 0; i < METRICS && *cursor == NULL; i++)
		lines[i].count = 0;
	return 0;
}

static void print(FILE *to, const char *cursor)
{
	for (int i = 0; i < METRICS; i++) {
		const char *name = metrics[i].name;

		fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", name, metrics[i].help, name,
		    metrics[i].type);
		for (size_t j = 0; j < lines[i].count; j++)
			fprintf(to, "%s%s %" PRIu64 "\n", name, lines[i].line[j].labels,
			    lines[i].line[j].value);
	}
	if (cursor != NULL)
		fprintf(to, CURSOR "%s\n", cursor);
}

/* Replace the file at once: whoever reads it sees the old one or the new one. */
static int write_file(const char *path, const char *cursor, struct outcome *outcome)
{
	char *new;
	FILE *file;
	int fd;
	bool written;

	if (asprintf(&new, "%s.XXXXXX", path) == -1)
		abort();
	fd = mkostemp(new, O_CLOEXEC); /* never what somebody else has put there */
	file = fd != -1 ? fdopen(fd, "w") : NULL;
	if (file == NULL)
		return fail(outcome, EX_CANTCREAT, "cannot make a file beside %s: %s", path,
		    strerror(errno));
	print(file, cursor);
	written = ferror(file) == 0 && fchmod(fd, 0644) == 0;
	if (fclose(file) == 0 && written && rename(new, path) == 0)
		return 0;
	fail(outcome, EX_IOERR, "cannot write %s: %s", path, strerror(errno));
	unlink(new);
	return -1;
}

int ctl_metrics(int argc, char **argv, struct outcome *outcome)
{
	struct tunnels tunnels = { 0 };
	const char *path = argc > 1 ? argv[1] : NULL;
	char *cursor = NULL;

	if (argc > 2 || (path != NULL && *path == '-'))
		return fail(outcome, EX_USAGE, "metrics takes: [FILE]; see --help");
	if (path != NULL && load(path, &cursor, outcome) != 0)
		return -1;
	tunnels_read(&tunnels);
	if (tunnels_read_journal(&tunnels, NULL, &cursor, outcome) != 0)
		return outcome->status == EX_IOERR && cursor != NULL
		    ? fail(outcome, EX_IOERR,
			  "the journal cannot be read from where %s ends; to start again, delete it",
			  path)
		    : -1;
	for (size_t i = 0; i < tunnels.count; i++)
		add_tunnel(&tunnels.tunnel[i]);
	if (path != NULL)
		return write_file(path, cursor, outcome);
	print(stdout, NULL);
	return 0;
}
