#ifndef SPIPE_KEYS_H
#define SPIPE_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "outcome.h"
#include "rules.h"

struct report;

#define KEY_SIZE 32       /* K = SHA256(key file), as spiped */
#define KEY_FILE_LEAST 32 /* bytes a key file must have */

/* The keys a program was given. Names and rules are not secret; the hashes are. */
struct key {
	const char *name;    /* the file's; in `files` or `entries` */
	struct rules *rules; /* NULL: none */
};

struct keyring {
	size_t count;
	struct key *key;
	uint8_t (*secret)[KEY_SIZE]; /* one for each key; in `memory` */
	struct key_memory *memory;   /* secret memory */
	size_t memory_size;
	bool any_mode; /* set by the caller: take keys of a directory that everyone may read, too */
	bool with_rules;
	int64_t deadline;
	struct dirent **entries; /* of the directory, for the names; NULL without one */
	int entry_count;
	FILE *warnings; /* to warning_text: one after the other, each ends with a NUL */
	char *warning_text;
	size_t warning_size;
};

/*
 * Load the `count` key files at `files` and those in directory `dir` (NULL: none), with the rules
 * beside them if `with_rules`, into a zeroed keyring. A name without a slash is looked up in
 * $CREDENTIALS_DIRECTORY first; a directory's name likewise: systemd puts the files of a directory
 * credential there as NAME_FILE. Files in a directory that are not usable keys are skipped.
 * Warnings are kept for keyring_warn. Returns 0, or -1 with the outcome set: 78, 71, 75 for a file
 * that is not read to its end by `deadline`, or the signal that ended us.
 */
int keyring_load(struct keyring *, const char *const *files, size_t count, const char *dir,
    bool with_rules, int64_t deadline, struct outcome *);

/* Where the holder of a key is connected to: the destination in its rules, or else `usual`. */
struct destination keyring_destination(const struct keyring *, size_t key,
    struct destination usual);

/*
 * Give keyring_load's warnings, and one for every other key with the same bytes as `key`, the one
 * in use: deleting one of the files would revoke nothing. Once only, and not before the peer has
 * proved a key: strangers must not be able to fill the log.
 */
void keyring_warn(struct keyring *, size_t key, struct report *);

/* Wipe the hashes, once the peer's key is known. Names and rules stay. */
void keyring_wipe(struct keyring *);

#endif
