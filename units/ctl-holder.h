#ifndef SPIPE_CTL_HOLDER_H
#define SPIPE_CTL_HOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "address.h"

#define HOLDER_SIZE 128

/* Whether anything listens at this address, or keeps it. Needs root for ports below 1024. */
bool address_is_taken(const struct address_text *);

/*
 * Whether something other than the systemd unit `own` listens at this address already, so that a
 * socket could not be bound to it. If so, write "spiped, pid 812", "nginx.socket" or, if it cannot be
 * found out, "another process" into `holder`.
 */
bool address_is_held(const struct address_text *, const char *own, char holder[static HOLDER_SIZE]);

/* Write the address as in the table, `127.0.0.1:80` or `[::1]:80`, into `text` of `size` bytes. */
void address_text_format(const struct address_text *, char *text, size_t size);

#endif
