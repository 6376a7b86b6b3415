#include "ctl-tunnels.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl-holder.h"
#include "ctl-run.h"
#include "crypto.h"
#include "ctl.h"
#include "keys.h"
#include "parse.h"
#include "table.h"
#include "wait.h"

/* What others have named, such as keys, must not reach a terminal as it is. */
static char *copy(const char *text)
{
	char *result = strdup(text);

	if (result == NULL)
		abort();
	ctl_make_printable(result);
	return result;
}

static void replace(char **text, const char *with)
{
	free(*text);
	*text = copy(with);
}

static struct key_use *get_key(struct tunnel_state *tunnel, const char *name)
{
	struct key_use *key;
	char *printable = copy(name);

	for (size_t i = 0; i < tunnel->key_count; i++)
		if (strcmp(tunnel->keys[i].name, printable) == 0) {
			free(printable);
			return &tunnel->keys[i];
		}
	key = ctl_add_one(&tunnel->keys, &tunnel->key_count, sizeof(*key));
	key->name = printable;
	key->peer = copy("");
	key->id = copy("");
	return key;
}

struct tunnel_state *tunnels_find(const struct tunnels *tunnels, const char *name)
{
	for (size_t i = 0; i < tunnels->count; i++)
		if (strcmp(tunnels->tunnel[i].name, name) == 0)
			return &tunnels->tunnel[i];
	return NULL;
}

static struct tunnel_state *get_tunnel(struct tunnels *tunnels, const char *name)
{
	struct tunnel_state *tunnel = tunnels_find(tunnels, name);

	if (tunnel != NULL)
		return tunnel;
	tunnel = ctl_add_one(&tunnels->tunnel, &tunnels->count, sizeof(*tunnel));
	tunnel->name = copy(name);
	tunnel->role = strcmp(name, "enc") == 0 ? "enc" : strcmp(name, "dec") == 0 ? "dec" : "";
	tunnel->listen = copy("");
	tunnel->target = copy("");
	tunnel->state = "inactive";
	get_key(tunnel, NO_KEY);
	return tunnel;
}

/* The tunnel that a unit, "spipe-NAME@INSTANCE.service" or "spipe-NAME.socket", belongs to; or NULL. */
static struct tunnel_state *tunnel_of_unit(struct tunnels *tunnels, const char *unit, char end)
{
	char name[128];
	const char *stop = strchr(unit, end);

	if (strncmp(unit, "spipe-", 6) != 0 || stop == NULL)
		return NULL;
	if (end == '.')
		stop = strrchr(unit, end);
	snprintf(name, sizeof(name), "%.*s", (int)(stop - unit) - 6, unit + 6);
	return get_tunnel(tunnels, name);
}

/* --- the table --------------------------------------------------------------------------- */

/* The keys that the tunnel could use: some may never have been used. */
static void read_keys(struct tunnel_state *state, const struct tunnel *tunnel)
{
	char id[KEY_ID_SIZE];
	struct keyring ring;
	struct outcome outcome;

	for (const struct tunnel_key *key = tunnel->keys; key < tunnel->keys + tunnel->key_count;
	     key++) {
		if (!key->directory) {
			get_key(state, key->name);
			continue;
		}
		ring = (struct keyring){ .any_mode = true }; /* as in the service */
		outcome = (struct outcome){ 0 };
		keyring_load(&ring, NULL, 0, key->path, false, NEVER, &outcome);
		for (size_t i = 0; i < ring.count; i++) {
			key_id(ring.secret[i], id);
			replace(&get_key(state, ring.key[i].name)->id, id);
		}
		keyring_wipe(&ring);
	}
}

static void read_tunnel(struct tunnels *tunnels, const struct tunnel *tunnel,
    const struct listeners *listeners)
{
	struct tunnel_state *state = get_tunnel(tunnels, tunnel->name);
	char text[ADDRESS_TEXT_SIZE];

	state->role = tunnel->role == ROLE_ENC ? "enc" : "dec";
	tunnel_format_address(&tunnel->listen, text, sizeof(text));
	replace(&state->listen, text);
	if (tunnel->command != NULL)
		replace(&state->target, tunnel->command);
	else {
		tunnel_format_address(&tunnel->target, text, sizeof(text));
		replace(&state->target, text);
	}
	state->deaf = geteuid() == 0 && !address_listens(listeners, &tunnel->listen, false);
	read_keys(state, tunnel);
}

