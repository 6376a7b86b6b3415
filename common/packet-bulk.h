#ifndef SPIPE_PACKET_BULK_H
#define SPIPE_PACKET_BULK_H

/*
 * The optional backend for many packets at once. bulk_crypt and bulk_mac work on the first `size`
 * bytes of each of `count` packets, at most BULK_MOST, which begin every `stride` bytes from `wire`
 * on. They return 0, or -1 when the library did not do its work.
 */

#include "crypto.h"

#define BULK_MOST 64 /* packets in one call */

#ifdef WITH_IPSEC_MB
#define BULK_BUILT 1

/* Is this processor one that the backend is made for? */
int bulk_available(void);

/* Make the backend ready for one direction's keys. NULL when it cannot be used. */
struct bulk *bulk_start(const uint8_t key[static CIPHER_KEY_SIZE], const struct hmac_key *mac);

/* XOR the key-stream over the packets, the first of which is number `number`. */
int bulk_crypt(struct bulk *, uint8_t *wire, size_t count, size_t stride, size_t size,
    uint64_t number);

/* The HMACs of the packets into macs. */
int bulk_mac(struct bulk *, const uint8_t *wire, size_t count, size_t stride, size_t size,
    uint8_t macs[][HASH_SIZE]);

/* Wipe and free what bulk_start made; NULL is harmless. */
void bulk_done(struct bulk *);

#else
#define BULK_BUILT 0

#define bulk_available() 0
#define bulk_start(key, mac) NULL
#define bulk_crypt(bulk, wire, count, stride, size, number) (-1)
#define bulk_mac(bulk, wire, count, stride, size, macs) (-1)
#define bulk_done(bulk) ((void)(bulk))

#endif

#endif
