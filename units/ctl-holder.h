#ifndef SPIPE_CTL_HOLDER_H
#define SPIPE_CTL_HOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "address.h"

#define HOLDER_SIZE 128

/* Whether anything listens at exactly this address. Needs root for VSOCK ports below 1024. */
bool address_listens(const struct address_text *);

/* What `systemctl list-sockets` says, to be freed with free(3). */
char *list_sockets(void);

/*
 * Whether something other than a tunnel of the table listens at this address, so that a socket cannot
 * be bound to it. If so, write "spiped, pid 812", "nginx.socket" or, if it cannot be found out,
 * "another process" into `holder`. `sockets` comes from list_sockets.
 */
bool address_is_held(const struct address_text *, const char *sockets,
    char holder[static HOLDER_SIZE]);

/* Whether systemd listens at exactly this address. Only root can find out. */
bool systemd_listens(const struct address_text *);

/* Write the address as in the table, `127.0.0.1:80` or `[::1]:80`, into `text` of `size` bytes. */
void address_text_format(const struct address_text *, char *text, size_t size);

#endif
