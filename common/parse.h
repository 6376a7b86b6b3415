#ifndef SPIPE_PARSE_H
#define SPIPE_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Parse a decimal number: digits only, without leading zeros. Returns whether it is one from
 * `least` to `most`; if so, it is stored in *number.
 */
bool parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *number);

/*
 * Parse a decimal number of seconds above 0 and up to 1,000,000,000, with or without a fraction:
 * "5", "2.5", ".5". Returns nanoseconds, or -1 if it is not one.
 */
int64_t parse_seconds(const char *text);

/* What follows the last slash of a path, or all of it. (basename(3) differs between C libraries.) */
const char *file_name(const char *path);

#endif
