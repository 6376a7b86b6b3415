#include "handshake.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "secret.h"
#include "wait.h"

void handshake_set_key(struct handshake *h, const uint8_t secret[static KEY_SIZE])
{
	hmac_key_set(&h->K, secret, KEY_SIZE);
	pbkdf2_once(&h->K, h->nonces, sizeof(h->nonces), h->dhmac, sizeof(h->dhmac));
}

/* mac = HMAC(dhmac, y), the second part of a proof. */
static void proof_mac(const uint8_t dhmac[static HASH_SIZE], const uint8_t y[static DH_SIZE],
    uint8_t mac[static HASH_SIZE])
{
	struct hmac_key key;

	hmac_key_set(&key, dhmac, HASH_SIZE);
	hmac(&key, y, DH_SIZE, NULL, 0, mac);
	wipe(&key, sizeof(key));
}

/* ours = y = 2^x, or 1 without pfs. */
static int compute_y(struct handshake *h)
{
	if (h->pfs)
		return dh_power(h->ours, NULL, h->x);
	memset(h->ours, 0, DH_SIZE);
	h->ours[DH_SIZE - 1] = 1;
	return 0;
}

int handshake_prove(struct handshake *h, const uint8_t dhmac[static HASH_SIZE])
{
	if (compute_y(h) != 0)
		return -1;
	proof_mac(dhmac, h->ours, h->ours + DH_SIZE);
	return 0;
}

int handshake_derive_keys(struct handshake *h)
{
	uint8_t salt[2 * NONCE_SIZE + DH_SIZE];

	if (!h->pfs)
		memcpy(h->shared, h->ours, DH_SIZE); /* 1, whatever the peer's y */
	else if (dh_power(h->shared, h->theirs, h->x) != 0)
		return -1;
	memcpy(salt, h->nonces, sizeof(h->nonces));
	memcpy(salt + sizeof(h->nonces), h->shared, DH_SIZE);
	pbkdf2_once(&h->K, salt, sizeof(salt), (uint8_t *)&h->keys, sizeof(h->keys));
	wipe(salt, sizeof(salt));
	return 0;
}

long handshake_find_key(struct handshake *h, const uint8_t (*secrets)[KEY_SIZE], size_t count)
{
	struct hmac_key K;
	uint8_t dhmac_C[HASH_SIZE], mac[HASH_SIZE], chosen[KEY_SIZE] = { 0 };
	long found = -1;

	for (size_t i = 0; i < count; i++) {
		hmac_key_set(&K, secrets[i], KEY_SIZE);
		pbkdf2_once(&K, h->nonces, sizeof(h->nonces), dhmac_C, sizeof(dhmac_C));
		proof_mac(dhmac_C, h->theirs, mac);
		/* All ones for the key that matches, else 0; no branch on it in the loop. */
		long match = -(long)equal_secret(mac, h->theirs + DH_SIZE, HASH_SIZE);
		found = (found & ~match) | ((long)i & match);
		for (size_t j = 0; j < KEY_SIZE; j++)
			chosen[j] |= (uint8_t)(secrets[i][j] & match);
	}
	handshake_set_key(h, chosen);
	wipe(&K, sizeof(K));
	wipe(dhmac_C, sizeof(dhmac_C));
	wipe(mac, sizeof(mac));
	wipe(chosen, sizeof(chosen));
	return found;
}

/* Send `size` bytes at `ours`, then receive as many into `theirs`. Either may be NULL. */
static int exchange(struct handshake *h, struct side *wire, const uint8_t *ours, uint8_t *theirs,
    size_t size, int64_t deadline, struct outcome *outcome)
{
	if ((ours == NULL || side_write_all(wire, ours, size, deadline) == 0) &&
	    (theirs == NULL || side_read_all(wire, theirs, size, deadline) == 0)) {
		h->nonce_received |= theirs != NULL; /* it comes first */
		return 0;
	}
	if (errno == EINTR && signal_stop)
		return fail_signal(outcome, signal_stop, " during the handshake");
	if (errno == ETIMEDOUT)
		return fail(outcome, EX_TEMPFAIL,
		    "the handshake timed out: no complete answer from the %s", h->peer);
	if (!h->nonce_received)
		return fail(outcome, EX_NOPERM,
		    "the %s closed the connection before the handshake: "
		    "it is not spiped, or it failed",
		    h->peer);
	return fail(outcome, EX_NOPERM,
	    "the %s closed the connection during the handshake: "
	    "it probably has a different key%s%s; see its log",
	    h->peer, *h->key_id != '\0' ? " than " : "", h->key_id);
}

