#include "ctl-holder.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl-run.h"
#include "ctl.h"
#include "table.h"

/* --- can it be bound? -------------------------------------------------------------------- */

/* Bind a socket, as systemd would, and close it: nothing can have connected to it. */
static bool bind_fails(int family, const struct sockaddr *address, socklen_t size)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, off = 0;
	bool taken;

	if (fd == -1)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (family == AF_INET || family == AF_INET6)
		setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on));
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	taken = bind(fd, address, size) != 0 && errno == EADDRINUSE;
	close(fd);
	return taken;
}

static bool tcp_is_held(const char *host, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	struct addrinfo *found;
	bool taken;

	if (getaddrinfo(host, port, &hints, &found) != 0)
		return false;
	taken = bind_fails(found->ai_family, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return taken;
}

static bool vsock_is_held(const struct address_text *address)
{
	struct sockaddr_vm vm = {
		.svm_family = AF_VSOCK,
		.svm_cid = *address->host != '\0' ? (unsigned)strtoul(address->host, NULL, 10)
						  : VMADDR_CID_ANY,
		.svm_port = (unsigned)strtoul(address->port, NULL, 10),
	};

	return bind_fails(AF_VSOCK, (struct sockaddr *)&vm, sizeof(vm));
}

/* --- who listens ------------------------------------------------------------------------- */

static void add(struct listeners *listeners, const struct listener *listener)
{
	struct listener *new = ctl_add_one(&listeners->listener, &listeners->count,
	    sizeof(*listener));

	*new = *listener;
}

/* The sockets in /proc/net/tcp or tcp6 that listen. */
static void read_tcp(struct listeners *listeners, const char *path)
{
	struct listener new = { .kind = ADDRESS_TCP };
	FILE *file = fopen(path, "re");
	char line[512];
	unsigned state;

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		/* NOLINTNEXTLINE(cert-err34-c): the kernel's */
		if (sscanf(line, "%*s %32[0-9A-F]:%x %*s %x %*s %*s %*s %*s %*s %lu", new.where,
			&new.port, &state, &new.inode) == 4 &&
		    state == 0x0a)
			add(listeners, &new);
	if (file != NULL)
		fclose(file);
}

static void read_unix(struct listeners *listeners)
{
	struct listener new = { .kind = ADDRESS_UNIX };
	FILE *file = fopen("/proc/net/unix", "re");
	char line[512];
	unsigned flags;

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		/* NOLINTNEXTLINE(cert-err34-c): the kernel's */
		if (sscanf(line, "%*s %*s %*s %x %*s %*s %lu %107s", &flags, &new.inode,
			new.where) == 3 &&
		    (flags & 0x10000) != 0)
			add(listeners, &new);
	if (file != NULL)
		fclose(file);
}

/* Which of the sockets the process has open: nobody that started later can have given them to it. */
static void read_holder(struct listeners *listeners, int pid)
{
	char path[64], link[64];
	DIR *dir;
	const struct dirent *entry;
	unsigned long inode;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		ssize_t size = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

		link[size > 0 ? size : 0] = '\0';
		/* NOLINTNEXTLINE(cert-err34-c): the kernel's */
		if (sscanf(link, "socket:[%lu]", &inode) != 1)
			continue;
		for (size_t i = 0; i < listeners->count; i++) {
			struct listener *listener = &listeners->listener[i];

			if (listener->inode == inode && (listener->pid == 0 || pid < listener->pid))
				listener->pid = pid;
		}
	}
	if (dir != NULL)
		closedir(dir);
}

void listeners_read(struct listeners *listeners, bool holders)
{
	DIR *dir = holders ? opendir("/proc") : NULL;
	const struct dirent *entry;

	*listeners = (struct listeners){ .count = 0 };
	read_tcp(listeners, "/proc/net/tcp");
	read_tcp(listeners, "/proc/net/tcp6");
	read_unix(listeners);
	while (dir != NULL && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			read_holder(listeners, atoi(entry->d_name)); /* NOLINT(cert-err34-c) */
	if (dir != NULL)
		closedir(dir);
}

/* Whether a socket listens at this port or path, whatever its IP address. */
static bool has_port(const struct listener *listener, const struct address_text *address)
{
	if (listener->kind != (int)address->kind)
		return false;
	return address->kind == ADDRESS_UNIX
	    ? strcmp(listener->where, address->path) == 0
	    : listener->port == (unsigned)strtoul(address->port, NULL, 10);
}

/* Whether its IP address is this one. */
static bool has_host(const struct listener *listener, const char *host)
{
	uint32_t words[4];
	char where[33] = "";
	int count = inet_pton(AF_INET, host, words) == 1 ? 1 : 4;

	if (*host == '\0') /* [::], or 0.0.0.0 where there is no IPv6 */
		return listener->where[strspn(listener->where, "0")] == '\0';
	if (count == 4 && inet_pton(AF_INET6, host, words) != 1)
		return false;
	for (int i = 0; i < count; i++) /* as the kernel writes it */
		snprintf(where + 8 * i, sizeof(where) - 8 * (size_t)i, "%08X", words[i]);
	return strcmp(listener->where, where) == 0;
}

bool address_listens(const struct listeners *listeners, const struct address_text *address,
    bool by_systemd)
{
	if (address->kind == ADDRESS_VSOCK)
		return vsock_is_held(address); /* the kernel does not list those */
	for (size_t i = 0; i < listeners->count; i++) {
		const struct listener *listener = &listeners->listener[i];

		if (has_port(listener, address) &&
		    (address->kind == ADDRESS_UNIX || has_host(listener, address->host)) &&
		    (!by_systemd || listener->pid == 1))
			return true;
	}
	return false;
}

/* --- who is in the way ------------------------------------------------------------------- */

/* Whether that is a unit of one of the table's tunnels: not those that come with the programs. */
static bool is_tunnel(const char *unit)
{
	static const char *const others[] = { "spipe-dec.socket", "spipe-dec@", "spipe-enc.socket",
		"spipe-enc@" };

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strncmp(unit, others[i], strlen(others[i])) == 0)
			return false;
	return strncmp(unit, "spipe-", strlen("spipe-")) == 0;
}

