#ifndef SPIPE_PACKET_H
#define SPIPE_PACKET_H

#include <stddef.h>
#include <stdint.h>

#include "crypto.h"

#define PACKET_DATA 1024 /* most plaintext in one packet, bytes */
#define PACKET_SIZE 1060 /* a packet on the wire: 1024 data, 4 length, 32 MAC */

#define PACKET_SYSTEM (-2) /* libcrypto or memory failed */

/* One direction's keys and place in the stream. Zero it first; packet_done wipes it. */
struct packet_state {
	struct hmac_key mac;
	struct evp_cipher_ctx_st *cipher; /* libcrypto's */
	uint64_t number;                  /* of the next packet */
	struct bulk *bulk;                /* the bulk backend's, once it has been started */
	int bulky; /* packets in big batches so far; -1: never use the bulk backend */
	uint8_t key[CIPHER_KEY_SIZE]; /* the AES key, kept for the bulk backend only */
};

/*
 * Start a direction at packet 0 with its keys for encryption (E) and HMACs (H).
 * Returns 0 or PACKET_SYSTEM.
 */
int packet_init(struct packet_state *, const uint8_t E[static CIPHER_KEY_SIZE],
    const uint8_t H[static HASH_SIZE]);

/*
 * Seal `size` bytes of data (at least 1) into consecutive packets at `wire`, which has room for
 * all of them; every packet but the last carries 1024 bytes of data. Returns the bytes written to
 * wire, or PACKET_SYSTEM. The two areas do not overlap.
 */
long packet_seal(struct packet_state *, const uint8_t *data, size_t size, uint8_t *wire);

/*
 * Open the `count` (at least 1) whole packets at `wire` into `data`, which has room for count *
 * 1024 bytes and does not overlap it. Afterwards wire may contain anything, even plaintext. Returns
 * the bytes written to data, or PACKET_SYSTEM. A bad packet sets *bad to 1; then only the data of
 * the packets before it is written and counted.
 */
long packet_open(struct packet_state *, uint8_t *wire, size_t count, uint8_t *data, int *bad);

/*
 * Free the memory that the bulk backend uses (a fifth of a megabyte with ipsec-mb), because the
 * connection is silent. It is allocated again when it is needed.
 */
void packet_rest(struct packet_state *);

/* Wipe and free what packet_init made; harmless on a zeroed or finished state. */
void packet_done(struct packet_state *);

/* The backend's name for --version: "libcrypto" or "libcrypto, ipsec-mb for bulk". */
const char *packet_backend(void);

#endif
