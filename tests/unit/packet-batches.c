/*
 * Random batches through packet_seal and packet_open, by libcrypto alone and by the bulk backend where it is
 * built in: the same bytes as packets sealed one at a time, and a bad packet anywhere in a batch stops
 * there, with the data before it and nothing else written.
 *
 *	packet-batches [rounds [seed]]
 */

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet.h"

#define MOST 300 /* packets in a batch */
#define UNTOUCHED 0xa5

static uint8_t E[32], H[32];
static uint8_t data[MOST * PACKET_DATA], opened[MOST * PACKET_DATA];
static uint8_t wire[MOST * PACKET_SIZE], other[MOST * PACKET_SIZE];
static unsigned long long seed, bulk_runs, bad_runs;
static unsigned long rounds_done;

static void die(const char *why)
{
	fprintf(stderr, "packet-batches: round %lu: %s\n", rounds_done, why);
	exit(1);
}

/* A number below `limit` (xorshift64*: not a secret, the same for the same seed). */
static size_t chance(size_t limit)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return (size_t)((seed * 2685821657736338717ULL) >> 33) % limit;
}

static void fill(uint8_t *p, size_t size)
{
	for (size_t i = 0; i < size; i++)
		p[i] = (uint8_t)chance(256);
}

/* A direction at packet `number`; with `bulk`, one that takes the bulk backend at its first big batch. */
static void start(struct packet_state *s, uint64_t number, int bulk)
{
	if (packet_init(s, E, H) != 0)
		die("packet_init failed");
	s->number = number;
	if (!bulk)
		s->bulky = -1;
	else if (s->bulky == 0)
		s->bulky = 1 << 20;
}

/* The batch in `wire`: packets of random sizes, sealed one at a time. Returns their data's size. */
static size_t one_at_a_time(uint64_t number, size_t count, size_t *ends)
{
	struct packet_state s;
	int full = chance(2) == 0;
	size_t size = 0;

	start(&s, number, 0);
	for (size_t i = 0; i < count; i++) {
		size_t n = full && i + 1 < count ? PACKET_DATA : 1 + chance(PACKET_DATA);

		if (packet_seal(&s, data + size, n, wire + i * PACKET_SIZE) != PACKET_SIZE)
			die("one packet did not seal");
		ends[i] = size += n;
	}
	packet_done(&s);
	return size;
}

/* Make packet `at` of `count` in `wire` bad: one bit, its place, or a length only a key's owner can send. */
static void spoil(uint64_t number, size_t at, size_t count, size_t length)
{
	static const uint32_t lengths[] = { 0, 1025, 0x01000000, 0xffffffff };
	uint8_t *p = wire + at * PACKET_SIZE;
	uint64_t suffix = htobe64(number + at);
	uint32_t change;
	struct hmac_key mac;

	switch (chance(3)) {
	case 0: p[chance(PACKET_SIZE)] ^= (uint8_t)(1 << chance(8)); break;
	case 1:
		if (count > 1)
			memcpy(p, at > 0 ? p - PACKET_SIZE : p + PACKET_SIZE, PACKET_SIZE);
		else
			p[PACKET_SIZE - 1] ^= 0x80;
		break;
	default:
		change = htobe32((uint32_t)length ^ lengths[chance(4)]);
		for (size_t i = 0; i < 4; i++)
			p[1024 + i] ^= ((uint8_t *)&change)[i];
		hmac_key_set(&mac, H, 32);
		hmac(&mac, p, 1028, &suffix, 8, p + 1028);
	}
}

static void open_batch(uint64_t number, size_t count, size_t good, size_t good_size, int bulk)
{
	struct packet_state s;
	long size;
	int bad = 7;

	memcpy(other, wire, count * PACKET_SIZE);
	memset(opened, UNTOUCHED, sizeof(opened));
	start(&s, number, bulk);
	size = packet_open(&s, other, count, opened, &bad);
	if (size != (long)good_size)
		die("opened to the wrong size");
	if (bad != (good < count))
		die("a bad packet not told, or a good one called bad");
	if (memcmp(opened, data, good_size) != 0)
		die("opened to something else");
	for (size_t i = good_size; i < sizeof(opened); i++)
		if (opened[i] != UNTOUCHED)
			die("wrote beyond the good data");
	if (!bad && s.number != number + count)
		die("lost count");
	bulk_runs += s.bulk != NULL;
	packet_done(&s);
}

