#ifndef SPIPE_FUZZ_WIRE_H
#define SPIPE_FUZZ_WIRE_H

/*
 * A wire under the code's feet: recv(2) of the one descriptor `wire_fd` comes in pieces and with
 * the odd EINTR or EAGAIN, as `wire_pieces` says; randomness is what `wire_random` says, so that a
 * harness can know the MACs. Linked with -Wl,--wrap=recv,--wrap=getentropy.
 */

#include <errno.h>
#include <sys/socket.h>

#include "fuzz.h"

ssize_t __real_recv(int fd, void *data, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *data, size_t size, int flags);
int __wrap_getentropy(void *out, size_t size);

static int wire_fd = -1;
static uint32_t wire_pieces; /* 0: all at once */
static uint8_t wire_random;

static uint32_t wire_step(void)
{
	wire_pieces = wire_pieces * 1103515245 + 12345;
	return wire_pieces >> 16;
}

ssize_t __wrap_recv(int fd, void *data, size_t size, int flags)
{
	uint32_t step;

	if (fd == wire_fd && wire_pieces != 0) {
		step = wire_step();
		if (step % 8 == 0) {
			errno = step & 16 ? EINTR : EAGAIN;
			return -1;
		}
		step = 1 + step % 300;
		size = size < step ? size : step;
	}
	return __real_recv(fd, data, size, flags);
}

int __wrap_getentropy(void *out, size_t size)
{
	memset(out, wire_random, size);
	return 0;
}

#endif
