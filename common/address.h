#ifndef SPIPE_ADDRESS_H
#define SPIPE_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define UNIX_PATH_SIZE 108    /* sun_path */
#define ADDRESS_TEXT_SIZE 320 /* an address is shorter: a name has 253 characters at most */

/* One end of a connection. */
struct address {
	sa_family_t family;           /* AF_INET, AF_INET6, AF_UNIX, AF_VSOCK; AF_UNSPEC: unknown */
	uint8_t ip[16];               /* network order: 4 bytes for AF_INET, 16 for AF_INET6 */
	uint32_t port;                /* host order; 0: none */
	uint8_t path[UNIX_PATH_SIZE]; /* AF_UNIX: sun_path as the kernel has it, then zeros */
	char text[UNIX_PATH_SIZE];    /* printable: numeric address, CID or path; "" if unknown */
};

/* Both ends of the near connection: who has connected, and to which of our addresses. */
struct peer {
	struct address remote, local;
};

/* The addresses that begin with the same bits. */
struct network {
	struct address base;
	unsigned bits; /* prefix length */
};

/* Whom connections are counted by: an IPv4 address or an IPv6 /64. Family 0: neither. */
struct source_network {
	sa_family_t family;
	uint8_t network[8];
};

/* An address that was given as text, taken apart. The parts point into `copy`. */
struct address_text {
	enum { ADDRESS_TCP, ADDRESS_UNIX, ADDRESS_VSOCK } kind;
	const char *host; /* TCP: name or address, without brackets; VSOCK: CID; "": not given */
	const char *port; /* TCP, VSOCK: a number */
	const char *path; /* UNIX: absolute, and short enough for sun_path */
	bool numeric;     /* TCP: host is an IP address */
	char copy[ADDRESS_TEXT_SIZE];
};

/*
 * Fill in both ends from the socket `fd`. If it is not a socket, or a UNIX socket without a name,
 * use what supervisors put in the environment: REMOTE_ADDR and REMOTE_PORT (systemd), TCPREMOTEIP
 * and TCPREMOTEPORT (UCSPI), REMOTE_HOST (xinetd), SOCAT_PEERADDR and SOCAT_PEERPORT.
 */
void peer_learn(struct peer *, int fd);

/* Fill in a zeroed address from what the kernel gave. Of an unnamed UNIX socket, text stays "". */
void address_from(struct address *, const struct sockaddr_storage *from, socklen_t size);

/* Parse a numeric IPv4 or IPv6 address, in brackets or not. Returns 0, or -1 if it is not one. */
int address_parse(struct address *, const char *text);

/*
 * Parse a network: a numeric address, with or without the number of bits, `192.0.2.0/24`. Returns
 * NULL, or what is wrong with the text.
 */
const char *network_parse(struct network *, const char *text);

bool network_contains(const struct network *, const struct address *);

/*
 * Take apart `name:port`, `1.2.3.4:port`, `[v6]:port`, `[v6%zone]:port`,
 * `[1.2.3.4]:port`, `/path`, `vsock:CID:port`. With `host_optional` also `port` and `vsock::port`,
 * where host is "". Returns NULL, or what is wrong with the text.
 */
const char *address_split(struct address_text *, const char *text, bool host_optional);

/*
 * The same for the local address of a connection to be made: an IP address, in brackets or not,
 * with or without a port. The port is "0" where none is given, and may be given as 0.
 */
const char *address_split_local(struct address_text *, const char *text);

/* Write `addr:port`, `[v6]:port`, a path, or "-" into `text` of `size` bytes, 128 is enough. */
void address_format(const struct address *, char *text, size_t size);

/* Put SPIPE_PEER_ADDR, SPIPE_PEER_PORT, SPIPE_LOCAL_ADDR, SPIPE_LOCAL_PORT in the environment. */
void peer_export(const struct peer *);

/* What clients from this address are counted by. */
struct source_network address_source(const struct address *);

bool source_equal(const struct source_network *, const struct source_network *);

/* Write `192.0.2.1`, `2001:db8::/64` or "other addresses" into `text`; 64 bytes are enough. */
void source_format(const struct source_network *, char *text, size_t size);

#endif