static void read_table(struct tunnels *tunnels)
{
	struct table table;
	struct tunnel tunnel;
	struct listeners listeners;
	struct outcome outcome;
	enum table_result found;

	if (table_open(&table, TABLE_PATH, &outcome) != 0)
		return;
	listeners_read(&listeners, false);
	while ((found = table_next(&table, &tunnel, &outcome)) != TABLE_END)
		if (found == TABLE_TUNNEL)
			read_tunnel(tunnels, &tunnel, &listeners);
	table_close(&table);
}

/* --- what systemd says ------------------------------------------------------------------- */

/* What a stream of NAME=VALUE lines says about one thing. */
struct fields {
	const char *const *names; /* of those that are wanted, up to a NULL */
	char value[16][512];      /* "": not given */
};

/*
 * A value that is not text, in journalctl's export format: its size as 8 bytes, lowest first, the
 * value, and a newline. It is cut to the room there is.
 */
static void read_binary(FILE *from, char *value, size_t room)
{
	uint64_t size = 0;
	int byte = 0;

	for (int i = 0; i < 8; i++)
		size |= (uint64_t)(getc(from) & 0xff) << (8 * i);
	for (uint64_t i = 0; i <= size && (byte = getc(from)) != EOF; i++)
		if (i < size && i < room - 1 && byte != '\0')
			value[i] = (char)byte;
}

/* Read lines up to an empty one. Returns false at the end of the stream. */
static bool read_fields(struct fields *fields, FILE *from)
{
	char *line = NULL, *value, unwanted[512], *to;
	size_t room = 0;
	ssize_t length;
	bool any = false;

	memset(fields->value, 0, sizeof(fields->value));
	while ((length = getline(&line, &room, from)) > 0 && *line != '\n') {
		any = true;
		to = unwanted;
		line[length - 1] = '\0';
		value = strchr(line, '=');
		if (value != NULL)
			*value = '\0';
		for (int i = 0; fields->names[i] != NULL; i++)
			if (strcmp(line, fields->names[i]) == 0)
				to = fields->value[i];
		if (value == NULL)
			read_binary(from, to, sizeof(unwanted));
		else
			snprintf(to, sizeof(unwanted), "%s", value + 1);
	}
	free(line);
	return any || length > 0;
}

/* A number, or 0 if it is none. */
static uint64_t number(const char *text)
{
	uint64_t result = 0;

	parse_number(text, 0, UINT64_MAX, &result);
	return result;
}

static void read_sockets(struct tunnels *tunnels)
{
	enum { ID, ACTIVE, ACTIVE_SINCE, CHANGED, LISTEN };
	static const char *const names[] = { "Id", "ActiveState", "ActiveEnterTimestamp",
		"StateChangeTimestamp", "Listen", NULL };
	static const char *const words[] = { "systemctl", "show", "--timestamp=unix",
		"--property=Id,ActiveState,ActiveEnterTimestamp,StateChangeTimestamp,Listen",
		"spipe-*.socket", NULL };
	struct fields unit = { .names = names };
	struct tunnel_state *tunnel;
	bool active;
	pid_t pid;
	FILE *from = run_start(words, false, &pid);

	if (from == NULL)
		return;
	while (read_fields(&unit, from)) {
		tunnel = tunnel_of_unit(tunnels, unit.value[ID], '.');
		if (tunnel == NULL)
			continue;
		active = strcmp(unit.value[ACTIVE], "active") == 0;
		if (!active)
			tunnel->state = copy(unit.value[ACTIVE]);
		else
			tunnel->state = tunnel->deaf ? "not bound" : "listening";
		/* While it is active, CHANGED is when a connection came. A time begins with '@'. */
		tunnel->since = (int64_t)number(unit.value[active ? ACTIVE_SINCE : CHANGED] + 1);
		if (*tunnel->listen == '\0') { /* a line of "[::]:8025 (Stream)" */
			unit.value[LISTEN][strcspn(unit.value[LISTEN], " ")] = '\0';
			replace(&tunnel->listen, unit.value[LISTEN]);
		}
	}
	run_end(from, pid);
}

/* --- what processes say ------------------------------------------------------------------ */

/* The title of a process that serves a connection, without the program's name; NULL: it is another. */
static char *read_title(const char *pid, char *text, size_t size)
{
	if (!process_read(pid, "cmdline", text, size) ||
	    (strncmp(text, "spipe-enc: ", 11) != 0 && strncmp(text, "spipe-dec: ", 11) != 0))
		return NULL;
	return text + 11;
}

