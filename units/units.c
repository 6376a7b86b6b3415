#include "units.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "listener.h"

#ifndef BINDIR
#define BINDIR "/usr/local/bin"
#endif

#define DEFAULT_EXIT_IDLE "300"
#define TARGET_SOCKET "/run/target.sock" /* where the services find their UNIX target */

#define MEGABYTES_SHARED 64
#define MEGABYTES_PER_CONNECTION 4
#define TASKS_PER_COMMAND 64

#define WATCHED_MOST (2 * TABLE_KEYS + 3)

/* What the unit files are written from. */
struct source {
	int dir; /* where they are written */
	const struct tunnel *tunnel;
	const char *table;
	char base[96];       /* what the names of the tunnel's units begin with */
	const char *problem; /* of a wrong line: what is wrong */
	/* what the unit being written watches */
	char path[TABLE_PATH_SIZE + sizeof(".conf")];
	/* the socket's lines about the units that watch for all tunnels */
	char wants[WATCHED_MOST * (NAME_MAX + sizeof("Wants=\n"))];
};

/* One word of an ExecStart= line, quoted, with everything escaped that systemd would expand. */
static void put_word(FILE *unit, const char *word, size_t length)
{
	fputs(" \"", unit);
	for (size_t i = 0; i < length; i++) {
		if (strchr("\"\\", word[i]) != NULL)
			fputc('\\', unit);
		if (strchr("%$", word[i]) != NULL)
			fputc(word[i], unit);
		fputc(word[i], unit);
	}
	fputc('"', unit);
}

/* The words of a command, separated by blanks. */
static void put_words(FILE *unit, const char *words)
{
	size_t length;

	for (words += strspn(words, " \t"); *words != '\0'; words += strspn(words, " \t")) {
		length = strcspn(words, " \t");
		put_word(unit, words, length);
		words += length;
	}
}

/* A value of a setting in which systemd expands specifiers. */
static void put_value(FILE *unit, const char *text)
{
	for (; *text != '\0'; text++) {
		if (*text == '%')
			fputc('%', unit);
		fputc(*text, unit);
	}
}

static void put_setting(FILE *unit, const char *name, const char *value)
{
	if (value != NULL)
		fprintf(unit, "%s=%s\n", name, value);
}

static void put_header(FILE *unit, const struct source *source)
{
	const struct tunnel *tunnel = source->tunnel;

	fprintf(unit,
	    "# Written by spipe-generator from line %u of its table: change it there.\n\n",
	    tunnel->line);
	fprintf(unit, "[Unit]\nDescription=Encrypted pipe %s\n", tunnel->name);
	fprintf(unit, "Documentation=man:spipetab(5) man:%s(1)\n",
	    tunnel->role == ROLE_ENC ? "spipe-enc" : "spipe-dec");
	if (*source->table == '/' && strpbrk(source->table, "%\\\n \t") == NULL)
		fprintf(unit, "SourcePath=%s\n", source->table);
}

/* Whether the target is a UNIX socket that a running service has to find again when it is replaced. */
static bool watches_target(const struct tunnel *tunnel)
{
	return tunnel_one_service(tunnel) && tunnel->command == NULL &&
	    tunnel->target.kind == ADDRESS_UNIX;
}

/* The unit that watches a path is named after it, as systemd-escape(1) does. Returns whether that fits. */
static bool watch_name(char *name, size_t size, const char *path)
{
	size_t length = (size_t)snprintf(name, size, "renew-spipe-");

	for (path++; *path != '\0' && length < size; path++) {
		bool plain = *path == '/' || strchr("-+@=~", *path) == NULL;

		length += (size_t)snprintf(name + length, size - length, plain ? "%c" : "\\x%02x",
		    *path == '/' ? '-' : *path);
	}
	if (length < size)
		length += (size_t)snprintf(name + length, size - length, ".path");
	return length < size;
}

/* --- the socket -------------------------------------------------------------------------- */

