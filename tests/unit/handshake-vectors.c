/*
 * The known answers of vectors.txt for all that comes before the packets: the key file's hash, both
 * ends' proofs, the shared value and the stream keys, through the functions that the programs use.
 *
 *	handshake-vectors vectors.txt
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "handshake.h"
#include "keys.h"
#include "wait.h"

/* The fields of a case, in the order in which the file has them, and their sizes in bytes. */
enum {
	KEYFILE,
	K,
	NONCE_C,
	NONCE_S,
	DHMAC_C,
	DHMAC_S,
	X_C,
	X_S,
	YH_C,
	YH_S,
	Y_SC,
	E_C,
	H_C,
	E_S,
	H_S,
	FIELDS
};

static const struct {
	const char *name;
	size_t size; /* 0: any */
} fields[FIELDS] = {
	{ "keyfile", 0 },
	{ "K", 32 },
	{ "nonce_C", 32 },
	{ "nonce_S", 32 },
	{ "dhmac_C", 32 },
	{ "dhmac_S", 32 },
	{ "x_C", 32 },
	{ "x_S", 32 },
	{ "yh_C", 288 },
	{ "yh_S", 288 },
	{ "y_SC", 256 },
	{ "E_C", 32 },
	{ "H_C", 32 },
	{ "E_S", 32 },
	{ "H_S", 32 },
};

struct known {
	char name[64];
	uint8_t value[FIELDS][4096];
	size_t size[FIELDS]; /* 0 in a field that was seen: '-', no exponent */
	int seen;
};

static void check(const struct known *known, const char *what, const void *ours, int field)
{
	if (memcmp(ours, known->value[field], known->size[field]) == 0)
		return;
	fprintf(stderr, "handshake-vectors: case %s: %s is not as known\n", known->name, what);
	exit(1);
}

/* The file's hash, by way of a file. */
static void check_key(const struct known *known, uint8_t secret[KEY_SIZE])
{
	char path[] = "/tmp/handshake-vectors.XXXXXX";
	const char *paths[] = { path };
	struct outcome outcome = { 0 };
	struct keyring ring = { 0 };
	int fd = mkstemp(path);

	if (fd == -1 ||
	    write(fd, known->value[KEYFILE], known->size[KEYFILE]) !=
		(ssize_t)known->size[KEYFILE] ||
	    keyring_load(&ring, paths, 1, NULL, false, NEVER, &outcome) != 0) {
		fprintf(stderr, "handshake-vectors: no key: %s\n", outcome.reason);
		exit(1);
	}
	close(fd);
	unlink(path);
	memcpy(secret, ring.secret[0], KEY_SIZE);
	keyring_wipe(&ring);
	check(known, "K", secret, K);
}

/* One end's whole computation. */
static void check_end(const struct known *known, const uint8_t secret[KEY_SIZE], bool server)
{
	struct handshake h = { .pfs = known->size[server ? X_S : X_C] != 0 };
	int theirs = server ? YH_C : YH_S;

	memcpy(h.nonces, known->value[NONCE_C], NONCE_SIZE);
	memcpy(h.nonces + NONCE_SIZE, known->value[NONCE_S], NONCE_SIZE);
	memcpy(h.x, known->value[server ? X_S : X_C], EXPONENT_SIZE);
	memcpy(h.theirs, known->value[theirs], PROOF_SIZE);
	if (server) {
		uint8_t keys[2][KEY_SIZE] = { { 1 } };

		memcpy(keys[1], secret, KEY_SIZE);
		if (handshake_find_key(&h, keys, 2) != 1 || handshake_find_key(&h, keys, 1) != -1) {
			fprintf(stderr, "handshake-vectors: case %s: the key is not found\n",
			    known->name);
			exit(1);
		}
		handshake_find_key(&h, keys, 2);
	} else {
		handshake_set_key(&h, secret);
	}
	check(known, "dhmac_C", h.dhmac, DHMAC_C);
	check(known, "dhmac_S", h.dhmac + HASH_SIZE, DHMAC_S);
	if (handshake_prove(&h, h.dhmac + (server ? HASH_SIZE : 0)) != 0 ||
	    handshake_derive_keys(&h) != 0)
		exit(1);
	check(known, server ? "yh_S" : "yh_C", h.ours, server ? YH_S : YH_C);
	check(known, "y_SC", h.shared, Y_SC);
	for (int i = 0; i < 4; i++)
		check(known, fields[E_C + i].name, (uint8_t *)&h.keys + 32 * i, E_C + i);
}

static void check_case(const struct known *known)
{
	uint8_t secret[KEY_SIZE];

	if (known->seen != FIELDS) {
		fprintf(stderr, "handshake-vectors: case %s is not whole\n", known->name);
		exit(1);
	}
	check_key(known, secret);
	check_end(known, secret, false);
	check_end(known, secret, true);
}

static void take(struct known *known, const char *name, const char *value)
{
	for (int i = 0; i < FIELDS; i++) {
		if (strcmp(name, fields[i].name) != 0)
			continue;
		known->seen++;
		for (; value[0] != '-' && value[0] != '\0'; value += 2)
			if (known->size[i] == sizeof(known->value[i]) ||
			    sscanf(value, "%2hhx", &known->value[i][known->size[i]++]) != 1)
				exit(1);
		if (fields[i].size != 0 && known->size[i] != 0 && known->size[i] != fields[i].size)
			exit(1);
	}
}

int main(int argc, char **argv)
{
	static struct known known;
	static char line[16384];
	FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
	int cases = 0;
	char *value;

	if (file == NULL) {
		fprintf(stderr, "usage: handshake-vectors vectors.txt\n");
		return 2;
	}
	while (fgets(line, sizeof(line), file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] == '#' || (value = strstr(line, " = ")) == NULL)
			continue;
		*value = '\0';
		value += 3;
		if (strcmp(line, "case") != 0) {
			take(&known, line, value);
			continue;
		}
		if (cases++ > 0)
			check_case(&known);
		memset(&known, 0, sizeof(known));
		snprintf(known.name, sizeof(known.name), "%s", value);
	}
	fclose(file);
	if (cases == 0)
		return 1;
	check_case(&known);
	printf("%d cases, both ends, as known\n", cases);
	return 0;
}
