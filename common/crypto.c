#include "crypto.h"

#include <endian.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "secret.h"

/*
 * The memory that libcrypto allocates from: one block after the other, each behind its size. It is
 * used again once all blocks have been freed. At first it is larger than any version needs to start,
 * because OpenSSL 3.5 hangs if an allocation fails then: 3.0 needs 5 KiB, and with a cipher from a
 * provider, as in OpenSSL 4, 600 KiB.
 */
#define BEFORE 16 /* bytes for the size, which keep the block aligned */
static _Alignas(16) uint8_t start[2 * 1024 * 1024];
static uint8_t *arena = start;
static size_t arena_size = sizeof(start), arena_used, arena_blocks;

static void *arena_malloc(size_t size, const char *file, int line)
{
	uint8_t *block = arena + arena_used + BEFORE;
	size_t whole = BEFORE + (size + 15) / 16 * 16;

	(void)file, (void)line;
	if (size > arena_size || whole > arena_size - arena_used)
		return NULL;
	memcpy(block - BEFORE, &size, sizeof(size));
	arena_used += whole;
	arena_blocks++;
	return block;
}

static void arena_free(void *p, const char *file, int line)
{
	(void)file, (void)line;
	/* Of what it has allocated before, in other memory, nothing is used again. */
	if ((uintptr_t)p - (uintptr_t)arena < arena_size && --arena_blocks == 0) {
		wipe(arena, arena_used);
		arena_used = 0;
	}
}

static void *arena_realloc(void *p, size_t size, const char *file, int line)
{
	void *new = arena_malloc(size, file, line);
	size_t old;

	if (new == NULL || p == NULL)
		return new;
	memcpy(&old, (uint8_t *)p - BEFORE, sizeof(old));
	memcpy(new, p, size < old ? size : old);
	arena_free(p, file, line);
	return new;
}

static BIGNUM *prime; /* of group 14 */
static BN_MONT_CTX *montgomery;
static const EVP_CIPHER *aes_256_ctr;

int crypto_start(void)
{
	static const uint8_t key[CIPHER_KEY_SIZE];
	struct evp_cipher_ctx_st *cipher;
	BN_CTX *scratch;

	if (aes_256_ctr != NULL)
		return 0;
	CRYPTO_set_mem_functions(arena_malloc, arena_realloc, arena_free);
	/* We need neither openssl.cnf nor libcrypto's clean-up at exit, and both take time. */
	OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL);
	prime = BN_get_rfc3526_prime_2048(NULL);
	montgomery = BN_MONT_CTX_new();
	scratch = BN_CTX_new();
	if (prime == NULL || montgomery == NULL || scratch == NULL ||
	    !BN_MONT_CTX_set(montgomery, prime, scratch))
		return -1;
	BN_CTX_free(scratch);
	/*
	 * A copied method is used as it is. The original would be fetched from a provider, which
	 * first sets up all of its ciphers and so takes a millisecond. OpenSSL 4 cannot copy
	 * methods.
	 */
#if OPENSSL_VERSION_NUMBER < 0x40000000L
	aes_256_ctr = EVP_CIPHER_meth_dup(EVP_aes_256_ctr());
#else
	aes_256_ctr = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
#endif
	if (aes_256_ctr == NULL)
		return -1;
	/* With the first cipher, libcrypto allocates what it never frees. */
	cipher = cipher_new(key);
	cipher_free(cipher);
	crypto_use_memory(arena + arena_used, arena_size - arena_used);
	return cipher != NULL ? 0 : -1;
}

void crypto_use_memory(void *memory, size_t size)
{
	arena = memory;
	arena_size = size;
	arena_used = arena_blocks = 0;
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
	uint8_t number = 1;

	for (size_t done = 0; done < outsize; done += HASH_SIZE)
		hmac(key, salt, saltsize, (uint8_t[]){ 0, 0, 0, number++ }, 4, out + done);
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
	snprintf(text, KEY_ID_SIZE, "%03u-%03u-%03u-%03u", (unsigned)(number / 1000000000 % 1000),
	    (unsigned)(number / 1000000 % 1000), (unsigned)(number / 1000 % 1000),
	    (unsigned)(number % 1000));
	wipe(&key, sizeof(key));
	wipe(mac, sizeof(mac));
}

struct evp_cipher_ctx_st *cipher_new(const uint8_t key[static CIPHER_KEY_SIZE])
{
	struct evp_cipher_ctx_st *cipher = crypto_start() == 0 ? EVP_CIPHER_CTX_new() : NULL;

	if (cipher != NULL && EVP_EncryptInit_ex(cipher, aes_256_ctr, NULL, key, NULL) == 1)
		return cipher;
	EVP_CIPHER_CTX_free(cipher);
	return NULL;
}

int cipher_crypt(struct evp_cipher_ctx_st *cipher, uint64_t number, uint8_t *data, size_t size)
{
	uint64_t counter[2] = { htobe64(number), 0 };
	int done;

	return EVP_EncryptInit_ex(cipher, NULL, NULL, NULL, (uint8_t *)counter) == 1 &&
		EVP_EncryptUpdate(cipher, data, &done, data, (int)size) == 1 && done == (int)size
	    ? 0
	    : -1;
}

void cipher_free(struct evp_cipher_ctx_st *cipher)
{
	EVP_CIPHER_CTX_free(cipher);
}

int equal_secret(const void *a, const void *b, size_t size)
{
	return CRYPTO_memcmp(a, b, size) == 0;
}

int dh_power(uint8_t out[static DH_SIZE], const uint8_t *base,
    const uint8_t exponent[static EXPONENT_SIZE])
{
	int started = crypto_start();
	bool done = false;
	BN_CTX *scratch = BN_CTX_new();
	BIGNUM *g = BN_new();
	BIGNUM *x = BN_bin2bn(exponent, EXPONENT_SIZE, NULL);
	BIGNUM *y = BN_new();

	if (started == 0 && scratch != NULL && g != NULL && x != NULL && y != NULL) {
		BN_set_flags(x, BN_FLG_CONSTTIME);
		done = (base == NULL ? BN_set_word(g, 2) : BN_bin2bn(base, DH_SIZE, g) != NULL) &&
		    BN_mod_exp_mont_consttime(y, g, x, prime, scratch, montgomery) &&
		    BN_bn2binpad(y, out, DH_SIZE) == DH_SIZE;
	}
	BN_clear_free(y);
	BN_clear_free(x);
	BN_clear_free(g);
	BN_CTX_free(scratch);
	return done ? 0 : -1;
}

enum dh_kind dh_classify(const uint8_t y[static DH_SIZE])
{
	uint8_t p[DH_SIZE], one[DH_SIZE] = { [DH_SIZE - 1] = 1 }, zero[DH_SIZE] = { 0 };

	if (crypto_start() != 0 || BN_bn2binpad(prime, p, DH_SIZE) != DH_SIZE ||
	    memcmp(y, p, DH_SIZE) >= 0)
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

	/* Hash as many zeros: libcrypto uses other registers for many blocks than for few. */
	if (size > sizeof(zeros))
		size = sizeof(zeros) - SHA256_CBLOCK + size % SHA256_CBLOCK;
	SHA256_Init(&state);
	SHA256_Update(&state, zeros, size);
	SHA256_Final(hash, &state);
}
