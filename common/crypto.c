#include "crypto.h"

#include <string.h>
#include <sys/random.h>

#include <openssl/bn.h>
#include <openssl/crypto.h>

#include "secret.h"

void crypto_start(void)
{
	/* Neither openssl.cnf nor libcrypto's own tidying up at exit is of use here: both take time. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL);
}

void hmac_key_set(struct hmac_key *key, const uint8_t *secret, size_t size)
{
	uint8_t pad[SHA256_CBLOCK];

	memset(pad, 0x36, sizeof(pad));
	for (size_t i = 0; i < size; i++)
		pad[i] ^= secret[i];
	SHA256_Init(&key->inner);
	SHA256_Update(&key->inner, pad, sizeof(pad));
	for (size_t i = 0; i < sizeof(pad); i++)
		pad[i] ^= 0x36 ^ 0x5c;
	SHA256_Init(&key->outer);
	SHA256_Update(&key->outer, pad, sizeof(pad));
	wipe(pad, sizeof(pad));
}

void hmac(const struct hmac_key *key, const void *a, size_t asize, const void *b, size_t bsize,
    uint8_t mac[static HASH_SIZE])
{
	SHA256_CTX state = key->inner;

	SHA256_Update(&state, a, asize);
	SHA256_Update(&state, b, bsize);
	SHA256_Final(mac, &state);
	state = key->outer;
	SHA256_Update(&state, mac, HASH_SIZE);
	SHA256_Final(mac, &state);
	wipe(&state, sizeof(state));
}

void pbkdf2_once(const struct hmac_key *key, const void *salt, size_t saltsize, uint8_t *out,
    size_t outsize)
{
	uint8_t block[HASH_SIZE];
	size_t part;

	for (uint8_t number = 1; outsize > 0; number++) {
		hmac(key, salt, saltsize, (uint8_t[]){ 0, 0, 0, number }, 4, block);
		part = outsize < sizeof(block) ? outsize : sizeof(block);
		memcpy(out, block, part);
		out += part;
		outsize -= part;
	}
	wipe(block, sizeof(block));
}

void key_id(const uint8_t secret[static HASH_SIZE], char text[static KEY_ID_SIZE])
{
	static const char label[] = "spipe key id";
	struct hmac_key key;
	uint8_t mac[HASH_SIZE];
	uint64_t number = 0;

	hmac_key_set(&key, secret, HASH_SIZE);
	hmac(&key, label, strlen(label), NULL, 0, mac);
	for (int i = 0; i < 8; i++)
		number = number << 8 | mac[i];
	for (int i = KEY_ID_SIZE - 2; i >= 0; i--)
		if (i % 4 == 3)
			text[i] = '-';
		else {
			text[i] = (char)('0' + number % 10);
			number /= 10;
		}
	text[KEY_ID_SIZE - 1] = '\0';
	wipe(&key, sizeof(key));
	wipe(mac, sizeof(mac));
}

int equal_secret(const void *a, const void *b, size_t size)
{
	return CRYPTO_memcmp(a, b, size) == 0;
}

int dh_power(uint8_t out[static DH_SIZE], const uint8_t *base,
    const uint8_t exponent[static EXPONENT_SIZE])
{
	BN_CTX *scratch = BN_CTX_new();
	BN_MONT_CTX *montgomery = BN_MONT_CTX_new();
	BIGNUM *p = BN_get_rfc3526_prime_2048(NULL);
	BIGNUM *g = BN_new();
	BIGNUM *x = BN_bin2bn(exponent, EXPONENT_SIZE, NULL);
	BIGNUM *y = BN_new();
	int result = -1;

	if (scratch == NULL || montgomery == NULL || p == NULL || g == NULL || x == NULL ||
	    y == NULL)
		goto done;
	BN_set_flags(x, BN_FLG_CONSTTIME);
	if (!(base == NULL ? BN_set_word(g, 2) : BN_bin2bn(base, DH_SIZE, g) != NULL) ||
	    !BN_MONT_CTX_set(montgomery, p, scratch) ||
	    !BN_mod_exp_mont_consttime(y, g, x, p, scratch, montgomery) ||
	    BN_bn2binpad(y, out, DH_SIZE) != DH_SIZE)
		goto done;
	result = 0;
done:
	BN_clear_free(y);
	BN_clear_free(x);
	BN_clear_free(g);
	BN_free(p);
	BN_MONT_CTX_free(montgomery);
	BN_CTX_free(scratch);
	return result;
}

enum dh_kind dh_classify(const uint8_t y[static DH_SIZE])
{
	uint8_t p[DH_SIZE], one[DH_SIZE] = { [DH_SIZE - 1] = 1 }, zero[DH_SIZE] = { 0 };
	BIGNUM *prime = BN_get_rfc3526_prime_2048(NULL);
	int known = prime != NULL && BN_bn2binpad(prime, p, DH_SIZE) == DH_SIZE;

	BN_free(prime);
	if (!known || memcmp(y, p, DH_SIZE) >= 0)
		return DH_INVALID;
	p[DH_SIZE - 1] ^= 1; /* p is odd: now p-1 */
	if (memcmp(y, zero, DH_SIZE) == 0 || memcmp(y, one, DH_SIZE) == 0 ||
	    memcmp(y, p, DH_SIZE) == 0)
		return DH_GUESSABLE;
	return DH_SOUND;
}

void hash_clear_registers(size_t size)
{
	static const uint8_t zeros[5 * SHA256_CBLOCK];
	uint8_t hash[HASH_SIZE];
	SHA256_CTX state;

	/* By hashing zeros in the same way, as several blocks or few. */
	if (size > sizeof(zeros))
		size = sizeof(zeros) - SHA256_CBLOCK + size % SHA256_CBLOCK;
	SHA256_Init(&state);
	SHA256_Update(&state, zeros, size);
	SHA256_Final(hash, &state);
}

int random_bytes(void *out, size_t size)
{
	return getentropy(out, size);
}
