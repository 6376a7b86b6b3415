/* spipectl apply: have systemd run what the table says, and touch nothing else. */

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl-check.h"
#include "ctl-holder.h"
#include "ctl-run.h"
#include "ctl.h"
#include "table.h"
#include "units.h"

/* Names of units or files. They are kept until we end, like all that is read here. */
struct words {
	char **word;
	size_t count;
};

struct apply {
	char *units; /* what systemctl lists */
	struct listeners listeners;
	struct words stop, reset, start, renew, copy;
	unsigned tunnels, listening, failed;
};

/* --- systemd ----------------------------------------------------------------------------- */

static void add(struct words *words, const char *word)
{
	char **new = ctl_add_one(&words->word, &words->count, sizeof(*new));

	*new = strdup(word);
	if (*new == NULL)
		abort();
}

/* Run a command on these units or files, if there are any. */
static int run_on(const char *command, const struct words *names, struct outcome *outcome)
{
	struct words words = { NULL, 0 };
	char *rest = strdupa(command), *word, *output;
	int status;

	if (names->count == 0)
		return 0;
	while ((word = strsep(&rest, " ")) != NULL)
		add(&words, word);
	for (size_t i = 0; i < names->count; i++)
		add(&words, names->word[i]);
	ctl_add_one(&words.word, &words.count, sizeof(*words.word)); /* NULL */
	status = run_program((const char *const *)words.word, &output);
	if (status == 0)
		return 0;
	output[strcspn(output, "\n")] = '\0';
	return fail(outcome, EX_UNAVAILABLE, "%s %s: %s", words.word[0], words.word[1],
	    status == 127 ? "cannot be run" : output);
}

/* One unit as systemctl lists it: "spipe-mail.socket loaded active listening Encrypted pipe mail". */
struct unit {
	char name[NAME_MAX + 1], load[32], active[32];
};

static void list_units(struct apply *apply)
{
	static const char *const words[] = { "systemctl", "list-units", "--all", "--plain",
		"--no-legend", "--full", "spipe-*", "spipetab-*", "renew-spipe-*", NULL };

	run_program(words, &apply->units);
	listeners_read(&apply->listeners, true);
}

/* The next unit in the list. Returns what follows it, or NULL at the end. */
static const char *next_unit(const char *list, struct unit *unit)
{
	/* NOLINTNEXTLINE(cert-err34-c): no numbers */
	if (sscanf(list, "%255s %31s %31s", unit->name, unit->load, unit->active) != 3)
		return NULL;
	list += strcspn(list, "\n");
	return list + (*list != '\0');
}

static bool is_active(const struct apply *apply, const char *name)
{
	const char *line = apply->units;
	size_t length = strlen(name);
	struct unit unit;

	while ((line = strstr(line, name)) != NULL) {
		if ((line == apply->units || line[-1] == '\n') && line[length] == ' ')
			return next_unit(line, &unit) != NULL && strcmp(unit.active, "active") == 0;
		line += length;
	}
	return false;
}

/* --- what has changed -------------------------------------------------------------------- */

/* A unit file's text after the section [Unit], to be freed; NULL if there is none. */
static char *read_settings(const char *directory, const char *unit)
{
	char path[PATH_MAX], *text = NULL, *settings;
	size_t size = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, unit);
	file = fopen(path, "re");
	if (file == NULL)
		return NULL;
	if (getdelim(&text, &size, '\0', file) == -1)
		*text = '\0';
	fclose(file);
	settings = strstr(text, "\n[S"); /* [Socket] or [Service] */
	settings = settings != NULL ? strdup(settings) : NULL;
	free(text);
	return settings;
}

/*
 * Whether the unit has other settings than when the socket was started, or its service renewed; `unknown`
 * if there is no copy of those.
 */
static bool has_changed(const char *unit, bool unknown)
{
	char *started = read_settings(UNITS_STARTED, unit);
	char *loaded = read_settings(UNITS_LOADED, unit);
	bool changed = unknown;

	if (started != NULL)
		changed = loaded == NULL ? unknown : strcmp(started, loaded) != 0;
	free(started);
	free(loaded);
	return changed;
}

/* Stop a socket. Systemd removes the path of a UNIX socket only if the line still has the same one. */
static void stop_socket(struct apply *apply, const char *unit)
{
	static const char listen[] = "\nListenStream=/";
	char *settings = read_settings(UNITS_STARTED, unit);
	char *path = settings != NULL ? strstr(settings, listen) : NULL;

	add(&apply->stop, unit);
	if (path != NULL) {
		path += strlen(listen) - 1;
		path[strcspn(path, "\n")] = '\0';
		unlink(path);
	}
	free(settings);
}

