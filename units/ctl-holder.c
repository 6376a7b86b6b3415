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

static bool tcp_is_held(const struct address_text *address)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	const char *host = *address->host != '\0' ? address->host : "::";
	struct addrinfo *found;
	bool taken;

	if (getaddrinfo(host, address->port, &hints, &found) != 0)
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

/* Sockets that listen at the port, from /proc/net/tcp or tcp6. */
static void find_tcp(struct inodes *inodes, const char *table, unsigned long port)
{
	FILE *file = fopen(table, "re");
	char line[512];
	unsigned local, state;
	unsigned long inode;

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		/* NOLINTNEXTLINE(cert-err34-c): the kernel's */
		if (sscanf(line, "%*s %*[0-9A-F]:%x %*s %x %*s %*s %*s %*s %*s %lu", &local, &state,
			&inode) == 3 &&
		    local == port && state == 0x0a)
			add_inode(inodes, inode);
	if (file != NULL)
		fclose(file);
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

/*
 * Which socket unit listens at an address that ends like this one. False if it is `own`. A line of
 * the output is "[::]:8025 mail.socket mail@.service".
 */
static bool find_unit(const char *where, const char *own, char holder[static HOLDER_SIZE])
{
	static const char *const words[] = { "systemctl", "list-sockets", "--no-legend", "--full",
		NULL };
	char *output, *rest, *line, listen[UNIX_PATH_SIZE + 64], unit[HOLDER_SIZE];
	bool found_own = false;
	size_t length;

	run_program(words, &output);
	for (rest = output; (line = strsep(&rest, "\n")) != NULL;) {
		if (sscanf(line, "%171s %127s", listen, unit) != 2)
			continue;
		length = strlen(listen);
		if (length < strlen(where) || strcmp(listen + length - strlen(where), where) != 0)
			continue;
		found_own |= strcmp(unit, own) == 0;
		snprintf(holder, HOLDER_SIZE, "%s", unit);
	}
	free(output);
	return !found_own;
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

bool address_is_taken(const struct address_text *address)
{
	struct inodes inodes = { .count = 0 };

	if (address->kind == ADDRESS_TCP)
		return tcp_is_held(address);
	if (address->kind == ADDRESS_VSOCK)
		return vsock_is_held(address);
	/* systemd replaces a socket that nobody listens on */
	find_unix(&inodes, address->path);
	return inodes.count > 0;
}

bool address_is_held(const struct address_text *address, const char *own,
    char holder[static HOLDER_SIZE])
{
	struct inodes inodes = { .count = 0 };
	char where[UNIX_PATH_SIZE + 16];
	int pid;

	snprintf(holder, HOLDER_SIZE, "another process");
	if (!address_is_taken(address))
		return false;
	if (address->kind == ADDRESS_UNIX)
		find_unix(&inodes, address->path);
	else if (address->kind == ADDRESS_TCP) {
		find_tcp(&inodes, "/proc/net/tcp", strtoul(address->port, NULL, 10));
		find_tcp(&inodes, "/proc/net/tcp6", strtoul(address->port, NULL, 10));
	}
	pid = find_process(&inodes);
	if (pid == 1 || address->kind == ADDRESS_VSOCK) {
		snprintf(where, sizeof(where), "%s%s", address->kind == ADDRESS_UNIX ? "" : ":",
		    address->kind == ADDRESS_UNIX ? address->path : address->port);
		return find_unit(where, own, holder);
	}
	if (pid != 0)
		process_name(pid, holder);
	return true;
}
