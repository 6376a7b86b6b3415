#include "keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto.h"
#include "parse.h"
#include "report.h"
#include "secret.h"
#include "wait.h"

struct key_memory {
	struct scratch { /* what is needed to read a key file */
		SHA256_CTX state;
		uint8_t data[4096];
	} scratch;
	uint8_t secret[][KEY_SIZE];
};

/* Keep a warning for keyring_warn. Most connections have none. */
__attribute__((format(printf, 2, 3))) static void add_warning(struct keyring *ring,
    const char *format, ...)
{
	va_list arguments;

	if (ring->warnings == NULL &&
	    (ring->warnings = open_memstream(&ring->warning_text, &ring->warning_size)) == NULL)
		return;
	va_start(arguments, format);
	vfprintf(ring->warnings, format, arguments);
	va_end(arguments);
	fputc('\0', ring->warnings);
}

/* Warn about a mode that lets others read a secret, or replace it with their own. */
static void check_mode(struct keyring *ring, const char *what, const char *path, mode_t mode,
    mode_t forbidden, const char *remedy)
{
	bool writable = (mode & forbidden & (S_IWGRP | S_IWOTH)) != 0;

	if ((mode & forbidden) != 0)
		add_warning(ring, "%s %s: %s by %s, %s it", what, path,
		    writable ? "writable" : "readable",
		    (mode & (writable ? S_IWOTH : S_IROTH)) != 0 ? "everyone" : "its group",
		    remedy);
}

/* hash = SHA256 of all of `fd`, a regular file of `size` bytes or if that is -1 a FIFO. */
static int hash_file(struct keyring *ring, int fd, off_t size, bool credential,
    uint8_t hash[static KEY_SIZE], struct outcome *problem)
{
	struct scratch *scratch = &ring->memory->scratch;
	off_t total = 0;
	size_t last = 0;
	ssize_t got;

	SHA256_Init(&scratch->state);
	while ((got = read(fd, scratch->data, sizeof(scratch->data))) != 0) {
		if (got > 0) {
			SHA256_Update(&scratch->state, scratch->data, (size_t)got);
			last = (size_t)got;
			total += got;
			if (total == size)
				break; /* saves a call for each of many keys */
		} else if (errno != EAGAIN && errno != EINTR)
			return fail(problem, EX_CONFIG, "%s", strerror(errno));
		/* Wait for more data or a signal. */
		if (wait_ready(fd, POLLIN, ring->deadline) == 0)
			continue;
		return errno == EINTR ? fail_signal(problem, signal_stop, " while it was read")
				      : fail(problem, EX_TEMPFAIL, "not read to its end in time");
	}
	SHA256_Final(hash, &scratch->state);
	wipe(scratch, sizeof(*scratch));
	hash_clear_registers(last);
	if (total == 0)
		return fail(problem, EX_CONFIG, "it is empty");
	/* The units pass a few bytes in place of a missing file, so that the service starts. */
	if (total < KEY_FILE_LEAST)
		return fail(problem, EX_CONFIG, "%s",
		    credential
			? "it was missing or shorter than 32 bytes when the service started; "
			  "spipectl check finds the file"
			: "it is shorter than 32 bytes");
	return 0;
}

/*
 * A key without rules, open as `fd`: warn if some were probably meant for it. alice.conf is not for
 * alice.key, and rules beside the file that a link leads to are not those of the link.
 */
static void check_misplaced_rules(struct keyring *ring, int dir, const char *path, int fd)
{
	char conf[PATH_MAX], link[32];
	const char *dot = strrchr(file_name(path), '.');
	struct stat st;
	ssize_t size;

	if (dir == AT_FDCWD && dot != NULL) {
		snprintf(conf, sizeof(conf), "%.*s", (int)(dot - path), path);
		if (access(conf, F_OK) != 0) {
			snprintf(conf, sizeof(conf), "%.*s.conf", (int)(dot - path), path);
			if (access(conf, F_OK) == 0 && strcmp(conf, path) != 0)
				add_warning(ring,
				    "rules %s are not used: those of key %s would be %s.conf", conf,
				    path, path);
		}
	}
	if (fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISLNK(st.st_mode))
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	size = readlink(link, conf, sizeof(conf) - sizeof(".conf"));
	if (size <= 0)
		return;
	memcpy(conf + size, ".conf", sizeof(".conf"));
	if (access(conf, F_OK) == 0)
		add_warning(ring,
		    "rules %s are not used: key %s is a link, and its rules would be %s.conf", conf,
		    path, path);
}

