#ifndef SPIPE_CRYPTO_H
#define SPIPE_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#define OPENSSL_SUPPRESS_DEPRECATED /* SHA256_CTX can be copied, and takes no time to start */
#include <openssl/sha.h>

struct evp_cipher_ctx_st; /* libcrypto's EVP_CIPHER_CTX */

#define HASH_SIZE 32 /* SHA-256 and HMAC-SHA256 output */
#define DH_SIZE 256  /* an element of the 2048-bit MODP group 14, RFC 3526 */
#define EXPONENT_SIZE 32
#define CIPHER_KEY_SIZE 32                /* AES-256 */
#define KEY_ID_SIZE 16                    /* "123-456-789-012" */
#define CRYPTO_MEMORY ((size_t)32 * 1024) /* bytes that libcrypto needs for a connection */

/*
 * Prepare what is the same for every connection, and not secret, before any other use of libcrypto.
 * A process that forks for each connection calls this once; its children need not. Harmless when
 * called again. Returns 0, or -1 when memory ran out.
 */
int crypto_start(void);

/*
 * From here on libcrypto allocates from the `size` bytes at `memory`, aligned to 16 bytes. Call this
 * with secret memory after crypto_start, and before libcrypto gets a key. The memory is wiped whenever
 * libcrypto has freed all of it, and must stay for ever. A child process cannot use libcrypto.
 */
void crypto_use_memory(void *memory, size_t size);

/* An HMAC-SHA256 key as the two hash states it leads to (RFC 2104, section 4). */
struct hmac_key {
	SHA256_CTX inner, outer;
};

/* Prepare `key` from `size` bytes at `secret`; size is at most 64 (one hash block). */
void hmac_key_set(struct hmac_key *key, const uint8_t *secret, size_t size);

/* mac = HMAC-SHA256(key, a || b). Either part may be NULL when its size is 0. */
void hmac(const struct hmac_key *key, const void *a, size_t asize, const void *b, size_t bsize,
    uint8_t mac[static HASH_SIZE]);

/*
 * out = PBKDF2-HMAC-SHA256(key, salt, 1 iteration, outsize bytes), RFC 8018 section 5.2: with one
 * iteration each 32-byte block is HMAC(key, salt || big-endian32(block number)). `outsize` is a
 * multiple of 32.
 */
void pbkdf2_once(const struct hmac_key *key, const void *salt, size_t saltsize, uint8_t *out,
    size_t outsize);

/*
 * Write the fingerprint of a 32-byte secret into `text`: twelve digits of an HMAC with the secret
 * as its key. It is meant to be shown, and gives away nothing about a random secret.
 */
void key_id(const uint8_t secret[static HASH_SIZE], char text[static KEY_ID_SIZE]);

/* AES-256-CTR with `key`, until cipher_free. Returns NULL when memory ran out. */
struct evp_cipher_ctx_st *cipher_new(const uint8_t key[static CIPHER_KEY_SIZE]);

/* Encrypt or decrypt `size` bytes in place, as packet `number` of its stream. Returns 0 or -1. */
int cipher_crypt(struct evp_cipher_ctx_st *, uint64_t number, uint8_t *data, size_t size);

/* Wipe and free; harmless on NULL. */
void cipher_free(struct evp_cipher_ctx_st *);

/* 1 when the `size` bytes at a and b are equal, else 0, in time that depends on size only. */
int equal_secret(const void *a, const void *b, size_t size);

/*
 * out = base^exponent mod p, p the group 14 prime, in time independent of base and exponent.
 * A NULL base means the generator, 2. Returns 0, or -1 when memory ran out.
 */
int dh_power(uint8_t out[static DH_SIZE], const uint8_t *base,
    const uint8_t exponent[static EXPONENT_SIZE]);

enum dh_kind {
	DH_SOUND,
	DH_GUESSABLE, /* 0, 1 or p-1: the shared value can be guessed, so no forward secrecy */
	DH_INVALID    /* p or more: no honest peer sends it */
};

/* What kind of value a peer's `y` is. y is public: this needs no constant time. */
enum dh_kind dh_classify(const uint8_t y[static DH_SIZE]);

/*
 * Clear the vector registers after a hash whose last part had `size` bytes. They still hold these
 * bytes and the state of the hash, and a signal, or a call of a function with variable arguments,
 * would copy them to the stack.
 */
void hash_clear_registers(size_t size);

#endif
