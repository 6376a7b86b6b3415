/*
 * packet_open on runs of packets: with right and wrong MACs, any length inside, any number; against
 * a model. And what packet_seal makes opens again, whole.
 *
 * Input: flags, 8 bytes of the first number, then for each packet a byte of what it is, four of its
 * length, and up to 8 bytes that its data repeats.
 */

#include <stdbool.h>

#include "../../common/packet.h"
#include "reference.h"

#define MOST 80 /* packets: more than a bulk backend takes at once */

enum { GOOD, BAD_MAC, WRONG_NUMBER, RAW, KINDS };

static const uint8_t E[32] = "the key of the cipher, 32 bytes",
		     H[32] = "the key of the MAC, 32 bytes";

static void open_run(struct input *in, uint64_t number)
{
	static uint8_t wire[MOST * PACKET_SIZE];
	uint8_t *expected = malloc(MOST * PACKET_DATA), *data, *exact;
	size_t count = 0, expected_size = 0;
	bool expect_bad = false;
	struct packet_state s = { 0 };
	long got;
	int bad = 7;

	while (count < MOST && in->left > 0) {
		uint8_t block[1028], seed[8], kind = take_byte(in) % KINDS, *packet;
		uint32_t length, big;

		take(in, &length, sizeof(length));
		if ((length & 0x80) != 0) /* most are lengths that exist */
			length = 1 + (length >> 8) % PACKET_DATA;
		take(in, seed, sizeof(seed));
		for (size_t i = 0; i < PACKET_DATA; i++)
			block[i] = seed[i % 8];
		big = htobe32(length);
		memcpy(block + PACKET_DATA, &big, 4);
		packet = wire + count * PACKET_SIZE;
		if (kind == RAW)
			memset(packet, seed[0], PACKET_SIZE);
		else
			reference_seal(E, H, number + count + (kind == WRONG_NUMBER), block,
			    packet);
		if (kind == BAD_MAC)
			packet[(seed[0] * 256 + seed[1]) % PACKET_SIZE] ^= (uint8_t)(1
			    << (seed[2] & 7));
		expect_bad |= kind != GOOD || length == 0 || length > PACKET_DATA;
		if (!expect_bad) {
			memcpy(expected + expected_size, block, length);
			expected_size += length;
		}
		count++;
	}
	if (count > 0) {
		/* Exactly as much as is promised to it, for the sanitizer to watch. */
		exact = malloc(count * PACKET_SIZE);
		data = malloc(count * PACKET_DATA);
		memcpy(exact, wire, count * PACKET_SIZE);
		CHECK(packet_init(&s, E, H) == 0);
		s.number = number;
		got = packet_open(&s, exact, count, data, &bad);
		CHECK(got == (long)expected_size);
		CHECK(bad == expect_bad);
		CHECK(memcmp(data, expected, expected_size) == 0);
		CHECK(bad || s.number == number + count);
		packet_rest(&s);
		packet_done(&s);
		free(data);
		free(exact);
	}
	free(expected);
}

static size_t sealed_size(size_t size)
{
	return (size + PACKET_DATA - 1) / PACKET_DATA * PACKET_SIZE;
}

static void seal_and_open(struct input *in, uint64_t number)
{
	size_t size = 1 + (take_byte(in) * 256U + take_byte(in)) % (MOST * PACKET_DATA), whole;
	uint8_t *data = malloc(size), *wire, *back;
	struct packet_state seal = { 0 }, open = { 0 };
	int bad = 7;

	whole = sealed_size(size);
	wire = malloc(whole);
	back = malloc(whole / PACKET_SIZE * PACKET_DATA);
	for (size_t i = 0; i < size; i++)
		data[i] = in->left > 0 ? in->next[i % in->left] : (uint8_t)i;
	CHECK(packet_init(&seal, E, H) == 0 && packet_init(&open, E, H) == 0);
	seal.number = open.number = number;
	CHECK(packet_seal(&seal, data, size, wire) == (long)whole);
	CHECK(packet_open(&open, wire, whole / PACKET_SIZE, back, &bad) == (long)size);
	CHECK(bad == 0 && memcmp(data, back, size) == 0);
	CHECK(seal.number == open.number);
	packet_done(&seal);
	packet_done(&open);
	free(back);
	free(wire);
	free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint8_t flags = take_byte(&in);
	uint64_t number;

	take(&in, &number, sizeof(number));
	if ((flags & 1) != 0)
		seal_and_open(&in, number);
	else
		open_run(&in, number);
	return 0;
}