/* "PEER", "PEER key KEY" or "PEER key KEY: N bytes in, N bytes out, N s: relaying". */
static void parse_title(struct live *live, char *title)
{
	char *key = strstr(title, " key "), *numbers = NULL;

	if (key != NULL) {
		*key = '\0';
		key += 5;
		for (char *next = key; (next = strstr(next, " bytes in, ")) != NULL; next++)
			numbers = next;
	}
	if (numbers != NULL) {
		while (numbers > key && *numbers != ':')
			numbers--;
		*numbers = '\0';
		/* NOLINTNEXTLINE(cert-err34-c): our own */
		sscanf(numbers + 1, "%" SCNu64 " bytes in, %" SCNu64, &live->bytes_in,
		    &live->bytes_out);
	}
	live->peer = copy(title);
	live->key = key != NULL ? copy(key) : NULL;
}

/* Fields 5 to 21 of /proc/PID/stat, between the parent's number and the time when it started. */
#define SKIP_17 " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "

#define SLICE ":/spipe.slice/" /* the start of the path in /proc/PID/cgroup */

static void read_connection(struct tunnels *tunnels, const char *pid, uint64_t uptime)
{
	char title[1024], text[4096], parent[32], *unit, *rest;
	struct tunnel_state *tunnel;
	struct live *live;
	unsigned long long started;
	int fields;

	if (read_title(pid, title, sizeof(title)) == NULL ||
	    !process_read(pid, "cgroup", text, sizeof(text)))
		return;
	/* Not in the slice of a user or of a container, who could name their units the same. */
	unit = strstr(text, SLICE);
	tunnel = unit != NULL ? tunnel_of_unit(tunnels, unit + strlen(SLICE), '@') : NULL;
	if (tunnel == NULL || !process_read(pid, "stat", text, sizeof(text)))
		return;
	rest = strrchr(text, ')');
	if (rest == NULL)
		return;
	/* NOLINTNEXTLINE(cert-err34-c): the kernel's */
	fields = sscanf(rest, ") %*c %31s" SKIP_17 "%llu", parent, &started);
	/* The launcher of a connection has the same title as its parent. */
	if (fields != 2 || read_title(parent, text, sizeof(text)) != NULL)
		return;
	live = ctl_add_one(&tunnel->live, &tunnel->live_count, sizeof(*live));
	parse_title(live, title + 11);
	started /= (unsigned long long)sysconf(_SC_CLK_TCK);
	live->seconds = uptime > started ? uptime - started : 0;
}

