/* The packets of the spiped protocol, sealed and opened in batches. */

#include <endian.h>
#include <string.h>

#include "packet.h"
#include "packet-bulk.h"
#include "secret.h"

#define SECRET 1028 /* what a packet hides: 1024 bytes of data, 4 of their length */
#define NUMBER 8    /* bytes of the packet's number, which the MAC covers too */

/* How many packets go through each step at a time, without the bulk backend. */
#define SEAL_RUN 1
#define OPEN_RUN 8

/* When to use the bulk backend. Starting it takes as long as it saves in about 700 packets. */
#define BULK_BATCH 16  /* a batch this big is bulk traffic */
#define BULK_AFTER 512 /* packets in such batches before it is started */
#define BULK_LEAST 6   /* fewer packets are faster without it */

int packet_init(struct packet_state *s, const uint8_t E[static CIPHER_KEY_SIZE],
    const uint8_t H[static HASH_SIZE])
{
	memset(s, 0, sizeof(*s));
	s->cipher = cipher_new(E);
	if (s->cipher == NULL)
		return PACKET_SYSTEM;
	hmac_key_set(&s->mac, H, HASH_SIZE);
	hash_clear_registers(SHA256_CBLOCK);
	if (BULK_BUILT)
		memcpy(s->key, E, CIPHER_KEY_SIZE);
	return 0;
}

/* Start the bulk backend when enough of the traffic has come in big batches. */
static void turn_bulk(struct packet_state *s, size_t count)
{
	if (count < BULK_BATCH || s->bulk != NULL || s->bulky < 0)
		return;
	s->bulky += count < BULK_AFTER ? (int)count : BULK_AFTER;
	if (s->bulky >= BULK_AFTER && (s->bulk = bulk_start(s->key, &s->mac)) == NULL)
		s->bulky = -1;
}

/* XOR the key-stream over `count` packets' data and lengths. */
static int crypt_run(struct packet_state *s, uint8_t *wire, size_t count)
{
	if (s->bulk != NULL && count >= BULK_LEAST)
		return bulk_crypt(s->bulk, wire, count, PACKET_SIZE, SECRET, s->number);
	for (size_t i = 0; i < count; i++, wire += PACKET_SIZE)
		if (cipher_crypt(s->cipher, s->number + i, wire, SECRET) != 0)
			return -1;
	return 0;
}

/* The MACs of `count` packets. The number of each is written over its MAC, to be hashed too. */
static int mac_run(struct packet_state *s, uint8_t *wire, size_t count, uint8_t macs[][HASH_SIZE])
{
	int bulk = s->bulk != NULL && count >= BULK_LEAST;

	for (size_t i = 0; i < count; i++) {
		uint8_t *p = wire + i * PACKET_SIZE;
		uint64_t number = htobe64(s->number + i);

		memcpy(p + SECRET, &number, NUMBER);
		if (!bulk)
			hmac(&s->mac, p, SECRET + NUMBER, NULL, 0, macs[i]);
	}
	return bulk ? bulk_mac(s->bulk, wire, count, PACKET_SIZE, SECRET + NUMBER, macs) : 0;
}

long packet_seal(struct packet_state *s, const uint8_t *data, size_t size, uint8_t *wire)
{
	uint8_t macs[BULK_MOST][HASH_SIZE];
	size_t packets = (size + PACKET_DATA - 1) / PACKET_DATA, most;

	turn_bulk(s, packets);
	most = s->bulk != NULL ? BULK_MOST : SEAL_RUN;
	while (size > 0) {
		size_t count;

		for (count = 0; count < most && size > 0; count++) {
			uint8_t *p = wire + count * PACKET_SIZE;
			size_t n = size < PACKET_DATA ? size : PACKET_DATA;
			uint32_t length = htobe32((uint32_t)n);

			memcpy(p, data, n);
			memset(p + n, 0, PACKET_DATA - n);
			memcpy(p + PACKET_DATA, &length, sizeof(length));
			data += n;
			size -= n;
		}
		if (crypt_run(s, wire, count) != 0 || mac_run(s, wire, count, macs) != 0)
			return PACKET_SYSTEM;
		for (size_t i = 0; i < count; i++, wire += PACKET_SIZE)
			memcpy(wire + SECRET, macs[i], HASH_SIZE);
		s->number += count;
	}
	return (long)(packets * PACKET_SIZE);
}

long packet_open(struct packet_state *s, uint8_t *wire, size_t count, uint8_t *data, int *bad)
{
	uint8_t theirs[BULK_MOST][HASH_SIZE], macs[BULK_MOST][HASH_SIZE];
	uint8_t *end = data;
	size_t most;

	*bad = 0;
	turn_bulk(s, count);
	most = s->bulk != NULL ? BULK_MOST : OPEN_RUN;
	while (count > 0 && !*bad) {
		size_t run = count < most ? count : most, good = 0;

		for (size_t i = 0; i < run; i++)
			memcpy(theirs[i], wire + i * PACKET_SIZE + SECRET, HASH_SIZE);
		if (mac_run(s, wire, run, macs) != 0)
			return PACKET_SYSTEM;
		while (good < run && equal_secret(theirs[good], macs[good], HASH_SIZE))
			good++;
		if (good < run) {
			wipe(macs, sizeof(macs)); /* the right MACs of a forged packet */
			*bad = 1;
		}
		if (good > 0 && crypt_run(s, wire, good) != 0)
			return PACKET_SYSTEM;
		for (size_t i = 0; i < good; i++, wire += PACKET_SIZE) {
			uint32_t length;

			memcpy(&length, wire + PACKET_DATA, sizeof(length));
			length = be32toh(length);
			if (length == 0 || length > PACKET_DATA) {
				*bad = 1;
				break;
			}
			memcpy(end, wire, length);
			end += length;
		}
		s->number += good;
		count -= run;
	}
	return end - data;
}

void packet_rest(struct packet_state *s)
{
	bulk_done(s->bulk);
	s->bulk = NULL;
	if (s->bulky > 0)
		s->bulky = 0;
}

void packet_done(struct packet_state *s)
{
	packet_rest(s);
	cipher_free(s->cipher);
	wipe(s, sizeof(*s));
}

const char *packet_backend(void)
{
	return bulk_available() ? "libcrypto, ipsec-mb for bulk" : "libcrypto";
}
