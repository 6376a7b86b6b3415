/*
 * How fast packets are sealed and opened, in GB of plaintext a second (best of 7 short runs), for
 * batches of several sizes, by libcrypto alone and by the bulk backend where it is built in.
 *
 *	packet-speed [milliseconds a run]
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "packet.h"

#define MOST 256 /* packets in a batch */
#define RUNS 7

static uint8_t data[MOST * PACKET_DATA], sealed[MOST * PACKET_SIZE], wire[MOST * PACKET_SIZE];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *why)
{
	fprintf(stderr, "packet-speed: %s\n", why);
	exit(1);
}

static void start(struct packet_state *s, int bulk)
{
	uint8_t E[32], H[32];

	memset(E, 1, sizeof(E));
	memset(H, 2, sizeof(H));
	if (packet_init(s, E, H) != 0)
		die("no cipher");
	if (!bulk)
		s->bulky = -1;
	else if (s->bulky >= 0) /* past the point where it comes in */
		for (int i = 0; i < 8 && s->bulk == NULL; i++)
			packet_seal(s, data, sizeof(data), wire);
}

static double speed(int bulk, int open, size_t count, double seconds)
{
	struct packet_state s;
	double best = 0;
	int bad;

	start(&s, bulk);
	s.number = 7;
	if (packet_seal(&s, data, count * PACKET_DATA, sealed) < 0)
		die("no seal");
	for (int i = 0; i < RUNS; i++) {
		double begin = now(), spent, skip = 0;
		size_t packets = 0;

		do {
			if (open) {
				double copying = now();

				memcpy(wire, sealed, count * PACKET_SIZE);
				skip += now() - copying;
				s.number = 7;
				if (packet_open(&s, wire, count, data, &bad) < 0 || bad)
					die("did not open");
			} else if (packet_seal(&s, data, count * PACKET_DATA, wire) < 0)
				die("no seal");
			packets += count;
			spent = now() - begin;
		} while (spent < seconds);
		spent -= skip;
		if ((double)packets / spent > best)
			best = (double)packets / spent;
	}
	packet_done(&s);
	return best * PACKET_DATA / 1e9;
}

int main(int argc, char **argv)
{
	static const size_t counts[] = { 1, 16, 64, 256 };
	double seconds = argc > 1 ? atof(argv[1]) / 1e3 : 0.03;
	struct packet_state s;
	int backends;

	start(&s, 1);
	backends = s.bulk != NULL ? 2 : 1;
	packet_done(&s);
	printf("%-10s %-6s", "GB/s", "");
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		printf(" %6zu", counts[i]);
	printf(" packets a batch\n");
	for (int bulk = 0; bulk < backends; bulk++)
		for (int open = 0; open < 2; open++) {
			printf("%-10s %-6s", bulk ? "ipsec-mb" : "libcrypto",
			    open ? "open" : "seal");
			for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
				printf(" %6.3f", speed(bulk, open, counts[i], seconds));
			printf("\n");
		}
	return 0;
}
