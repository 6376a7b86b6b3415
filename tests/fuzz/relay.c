/*
 * A whole connection's relaying: packets and near-packets come from the network, pieces at a time, and
 * what is delivered is compared with a model. Input: flags, pieces, then for each packet what it is,
 * its length, and what its data repeats.
 */

#include <unistd.h>

#include "../../common/relay.h"
#include "../../common/wait.h"
#include "reference.h"
#include "wire.h"

#define MOST 24

static const uint8_t E[32] = "encrypts what the network sends",
		     H[32] = "proves what the network sends";
static const uint8_t E2[32] = "encrypts what we send to it", H2[32] = "proves what we send to it";

enum { GOOD, BAD_MAC, REPLAYED, SWAPPED, KINDS };

#define FLAG_ENC 1    /* as spipe-enc: the packets come from the far side */
#define FLAG_CUT 2    /* the last packet is cut short */
#define FLAG_HEADER 4 /* a header ahead */

/* All that waits on a socket whose other end is closed or shut down. */
static size_t collect(int fd, uint8_t *out, size_t room)
{
	size_t size = 0;
	ssize_t got;

	while ((got = recv(fd, out + size, room - size, MSG_DONTWAIT)) > 0)
		size += (size_t)got;
	return size;
}

static void pair(int *mine, struct side *side, const char *name)
{
	int fds[2], large = 1 << 20;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUFFORCE, &large, sizeof(large));
	setsockopt(fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &large, sizeof(large));
	*mine = fds[0];
	side_set(side, name, fds[1], fds[1], false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t wire[(MOST + 1) * 1060], model[MOST * 1024], plain[MOST * 1024 + 1];
	static uint8_t sealed[(MOST + 1) * 1060], opened[(MOST + 1) * 1024];
	static const uint8_t spoken[3000] = "said by the plaintext's side";
	struct input in = { data, size };
	uint8_t flags = take_byte(&in);
	size_t count = 0, wire_size, model_size = 0, got, talk;
	struct packet_state seal = { 0 }, open_state = { 0 }, other = { 0 };
	struct report report = { .program = "fuzz", .role = "fuzz", .journal = -1, .notify = -1 };
	struct outcome outcome = { 0 };
	struct side near, far;
	int network, local, result, bad = 0;
	bool expect_bad = false, enc = (flags & FLAG_ENC) != 0, cut;
	struct relay relay = { .near = &near,
		.far = &far,
		.role = enc ? ROLE_ENC : ROLE_DEC,
		.seal = &seal,
		.open = &open_state,
		.idle = 5 * SECOND,
		.report = &report };

	wire_pieces = take_byte(&in);
	talk = (size_t)take_byte(&in) * 11;
	while (count < MOST && in.left > 0) {
		uint8_t block[1028], kind = take_byte(&in), fill, *packet = wire + count * 1060;
		uint16_t length;
		uint32_t big;

		take(&in, &length, sizeof(length));
		fill = take_byte(&in);
		if ((kind & 4) == 0)
			length = (uint16_t)(1 + length % 1024);
		kind = (kind & 8) != 0 ? kind % KINDS : GOOD;
		big = htobe32(length);
		memset(block, fill, 1024);
		memcpy(block + 1024, &big, 4);
		reference_seal(E, H,
		    kind == SWAPPED                     ? count + 1
			: kind == REPLAYED && count > 0 ? count - 1
							: count,
		    block, packet);
		if (kind == BAD_MAC)
			packet[(fill * 5) % 1060] ^= 0x10;
		expect_bad |= kind == BAD_MAC || kind == SWAPPED ||
		    (kind == REPLAYED && count > 0) || length == 0 || length > 1024;
		if (!expect_bad) {
			memset(model + model_size, fill, length);
			model_size += length;
		}
		count++;
	}
	wire_size = count * 1060;
	cut = (flags & FLAG_CUT) != 0 && count > 0;
	if (cut)
		wire_size -= 1 + (flags / 8) * 30U; /* at most 931 bytes */

	pair(&network, enc ? &far : &near, "network");
	pair(&local, enc ? &near : &far, "local");
	wire_fd = enc ? far.in.fd : near.in.fd;
	CHECK(send(network, wire, wire_size, MSG_NOSIGNAL) == (ssize_t)wire_size);
	CHECK(send(local, spoken, talk, MSG_NOSIGNAL) == (ssize_t)talk);
	shutdown(network, SHUT_WR);
	shutdown(local, SHUT_WR);
	CHECK(packet_init(&open_state, E, H) == 0 && packet_init(&seal, E2, H2) == 0);
	if ((flags & FLAG_HEADER) != 0) {
		relay.header = (const uint8_t *)"header";
		relay.header_size = 6;
	}

	result = relay_run(&relay, &outcome);

	got = collect(local, plain, sizeof(plain));
	if (!enc && (flags & FLAG_HEADER) != 0) {
		CHECK(got >= 6 && memcmp(plain, "header", 6) == 0);
		got -= 6;
		memmove(plain, plain + 6, got);
	}
	CHECK(got <= model_size && memcmp(plain, model, got) == 0);
	if (result == 0) {
		CHECK(!expect_bad && !cut && got == model_size);
		got = collect(network, sealed, sizeof(sealed));
		CHECK(got % 1060 == 0);
		CHECK(packet_init(&other, E2, H2) == 0);
		got = got == 0 ? 0 : (size_t)packet_open(&other, sealed, got / 1060, opened, &bad);
		CHECK(bad == 0);
		packet_done(&other);
		if (enc && (flags & FLAG_HEADER) != 0) {
			CHECK(got >= 6 && memcmp(opened, "header", 6) == 0);
			got -= 6;
			memmove(opened, opened + 6, got);
		}
		CHECK(got == talk && memcmp(opened, spoken, talk) == 0);
	} else {
		CHECK(outcome.status == 76 && outcome.signal == 0 && (expect_bad || cut));
	}
	packet_done(&seal);
	packet_done(&open_state);
	side_close(&near);
	side_close(&far);
	close(network);
	close(local);
	wire_fd = -1;
	return 0;
}
