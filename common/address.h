#ifndef SPIPE_ADDRESS_H
#define SPIPE_ADDRESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define UNIX_PATH_SIZE 108 /* sun_path */

/* Where one end of the near connection is. */
struct address {
	sa_family_t family;           /* AF_INET, AF_INET6, AF_UNIX, AF_VSOCK; AF_UNSPEC: unknown */
	uint8_t ip[16];               /* network order: 4 bytes for AF_INET, 16 for AF_INET6 */
	uint32_t port;                /* host order; 0: none */
	uint8_t path[UNIX_PATH_SIZE]; /* AF_UNIX: sun_path as the kernel has it, then zeros */
	char text[UNIX_PATH_SIZE];    /* printable: numeric address, CID or path; "" if unknown */
};

/* Who is at the other end of the near side, and where it reached us. */
struct peer {
	struct address remote, local;
};

/*
 * Learn both from the socket `fd`; where it is none, or a nameless UNIX one, from what
 * supervisors put in the environment: REMOTE_ADDR and REMOTE_PORT (systemd), TCPREMOTEIP and
 * TCPREMOTEPORT (UCSPI), REMOTE_HOST (xinetd), SOCAT_PEERADDR and SOCAT_PEERPORT.
 */
void peer_learn(struct peer *, int fd);

/* Parse a numeric IPv4 or IPv6 address, [bracketed] or not. Returns 0, or -1 if it is none. */
int address_parse(struct address *, const char *text);

/* Write `addr:port`, `[v6]:port`, a path, or "-" into `text` of `size` bytes, 128 is enough. */
void address_format(const struct address *, char *text, size_t size);

/* Put SPIPE_PEER_ADDR, SPIPE_PEER_PORT, SPIPE_LOCAL_ADDR, SPIPE_LOCAL_PORT in the environment. */
void peer_export(const struct peer *);

#endif
