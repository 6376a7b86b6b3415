/* spipectl check: what is wrong with a table, before it takes effect. */

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto.h"
#include "ctl-check.h"
#include "ctl-holder.h"
#include "ctl-run.h"
#include "ctl.h"
#include "keys.h"
#include "parse.h"
#include "table.h"
#include "units.h"
#include "wait.h"

/* Where systemd looks for the programs of a service. */
#define SERVICE_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct check {
	const char *path; /* of the table */
	const char *show; /* name of the line whose units are printed, or NULL */
	bool shown;       /* there is such a line */
	int dir;          /* where the units are written */
	char dir_path[32];
	struct listeners listeners;
	unsigned line; /* that is being checked; 0: none */
	unsigned tunnels, errors, warnings;
};

/* Print a problem. It keeps the line from working, or else is a warning. */
__attribute__((format(printf, 3, 4))) static void problem(struct check *check, bool error,
    const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "spipectl: %s:", check->path);
	if (check->line > 0)
		fprintf(stderr, "%u:", check->line);
	fputs(error ? " " : " warning: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	if (error)
		check->errors++;
	else
		check->warnings++;
}

/* --- keys -------------------------------------------------------------------------------- */

/* Keys that the program would load together: whose holders cannot be told apart? */
static void check_twins(struct check *check, const struct keyring *ring)
{
	for (size_t i = 0; i < ring->count; i++)
		for (size_t j = i + 1; j < ring->count; j++)
			if (equal_secret(ring->secret[i], ring->secret[j], KEY_SIZE))
				problem(check, false,
				    "key %s is the same as key %s: deleting one revokes nothing",
				    ring->key[i].name, ring->key[j].name);
}

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* Whether a service finds the program of a command. Its name is the first `length` bytes of `word`. */
static void check_program(struct check *check, const char *word, size_t length)
{
	char path[PATH_MAX], *copy = strdup(SERVICE_PATH), *rest = copy, *dir;
	bool found = false;

	if (memchr(word, '/', length) != NULL) {
		snprintf(path, sizeof(path), "%.*s", (int)length, word);
		found = is_program(path);
	} else
		while (!found && (dir = strsep(&rest, ":")) != NULL) {
			snprintf(path, sizeof(path), "%s/%.*s", dir, (int)length, word);
			found = is_program(path);
		}
	free(copy);
	if (!found)
		problem(check, true, "%.*s: no such program", (int)length, word);
}

/* The programs that rules name. */
static void check_rules(struct check *check, const struct keyring *ring)
{
	for (size_t i = 0; i < ring->count; i++) {
		const struct rules *rules = ring->key[i].rules;

		if (rules != NULL && rules->destination.command != NULL)
			check_program(check, rules->destination.command[0],
			    strlen(rules->destination.command[0]));
	}
}

/*
 * Load them as the service does, which gets keys without their modes. Returns whether that worked; if
 * `say`, with all problems printed.
 */
static bool load_keys(struct check *check, const char *const *files, size_t count, const char *dir,
    bool with_rules, bool say)
{
	struct keyring ring = { .any_mode = true };
	struct outcome outcome = { 0 };
	bool loaded = keyring_load(&ring, files, count, dir, with_rules, NEVER, &outcome) == 0;

	if (ring.warnings != NULL)
		fclose(ring.warnings);
	for (const char *text = ring.warning_text;
	     say && text != NULL && text < ring.warning_text + ring.warning_size;
	     text += strlen(text) + 1)
		problem(check, false, "%s", text);
	if (say && !loaded)
		problem(check, true, "%s", outcome.reason);
	if (say && loaded)
		check_rules(check, &ring);
	if (loaded && (dir != NULL || count > 1))
		check_twins(check, &ring);
	keyring_wipe(&ring);
	return loaded;
}

static void check_keys(struct check *check, const struct tunnel *tunnel)
{
	char name[NAME_MAX + 1];
	const char *files[TABLE_KEYS];
	bool with_rules = tunnel->role == ROLE_DEC, good = true;

	for (int i = 0; i < tunnel->key_count; i++) {
		const char *path = files[i] = tunnel->keys[i].path;

		if (tunnel->option[TUNNEL_ENCRYPTED] != NULL) {
			if (access(path, F_OK) != 0)
				problem(check, true, "key %s: %s", path, strerror(errno));
			good = false; /* only systemd can decrypt it */
		} else if (tunnel->keys[i].directory) {
			load_keys(check, NULL, 0, path, with_rules, true);
			if (units_find_unfit(path, name))
				problem(check, true,
				    "%s/%s: a name that is too long, or not plain ASCII without a colon, keeps the service from starting",
				    path, name);
		} else
			good &= load_keys(check, &path, 1, NULL, with_rules, true);
	}
	if (good && tunnel->key_count > 1)
		load_keys(check, files, (size_t)tunnel->key_count, NULL, with_rules, false);
}