static void put_listen(FILE *unit, const struct tunnel *tunnel)
{
	char text[ADDRESS_TEXT_SIZE];

	tunnel_format_address(&tunnel->listen, text, sizeof(text));
	put_setting(unit, "ListenStream", text);
}

static void put_unix_settings(FILE *unit, const struct tunnel *tunnel)
{
	const char *const *option = tunnel->option;

	put_setting(unit, "SocketMode", option[TUNNEL_MODE] != NULL ? option[TUNNEL_MODE] : "0600");
	put_setting(unit, "SocketUser", option[TUNNEL_USER]);
	put_setting(unit, "SocketGroup", option[TUNNEL_GROUP]);
	put_setting(unit, "RemoveOnStop", "yes");
}

static void put_tcp_settings(FILE *unit, const struct tunnel *tunnel)
{
	/* sockets.target is reached before the network has its addresses */
	put_setting(unit, "FreeBind", "yes");
	/* the client of the protocol speaks first; behind spipe-enc it is often the server */
	if (tunnel->role == ROLE_DEC && tunnel->option[TUNNEL_NODEFER] == NULL)
		put_setting(unit, "DeferAcceptSec", "5");
	if (tunnel->network_count > 0)
		put_setting(unit, "IPAddressDeny", "any");
	for (int i = 0; i < tunnel->network_count; i++)
		put_setting(unit, "IPAddressAllow", tunnel->networks[i]);
}

/* A service per connection. */
static void put_accept_yes(FILE *unit, const struct tunnel *tunnel)
{
	unsigned most = tunnel_number(tunnel, TUNNEL_MAXCONN, LISTENER_CONNECTIONS);
	/* strangers can connect to spipe-dec only */
	unsigned per_source = tunnel->role == ROLE_DEC ? (most + 3) / 4 : 0;

	per_source = tunnel_number(tunnel, TUNNEL_PERSOURCE, per_source);
	fprintf(unit, "Accept=yes\nMaxConnections=%u\n", most);
	if (tunnel->listen.kind == ADDRESS_TCP && per_source > 0)
		fprintf(unit, "MaxConnectionsPerSource=%u\n", per_source);
	/* by default systemd slows down at 75 connections per second (since version 255) */
	put_setting(unit, "PollLimitIntervalSec", "0");
}

/* One service for all connections. */
static void put_accept_no(FILE *unit, const struct tunnel *tunnel)
{
	const char *name = tunnel->name;

	fprintf(unit, "Accept=no\nService=spipe-%s@0.service\n", name);
	/* The service has the listening socket, too: while it runs, the unit could not be started again. */
	fprintf(unit, "ExecStopPre=-systemctl stop \"spipe-%s@*.service\"\n", name);
}

static void put_socket(FILE *unit, const struct source *source)
{
	const struct tunnel *tunnel = source->tunnel;

	put_header(unit, source);
	if (tunnel_one_service(tunnel))
		fputs("Wants=renew-spipe.path\n", unit);
	fputs(source->wants, unit);
	if (watches_target(tunnel))
		fprintf(unit, "Wants=spipe-%s.path\n", tunnel->name);
	fputs("\n[Socket]\nSlice=spipe.slice\n", unit);
	put_listen(unit, tunnel);
	if (tunnel->listen.kind == ADDRESS_UNIX)
		put_unix_settings(unit, tunnel);
	else if (tunnel->listen.kind == ADDRESS_TCP)
		put_tcp_settings(unit, tunnel);
	if (tunnel_one_service(tunnel))
		put_accept_no(unit, tunnel);
	else
		put_accept_yes(unit, tunnel);
	/* by default a socket is turned off for good when it starts services too often */
	put_setting(unit, "TriggerLimitIntervalSec", "0");
	/* what `spipectl apply` compares with: the units that this socket was started from */
	fprintf(unit,
	    "ExecStartPost=-install -D -m 644 -t " UNITS_STARTED " " UNITS_LOADED
	    "/spipe-%s.socket " UNITS_LOADED "/spipe-%s@.service\n",
	    tunnel->name, tunnel->name);
}