/* The rules of a key that is open as `fd`. */
static void load_rules(struct keyring *ring, struct key *key, int dir, const char *path, int fd,
    bool credential, struct outcome *problem)
{
	char conf[PATH_MAX];

	snprintf(conf, sizeof(conf), "%s.conf", path);
	key->rules = rules_load(dir, conf, problem);
	if (key->rules != NULL && !credential)
		check_mode(ring, "rules", conf, key->rules->mode, S_IWGRP | S_IWOTH, "chmod go-w");
	else if (key->rules == NULL && problem->status == 0)
		check_misplaced_rules(ring, dir, path, fd);
}

/*
 * Load one key as the ring's next, from directory `dir` or, where that is AT_FDCWD, as named by the
 * user. Returns 0, or -1 with the problem set and the ring unchanged.
 */
static int load_key(struct keyring *ring, int dir, const char *path, const char *name,
    bool credential, struct outcome *problem)
{
	struct key *key = &ring->key[ring->count];
	struct stat st = { 0 };
	int fd;

	/* It goes into logs, headers and the command's environment. */
	for (const char *c = name; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			return fail(problem, EX_CONFIG, "a control character in its name");
	/* Without O_NONBLOCK a FIFO that nobody writes to would block us here. */
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd == -1 || fstat(fd, &st) != 0)
		fail(problem, EX_CONFIG, "%s", strerror(errno));
	else if (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode))
		fail(problem, EX_CONFIG,
		    S_ISDIR(st.st_mode) ? "it is a directory" : "it is not a regular file");
	else if (dir != AT_FDCWD && !credential && !ring->any_mode &&
	    (st.st_mode & (S_IROTH | S_IWOTH)) != 0)
		/* Nobody has said that this one is a key. */
		fail(problem, EX_CONFIG,
		    "open to everyone, and so not secret; if it is a key, chmod 600 it");
	else if (hash_file(ring, fd, S_ISREG(st.st_mode) ? st.st_size : -1, credential,
		     ring->secret[ring->count], problem) == 0 &&
	    ring->with_rules)
		load_rules(ring, key, dir, path, fd, credential, problem);
	if (fd != -1)
		close(fd);
	if (problem->status != 0)
		return -1;
	if (!credential && S_ISREG(st.st_mode))
		check_mode(ring, "key", path, st.st_mode, S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH,
		    "chmod 600");
	key->name = name;
	ring->count++;
	return 0;
}

/* Not every file in a key directory: no leftovers of editors and packages. */
static bool may_be_key(const char *name)
{
	static const char *const others[] = { ".*", "README*", "*.bak", "*.old", "*.swp", "*.tmp",
		"*.orig", "*~", "*#", "*.dpkg-old", "*.dpkg-new", "*.dpkg-dist", "*.rpmsave",
		"*.rpmnew", "*.rpmorig" };

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (fnmatch(others[i], name, 0) == 0)
			return false;
	return true;
}

/* Rules that belong to no key are probably meant for one: bob.conf for bob.key. */
static void check_owner(struct keyring *ring, int dir, const char *conf)
{
	char key[NAME_MAX + 1];

	snprintf(key, sizeof(key), "%.*s", (int)(strlen(conf) - strlen(".conf")), conf);
	if (faccessat(dir, key, F_OK, 0) != 0)
		add_warning(ring, "rules %s belong to no key: there is no %s beside them", conf,
		    key);
}

static bool is_regular(int dir, const struct dirent *entry)
{
	struct stat st;

	return entry->d_type == DT_REG ||
	    (fstatat(dir, entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode));
}

static int load_directory(struct keyring *ring, int dir, const char *name, const char *prefix,
    struct outcome *outcome)
{
	struct outcome skipped = { .reason = "it contains no key files" };
	size_t length = strlen(prefix);