/* --- accounts ---------------------------------------------------------------------------- */

/* Whether there is a user or group of this name or number. */
static bool account_exists(const char *name, bool group)
{
	uint64_t id;

	if (parse_number(name, 0, UINT32_MAX - 1, &id))
		return group ? getgrgid((gid_t)id) != NULL : getpwuid((uid_t)id) != NULL;
	return group ? getgrnam(name) != NULL : getpwnam(name) != NULL;
}

static void check_account(struct check *check, const char *option, const char *name, bool group)
{
	bool made;

	if (name == NULL || account_exists(name, group))
		return;
	/* A service with runas= has systemd make up what does not exist, unless it is a number. */
	made = strcmp(option, "runas") == 0 && strspn(name, "0123456789") != strlen(name);
	problem(check, !made, "option %s: there is no %s %s%s", option, group ? "group" : "user",
	    name, made ? "; systemd will make one up" : "");
}

static void check_accounts(struct check *check, const struct tunnel *tunnel)
{
	const char *const *option = tunnel->option;
	char runas[80], *group = runas;

	check_account(check, "user", option[TUNNEL_USER], false);
	check_account(check, "group", option[TUNNEL_GROUP], true);
	check_account(check, "supgroup", option[TUNNEL_SUPGROUP], true);
	if (option[TUNNEL_RUNAS] == NULL)
		return;
	snprintf(runas, sizeof(runas), "%s", option[TUNNEL_RUNAS]);
	check_account(check, "runas", strsep(&group, ":"), false);
	check_account(check, "runas", group, true);
}

/* --- what else a line needs -------------------------------------------------------------- */

static void check_listen(struct check *check, const struct tunnel *tunnel)
{
	char where[ADDRESS_TEXT_SIZE], holder[HOLDER_SIZE];

	tunnel_format_address(&tunnel->listen, where, sizeof(where));
	if (geteuid() == 0 && address_is_held(&check->listeners, &tunnel->listen, holder))
		problem(check, true, "%s is held by %s", where, holder);
}

static void check_tunnel(struct check *check, const struct tunnel *tunnel)
{
	const char *command = tunnel->command;
	struct outcome outcome = { 0 };

	check->tunnels++;
	check->shown |= check->show != NULL && strcmp(check->show, tunnel->name) == 0;
	if (units_write(check->dir, tunnel, check->path, &outcome) != 0)
		problem(check, true, "%s", outcome.reason);
	check_keys(check, tunnel);
	if (command != NULL) {
		command += strspn(command, " \t");
		check_program(check, command, strcspn(command, " \t"));
	}
	check_accounts(check, tunnel);
	check_listen(check, tunnel);
}

static void check_lines(struct check *check, struct table *table)
{
	struct tunnel tunnel;
	struct outcome outcome = { 0 };
	enum table_result found;

	listeners_read(&check->listeners, true);
	while (!signal_stop && (found = table_next(table, &tunnel, &outcome)) != TABLE_END) {
		check->line = table->line;
		if (found == TABLE_WRONG)
			problem(check, true, "%s", outcome.reason);
		else
			check_tunnel(check, &tunnel);
	}
	check->line = 0;
}

/* --- the units --------------------------------------------------------------------------- */

/* Find files in the directory of units by patterns, up to a NULL, with `start` in front of each. */
static glob_t find_units(const struct check *check, const char *start, const char *const *patterns)
{
	glob_t found = { 0 };
	int flags = 0;
	char *path;

	for (; *patterns != NULL; patterns++, flags = GLOB_APPEND) {
		if (asprintf(&path, "%s/%s%s", check->dir_path, start, *patterns) == -1)
			abort();
		glob(path, flags, NULL, &found);
		free(path);
	}
	return found;
}

/* Print the files of the line that is to be shown. */
static void show_units(const struct check *check)
{
	static const char *const patterns[] = { ".*", "@.service", "@*.d/*", NULL };
	char start[NAME_MAX], text[4096];
	size_t got;
	glob_t found;
	FILE *file;

	snprintf(start, sizeof(start), "spipe-%s", check->show);
	found = find_units(check, start, patterns);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		file = fopen(found.gl_pathv[i], "re");
		if (file == NULL)
			continue;
		printf("# %s\n", found.gl_pathv[i] + strlen(check->dir_path) + 1);
		while ((got = fread(text, 1, sizeof(text), file)) > 0)
			fwrite(text, 1, got, stdout);
		putchar('\n');
		fclose(file);
	}
	globfree(&found);
}

