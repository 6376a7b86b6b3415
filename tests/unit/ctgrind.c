/*
 * What touches secrets, run with the secrets marked as undefined memory: valgrind then complains of every branch and
 * every address that depends on them, which is what a clock could tell. See tests/long/ctgrind.
 *
 *	ctgrind CASE		one of the names below; `list` names them
 */
#include <stdio.h>
#include <string.h>

#include <valgrind/memcheck.h>

#include "crypto.h"
#include "handshake.h"
#include "packet.h"

#define SECRET(object) VALGRIND_MAKE_MEM_UNDEFINED(&(object), sizeof(object))
#define PUBLIC(object) VALGRIND_MAKE_MEM_DEFINED(&(object), sizeof(object))

static struct handshake h;
static uint8_t key[32], other[32], mac[32], big[256], wire[3 * PACKET_SIZE], data[3 * PACKET_DATA];
static struct hmac_key prepared;

/* The controls: what a careless program would do. valgrind has to complain. */
static int leaky_compare(void)
{
	SECRET(mac);
	return memcmp(mac, key, sizeof(mac)) == 0;
}

static int leaky_table(void)
{
	SECRET(key);
	return big[key[0]] != 0;
}

static int compare(void)
{
	SECRET(mac);
	int equal = equal_secret(mac, key, sizeof(mac));
	PUBLIC(equal);
	return equal;
}

static int hash(void)
{
	SECRET(key);
	SECRET(other);
	hmac_key_set(&prepared, key, sizeof(key));
	pbkdf2_once(&prepared, other, sizeof(other), big, 128);
	hmac(&prepared, big, sizeof(big), other, sizeof(other), mac);
	return 0;
}

static int search(void)
{
	static uint8_t keys[20][KEY_SIZE];

	memset(keys, 7, sizeof(keys));
	SECRET(keys);
	long found = handshake_find_key(&h, keys, 20);
	PUBLIC(found);
	return found == -1;
}

/* The key that is found, among others. */
static int search_hit(void)
{
	static uint8_t keys[20][KEY_SIZE];

	memset(keys[13], 1, sizeof(keys[13]));
	handshake_set_key(&h, keys[13]);
	h.pfs = false;
	handshake_prove(&h, h.dhmac);
	memcpy(h.theirs, h.ours, sizeof(h.theirs));
	SECRET(keys);
	long found = handshake_find_key(&h, keys, 20);
	PUBLIC(found);
	return found == 13 ? 0 : 1;
}

/*
 * libcrypto's numbers have no leading zeros: how many the exponent has is seen in its making, so all but its first byte
 * are secret here. How many the result has, in 64-bit words, is seen at its end, in two places: that is one power of
 * 2^64, and y is public anyway. Anything more is a fault.
 */
static int power(void)
{
	memset(key, 0x5a, sizeof(key));
	VALGRIND_MAKE_MEM_UNDEFINED(key + 1, sizeof(key) - 1);
	return dh_power(big, NULL, key);
}

static int power_shared(void)
{
	uint8_t y[DH_SIZE] = { 0x12, 0x34 };

	memset(key, 0x5a, sizeof(key));
	VALGRIND_MAKE_MEM_UNDEFINED(key + 1, sizeof(key) - 1);
	return dh_power(big, y, key);
}

static int prove(void)
{
	h.pfs = true;
	memset(h.x, 0x5a, sizeof(h.x));
	SECRET(h.dhmac);
	return handshake_prove(&h, h.dhmac);
}

static int derive(void)
{
	h.pfs = false;
	hmac_key_set(&h.K, key, sizeof(key));
	SECRET(h.K.inner.h); /* not the count of bytes hashed, which is beside it */
	SECRET(h.K.outer.h);
	return handshake_derive_keys(&h);
}

static int seal(void)
{
	struct packet_state s = { 0 };

	SECRET(key);
	SECRET(other);
	SECRET(data);
	if (packet_init(&s, key, other) != 0)
		return 1;
	packet_seal(&s, data, 2000, wire);
	packet_done(&s);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(void);
} cases[] = {
	{ "leaky_compare", leaky_compare },
	{ "leaky_table", leaky_table },
	{ "compare", compare },
	{ "hash", hash },
	{ "search", search },
	{ "search_hit", search_hit },
	{ "power", power },
	{ "power_shared", power_shared },
	{ "prove", prove },
	{ "derive", derive },
	{ "seal", seal },
};

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 2 && i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (strcmp(argv[1], "list") == 0)
			puts(cases[i].name);
		else if (strcmp(argv[1], cases[i].name) == 0)
			return cases[i].run() < 0 ? 1 : 0;
	}
	return argc == 2 && strcmp(argv[1], "list") == 0 ? 0 : 64;
}