/* --- the service ------------------------------------------------------------------------- */

static void put_keys(FILE *unit, const struct tunnel *tunnel)
{
	const char *load = tunnel->option[TUNNEL_ENCRYPTED] != NULL ? "LoadCredentialEncrypted"
								    : "LoadCredential";
	const struct tunnel_key *key;

	/*
	 * What SetCredential= says is used where there is no such file: too short for a key, so that
	 * the program refuses it, and no rules. Without it the service would not start at all.
	 */
	for (key = tunnel->keys; key < tunnel->keys + tunnel->key_count; key++) {
		fprintf(unit, "%s=%s:%s\n", load, key->name, key->path);
		fprintf(unit, "SetCredential=%s:missing\n", key->name);
		if (tunnel->role == ROLE_ENC || key->directory)
			continue;
		fprintf(unit, "LoadCredential=%s.conf:%s.conf\n", key->name, key->path);
		fprintf(unit, "SetCredential=%s.conf:#\n", key->name);
	}
}

static void put_limits_on_connections(FILE *unit, const struct tunnel *tunnel,
    const char *exit_idle)
{
	fprintf(unit, " -n %u", tunnel_number(tunnel, TUNNEL_MAXCONN, LISTENER_CONNECTIONS));
	if (tunnel->role == ROLE_DEC) {
		unsigned strangers = tunnel_number(tunnel, TUNNEL_STRANGERS, LISTENER_STRANGERS);
		unsigned per_source = tunnel_number(tunnel, TUNNEL_PERSOURCE, LISTENER_PER_SOURCE);

		if (per_source == 0 || per_source > strangers)
			per_source = strangers;
		fprintf(unit, " --max-strangers=%u --max-strangers-per-source=%u", strangers,
		    per_source);
	}
	if (exit_idle != NULL)
		fprintf(unit, " --exit-idle=%s", exit_idle);
}

static void put_target(FILE *unit, const struct tunnel *tunnel)
{
	const struct address_text *target = &tunnel->target;
	const char *bind = tunnel->option[TUNNEL_BIND];
	char text[ADDRESS_TEXT_SIZE];

	if (tunnel->command != NULL) {
		fputs(" --", unit);
		put_words(unit, tunnel->command);
		fputc('\n', unit);
		return;
	}
	if (bind != NULL)
		fprintf(unit, strchr(bind, ':') != NULL ? " -b [%s]" : " -b %s", bind);
	if (target->kind == ADDRESS_UNIX)
		snprintf(text, sizeof(text), TARGET_SOCKET);
	else
		tunnel_format_address(target, text, sizeof(text));
	fputs(" -t", unit);
	put_word(unit, text, strlen(text));
	fputc('\n', unit);
}

static void put_program(FILE *unit, const struct tunnel *tunnel, const char *exit_idle)
{
	const char *const *option = tunnel->option, *argument;
	const struct tunnel_key *key;

	fprintf(unit, "ExecStart=" BINDIR "/spipe-%s", tunnel->role == ROLE_ENC ? "enc" : "dec");
	if (tunnel_one_service(tunnel))
		put_limits_on_connections(unit, tunnel, exit_idle);
	if (option[TUNNEL_PFS] != NULL)
		fputs(strcmp(option[TUNNEL_PFS], "no") == 0 ? " -f" : " -g", unit);
	for (int i = 0; i < TUNNEL_OPTIONS; i++) {
		argument = tunnel_argument((enum tunnel_option)i);
		if (option[i] != NULL && argument != NULL)
			fprintf(unit, " %s%s", argument,
			    strpbrk(argument, " =") != NULL ? option[i] : "");
	}
	for (key = tunnel->keys; key < tunnel->keys + tunnel->key_count; key++)
		fprintf(unit, " -%c %s", key->directory ? 'K' : 'k', key->name);
	put_target(unit, tunnel);
}

