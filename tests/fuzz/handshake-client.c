/* Anything at all, and proofs with right MACs, to the client's handshake. */

#include "handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct outcome outcome = { 0 };
	struct handshake h = { 0 };
	struct exchange e;
	int result;

	exchange_begin(&e, &in, 1);
	h.pfs = (e.flags & FLAG_PFS) != 0;
	h.require_pfs = (e.flags & FLAG_REQUIRE) != 0;
	result = handshake_client(&h, &e.wire, exchange_keys[0], e.deadline, &outcome);
	exchange_check(&e, &h, result, true, &outcome);
	if (result == 0)
		exchange_check_keys(&e, &h, 0);
	exchange_end(&e);
	return 0;
}
