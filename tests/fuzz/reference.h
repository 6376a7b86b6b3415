#ifndef SPIPE_FUZZ_REFERENCE_H
#define SPIPE_FUZZ_REFERENCE_H

/*
 * The protocol once more, with libcrypto's own HMAC and PBKDF2, for harnesses that need right MACs or
 * compare results. Slow and plain; nothing in it comes from common/.
 */

#include <endian.h>
#include <stdint.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "fuzz.h"

/*
 * What follows needs all the algorithms of libcrypto's providers, again and again, and so more memory
 * than crypto_start() gives it. After a first use of its own it keeps to malloc(3).
 */
__attribute__((constructor)) static void reference_start(void)
{
	OPENSSL_free(OPENSSL_malloc(1));
}

static inline void reference_hmac(const uint8_t key[32], const void *data, size_t size,
    uint8_t mac[32])
{
	CHECK(HMAC(EVP_sha256(), key, 32, data, size, mac, NULL) != NULL);
}

static inline void reference_pbkdf2(const uint8_t key[32], const void *salt, size_t salt_size,
    uint8_t *out, size_t out_size)
{
	CHECK(PKCS5_PBKDF2_HMAC((const char *)key, 32, salt, (int)salt_size, 1, EVP_sha256(),
		  (int)out_size, out) == 1);
}

/* y's kind: 0 sound, 1 guessable, 2 no member of the group. */
static inline int reference_kind(const uint8_t y[256])
{
	BIGNUM *p = BN_get_rfc3526_prime_2048(NULL), *n = BN_bin2bn(y, 256, NULL);
	int kind = 0;

	CHECK(p != NULL && n != NULL);
	if (BN_cmp(n, p) >= 0)
		kind = 2;
	else if (BN_is_zero(n) || BN_is_one(n) || (BN_add_word(n, 1) == 1 && BN_cmp(n, p) == 0))
		kind = 1;
	BN_free(n);
	BN_free(p);
	return kind;
}

/* out = base^x mod p. */
static inline void reference_power(const uint8_t base[256], const uint8_t x[32], uint8_t out[256])
{
	BIGNUM *p = BN_get_rfc3526_prime_2048(NULL), *b = BN_bin2bn(base, 256, NULL);
	BIGNUM *e = BN_bin2bn(x, 32, NULL), *r = BN_new();
	BN_CTX *scratch = BN_CTX_new();

	CHECK(BN_mod_exp(r, b, e, p, scratch) == 1 && BN_bn2binpad(r, out, 256) == 256);
	BN_CTX_free(scratch);
	BN_free(r);
	BN_free(e);
	BN_free(b);
	BN_free(p);
}

/* A packet of 1060 bytes around the 1028 at `block`, which need make no sense. */
static inline void reference_seal(const uint8_t E[32], const uint8_t H[32], uint64_t number,
    const uint8_t block[1028], uint8_t packet[1060])
{
	uint64_t counter[2] = { htobe64(number), 0 };
	uint8_t covered[1036];
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int made;

	CHECK(c != NULL &&
	    EVP_EncryptInit_ex(c, EVP_aes_256_ctr(), NULL, E, (uint8_t *)counter) == 1 &&
	    EVP_EncryptUpdate(c, packet, &made, block, 1028) == 1 && made == 1028);
	EVP_CIPHER_CTX_free(c);
	memcpy(covered, packet, 1028);
	memcpy(covered + 1028, counter, 8);
	reference_hmac(H, covered, sizeof(covered), packet + 1028);
}

#endif