/* Enough for all the connections that the service may have at once, or for its only one. */
static void put_limits(FILE *unit, const struct tunnel *tunnel)
{
	bool one_service = tunnel_one_service(tunnel);
	unsigned connections = one_service
	    ? tunnel_number(tunnel, TUNNEL_MAXCONN, LISTENER_CONNECTIONS)
	    : 1;
	unsigned strangers = one_service && tunnel->role == ROLE_DEC
	    ? tunnel_number(tunnel, TUNNEL_STRANGERS, LISTENER_STRANGERS)
	    : 0;
	/* strangers who make room for others may take a moment to go */
	unsigned places = connections + 2 * strangers;
	/* a connection is up to two processes: the filter and the launcher */
	unsigned tasks = 2 * places + 16;

	if (tunnel->command != NULL)
		tasks += TASKS_PER_COMMAND * connections;
	fprintf(unit, "TasksMax=%u\n", tasks);
	if (tunnel->command != NULL)
		fputs(one_service ? "MemoryMax=75%\n" : "MemoryMax=1G\n", unit);
	else
		fprintf(unit, "MemoryMax=%uM\n",
		    MEGABYTES_SHARED + (one_service ? MEGABYTES_PER_CONNECTION * connections : 0) +
			strangers);
	fprintf(unit, "LimitNOFILE=%u\n", (tunnel->command != NULL ? 1024 : 256) + places);
}

/* What of the network the target needs. The rest of the sandbox is in 10-hardening.conf. */
static void put_network(FILE *unit, const struct tunnel *tunnel)
{
	const struct address_text *target = &tunnel->target;
	bool command = tunnel->command != NULL;

	if (command ? tunnel->option[TUNNEL_NETWORK] != NULL : target->kind == ADDRESS_UNIX)
		fputs("PrivateNetwork=yes\nIPAddressDeny=any\nRestrictAddressFamilies=AF_UNIX\n",
		    unit);
	else if (!command && target->kind == ADDRESS_VSOCK)
		fputs("IPAddressDeny=any\nRestrictAddressFamilies=AF_UNIX AF_VSOCK\n", unit);
	else
		fputs("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n", unit);
	if (command)
		return;
	if (target->kind == ADDRESS_UNIX)
		fprintf(unit, "BindReadOnlyPaths=-%s:" TARGET_SOCKET "\n", target->path);
	if (tunnel->option[TUNNEL_BIND] != NULL)
		put_setting(unit, "SocketBindAllow", "tcp");
	if (target->kind == ADDRESS_TCP && target->numeric)
		fprintf(unit, "IPAddressDeny=any\nIPAddressAllow=%.*s\n",
		    (int)strcspn(target->host, "%"), target->host);
}

static void put_service(FILE *unit, const struct source *source)
{
	const struct tunnel *tunnel = source->tunnel;
	const char *runas = tunnel->option[TUNNEL_RUNAS], *colon;

	put_header(unit, source);
	if (tunnel_one_service(tunnel))
		/*
		 * A service that cannot start is tried again, slowly: its socket would be lost. But
		 * clients of one that was killed wait no more than 5 s.
		 */
		fprintf(unit,
		    "After=renew-spipe.service renew-spipe@%s.service\nStartLimitIntervalSec=0\n\n[Service]\n"
		    "Sockets=spipe-%s.socket\nExecReload=kill -HUP $MAINPID\n"
		    "Restart=on-failure\nRestartSec=2\n",
		    tunnel->name, tunnel->name);
	else
		fputs("\n[Service]\n", unit);
	fputs("Type=notify\n", unit);
	put_keys(unit, tunnel);
	put_program(unit, tunnel, NULL);
	if (runas != NULL) {
		fprintf(unit, "User=%.*s\n", (int)strcspn(runas, ":"), runas);
		colon = strchr(runas, ':');
		put_setting(unit, "Group", colon != NULL ? colon + 1 : NULL);
	}
	put_setting(unit, "SupplementaryGroups", tunnel->option[TUNNEL_SUPGROUP]);
	put_network(unit, tunnel);
	put_limits(unit, tunnel);
	/*
	 * What 10-hardening.conf leaves out because each connection would pay for it. One service for all
	 * connections pays once; and a command sees more of the machine.
	 */
	if (tunnel_one_service(tunnel) || tunnel->command != NULL)
		fputs("ProtectKernelTunables=yes\nProtectHostname=yes\n"
		      "RestrictSUIDSGID=yes\nPrivateTmp=yes\nRemoveIPC=yes\n",
		    unit);
}