/*
 * Which socket unit listens at an address that ends like this one. False if it is a tunnel's. A line
 * of the output is "[::]:8025 mail.socket mail@.service".
 */
static bool find_unit(const char *sockets, const char *where, char holder[static HOLDER_SIZE])
{
	char listen[UNIX_PATH_SIZE + 64], unit[HOLDER_SIZE];
	bool found_tunnel = false;
	size_t length;

	for (; *sockets != '\0'; sockets += strcspn(sockets, "\n"), sockets += *sockets == '\n') {
		if (sscanf(sockets, "%171s %127s", listen, unit) != 2)
			continue;
		length = strlen(listen);
		if (length < strlen(where) || strcmp(listen + length - strlen(where), where) != 0)
			continue;
		found_tunnel |= is_tunnel(unit);
		snprintf(holder, HOLDER_SIZE, "%s", unit);
	}
	return !found_tunnel;
}

/* Whether the process serves a tunnel: "0::/spipe.slice/spipe-mail@0.service". */
static bool serves_tunnel(const char *pid)
{
	static const char slice[] = "/spipe.slice/";
	char text[4096];
	const char *unit;

	process_read(pid, "cgroup", text, sizeof(text));
	unit = strstr(text, slice);
	return unit != NULL && is_tunnel(unit + strlen(slice));
}

/* Whether systemd could not bind a socket to this address. */
static bool is_taken(const struct listeners *listeners, const struct address_text *address)
{
	if (address->kind == ADDRESS_TCP && *address->host != '\0')
		return tcp_is_held(address->host, address->port);
	if (address->kind == ADDRESS_TCP) /* the second where there is no IPv6 */
		return tcp_is_held("::", address->port) || tcp_is_held("0.0.0.0", address->port);
	/* systemd replaces a UNIX socket that nobody listens on */
	return address_listens(listeners, address, false);
}

bool address_is_held(struct listeners *listeners, const struct address_text *address,
    char holder[static HOLDER_SIZE])
{
	static const char *const list[] = { "systemctl", "list-sockets", "--no-legend", "--full",
		NULL };
	char where[UNIX_PATH_SIZE + 16], pid[16], name[64];
	int oldest = 0;

	snprintf(holder, HOLDER_SIZE, "another process");
	if (!is_taken(listeners, address))
		return false;
	for (size_t i = 0; i < listeners->count; i++) {
		const struct listener *listener = &listeners->listener[i];

		if (has_port(listener, address) && listener->pid != 0 &&
		    (oldest == 0 || listener->pid < oldest))
			oldest = listener->pid;
	}
	if (oldest == 1 || address->kind == ADDRESS_VSOCK) {
		if (listeners->units == NULL)
			run_program(list, &listeners->units);
		snprintf(where, sizeof(where), "%s%s", address->kind == ADDRESS_UNIX ? "" : ":",
		    address->kind == ADDRESS_UNIX ? address->path : address->port);
		return find_unit(listeners->units, where, holder);
	}
	if (oldest == 0)
		return true;
	snprintf(pid, sizeof(pid), "%d", oldest);
	process_read(pid, "comm", name, sizeof(name));
	snprintf(holder, HOLDER_SIZE, "%.*s, pid %s", (int)strcspn(name, "\n"), name, pid);
	return !serves_tunnel(pid);
}

char *address_problem(struct listeners *listeners, const struct address_text *address,
    const char *unit)
{
	char where[ADDRESS_TEXT_SIZE], holder[HOLDER_SIZE], *problem, *error = unit_error(unit);
	bool held = address_is_held(listeners, address, holder);

	tunnel_format_address(address, where, sizeof(where));
	if (asprintf(&problem, held ? "%s is held by %s" : "%s does not listen: %s", where,
		held                 ? holder
		    : *error != '\0' ? error
				     : "see systemctl status") == -1)
		abort();
	free(error);
	return problem;
}
