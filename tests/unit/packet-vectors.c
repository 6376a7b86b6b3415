/*
 * The known answers of vectors.txt through packet_seal and packet_open: every packet, alone.
 *
 *	packet-vectors vectors.txt
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet.h"

#define ANY_SIZE 2200 /* more than a packet in hexadecimal digits */

/* One case's keys, for what C and what S sends, and a mark for each that was seen. */
struct keys {
	uint8_t E[2][32], H[2][32];
	int seen;
};

static int line_number;

static void die(const char *why)
{
	fprintf(stderr, "packet-vectors: line %d: %s\n", line_number, why);
	exit(1);
}

static size_t unhex(const char *text, uint8_t *out, size_t room)
{
	size_t size = strlen(text) / 2;

	if (strlen(text) % 2 != 0 || size > room)
		die("not hexadecimal of the right size");
	for (size_t i = 0; i < size; i++)
		if (sscanf(text + 2 * i, "%2hhx", &out[i]) != 1)
			die("not hexadecimal");
	return size;
}

static void key(struct keys *keys, const char *name, const char *value)
{
	int sender = name[2] == 'S';

	if (unhex(value, name[0] == 'E' ? keys->E[sender] : keys->H[sender], 32) != 32)
		die("not a key");
	keys->seen++;
}

static void packet(const struct keys *keys, char *value)
{
	uint8_t plain[PACKET_DATA], wire[PACKET_SIZE], made[PACKET_SIZE], opened[PACKET_DATA];
	char sender, plain_hex[ANY_SIZE], wire_hex[ANY_SIZE];
	unsigned long long number;
	struct packet_state s;
	size_t size;
	int bad;

	if (sscanf(value, "%c %llu %2199s %2199s", &sender, &number, plain_hex, wire_hex) != 4 ||
	    (sender != 'C' && sender != 'S') || keys->seen != 4)
		die("not a packet, or not after four keys");
	size = unhex(plain_hex, plain, sizeof(plain));
	if (unhex(wire_hex, wire, sizeof(wire)) != PACKET_SIZE || size < 1 || size > PACKET_DATA)
		die("not a packet's size");

	if (packet_init(&s, keys->E[sender == 'S'], keys->H[sender == 'S']) != 0)
		die("packet_init failed");
	s.number = number;
	if (packet_seal(&s, plain, size, made) != PACKET_SIZE ||
	    memcmp(made, wire, PACKET_SIZE) != 0)
		die("sealed to something else");
	if (s.number != number + 1)
		die("sealing did not count the packet");
	s.number = number;
	if (packet_open(&s, wire, 1, opened, &bad) != (long)size || bad ||
	    memcmp(opened, plain, size) != 0)
		die("opened to something else");
	if (s.number != number + 1)
		die("opening did not count the packet");
	packet_done(&s);
}

int main(int argc, char **argv)
{
	FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
	struct keys keys = { .seen = 0 };
	int cases = 0, packets = 0;
	char line[8192], *value;

	if (file == NULL) {
		fprintf(stderr, "usage: packet-vectors vectors.txt\n");
		return 2;
	}
	while (fgets(line, sizeof(line), file) != NULL) {
		line_number++;
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '#' || (value = strstr(line, " = ")) == NULL)
			continue;
		*value = '\0';
		value += 3;
		if (strcmp(line, "case") == 0) {
			keys.seen = 0;
			cases++;
		} else if (strlen(line) == 3 && strchr("EH", line[0]) && line[1] == '_')
			key(&keys, line, value);
		else if (strcmp(line, "packet") == 0) {
			packet(&keys, value);
			packets++;
		}
	}
	fclose(file);
	if (packets == 0)
		die("no packets");
	printf("%d packets in %d cases sealed and opened as known\n", packets, cases);
	return 0;
}