/*
 * The first instance, which the socket starts, ends when it has nothing to do. The others start
 * while older ones still have connections: if they ended, the socket would wait for those.
 */
static void put_exit_idle(FILE *unit, const struct source *source)
{
	const char *exit_idle = source->tunnel->option[TUNNEL_EXIT_IDLE];

	fputs("# Written by spipe-generator.\n\n[Service]\nExecStart=\n", unit);
	put_program(unit, source->tunnel, exit_idle != NULL ? exit_idle : DEFAULT_EXIT_IDLE);
}

/* What an administrator's own command can see. */
static void put_exec_world(FILE *unit, const struct source *source)
{
	(void)source; /* it is the same for all */
	fputs(
	    "# Written by spipe-generator: the command sees the machine's files, read-only.\n\n"
	    "[Service]\nRootDirectory=\nBindReadOnlyPaths=\nTemporaryFileSystem=\nReadOnlyPaths=\n",
	    unit);
}

/* --- wrong lines ------------------------------------------------------------------------- */

/*
 * A wrong line has a socket, too, but one that cannot be started: `systemctl --failed` shows it, with
 * what is wrong as its description. If the socket was started from a line that was right, it stays
 * open through a daemon-reload, as the address is the same.
 */
static void put_wrong_header(FILE *unit, const struct source *source)
{
	fputs(
	    "# Written by spipe-generator.\n\n[Unit]\nDocumentation=man:spipetab(5)\nDescription=",
	    unit);
	put_value(unit, source->problem);
	/* of the service: a connection that starts it has the socket closed at once */
	fputs("\nStartLimitBurst=1\n\n", unit);
}

static void put_wrong_socket(FILE *unit, const struct source *source)
{
	put_wrong_header(unit, source);
	fprintf(unit, "[Socket]\nSlice=spipe.slice\nExecStartPre=false\nService=%s@0.service\n",
	    source->base);
	if (source->tunnel->listens)
		put_listen(unit, source->tunnel);
	else
		fprintf(unit, "ListenStream=/run/%s.wrong\n", source->base);
}

/* A socket cannot be loaded without its service. */
static void put_wrong_service(FILE *unit, const struct source *source)
{
	put_wrong_header(unit, source);
	fputs("[Service]\nExecStart=false\n", unit);
}

/* --- files ------------------------------------------------------------------------------- */

static int cannot_write(struct outcome *outcome, const char *path)
{
	return fail(outcome, EX_CANTCREAT, "cannot write %s: %s", path, strerror(errno));
}

static int make_directory(int dir, const char *path, struct outcome *outcome)
{
	return mkdirat(dir, path, 0755) == 0 || errno == EEXIST ? 0 : cannot_write(outcome, path);
}

typedef void putter(FILE *unit, const struct source *);

static int write_file(const struct source *source, const char *path, putter *put,
    struct outcome *outcome)
{
	int fd = openat(source->dir, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
	    0644);
	FILE *unit;
	bool failed;

