#include "units.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef BINDIR
#define BINDIR "/usr/local/bin"
#endif
#ifndef NC
#define NC "nc" /* OpenBSD's */
#endif
#ifndef SOCAT
#define SOCAT "socat"
#endif

#define DEFAULT_MAXCONN "200"
#define TARGET_SOCKET "/run/target.sock" /* where the services find their UNIX target */

/* What the unit files are written from. */
struct source {
	const struct tunnel *tunnel;
	const char *table;
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

static void put_socket(FILE *unit, const struct source *source)
{
	const struct tunnel *tunnel = source->tunnel;
	const struct address_text *address = &tunnel->listen;
	const char *const *option = tunnel->option;
	const char *most = option[TUNNEL_MAXCONN] != NULL ? option[TUNNEL_MAXCONN]
							  : DEFAULT_MAXCONN;
	bool v6 = address->host != NULL && strchr(address->host, ':') != NULL;

	put_header(unit, source);
	fprintf(unit, "\n[Socket]\nSlice=spipe.slice\n");
	switch (address->kind) {
	case ADDRESS_UNIX:
		put_setting(unit, "ListenStream", address->path);
		put_setting(unit, "SocketMode",
		    option[TUNNEL_MODE] != NULL ? option[TUNNEL_MODE] : "0600");
		put_setting(unit, "SocketUser", option[TUNNEL_USER]);
		put_setting(unit, "SocketGroup", option[TUNNEL_GROUP]);
		put_setting(unit, "RemoveOnStop", "yes");
		break;
	case ADDRESS_VSOCK:
		fprintf(unit, "ListenStream=vsock:%s:%s\n", address->host, address->port);
		break;
	case ADDRESS_TCP:
		fputs(v6 ? "ListenStream=[" : "ListenStream=", unit);
		if (*address->host != '\0') {
			put_value(unit, address->host);
			fputs(v6 ? "]:" : ":", unit);
		}
		fprintf(unit, "%s\n", address->port);
		/* sockets.target comes before the network has its addresses */
		put_setting(unit, "FreeBind", "yes");
		/* the client of the protocol speaks first; behind spipe-enc often the server */
		if (tunnel->role == ROLE_DEC && option[TUNNEL_NODEFER] == NULL)
			put_setting(unit, "DeferAcceptSec", "5");
		/* strangers come to spipe-dec only */
		put_setting(unit, "MaxConnectionsPerSource", option[TUNNEL_PERSOURCE]);
		if (tunnel->role == ROLE_DEC && option[TUNNEL_PERSOURCE] == NULL)
			fprintf(unit, "MaxConnectionsPerSource=%lu\n",
			    (strtoul(most, NULL, 10) + 3) / 4);
		if (tunnel->network_count > 0)
			put_setting(unit, "IPAddressDeny", "any");
		for (int i = 0; i < tunnel->network_count; i++)
			put_setting(unit, "IPAddressAllow", tunnel->networks[i]);
		break;
	}
	put_setting(unit, "Accept", "yes");
	put_setting(unit, "MaxConnections", most);
	/* else 200 connects in 2 s would turn the socket off for good */
	put_setting(unit, "TriggerLimitIntervalSec", "0");
}

static void put_keys(FILE *unit, const struct tunnel *tunnel)
{
	const char *load = tunnel->option[TUNNEL_ENCRYPTED] != NULL ? "LoadCredentialEncrypted"
								    : "LoadCredential";
	const struct tunnel_key *key;

	for (key = tunnel->keys; key < tunnel->keys + tunnel->key_count; key++) {
		fprintf(unit, "%s=%s:%s%s\n", load, key->name, key->prefix, key->path);
		if (tunnel->role == ROLE_ENC || key->directory)
			continue;
		/* the rules of its holder, and what stands for them where there is no such file */
		fprintf(unit, "LoadCredential=%s.conf:%s%s.conf\n", key->name, key->prefix,
		    key->path);
		fprintf(unit, "SetCredential=%s.conf:#\n", key->name);
	}
}

static void put_program(FILE *unit, const struct tunnel *tunnel)
{
	const struct address_text *target = &tunnel->target;
	const char *const *option = tunnel->option, *argument;
	const struct tunnel_key *key;

	fprintf(unit, "ExecStart=" BINDIR "/spipe-%s", tunnel->role == ROLE_ENC ? "enc" : "dec");
	if (tunnel->command == NULL && target->kind == ADDRESS_TCP)
		fputs(" -p", unit);
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

	if (tunnel->command != NULL) {
		fputs(" --", unit);
		put_words(unit, tunnel->command);
		fputc('\n', unit);
		return;
	}
	switch (target->kind) {
	case ADDRESS_TCP:
		fputs(" -- " NC " -F", unit);
		if (option[TUNNEL_BIND] != NULL)
			fprintf(unit, " -s %s", option[TUNNEL_BIND]);
		put_word(unit, target->host, strlen(target->host));
		fprintf(unit, " %s\n", target->port);
		break;
	case ADDRESS_UNIX: fputs(" -- " NC " -N -U " TARGET_SOCKET "\n", unit); break;
	case ADDRESS_VSOCK:
		/* -t: by default socat leaves half a second after one side's end */
		fprintf(unit, " -- " SOCAT " -t 86400 STDIO VSOCK-CONNECT:%s:%s\n", target->host,
		    target->port);
		break;
	}
}

static void put_service(FILE *unit, const struct source *source)
{
	const struct tunnel *tunnel = source->tunnel;
	const struct address_text *target = &tunnel->target;
	bool command = tunnel->command != NULL;
	const char *runas = tunnel->option[TUNNEL_RUNAS], *colon;

	put_header(unit, source);
	fprintf(unit, "\n[Service]\nType=notify\n");
	put_keys(unit, tunnel);
	put_program(unit, tunnel);
	if (runas != NULL) {
		fprintf(unit, "User=%.*s\n", (int)strcspn(runas, ":"), runas);
		colon = strchr(runas, ':');
		put_setting(unit, "Group", colon != NULL ? colon + 1 : NULL);
	}
	put_setting(unit, "SupplementaryGroups", tunnel->option[TUNNEL_SUPGROUP]);

	/* What of the network the target needs. The rest of the sandbox is in 10-hardening.conf. */
	if ((!command && target->kind == ADDRESS_UNIX) || tunnel->option[TUNNEL_NETWORK] != NULL)
		fputs("PrivateNetwork=yes\nIPAddressDeny=any\nRestrictAddressFamilies=AF_UNIX\n",
		    unit);
	else if (!command && target->kind == ADDRESS_VSOCK)
		fputs("IPAddressDeny=any\nRestrictAddressFamilies=AF_UNIX AF_VSOCK\n", unit);
	else
		fputs("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n", unit);
	if (!command && target->kind == ADDRESS_UNIX)
		fprintf(unit, "BindReadOnlyPaths=-%s:" TARGET_SOCKET "\n", target->path);
	if (tunnel->option[TUNNEL_BIND] != NULL)
		put_setting(unit, "SocketBindAllow", "tcp");
	if (!command && target->kind == ADDRESS_TCP && target->numeric)
		fprintf(unit, "IPAddressDeny=any\nIPAddressAllow=%.*s\n",
		    (int)strcspn(target->host, "%"), target->host);
}

/* A command of the administrator's own may need files, memory and processes. */
static void put_exec_world(FILE *unit, const struct source *source)
{
	(void)source; /* it is the same for all */
	fputs("# Made by spipe-generator: the command sees the machine's files, read-only.\n\n"
	      "[Service]\nRootDirectory=\nBindReadOnlyPaths=\n"
	      "MemoryMax=1G\nTasksMax=64\nLimitNOFILE=1024\n",
	    unit);
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

static int write_unit(int dir, const char *path, void (*put)(FILE *, const struct source *),
    const struct source *source, struct outcome *outcome)
{
	int fd = openat(dir, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
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
		unlinkat(dir, path, 0);
		return -1;
	}
	return 0;
}

/* The drop-in `name` of the service. */
static int write_drop_in(int dir, const char *name, void (*put)(FILE *, const struct source *),
    const struct source *source, struct outcome *outcome)
{
	char directory[128], path[192];

	snprintf(directory, sizeof(directory), "spipe-%s@.service.d", source->tunnel->name);
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return make_directory(dir, directory, outcome) == 0
	    ? write_unit(dir, path, put, source, outcome)
	    : -1;
}

static int want_socket(int dir, const char *name, struct outcome *outcome)
{
	char path[160], link[128];

	snprintf(path, sizeof(path), "sockets.target.wants/%s", name);
	snprintf(link, sizeof(link), "../%s", name);
	if (make_directory(dir, "sockets.target.wants", outcome) != 0)
		return -1;
	return symlinkat(link, dir, path) == 0 ? 0 : cannot_write(outcome, path);
}

int units_write(int dir, const struct tunnel *tunnel, const char *table, struct outcome *outcome)
{
	struct source source = { tunnel, table };
	char socket_unit[96], service[96];

	snprintf(socket_unit, sizeof(socket_unit), "spipe-%s.socket", tunnel->name);
	snprintf(service, sizeof(service), "spipe-%s@.service", tunnel->name);
	if (write_unit(dir, service, put_service, &source, outcome) != 0)
		return -1;
	if (tunnel->command != NULL &&
	    write_drop_in(dir, "20-spipetab.conf", put_exec_world, &source, outcome) != 0)
		return -1;
	if (write_unit(dir, socket_unit, put_socket, &source, outcome) != 0)
		return -1;
	return tunnel->option[TUNNEL_NOAUTO] == NULL ? want_socket(dir, socket_unit, outcome) : 0;
}
