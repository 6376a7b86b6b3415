/* spipectl key: make key files, and show their fingerprints. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto.h"
#include "ctl.h"
#include "keys.h"
#include "secret.h"
#include "wait.h"

int ctl_load_key(struct keyring *ring, const char *file, struct outcome *outcome)
{
	int result = keyring_load(ring, &file, 1, NULL, false, NEVER, outcome);

	if (ring->warnings != NULL)
		fclose(ring->warnings);
	for (const char *text = ring->warning_text; text < ring->warning_text + ring->warning_size;
	     text += strlen(text) + 1)
		fprintf(stderr, "spipectl: warning: %s\n", text);
	return result;
}

/* Print the fingerprint of a key file. */
static int show_id(const char *file, struct outcome *outcome)
{
	struct keyring ring = { 0 };
	char id[KEY_ID_SIZE];
	int result = ctl_load_key(&ring, file, outcome);

	if (result == 0) {
		key_id(ring.secret[0], id);
		printf("%s  %s\n", id, file);
	}
	keyring_wipe(&ring);
	return result;
}

/* Write `size` bytes and close `fd`. */
static int write_key(int fd, const char *file, const uint8_t *key, size_t size,
    struct outcome *outcome)
{
	bool written = write(fd, key, size) == (ssize_t)size && fsync(fd) == 0;

	if (!written)
		fail(outcome, EX_IOERR, "cannot write %s: %s", file, strerror(errno));
	close(fd);
	return written ? 0 : -1;
}

/* A missing directory is made, but not the ones above it: those are more likely misspelt. */
static void make_directory(const char *file)
{
	const char *slash = strrchr(file, '/');
	char *directory = slash != NULL ? strndup(file, (size_t)(slash - file)) : NULL;

	if (directory != NULL)
		mkdir(directory, 0700);
	free(directory);
}

static int make_key(const char *file, struct outcome *outcome)
{
	uint8_t *key = secret_alloc(KEY_FILE_LEAST);
	int fd, result;

	if (key == NULL || getentropy(key, KEY_FILE_LEAST) != 0)
		return fail(outcome, EX_OSERR, "no memory or random bytes for a key: %s",
		    strerror(errno));
	make_directory(file);
	fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd == -1)
		result = fail(outcome, EX_CANTCREAT, "cannot make %s: %s", file, strerror(errno));
	else {
		result = write_key(fd, file, key, KEY_FILE_LEAST, outcome);
		if (result != 0)
			unlink(file);
	}
	secret_free(key, KEY_FILE_LEAST);
	return result;
}

int ctl_key(int argc, char **argv, struct outcome *outcome)
{
	const char *what = argc > 1 ? argv[1] : "";
	bool dashes = argc > 2 && strcmp(argv[2], "--") == 0;
	char **files = argv + (dashes ? 3 : 2);
	int count = argc - (dashes ? 3 : 2), status = 0;

	if (count > 0 && !dashes && files[0][0] == '-')
		count = 0; /* it takes no options */
	if (strcmp(what, "new") == 0 && count == 1)
		return make_key(files[0], outcome) == 0 ? show_id(files[0], outcome) : -1;
	if (strcmp(what, "id") != 0 || count <= 0)
		return fail(outcome, EX_USAGE, "key takes: new FILE, or id FILE ...; see --help");
	for (int i = 0; i < count; i++)
		if (show_id(files[i], outcome) != 0)
			status = ctl_end(outcome);
	return status;
}
