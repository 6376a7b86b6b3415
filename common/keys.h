#ifndef SPIPE_KEYS_H
#define SPIPE_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "outcome.h"
#include "rules.h"

struct report;

#define KEY_SIZE 32       /* K = SHA256(key file), as spiped */
#define KEY_FILE_LEAST 32 /* bytes a key file must have */

/* Keep memory that libcrypto has its secrets in out of core dumps. NULL is harmless. */
void secret_guard(void *, size_t size);

/* The keys a program was given. Names and rules are no secrets; the hashes are. */
struct key {
	const char *name;    /* the file's; in `files` or `entries` */
	struct rules *rules; /* NULL: none */
};

struct keyring {
	size_t count;
	struct key *key;
	uint8_t (*secret)[KEY_SIZE]; /* secret memory, one for each key */
	struct scratch *scratch;     /* secret memory, for reading a file */
	size_t room;
	struct dirent **entries; /* of the directory, for the names; NULL without one */
};

/*
 * Load the `count` key files at `files` and those in directory `dir` (NULL: none), with the rules
 * beside them if `with_rules`. A name without a slash is looked up in $CREDENTIALS_DIRECTORY
 * first; a directory's name likewise: systemd puts the files of a directory credential there as
 * NAME_FILE. Warns of what is wrong but can be lived with. Returns 0, or -1 with the outcome set:
 * 78, 71, or for a FIFO that is not read by `deadline` 75, or the signal that ended us.
 */
int keyring_load(struct keyring *, const char *const *files, size_t count, const char *dir,
    bool with_rules, int64_t deadline, struct report *, struct outcome *);

/* The command for the holder of a key: its own by its rules, else `usual`, which may be NULL. */
char *const *keyring_command(const struct keyring *, size_t key, char *const *usual);

/*
 * Warn of every other key with the same bytes as the peer's: deleting one file revokes nothing. At
 * this point it costs next to nothing; comparing a thousand keys with each other would not.
 */
void keyring_warn_twins(const struct keyring *, size_t key, struct report *);

/* Wipe the hashes, once the peer's key is known. Names and rules stay. */
void keyring_wipe(struct keyring *);

#endif
