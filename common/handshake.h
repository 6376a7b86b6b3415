#ifndef SPIPE_HANDSHAKE_H
#define SPIPE_HANDSHAKE_H

#include <stdbool.h>

#include "crypto.h"
#include "keys.h"
#include "outcome.h"
#include "side.h"

#define NONCE_SIZE 32
#define PROOF_SIZE (DH_SIZE + HASH_SIZE) /* y || HMAC(dhmac, y) */

/*
 * What the relay needs of a handshake: E is a key for packet encryption, H one for packet HMACs.
 * _C is for packets the client sends, _S for the server's. They are derived in this order.
 */
struct stream_keys {
	uint8_t E_C[CIPHER_KEY_SIZE], H_C[HASH_SIZE];
	uint8_t E_S[CIPHER_KEY_SIZE], H_S[HASH_SIZE];
};

/* One handshake's secrets and state. Lives in secret memory; the caller wipes it when done. */
struct handshake {
	struct hmac_key K;              /* HMAC keyed with the pre-shared key */
	uint8_t nonces[2 * NONCE_SIZE]; /* nonce_C || nonce_S */
	uint8_t dhmac[2 * HASH_SIZE];   /* dhmac_C || dhmac_S */
	uint8_t x[EXPONENT_SIZE];
	uint8_t ours[PROOF_SIZE], theirs[PROOF_SIZE];
	uint8_t shared[DH_SIZE]; /* y_SC */
	struct stream_keys keys;
	char key_id[KEY_ID_SIZE]; /* the key's fingerprint; "" while it may be any of several */
	const char *peer;         /* "server" or "client", for messages */
	bool nonce_received;      /* the peer's */
	bool pfs;                 /* false: send y = 1 */
	bool require_pfs;         /* refuse a peer without forward secrecy */
	bool forward_secret; /* neither y is guessable; known once the peer has proved its key */
};

/* What both ends compute, from the design of spiped (DESIGN.md there): pure functions of h. */

/* K from the pre-shared key, and dhmac from K and nonces. */
void handshake_set_key(struct handshake *, const uint8_t secret[static KEY_SIZE]);

/* ours = y || HMAC(dhmac_key, y), y = 2^x, or 1 without pfs. Returns 0 or -1 (memory). */
int handshake_prove(struct handshake *, const uint8_t dhmac[static HASH_SIZE]);

/* keys from K, nonces and the shared value of x and theirs. Returns 0 or -1 (memory). */
int handshake_derive_keys(struct handshake *);

/*
 * Which of the `count` 32-byte keys at `secrets` made the client's proof in h->theirs over
 * h->nonces. Looks at all of them, in time that depends on count only; sets h->K and h->dhmac.
 * Returns the index, or -1 for none.
 */
long handshake_find_key(struct handshake *, const uint8_t (*secrets)[KEY_SIZE], size_t count);

/*
 * The exchanges, over `wire`, each done by `deadline`. They return 0, or -1 with the outcome set:
 * 75 at the deadline, 77 for a peer that did not prove the key, 71, or the signal that ended us.
 *
 * Client: the whole handshake with the key at `secret`.
 */
int handshake_client(struct handshake *, struct side *wire, const uint8_t secret[static KEY_SIZE],
    int64_t deadline, struct outcome *);

/* Server, first half: until the client has proved a key, whose index goes to *found. */
int handshake_server_meet(struct handshake *, struct side *wire, const uint8_t (*secrets)[KEY_SIZE],
    size_t count, size_t *found, int64_t deadline, struct outcome *);

/* Server, second half: our own proof, the first keyed bytes a client ever gets. */
int handshake_server_answer(struct handshake *, struct side *wire, int64_t deadline,
    struct outcome *);

#endif