	if (fd == -1 && errno == EEXIST)
		return fail(outcome, EX_CANTCREAT, "NAME %s is taken: %s already exists",
		    source->tunnel->name, path);
	unit = fd != -1 ? fdopen(fd, "w") : NULL;
	if (unit == NULL) {
		cannot_write(outcome, path);
		if (fd != -1)
			close(fd);
		return -1;
	}
	put(unit, source);
	failed = ferror(unit) != 0;
	if (fclose(unit) != 0 || failed) {
		cannot_write(outcome, path);
		unlinkat(source->dir, path, 0);
		return -1;
	}
	return 0;
}

/* Write one of the tunnel's units, or a drop-in of it. `end` follows source->base in its path. */
static int write_unit(const struct source *source, const char *end, putter *put,
    struct outcome *outcome)
{
	char path[192];
	char *slash;

	snprintf(path, sizeof(path), "%s%s", source->base, end);
	slash = strchr(path, '/');
	if (slash != NULL) {
		*slash = '\0';
		if (make_directory(source->dir, path, outcome) != 0)
			return -1;
		*slash = '/';
	}
	return write_file(source, path, put, outcome);
}

/* Write the tunnel's socket unit. */
static int write_socket(const struct source *source, putter *put, bool wanted,
    struct outcome *outcome)
{
	char path[160], link[128];

	if (write_unit(source, ".socket", put, outcome) != 0)
		return -1;
	if (!wanted)
		return 0;
	snprintf(path, sizeof(path), "sockets.target.wants/%s.socket", source->base);
	snprintf(link, sizeof(link), "../%s.socket", source->base);
	if (make_directory(source->dir, "sockets.target.wants", outcome) != 0)
		return -1;
	return symlinkat(link, source->dir, path) == 0 ? 0 : cannot_write(outcome, path);
}

/* --- what is watched --------------------------------------------------------------------- */

/*
 * A service gets its keys, its UNIX target and the files that resolve names when it starts. When
 * one of them changes, a new instance takes over. Each path that systemd watches takes one of 128
 * inotify instances, so what many tunnels need is watched once, for all of them. And each path has
 * a unit of its own: in a unit with several, systemd loses events where one of them does not exist.
 */

static void put_target_path(FILE *unit, const struct source *source)
{
	const struct tunnel *tunnel = source->tunnel;

	put_header(unit, source);
	fprintf(unit, "PartOf=spipe-%s.socket\n\n[Path]\nUnit=renew-spipe@%s.service\n",
	    tunnel->name, tunnel->name);
	fprintf(unit, "PathChanged=%s\n", tunnel->target.path);
}

static void put_watched(FILE *unit, const struct source *source)
{
	fprintf(unit,
	    "# Written by spipe-generator.\n\n[Unit]\nDescription=Watch %s for encrypted pipes\n"
	    "\n[Path]\nUnit=renew-spipe.service\nPathChanged=%s\n",
	    source->path, source->path);
}

/* Have a change of the file or directory PATH END renew all services, while the tunnel's socket is active. */
static int watch(struct source *source, const char *path, const char *end, struct outcome *outcome)
{
	char name[NAME_MAX + 1], line[sizeof(name) + sizeof("Wants=\n")];
	size_t length = strlen(source->wants);

	snprintf(source->path, sizeof(source->path), "%s%s", path, end);
	if (strcmp(source->path, "/etc/spipe") == 0)
		return 0; /* renew-spipe.path watches that */
	if (!watch_name(name, sizeof(name), source->path))
		return fail(outcome, EX_CANTCREAT,
		    "KEY: its path is too long for the name of a unit that watches it");
	snprintf(line, sizeof(line), "Wants=%s\n", name);
	if (strstr(source->wants, line) == NULL)
		snprintf(source->wants + length, sizeof(source->wants) - length, "%s", line);
	if (faccessat(source->dir, name, F_OK, 0) == 0)
		return 0; /* another key or tunnel needs it, too */
	return write_file(source, name, put_watched, outcome);
}

