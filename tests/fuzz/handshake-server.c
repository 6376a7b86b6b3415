/* Anything at all, and proofs with right MACs, to the server's handshake; its answer. */

#include "handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct outcome outcome = { 0 };
	struct handshake h = { 0 };
	struct exchange e;
	uint8_t answer[NONCE + PROOF + 1], dhmac[64], mac[32];
	size_t found = 99;
	int result;

	exchange_begin(&e, &in, 0);
	h.pfs = (e.flags & FLAG_PFS) != 0;
	h.require_pfs = (e.flags & FLAG_REQUIRE) != 0;
	result = handshake_server_meet(&h, &e.wire, (const uint8_t(*)[KEY_SIZE])exchange_keys, 3,
	    &found, e.deadline, &outcome);
	exchange_check(&e, &h, result, false, &outcome);
	/* Nothing that a key went into has left before the client proved it. */
	CHECK(recv(e.mine, answer, sizeof(answer), MSG_DONTWAIT) == NONCE);
	if (result == 0) {
		CHECK(found == e.flags / 64);
		CHECK(handshake_server_answer(&h, &e.wire, e.deadline, &outcome) == 0);
		CHECK(recv(e.mine, answer, sizeof(answer), MSG_DONTWAIT) == PROOF);
		reference_pbkdf2(exchange_keys[found], h.nonces, sizeof(h.nonces), dhmac,
		    sizeof(dhmac));
		reference_hmac(dhmac + 32, answer, 256, mac);
		CHECK(memcmp(mac, answer + 256, 32) == 0);
		exchange_check_keys(&e, &h, (int)found);
	}
	exchange_end(&e);
	return 0;
}
