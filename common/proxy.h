#ifndef SPIPE_PROXY_H
#define SPIPE_PROXY_H

#include <stddef.h>
#include <stdint.h>

#include "address.h"

#define PROXY_HEADER_MOST 768 /* bytes */

/*
 * Write the PROXY protocol header for `peer` into `header`: version 1 (text; UNKNOWN if not TCP) or
 * 2 (binary; LOCAL if unknown), as specified in HAProxy's proxy-protocol.txt. Version 2 includes
 * the key's name, if not NULL, in a PP2_TYPE_AUTHORITY TLV, which backends can read. Returns the
 * header's size in bytes.
 */
size_t proxy_header(uint8_t header[static PROXY_HEADER_MOST], int version, const struct peer *,
    const char *key);

#endif