/* Of a key below /etc/spipe the directory is watched, as there are many; else the key and its rules. */
static int watch_key(struct source *source, const struct tunnel_key *key, struct outcome *outcome)
{
	char parent[sizeof(key->path)];

	if (key->directory)
		return watch(source, key->path, "", outcome);
	if (strncmp(key->path, "/etc/spipe/", strlen("/etc/spipe/")) == 0) {
		snprintf(parent, sizeof(parent), "%.*s", (int)(key->name - key->path) - 1,
		    key->path);
		return watch(source, parent, "", outcome);
	}
	if (watch(source, key->path, "", outcome) != 0)
		return -1;
	return source->tunnel->role == ROLE_DEC ? watch(source, key->path, ".conf", outcome) : 0;
}

static int write_watches(struct source *source, struct outcome *outcome)
{
	static const char *const resolving[] = { "/etc/hosts", "/etc/nsswitch.conf",
		"/etc/resolv.conf" };
	const struct tunnel *tunnel = source->tunnel;

	for (int i = 0; i < tunnel->key_count; i++)
		if (watch_key(source, &tunnel->keys[i], outcome) != 0)
			return -1;
	if (tunnel->command == NULL && tunnel->target.kind == ADDRESS_TCP &&
	    !tunnel->target.numeric)
		for (size_t i = 0; i < sizeof(resolving) / sizeof(resolving[0]); i++)
			if (watch(source, resolving[i], "", outcome) != 0)
				return -1;
	return watches_target(tunnel) ? write_unit(source, ".path", put_target_path, outcome) : 0;
}

/* --- all of a line ----------------------------------------------------------------------- */

int units_write(int dir, const struct tunnel *tunnel, const char *table, struct outcome *outcome)
{
	struct source source = { .dir = dir, .tunnel = tunnel, .table = table };
	bool one_service = tunnel_one_service(tunnel);

	snprintf(source.base, sizeof(source.base), "spipe-%s", tunnel->name);
	if ((one_service && write_watches(&source, outcome) != 0) ||
	    write_unit(&source, "@.service", put_service, outcome) != 0 ||
	    (one_service &&
		write_unit(&source, "@0.service.d/20-exit-idle.conf", put_exit_idle, outcome) !=
		    0) ||
	    (tunnel->command != NULL &&
		write_unit(&source, "@.service.d/20-exec.conf", put_exec_world, outcome) != 0))
		return -1;
	return write_socket(&source, put_socket, tunnel->option[TUNNEL_NOAUTO] == NULL, outcome);
}

/* Write the units of a wrong line, unless others have those names. */
static int write_wrong(const struct source *source)
{
	struct outcome outcome;

	return write_unit(source, "@.service", put_wrong_service, &outcome) == 0
	    ? write_socket(source, put_wrong_socket, true, &outcome)
	    : -1;
}

void units_write_wrong(int dir, const struct tunnel *tunnel, const char *problem)
{
	struct source source = { .dir = dir, .tunnel = tunnel, .problem = problem };

	if (tunnel->name != NULL) {
		snprintf(source.base, sizeof(source.base), "spipe-%s", tunnel->name);
		if (write_wrong(&source) == 0)
			return;
	}
	snprintf(source.base, sizeof(source.base), "spipetab-line-%u", tunnel->line);
	write_wrong(&source);
}

bool units_find_unfit(const char *directory, char name[static NAME_MAX + 1])
{
	DIR *dir = opendir(directory);
	const struct dirent *entry;
	bool unfit = false;

	while (dir != NULL && !unfit && (entry = readdir(dir)) != NULL) {
		if (*entry->d_name == '.')
			continue; /* systemd passes none of these on */
		snprintf(name, NAME_MAX + 1, "%s", entry->d_name);
		unfit = strlen(strrchr(directory, '/') + 1) + 1 + strlen(name) > NAME_MAX;
		for (char *byte = name; *byte != '\0'; byte++) {
			bool printable = *byte >= ' ' && *byte < 0x7f;

			unfit |= !printable || *byte == ':';
			*byte = printable ? *byte : '?';
		}
	}
	if (dir != NULL)
		closedir(dir);
	return unfit;
}