static int no_memory(struct outcome *outcome)
{
	return fail(outcome, EX_OSERR, "out of memory in the handshake");
}

/* Judge the peer's y, whose MAC was right. */
static int check_value(struct handshake *h, struct outcome *outcome)
{
	enum dh_kind kind = dh_classify(h->theirs);

	if (kind == DH_INVALID)
		return fail(outcome, EX_NOPERM,
		    "the %s sent a number outside the group: it is not spiped", h->peer);
	h->forward_secret = h->pfs && kind == DH_SOUND;
	if (h->require_pfs && !h->forward_secret)
		return fail(outcome, EX_NOPERM,
		    "the %s does not use forward secrecy, which is required here", h->peer);
	return 0;
}

/* Our nonce, which is sent, and our exponent. */
static int begin(struct handshake *h, struct side *wire, uint8_t *ours, int64_t deadline,
    struct outcome *outcome)
{
	if (getentropy(ours, NONCE_SIZE) != 0 || getentropy(h->x, sizeof(h->x)) != 0)
		return fail(outcome, EX_OSERR, "cannot get random bytes from the kernel: %s",
		    strerror(errno));
	return exchange(h, wire, ours, NULL, NONCE_SIZE, deadline, outcome);
}

int handshake_client(struct handshake *h, struct side *wire, const uint8_t secret[static KEY_SIZE],
    int64_t deadline, struct outcome *outcome)
{
	uint8_t mac[HASH_SIZE];

	h->peer = "server";
	key_id(secret, h->key_id);
	if (begin(h, wire, h->nonces, deadline, outcome) != 0)
		return -1;
	/* This takes long and needs nothing from the server, whose nonce is on its way meanwhile. */
	if (compute_y(h) != 0)
		return no_memory(outcome);
	if (exchange(h, wire, NULL, h->nonces + NONCE_SIZE, NONCE_SIZE, deadline, outcome) != 0)
		return -1;
	handshake_set_key(h, secret);
	proof_mac(h->dhmac, h->ours, h->ours + DH_SIZE);
	if (exchange(h, wire, h->ours, h->theirs, PROOF_SIZE, deadline, outcome) != 0)
		return -1;
	proof_mac(h->dhmac + HASH_SIZE, h->theirs, mac);
	if (!equal_secret(mac, h->theirs + DH_SIZE, HASH_SIZE))
		return fail(outcome, EX_NOPERM,
		    "the server did not prove that it holds the key %s: "
		    "it has a different one, or it is not spiped",
		    h->key_id);
	if (check_value(h, outcome) != 0)
		return -1;
	return handshake_derive_keys(h) == 0 ? 0 : no_memory(outcome);
}

int handshake_server_meet(struct handshake *h, struct side *wire,
    const uint8_t (*secrets)[KEY_SIZE], size_t count, size_t *found, int64_t deadline,
    struct outcome *outcome)
{
	long index;

	h->peer = "client";
	if (begin(h, wire, h->nonces + NONCE_SIZE, deadline, outcome) != 0 ||
	    exchange(h, wire, NULL, h->nonces, NONCE_SIZE, deadline, outcome) != 0 ||
	    exchange(h, wire, NULL, h->theirs, PROOF_SIZE, deadline, outcome) != 0)
		return -1;
	index = handshake_find_key(h, secrets, count);
	if (index != -1 || count == 1)
		key_id(secrets[index != -1 ? index : 0], h->key_id);
	if (index == -1)
		return fail(outcome, EX_NOPERM,
		    "the client did not prove that it holds %s%s: "
		    "it has a different one, or it is not spiped",
		    count == 1 ? "the key " : "a key", h->key_id);
	*found = (size_t)index;
	return check_value(h, outcome);
}

int handshake_server_answer(struct handshake *h, struct side *wire, int64_t deadline,
    struct outcome *outcome)
{
	if (handshake_prove(h, h->dhmac + HASH_SIZE) != 0)
		return no_memory(outcome);
	if (exchange(h, wire, h->ours, NULL, PROOF_SIZE, deadline, outcome) != 0)
		return -1;
	return handshake_derive_keys(h) == 0 ? 0 : no_memory(outcome);
}