	for (int i = 0; i < ring->entry_count; i++) {
		const char *file = ring->entries[i]->d_name;
		struct outcome problem = { 0 };

		if (strncmp(file, prefix, length) != 0 || !may_be_key(file + length) ||
		    !is_regular(dir, ring->entries[i]))
			continue;
		if (fnmatch("*.conf", file, 0) == 0)
			check_owner(ring, dir, file);
		else if (load_key(ring, dir, file, file + length, length != 0, &problem) != 0) {
			if (problem.signal != 0)
				return fail_signal(outcome, problem.signal,
				    " while keys were read");
			fail(&skipped, EX_CONFIG, "key %s is skipped: %s", file + length,
			    problem.reason);
			add_warning(ring, "%s", skipped.reason);
		}
	}
	return ring->count > 0
	    ? 0
	    : fail(outcome, EX_CONFIG, "key directory %s: no usable key in it: %s", name,
		  skipped.reason);
}

/* A name without a slash may be that of a credential. */
static int load_file(struct keyring *ring, const char *path, const char *credentials,
    struct outcome *outcome)
{
	char found[PATH_MAX] = "";
	bool credential;
	struct outcome problem = { 0 };

	if (credentials != NULL && strchr(path, '/') == NULL)
		snprintf(found, sizeof(found), "%s/%s", credentials, path);
	credential = found[0] != '\0' && access(found, F_OK) == 0;
	if (load_key(ring, AT_FDCWD, credential ? found : path, file_name(path), credential,
		&problem) == 0)
		return 0;
	outcome->signal = problem.signal;
	return fail(outcome, problem.status, "key %s: %s", credential ? found : path,
	    problem.reason);
}

int keyring_load(struct keyring *ring, const char *const *files, size_t count, const char *dir,
    bool with_rules, int64_t deadline, struct outcome *outcome)
{
	const char *credentials = getenv("CREDENTIALS_DIRECTORY"), *path = dir;
	char prefix[NAME_MAX + 2] = "";
	int dir_fd = -1;
	struct stat st;
	size_t room;

	if (dir != NULL && credentials != NULL && strchr(dir, '/') == NULL) {
		snprintf(prefix, sizeof(prefix), "%s_", dir);
		path = credentials;
	}
	if (dir != NULL) {
		dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir_fd == -1 ||
		    (ring->entry_count = scandir(path, &ring->entries, NULL, alphasort)) == -1)
			return fail(outcome, EX_CONFIG, "key directory %s: %s", path,
			    strerror(errno));
	}
	ring->with_rules = with_rules;
	ring->deadline = deadline;
	room = count + (size_t)ring->entry_count + 1;
	ring->key = calloc(room, sizeof(*ring->key));
	ring->memory_size = sizeof(*ring->memory) + room * KEY_SIZE;
	ring->memory = secret_alloc(ring->memory_size);
	if (ring->key == NULL || ring->memory == NULL)
		return fail(outcome, EX_OSERR, "no memory for %zu keys", room);
	ring->secret = ring->memory->secret;
	if (dir != NULL && prefix[0] == '\0' && fstat(dir_fd, &st) == 0)
		check_mode(ring, "key directory", path, st.st_mode, S_IWGRP | S_IWOTH,
		    "chmod go-w");
	for (size_t i = 0; i < count; i++)
		if (load_file(ring, files[i], credentials, outcome) != 0)
			return -1;
	if (dir == NULL)
		return 0;
	if (load_directory(ring, dir_fd, dir, prefix, outcome) != 0)
		return -1;
	close(dir_fd);
	return 0;
}

struct destination keyring_destination(const struct keyring *ring, size_t key,
    struct destination usual)
{
	const struct rules *rules = ring->key[key].rules;

	if (rules == NULL ||
	    (rules->destination.command == NULL && rules->destination.target == NULL))
		return usual;
	return rules->destination;
}

void keyring_warn(struct keyring *ring, size_t key, struct report *report)
{
	if (ring->warnings != NULL)
		fclose(ring->warnings);
	for (const char *text = ring->warning_text; text < ring->warning_text + ring->warning_size;
	     text += strlen(text) + 1)
		report_warn(report, "%s", text);
	for (size_t i = 0; i < ring->count; i++)
		if (i != key && equal_secret(ring->secret[i], ring->secret[key], KEY_SIZE))
			report_warn(report,
			    "key %s is the same as key %s: its holder is taken for %s",
			    ring->key[i].name, ring->key[key].name, ring->key[key].name);
}

void keyring_wipe(struct keyring *ring)
{
	secret_free(ring->memory, ring->memory_size);
	ring->memory = NULL;
	ring->secret = NULL;
}
