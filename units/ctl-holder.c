#include "ctl-holder.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl-run.h"

#define INODES 16 /* listening sockets at one port that are looked for */

/* The inodes of the sockets in question. */
struct inodes {
	unsigned long number[INODES];
	int count;
};

void address_text_format(const struct address_text *address, char *text, size_t size)
{
	if (address->kind == ADDRESS_UNIX)
		snprintf(text, size, "%s", address->path);
	else if (address->kind == ADDRESS_VSOCK)
		snprintf(text, size, "vsock:%s:%s", address->host, address->port);
	else if (*address->host == '\0')
		snprintf(text, size, "%s", address->port);
	else
		snprintf(text, size, strchr(address->host, ':') != NULL ? "[%s]:%s" : "%s:%s",
		    address->host, address->port);
}

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

/* Look up a TCP address. Returns NULL, or what freeaddrinfo has to free. */
static struct addrinfo *tcp_address(const char *host, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	struct addrinfo *found;

	return getaddrinfo(host, port, &hints, &found) == 0 ? found : NULL;
}

static bool tcp_is_held(const char *host, const char *port)
{
	struct addrinfo *found = tcp_address(host, port);
	bool taken;

	if (found == NULL)
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

static void add_inode(struct inodes *inodes, unsigned long inode)
{
	if (inodes->count < INODES && inode != 0)
		inodes->number[inodes->count++] = inode;
}

/* Sockets that listen at the port, and at the address `host`, as the kernel writes it (NULL: any). */
static void find_tcp(struct inodes *inodes, const char *table, const char *host, unsigned long port)
{
	FILE *file = fopen(table, "re");
	char line[512], local_host[33];
	unsigned local, state;
	unsigned long inode;

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		/* NOLINTNEXTLINE(cert-err34-c): the kernel's */
		if (sscanf(line, "%*s %32[0-9A-F]:%x %*s %x %*s %*s %*s %*s %*s %lu", local_host,
			&local, &state, &inode) == 4 &&
		    local == port && state == 0x0a &&
		    (host == NULL || strcmp(local_host, host) == 0))
			add_inode(inodes, inode);
	if (file != NULL)
		fclose(file);
}

/* Sockets that listen at exactly this TCP address. */
static void find_tcp_address(struct inodes *inodes, const char *host_text, const char *port_text)
{
	struct addrinfo *found = tcp_address(host_text, port_text);
	unsigned long port = strtoul(port_text, NULL, 10);
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	char host[33];

	if (found == NULL)
		return;
	if (found->ai_family == AF_INET) {
		memcpy(&v4, found->ai_addr, sizeof(v4));
		snprintf(host, sizeof(host), "%08X", v4.sin_addr.s_addr);
		find_tcp(inodes, "/proc/net/tcp", host, port);
	} else {
		memcpy(&v6, found->ai_addr, sizeof(v6));
		for (size_t i = 0; i < 4; i++)
			snprintf(host + 8 * i, sizeof(host) - 8 * i, "%08X",
			    v6.sin6_addr.s6_addr32[i]);
		find_tcp(inodes, "/proc/net/tcp6", host, port);
	}
	freeaddrinfo(found);
}

/* Sockets that listen at the path. */
static void find_unix(struct inodes *inodes, const char *path)
{
	FILE *file = fopen("/proc/net/unix", "re");
	char line[512], name[128];
	unsigned flags;
	unsigned long inode;

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		/* NOLINTNEXTLINE(cert-err34-c): the kernel's */
		if (sscanf(line, "%*s %*s %*s %x %*s %*s %lu %127s", &flags, &inode, name) == 3 &&
		    (flags & 0x10000) != 0 && strcmp(name, path) == 0)
			add_inode(inodes, inode);
	if (file != NULL)
		fclose(file);
}

/* Whether the process has one of the sockets open. */
static bool has_socket(const char *pid, const struct inodes *inodes)
{
	char path[300], link[64];
	DIR *dir;
	const struct dirent *entry;
	unsigned long inode;
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	while (dir != NULL && !found && (entry = readdir(dir)) != NULL) {
		ssize_t size = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

		link[size > 0 ? size : 0] = '\0';
		/* NOLINTNEXTLINE(cert-err34-c): the kernel's */
		if (sscanf(link, "socket:[%lu]", &inode) != 1)
			continue;
		for (int i = 0; i < inodes->count; i++)
			found |= inodes->number[i] == inode;
	}
	if (dir != NULL)
		closedir(dir);
	return found;
}

/* Which process has one of the sockets: the oldest one, which the others got it from. 0: not found. */
static int find_process(const struct inodes *inodes)
{
	struct dirent **entries;
	int count = scandir("/proc", &entries, NULL, versionsort), pid = 0;

	for (int i = 0; i < count; i++) {
		int number = atoi(entries[i]->d_name); /* NOLINT(cert-err34-c): 0 is none */

		if (pid == 0 && number > 0 && has_socket(entries[i]->d_name, inodes))
			pid = number;
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	return pid;
}

/* Whether that is a unit of one of the table's tunnels: not those that come with the programs. */
static bool is_tunnel(const char *unit)
{
	static const char *const others[] = { "spipe-dec.", "spipe-dec@", "spipe-enc.",
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
static bool serves_tunnel(int pid)
{
	static const char slice[] = "/spipe.slice/";
	char path[64], line[512];
	const char *unit;
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	file = fopen(path, "re");
	while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
		unit = strstr(line, slice);
		found = unit != NULL && is_tunnel(unit + strlen(slice));
	}
	if (file != NULL)
		fclose(file);
	return found;
}

static void process_name(int pid, char holder[static HOLDER_SIZE])
{
	char path[64], name[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	file = fopen(path, "re");
	if (file != NULL) {
		if (fgets(name, sizeof(name), file) != NULL)
			name[strcspn(name, "\n")] = '\0';
		fclose(file);
	}
	snprintf(holder, HOLDER_SIZE, "%s, pid %d", name, pid);
}

/* Sockets that listen at exactly this address: TCP or UNIX, as the kernel lists no others. */
static void find_listeners(struct inodes *inodes, const struct address_text *address)
{
	if (address->kind == ADDRESS_UNIX)
		find_unix(inodes, address->path);
	else if (*address->host != '\0')
		find_tcp_address(inodes, address->host, address->port);
	else {
		find_tcp_address(inodes, "::", address->port);
		/* what systemd makes of a port alone where there is no IPv6 */
		find_tcp_address(inodes, "0.0.0.0", address->port);
	}
}

bool address_listens(const struct address_text *address)
{
	struct inodes inodes = { .count = 0 };

	if (address->kind == ADDRESS_VSOCK)
		return vsock_is_held(address);
	find_listeners(&inodes, address);
	return inodes.count > 0;
}

bool systemd_listens(const struct address_text *address)
{
	struct inodes inodes = { .count = 0 };

	if (address->kind == ADDRESS_VSOCK)
		return vsock_is_held(address); /* the kernel does not say by whom */
	find_listeners(&inodes, address);
	return has_socket("1", &inodes);
}

/* Whether systemd could not bind a socket to this address. */
static bool is_taken(const struct address_text *address)
{
	if (address->kind == ADDRESS_TCP && *address->host != '\0')
		return tcp_is_held(address->host, address->port);
	if (address->kind == ADDRESS_TCP) /* the second where there is no IPv6 */
		return tcp_is_held("::", address->port) || tcp_is_held("0.0.0.0", address->port);
	/* systemd replaces a UNIX socket that nobody listens on */
	return address_listens(address);
}

char *list_sockets(void)
{
	static const char *const words[] = { "systemctl", "list-sockets", "--no-legend", "--full",
		NULL };
	char *sockets;

	run_program(words, &sockets);
	return sockets;
}

bool address_is_held(const struct address_text *address, const char *sockets,
    char holder[static HOLDER_SIZE])
{
	struct inodes inodes = { .count = 0 };
	char where[UNIX_PATH_SIZE + 16];
	int pid;

	snprintf(holder, HOLDER_SIZE, "another process");
	if (!is_taken(address))
		return false;
	if (address->kind == ADDRESS_UNIX)
		find_unix(&inodes, address->path);
	else if (address->kind == ADDRESS_TCP) {
		find_tcp(&inodes, "/proc/net/tcp", NULL, strtoul(address->port, NULL, 10));
		find_tcp(&inodes, "/proc/net/tcp6", NULL, strtoul(address->port, NULL, 10));
	}
	pid = find_process(&inodes);
	if (pid == 1 || address->kind == ADDRESS_VSOCK) {
		snprintf(where, sizeof(where), "%s%s", address->kind == ADDRESS_UNIX ? "" : ":",
		    address->kind == ADDRESS_UNIX ? address->path : address->port);
		return find_unit(sockets, where, holder);
	}
	if (pid != 0)
		process_name(pid, holder);
	return pid == 0 || !serves_tunnel(pid);
}
