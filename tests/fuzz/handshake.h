#ifndef SPIPE_FUZZ_HANDSHAKE_H
#define SPIPE_FUZZ_HANDSHAKE_H

/* What the two handshake harnesses share. Input: flags, pieces, randomness, then the peer's bytes. */

#include <sys/socket.h>
#include <unistd.h>

#include "../../common/handshake.h"
#include "../../common/wait.h"
#include "reference.h"
#include "wire.h"

#define FLAG_PFS 1 /* ours */
#define FLAG_REQUIRE 2
#define FLAG_PROVE 4 /* give the peer's bytes the right MAC */
#define FLAG_HANG 8  /* the peer does not end after its bytes */
#define FLAG_KIND 48 /* y as it comes, 0, 1, p-1 and its neighbours, by its last byte */
#define FLAG_KEY 192 /* which key proves it; 3: one that we don't have */

#define NONCE 32
#define PROOF 288

struct exchange {
	uint8_t flags;
	uint8_t bytes[NONCE + PROOF + 8]; /* a little more than a handshake is */
	size_t size;
	int mine;
	struct side wire;
	int64_t deadline;
};

static uint8_t exchange_keys[4][KEY_SIZE];

/* Values near the edges of the group, for inputs that ask for them. */
static inline void exchange_edge(uint8_t y[256], int kind)
{
	BIGNUM *p;
	uint8_t last = y[255];

	if (kind == 0)
		return;
	memset(y, 0, 256);
	if (kind == 1) {
		y[255] = last % 4;
		return;
	}
	p = BN_get_rfc3526_prime_2048(NULL);
	CHECK(p != NULL && (kind == 2 ? BN_sub_word(p, last % 4) : BN_add_word(p, last % 4)) == 1);
	CHECK(BN_bn2binpad(p, y, 256) == 256);
	BN_free(p);
}

/* Take an exchange from the input. `half` is where the peer's dhmac is: 0 client's, 1 server's. */
static inline void exchange_begin(struct exchange *e, struct input *in, int half)
{
	uint8_t nonces[2 * NONCE], dhmac[64], ours[NONCE];
	int pair[2], key;

	for (int i = 0; i < 4; i++)
		memset(exchange_keys[i], 'A' + i, KEY_SIZE);
	memset(e, 0, sizeof(*e));
	e->flags = take_byte(in);
	wire_pieces = take_byte(in);
	wire_random = take_byte(in);
	e->size = in->left < sizeof(e->bytes) ? in->left : sizeof(e->bytes);
	take(in, e->bytes, e->size);
	key = (e->flags & FLAG_KEY) / 64;
	if ((e->flags & FLAG_PROVE) != 0) {
		e->size = e->size < NONCE + PROOF ? NONCE + PROOF : e->size;
		exchange_edge(e->bytes + NONCE, (e->flags & FLAG_KIND) / 16);
		memset(ours, wire_random, sizeof(ours));
		memcpy(nonces, half == 0 ? e->bytes : ours, NONCE);
		memcpy(nonces + NONCE, half == 0 ? ours : e->bytes, NONCE);
		reference_pbkdf2(exchange_keys[key], nonces, sizeof(nonces), dhmac, sizeof(dhmac));
		reference_hmac(dhmac + 32 * half, e->bytes + NONCE, 256, e->bytes + NONCE + 256);
	}
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	e->mine = pair[0];
	side_set(&e->wire, "wire", pair[1], pair[1], false);
	wire_fd = pair[1];
	CHECK(send(e->mine, e->bytes, e->size, MSG_NOSIGNAL) == (ssize_t)e->size);
	if ((e->flags & FLAG_HANG) == 0)
		shutdown(e->mine, SHUT_WR);
	e->deadline = (e->flags & FLAG_HANG) != 0 && e->size < NONCE + PROOF
	    ? 0
	    : time_now() + 60 * SECOND;
}

/* Judge the result: what proves nothing is refused, what proves a key is not. */
static inline void exchange_check(const struct exchange *e, const struct handshake *h, int result,
    bool one_key, const struct outcome *outcome)
{
	bool proved = (e->flags & FLAG_PROVE) != 0 && e->flags / 64 < (one_key ? 1 : 3);
	int kind = reference_kind(e->bytes + NONCE);
	bool secret = (e->flags & FLAG_PFS) != 0 && kind == 0; /* forward secret */

	if (result == 0) {
		CHECK(outcome->status == 0);
		CHECK(proved);
		CHECK(kind != 2 && h->forward_secret == secret);
		CHECK(secret || (e->flags & FLAG_REQUIRE) == 0);
		return;
	}
	CHECK(outcome->reason[0] != '\0' && outcome->signal == 0);
	if (e->size < NONCE + PROOF && (e->flags & FLAG_HANG) != 0)
		CHECK(outcome->status == 75);
	else
		CHECK(outcome->status == 77);
	if (proved)
		CHECK(kind == 2 || (!secret && (e->flags & FLAG_REQUIRE) != 0));
}

/* The keys of the stream, as they should be. */
static inline void exchange_check_keys(const struct exchange *e, const struct handshake *h, int key)
{
	uint8_t salt[2 * NONCE + 256] = { 0 }, keys[128], x[32];

	memcpy(salt, h->nonces, sizeof(h->nonces));
	memset(x, wire_random, sizeof(x));
	if ((e->flags & FLAG_PFS) != 0)
		reference_power(e->bytes + NONCE, x, salt + 2 * NONCE);
	else
		salt[sizeof(salt) - 1] = 1;
	reference_pbkdf2(exchange_keys[key], salt, sizeof(salt), keys, sizeof(keys));
	CHECK(memcmp(keys, &h->keys, sizeof(h->keys)) == 0);
}

static inline void exchange_end(struct exchange *e)
{
	side_close(&e->wire);
	close(e->mine);
	wire_fd = -1;
}

#endif