static void read_processes(struct tunnels *tunnels)
{
	DIR *dir = opendir("/proc");
	const struct dirent *entry;
	char uptime[64];

	process_read("", "uptime", uptime, sizeof(uptime));
	uptime[strcspn(uptime, ".")] = '\0';
	while (dir != NULL && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			read_connection(tunnels, entry->d_name, number(uptime));
	if (dir != NULL)
		closedir(dir);
}

void tunnels_read(struct tunnels *tunnels)
{
	read_table(tunnels);
	read_sockets(tunnels);
	read_processes(tunnels);
}

char *tunnel_problem(const struct tunnel_state *tunnel)
{
	char socket_unit[96], services[96], *text;
	const char *const words[] = { "systemctl", "list-units", "--plain", "--no-legend", "--full",
		"--state=failed,auto-restart", services, NULL };
	struct listeners listeners;
	struct address_text address;

	snprintf(socket_unit, sizeof(socket_unit), "spipe-%s.socket", tunnel->name);
	snprintf(services, sizeof(services), "spipe-%s@*.service", tunnel->name);
	text = unit_property(socket_unit, "Description");
	if (strncmp(text, TABLE_PATH ":", strlen(TABLE_PATH ":")) == 0)
		return copy(text); /* of a wrong line, it says what is wrong */
	if (tunnel_is_listening(tunnel)) {
		run_program(words, &text);
		text[strcspn(text, " \n")] = '\0';
		return *text != '\0' ? unit_error(text) : text;
	}
	if (strcmp(tunnel->state, "inactive") == 0 ||
	    address_split(&address, tunnel->listen, true) != NULL)
		return copy("");
	listeners_read(&listeners, true);
	return address_problem(&listeners, &address, socket_unit);
}

/* --- the journal ------------------------------------------------------------------------- */

#define RECORD_FIELDS \
	"_SYSTEMD_UNIT,MESSAGE_ID,SPIPE_PEER,SPIPE_KEY,SPIPE_KEY_ID,SPIPE_BYTES_IN," \
	"SPIPE_BYTES_OUT,SPIPE_LEFT_OUT"

enum { CURSOR, TIME, UNIT, ID, PEER, KEY, KEY_ID, BYTES_IN, BYTES_OUT, LEFT_OUT };
static const char *const record_names[] = { "__CURSOR", "__REALTIME_TIMESTAMP", "_SYSTEMD_UNIT",
	"MESSAGE_ID", "SPIPE_PEER", "SPIPE_KEY", "SPIPE_KEY_ID", "SPIPE_BYTES_IN",
	"SPIPE_BYTES_OUT", "SPIPE_LEFT_OUT", NULL };

/* Count a connection that has ended as served, refused or failed. */
static void judge(struct tunnel_state *tunnel, int status, bool stranger, bool any_bytes)
{
	/* who comes to spipe-enc cannot prove a key: its key is the server's */
	bool client = stranger && strcmp(tunnel->role, "enc") == 0;

	if ((stranger && !client) || status == EX_NOPERM)
		tunnel->refused++;
	else if (!stranger && (status == EX_OK || any_bytes))
		tunnel->served++;
	else
		tunnel->failed++;
}

static void add_record(struct tunnels *tunnels, const struct fields *record)
{
	struct tunnel_state *tunnel = tunnel_of_unit(tunnels, record->value[UNIT], '@');
	uint64_t in = number(record->value[BYTES_IN]), out = number(record->value[BYTES_OUT]);
	uint64_t left_out = number(record->value[LEFT_OUT]);
	struct key_use *key;

	if (tunnel == NULL)
		return;
	tunnel->left_out += left_out;
	tunnel->refused += left_out;
	for (size_t i = 0; i < REPORT_RESULTS; i++) {
		if (strcmp(record->value[ID], report_results[i].id) != 0)
			continue;
		key = get_key(tunnel, record->value[KEY]);
		judge(tunnel, report_results[i].status, key == tunnel->keys, in + out > 0);
		key->ended[i]++;
		key->bytes_in += in;
		key->bytes_out += out;
		key->last = (int64_t)(number(record->value[TIME]) / 1000000);
		if (strcmp(record->value[KEY_ID], NO_KEY) != 0)
			replace(&key->id, record->value[KEY_ID]);
		replace(&key->peer, record->value[PEER]);
	}
}

int tunnels_read_journal(struct tunnels *tunnels, const char *since, char **cursor,
    struct outcome *outcome)
{
	const char *words[REPORT_RESULTS + 12] = { "journalctl", "--quiet", "--no-pager",
		"--output=export", ("--output-fields=" RECORD_FIELDS),
		("MESSAGE_ID=" REPORT_LEFT_OUT) };
	char match[REPORT_RESULTS][64], last[512] = "";
	struct fields record = { .names = record_names };
	size_t count = 6;
	pid_t pid;
	FILE *from;

	for (size_t i = 0; i < REPORT_RESULTS; i++) {
		snprintf(match[i], sizeof(match[i]), "MESSAGE_ID=%s", report_results[i].id);
		words[count++] = match[i];
	}
	if (since != NULL) {
		words[count++] = "--since";
		words[count++] = since;
	}
	/* Not --after-cursor, which leaves out the next entry if the one at the cursor is gone. */
	if (cursor != NULL && *cursor != NULL) {
		words[count++] = "--cursor";
		words[count++] = *cursor;
	}
	from = run_start(words, false, &pid);
	if (from == NULL)
		return fail(outcome, EX_OSERR, "cannot run journalctl");
	while (read_fields(&record, from))
		if (cursor == NULL || *cursor == NULL ||
		    strcmp(*cursor, record.value[CURSOR]) != 0) {
			add_record(tunnels, &record);
			snprintf(last, sizeof(last), "%s", record.value[CURSOR]);
		}
	if (run_end(from, pid) != 0)
		return since == NULL
		    ? fail(outcome, EX_IOERR, "the journal cannot be read")
		    : fail(outcome, EX_IOERR,
			  "the journal cannot be read, or --since=%s is not a time", since);
	if (cursor != NULL && *last != '\0')
		replace(cursor, last);
	return 0;
}

/* --- sums -------------------------------------------------------------------------------- */

bool tunnel_is_listening(const struct tunnel_state *tunnel)
{
	return strcmp(tunnel->state, "listening") == 0;
}

bool tunnel_is_here(const struct tunnel_state *tunnel)
{
	return *tunnel->listen != '\0' || tunnel->live_count > 0;
}

uint64_t key_use_ended(const struct key_use *key)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < REPORT_RESULTS; i++)
		sum += key->ended[i];
	return sum;
}

uint64_t tunnel_ended(const struct tunnel_state *tunnel, size_t result)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < tunnel->key_count; i++)
		sum += tunnel->keys[i].ended[result];
	return sum;
}

size_t tunnel_live(const struct tunnel_state *tunnel, bool strangers)
{
	size_t sum = 0;

	for (size_t i = 0; i < tunnel->live_count; i++)
		sum += (tunnel->live[i].key == NULL) == strangers;
	return sum;
}
