#ifndef SPIPE_SECRET_H
#define SPIPE_SECRET_H

#include <stddef.h>

/*
 * Memory for secrets: zeroed, left out of core dumps, empty in forked children, and locked out of
 * swap as far as the limit for locked memory allows. Returns NULL with errno set on failure.
 */
void *secret_alloc(size_t size);

/* Wipe and free what secret_alloc returned for `size` bytes; harmless on NULL. */
void secret_free(void *, size_t size);

/* Overwrite `size` bytes with zeros in a way that the compiler keeps. */
void wipe(void *, size_t size);

/*
 * Forbid core dumps of this process, and tracing by other processes of the same user. This ends when
 * the process executes another program.
 */
void secret_harden(void);

#endif