static void remove_units(const struct check *check)
{
	static const char *const patterns[] = { "*/*", "*", NULL };
	glob_t found = find_units(check, "", patterns);

	for (size_t i = 0; i < found.gl_pathc; i++)
		remove(found.gl_pathv[i]);
	globfree(&found);
	rmdir(check->dir_path);
}

/* Print what systemd itself has to say about the units. Settings that only newer ones have do not matter. */
static void print_verdict(struct check *check, bool error, char *output)
{
	size_t length = strlen(check->dir_path);
	char *line;

	while ((line = strsep(&output, "\n")) != NULL) {
		if (strncmp(line, check->dir_path, length) == 0)
			line += length + 1;
		if (*line != '\0' && strstr(line, "Unknown key") == NULL)
			problem(check, error, "systemd-analyze: %s", line);
	}
}

static void verify(struct check *check)
{
	static const char *const patterns[] = { "*.path", "*.service", "*.socket", NULL };
	static const char *const words[] = { "systemd-analyze", "verify", "--man=no",
		"--recursive-errors=no" };
	const size_t count = sizeof(words) / sizeof(words[0]);
	glob_t found = find_units(check, "", patterns);
	const char **command = calloc(count + found.gl_pathc + 1, sizeof(*command));
	char *output;
	int status;

	if (command == NULL)
		abort();
	memcpy(command, words, sizeof(words));
	for (size_t i = 0; i < found.gl_pathc; i++)
		command[count + i] = found.gl_pathv[i];
	if (found.gl_pathc > 0) {
		status = run_program(command, &output);
		if (status == 127)
			problem(check, false,
			    "the units were not verified: there is no systemd-analyze");
		else
			print_verdict(check, status != 0, output);
		free(output);
	}
	free(command);
	globfree(&found);
}

/* --- all of it --------------------------------------------------------------------------- */

static void check_table(struct check *check, struct table *table)
{
	check_lines(check, table);
	if (geteuid() != 0)
		problem(check, false, "run as root to check that the addresses are free");
	if (!signal_stop)
		verify(check);
	if (check->show != NULL && !check->shown)
		problem(check, true, "no valid line has the name %s", check->show);
	else if (check->show != NULL)
		show_units(check);
	remove_units(check);
}

static void stop(int number)
{
	signal_stop = number;
}

/* What the signals do that are meant to end us, unless they are ignored. */
static void on_signals(void (*handler)(int))
{
	static const int numbers[] = { SIGHUP, SIGINT, SIGTERM };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (signal(numbers[i], handler) == SIG_IGN)
			signal(numbers[i], SIG_IGN);
}

/* Check the table at check->path. Returns 0, or -1 with the outcome set if that cannot be done. */
static int check_path(struct check *check, struct outcome *outcome)
{
	struct table table;

	if (table_open(&table, check->path, outcome) != 0)
		return -1;
	umask(022);
	on_signals(stop); /* the directory has to be removed before we end */
	snprintf(check->dir_path, sizeof(check->dir_path), "/tmp/spipectl.XXXXXX");
	check->dir = mkdtemp(check->dir_path) != NULL
	    ? open(check->dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
	    : -1;
	if (check->dir == -1)
		fail(outcome, EX_CANTCREAT, "%s: %s", check->dir_path, strerror(errno));
	else {
		check_table(check, &table);
		close(check->dir);
	}
	table_close(&table);
	on_signals(SIG_DFL);
	if (signal_stop)
		signals_die(signal_stop);
	return outcome->status == 0 ? 0 : -1;
}

int check_before_apply(struct outcome *outcome)
{
	struct check check = { .path = TABLE_PATH };

	if (check_path(&check, outcome) != 0)
		return -1;
	return check.errors == 0
	    ? 0
	    : fail(outcome, EX_DATAERR, "nothing was changed, because %s has errors: %u",
		  TABLE_PATH, check.errors);
}

int ctl_check(int argc, char **argv, struct outcome *outcome)
{
	struct check check = { .path = TABLE_PATH };
	bool given = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--show") == 0 && i + 1 < argc && check.show == NULL)
			check.show = argv[++i];
		else if (argv[i][0] != '-' && !given) {
			check.path = argv[i];
			given = true;
		} else
			return fail(outcome, EX_USAGE,
			    "check takes: [--show NAME] [FILE]; see --help");
	}
	if (check_path(&check, outcome) != 0)
		return -1;
	if (check.show == NULL)
		printf("%s: tunnels: %u, errors: %u, warnings: %u\n", check.path, check.tunnels,
		    check.errors, check.warnings);
	return check.errors > 0 ? EX_DATAERR : 0;
}