static size_t sealed_size(size_t size)
{
	return (size + PACKET_DATA - 1) / PACKET_DATA * PACKET_SIZE;
}

static void seal_batch(uint64_t number, size_t size, int bulk)
{
	struct packet_state s;
	long wired = (long)sealed_size(size);

	memset(other, UNTOUCHED, sizeof(other));
	start(&s, number, bulk);
	if (packet_seal(&s, data, size, other) != wired)
		die("sealed to the wrong size");
	if (memcmp(other, wire, (size_t)wired) != 0)
		die("sealed to something else");
	for (size_t i = (size_t)wired; i < sizeof(other); i++)
		if (other[i] != UNTOUCHED)
			die("wrote beyond the packets");
	if (s.number != number + (uint64_t)wired / PACKET_SIZE)
		die("lost count");
	bulk_runs += s.bulk != NULL;
	packet_done(&s);
	packet_done(&s); /* harmless */
}

static void one_round(void)
{
	static size_t ends[MOST];
	size_t count = 1 + chance(chance(4) == 0 ? MOST : 40), size, at;
	uint64_t number = (uint64_t)chance(1u << 31) << chance(33);

	fill(E, sizeof(E));
	fill(H, sizeof(H));
	fill(data, 4096);
	for (size_t i = 4096; i < sizeof(data); i += 4096) /* fast, and no two pages alike */
		for (size_t j = 0; j < 4096; j++)
			data[i + j] = (uint8_t)(data[j] + i / 4096);
	size = one_at_a_time(number, count, ends);
	open_batch(number, count, count, size, 0);
	open_batch(number, count, count, size, 1);
	if (count == 1 ||
	    ends[count - 2] == (count - 1) * PACKET_DATA) { /* what packet_seal would make */
		seal_batch(number, size, 0);
		seal_batch(number, size, 1);
	}
	at = chance(3) == 0 ? 0 : chance(2) == 0 ? count - 1 : chance(count);
	spoil(number, at, count, ends[at] - (at > 0 ? ends[at - 1] : 0));
	size = at > 0 ? ends[at - 1] : 0;
	open_batch(number, count, at, size, 0);
	open_batch(number, count, at, size, 1);
	bad_runs += 2;
}

/* One long stream of batches of every size, through states that turn bulk when they see fit and rest. */
static void stream(size_t batches)
{
	struct packet_state one, sealing, opening;
	int bad;

	start(&one, 0, 0);
	if (packet_init(&sealing, E, H) != 0 || packet_init(&opening, E, H) != 0)
		die("packet_init failed");
	for (size_t i = 0; i < batches; i++) {
		size_t size = 1 + chance(chance(2) == 0 ? sizeof(data) : 6 * PACKET_DATA);
		long wired = (long)sealed_size(size);

		if (packet_seal(&one, data, size, wire) != wired ||
		    packet_seal(&sealing, data, size, other) != wired ||
		    memcmp(wire, other, (size_t)wired) != 0)
			die("sealed to something else in mid-stream");
		memset(opened, UNTOUCHED, size);
		if (packet_open(&opening, other, (size_t)wired / PACKET_SIZE, opened, &bad) !=
			(long)size ||
		    bad || memcmp(opened, data, size) != 0)
			die("opened to something else in mid-stream");
		bulk_runs += (sealing.bulk != NULL ? 1u : 0) + (opening.bulk != NULL ? 1u : 0);
		if (chance(20) == 0)
			packet_rest(chance(2) == 0 ? &sealing : &opening);
	}
	packet_done(&one);
	packet_done(&sealing);
	packet_done(&opening);
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 300;

	seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	if (rounds == 0 || seed == 0) {
		fprintf(stderr, "usage: packet-batches [rounds [seed]], both above 0\n");
		return 2;
	}
	for (; rounds_done < rounds; rounds_done++)
		one_round();
	stream(rounds);
	printf("%lu rounds, %llu bad packets, %llu batches through the bulk backend: all alike\n",
	    rounds, bad_runs, bulk_runs);
	return 0;
}