/* Units that are still there, although no line of the table is. */
static void stop_gone(struct apply *apply)
{
	struct unit unit;
	const char *name, *socket_end;

	for (const char *list = apply->units; (list = next_unit(list, &unit)) != NULL;) {
		if (strcmp(unit.load, "not-found") != 0 || strcmp(unit.active, "inactive") == 0)
			continue;
		if (strcmp(unit.active, "failed") == 0) {
			add(&apply->reset, unit.name);
			continue;
		}
		socket_end = strstr(unit.name, ".socket");
		if (socket_end == NULL) {
			add(&apply->stop, unit.name);
			continue;
		}
		name = unit.name + (strncmp(unit.name, "spipe-", 6) == 0 ? 6 : 0);
		printf("stopping %.*s\n", (int)(socket_end - name), name);
		stop_socket(apply, unit.name);
	}
}

/* Decide what to do about a tunnel. */
static void compare(struct apply *apply, const struct tunnel *tunnel)
{
	char socket_unit[96], service[96], renew[96], path[160];
	bool active;

	snprintf(socket_unit, sizeof(socket_unit), "spipe-%s.socket", tunnel->name);
	snprintf(service, sizeof(service), "spipe-%s@.service", tunnel->name);
	snprintf(renew, sizeof(renew), "renew-spipe@%s.service", tunnel->name);
	active = is_active(apply, socket_unit);
	if (!active && tunnel->option[TUNNEL_NOAUTO] != NULL)
		return;
	/* starting one that is active starts the path units that it wants */
	add(&apply->start, socket_unit);
	if (!active)
		printf("starting %s\n", tunnel->name);
	else if (has_changed(socket_unit, false) ||
	    !address_listens(&apply->listeners, &tunnel->listen, true)) {
		printf("restarting %s\n", tunnel->name);
		stop_socket(apply, socket_unit);
	} else {
		/* the copy may be missing: /run was full, or an older version started the socket */
		snprintf(path, sizeof(path), UNITS_LOADED "/%s", socket_unit);
		add(&apply->copy, path);
		if (tunnel_one_service(tunnel) && has_changed(service, true)) {
			printf("renewing %s\n", tunnel->name);
			add(&apply->renew, renew);
		}
	}
}

/* --- what has become of it --------------------------------------------------------------- */

static void verify(struct apply *apply, const struct tunnel *tunnel)
{
	char socket_unit[96], *problem;
	bool expected = tunnel->option[TUNNEL_NOAUTO] == NULL;

	apply->tunnels++;
	snprintf(socket_unit, sizeof(socket_unit), "spipe-%s.socket", tunnel->name);
	for (size_t i = 0; i < apply->start.count; i++)
		expected |= strcmp(apply->start.word[i], socket_unit) == 0;
	if (!expected)
		return;
	if (is_active(apply, socket_unit) &&
	    address_listens(&apply->listeners, &tunnel->listen, true))
		apply->listening++;
	else {
		apply->failed++;
		problem = address_problem(&apply->listeners, &tunnel->listen, socket_unit);
		fprintf(stderr, "spipectl: %s:%u: %s\n", TABLE_PATH, tunnel->line, problem);
		free(problem);
	}
}

/* --- all of it --------------------------------------------------------------------------- */

/* Call `act` for each tunnel of the table, which has been found to be without errors. */
static int each_tunnel(struct apply *apply, void (*act)(struct apply *, const struct tunnel *),
    struct outcome *outcome)
{
	struct table table;
	struct tunnel tunnel;
	enum table_result found;

	if (table_open(&table, TABLE_PATH, outcome) != 0)
		return -1;
	while ((found = table_next(&table, &tunnel, outcome)) == TABLE_TUNNEL)
		act(apply, &tunnel);
	table_close(&table);
	return found == TABLE_END ? 0 : -1;
}

static int run(struct apply *apply, struct outcome *outcome)
{
	struct words reload = { NULL, 0 };
	struct outcome ignored;

	add(&reload, "daemon-reload");
	if (check_before_apply(outcome) != 0 || run_on("systemctl", &reload, outcome) != 0)
		return -1;
	list_units(apply);
	stop_gone(apply);
	if (each_tunnel(apply, compare, outcome) != 0)
		return -1;
	/* All that stop come first: others may be about to take over their addresses. */
	if (run_on("systemctl stop --", &apply->stop, outcome) != 0 ||
	    run_on("systemctl reset-failed --", &apply->reset, outcome) != 0)
		return -1;
	/* which of them fail, and why, is found out below */
	run_on("systemctl start --", &apply->start, &ignored);
	if (run_on("systemctl start --", &apply->renew, outcome) != 0 ||
	    run_on("install -D -m 644 -t " UNITS_STARTED " --", &apply->copy, outcome) != 0)
		return -1;
	list_units(apply);
	if (each_tunnel(apply, verify, outcome) != 0)
		return -1;
	printf("%s: tunnels: %u, listening: %u\n", TABLE_PATH, apply->tunnels, apply->listening);
	return apply->failed == 0
	    ? 0
	    : fail(outcome, EX_UNAVAILABLE, "tunnels that do not listen: %u", apply->failed);
}

int ctl_apply(int argc, char **argv, struct outcome *outcome)
{
	struct apply apply = { .units = NULL };

	(void)argv;
	return argc == 1 ? run(&apply, outcome)
			 : fail(outcome, EX_USAGE, "apply takes no arguments; see --help");
}
