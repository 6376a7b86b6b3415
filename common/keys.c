#include "keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto.h"
#include "report.h"
#include "secret.h"
#include "wait.h"

void secret_guard(void *p, size_t size)
{
	size_t before = (uintptr_t)p % (uintptr_t)sysconf(_SC_PAGESIZE);

	if (p != NULL)
		madvise((char *)p - before, before + size, MADV_DONTDUMP);
}

char *const *keyring_command(const struct keyring *ring, size_t key, char *const *usual)
{
	struct rules *rules = ring->key[key].rules;

	return rules != NULL && rules->command[0] != NULL ? rules->command : usual;
}

/* Warn of a mode that lets others read a secret, or write and so let themselves in. */
static void check_mode(const char *what, const char *path, mode_t mode, mode_t forbidden,
    const char *remedy, struct report *report)
{
	bool writable = (mode & forbidden & (S_IWGRP | S_IWOTH)) != 0;

	if ((mode & forbidden) != 0)
		report_warn(report, "%s %s: %s by %s, %s it", what, path,
		    writable ? "writable" : "readable",
		    (mode & (writable ? S_IWOTH : S_IROTH)) != 0 ? "everyone" : "its group",
		    remedy);
}

/* What a key file is read with, in secret memory. */
struct scratch {
	SHA256_CTX state;
	uint8_t data[16384];
};

/* What loads keys, and where to. */
struct loader {
	struct keyring *ring;
	bool with_rules;
	int64_t deadline;
	struct report *report;
};

/* hash = SHA256 of all of `fd`, a regular file of `size` bytes or if that is -1 a FIFO. */
static int hash_file(const struct loader *loader, int fd, off_t size, uint8_t hash[static KEY_SIZE],
    struct outcome *problem)
{
	struct scratch *scratch = loader->ring->scratch;
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	off_t total = 0;
	size_t last = 0;
	ssize_t got;

	SHA256_Init(&scratch->state);
	/* Not read on to the end of a file whose size is known: a call less for each of many keys. */
	while ((total == 0 || total != size) &&
	    (got = read(fd, scratch->data, sizeof(scratch->data))) != 0) {
		if (got > 0) {
			SHA256_Update(&scratch->state, scratch->data, (size_t)got);
			last = (size_t)got;
			total += got;
			if (size == -1 && time_now() >= loader->deadline)
				return fail(problem, EX_TEMPFAIL, "it has no end");
		} else if (errno != EAGAIN && errno != EINTR)
			return fail(problem, EX_CONFIG, "%s", strerror(errno));
		else if (signal_stop)
			return fail_signal(problem, signal_stop, " while it was read");
		else if (wait_poll(&ready, 1, loader->deadline) == 0)
			return fail(problem, EX_TEMPFAIL, "not all of it came in time");
	}
	SHA256_Final(hash, &scratch->state);
	wipe(scratch, sizeof(*scratch));
	/*
	 * Vector registers still hold the file's last bytes, and the kernel puts those on our stack
	 * when a signal comes: the same way again, with zeros.
	 */
	SHA256_Init(&scratch->state);
	SHA256_Update(&scratch->state, scratch->data, last);
	SHA256_Final(scratch->data, &scratch->state);
	if (total == 0)
		return fail(problem, EX_CONFIG, "is empty");
	if (total < KEY_FILE_LEAST)
		return fail(problem, EX_CONFIG, "is shorter than 32 bytes");
	return 0;
}

/* Read PATH.conf. *rules is NULL where there is none. */
static int load_rules(const struct loader *loader, int dir, const char *path, bool credential,
    struct rules **rules, struct outcome *problem)
{
	char conf[PATH_MAX];
	const char *what;
	struct stat st;
	ssize_t got;
	int fd, line;

	*rules = NULL;
	snprintf(conf, sizeof(conf), "%s.conf", path);
	/* A link that leads nowhere is not the same as no rules. */
	if (fstatat(dir, conf, &st, AT_SYMLINK_NOFOLLOW) != 0 &&
	    (errno == ENOENT || errno == ENAMETOOLONG))
		return 0;
	fd = openat(dir, conf, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	*rules = calloc(1, sizeof(**rules));
	if (fd == -1 || *rules == NULL || fstat(fd, &st) != 0 ||
	    (got = read(fd, (*rules)->text, RULES_SIZE)) == -1)
		fail(problem, EX_CONFIG, "its rules, %s: %s", conf, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		fail(problem, EX_CONFIG, "its rules, %s: not a file", conf);
	else if (got == RULES_SIZE || memchr((*rules)->text, '\0', (size_t)got) != NULL)
		fail(problem, EX_CONFIG, "its rules, %s: too long, or no text", conf);
	else if (rules_parse(*rules, &line, &what) != 0)
		fail(problem, EX_CONFIG, "its rules, %s line %d: %s", conf, line, what);
	else if (!credential)
		check_mode("rules", conf, st.st_mode, S_IWGRP | S_IWOTH, "chmod go-w",
		    loader->report);
	if (fd != -1)
		close(fd);
	return problem->status == 0 ? 0 : -1;
}

/*
 * Load one key as the ring's next, from directory `dir` or, where that is AT_FDCWD, as named by the
 * user. Returns 0, or -1 with the problem set and the ring unchanged.
 */
static int load_key(const struct loader *loader, int dir, const char *path, const char *name,
    bool credential, struct outcome *problem)
{
	struct keyring *ring = loader->ring;
	struct key *key = &ring->key[ring->count];
	struct stat st = { 0 };
	int fd;

	/* It goes into logs, headers and the command's environment. */
	for (const char *c = name; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			return fail(problem, EX_CONFIG, "a control character in its name");
	/* No open to hang in: a FIFO without a writer is empty. */
	fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd == -1 || fstat(fd, &st) != 0)
		fail(problem, EX_CONFIG, "%s", strerror(errno));
	else if (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode))
		fail(problem, EX_CONFIG, S_ISDIR(st.st_mode) ? "is a directory" : "is not a file");
	else if (dir != AT_FDCWD && !credential && (st.st_mode & (S_IROTH | S_IWOTH)) != 0)
		/* Nobody has said that this one is a key. */
		fail(problem, EX_CONFIG,
		    "open to everyone, and so no secret; if it is a key, chmod "
		    "600 it");
	else
		hash_file(loader, fd, S_ISREG(st.st_mode) ? st.st_size : -1,
		    ring->secret[ring->count], problem);
	if (fd != -1)
		close(fd);
	if (problem->status != 0)
		return -1;
	if (!credential && S_ISREG(st.st_mode))
		check_mode("key", path, st.st_mode, S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH,
		    "chmod 600", loader->report);
	if (loader->with_rules &&
	    load_rules(loader, dir, path, credential, &key->rules, problem) != 0) {
		free(key->rules);
		key->rules = NULL;
		return -1;
	}
	key->name = name;
	ring->count++;
	return 0;
}

static bool ends_with(const char *name, const char *end)
{
	size_t length = strlen(name), size = strlen(end);

	return length >= size && strcmp(name + length - size, end) == 0;
}

/* Files in a key directory that matter: no dot files, or leftovers of editors and packages. */
static int matters(const struct dirent *entry)
{
	static const char *const leftovers[] = { ".bak", ".old", ".swp", ".tmp", ".orig", "~", "#",
		".dpkg-old", ".dpkg-new", ".dpkg-dist", ".rpmsave", ".rpmnew", ".rpmorig" };

	for (size_t i = 0; i < sizeof(leftovers) / sizeof(leftovers[0]); i++)
		if (ends_with(entry->d_name, leftovers[i]))
			return 0;
	return entry->d_name[0] != '.';
}

/* Rules that belong to no key are most likely meant for one: bob.conf for bob.key. */
static void check_owner(int dir, const char *conf, struct report *report)
{
	char key[NAME_MAX + 1];

	snprintf(key, sizeof(key), "%.*s", (int)(strlen(conf) - strlen(".conf")), conf);
	if (faccessat(dir, key, F_OK, 0) != 0)
		report_warn(report, "rules %s belong to no key: there is no %s beside them", conf,
		    key);
}

static bool is_regular(int dir, const struct dirent *entry)
{
	struct stat st;

	return entry->d_type == DT_REG ||
	    (fstatat(dir, entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode));
}

static void load_directory(const struct loader *loader, int dir, struct dirent **entries, int count,
    const char *prefix)
{
	for (int i = 0; i < count; i++) {
		const char *file = entries[i]->d_name;
		size_t length = strlen(prefix);
		struct outcome problem = { 0 };

		if (strncmp(file, prefix, length) != 0 || file[length] == '.' ||
		    strncmp(file + length, "README", strlen("README")) == 0 ||
		    !is_regular(dir, entries[i]))
			continue;
		if (ends_with(file, ".conf"))
			check_owner(dir, file, loader->report);
		else if (load_key(loader, dir, file, file + length, length != 0, &problem) != 0)
			report_warn(loader->report, "key %s is skipped: %s", file, problem.reason);
	}
}

/* A name without a slash may be that of a credential. */
static int load_file(const struct loader *loader, const char *path, const char *credentials,
    struct outcome *outcome)
{
	char found[PATH_MAX] = "";
	bool credential;
	struct outcome problem = { 0 };

	if (credentials != NULL && strchr(path, '/') == NULL)
		snprintf(found, sizeof(found), "%s/%s", credentials, path);
	credential = found[0] != '\0' && access(found, F_OK) == 0;
	if (load_key(loader, AT_FDCWD, credential ? found : path, basename(path), credential,
		&problem) == 0)
		return 0;
	outcome->signal = problem.signal;
	return fail(outcome, problem.status, "key %s: %s", credential ? found : path,
	    problem.reason);
}

int keyring_load(struct keyring *ring, const char *const *files, size_t count, const char *dir,
    bool with_rules, int64_t deadline, struct report *report, struct outcome *outcome)
{
	const char *credentials = getenv("CREDENTIALS_DIRECTORY"), *path = dir;
	char prefix[NAME_MAX + 2] = "";
	int dir_fd = -1, entry_count = 0;
	struct loader loader = { ring, with_rules, deadline, report };
	struct stat st;

	if (dir != NULL && credentials != NULL && strchr(dir, '/') == NULL) {
		snprintf(prefix, sizeof(prefix), "%s_", dir);
		path = credentials;
	}
	if (dir != NULL) {
		dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir_fd == -1 ||
		    (entry_count = scandir(path, &ring->entries, matters, alphasort)) == -1)
			return fail(outcome, EX_CONFIG, "key directory %s: %s", path,
			    strerror(errno));
		if (prefix[0] == '\0' && fstat(dir_fd, &st) == 0)
			check_mode("key directory", path, st.st_mode, S_IWGRP | S_IWOTH,
			    "chmod go-w", report);
	}
	ring->room = count + (size_t)entry_count;
	ring->key = calloc(ring->room + 1, sizeof(*ring->key));
	ring->secret = secret_alloc((ring->room + 1) * sizeof(*ring->secret));
	ring->scratch = secret_alloc(sizeof(*ring->scratch));
	if (ring->key == NULL || ring->secret == NULL || ring->scratch == NULL)
		return fail(outcome, EX_OSERR, "no memory for %zu keys", ring->room);

	for (size_t i = 0; i < count; i++)
		if (load_file(&loader, files[i], credentials, outcome) != 0)
			return -1;
	if (dir == NULL)
		return 0;
	load_directory(&loader, dir_fd, ring->entries, entry_count, prefix);
	close(dir_fd);
	return ring->count > 0
	    ? 0
	    : fail(outcome, EX_CONFIG, "key directory %s: no usable key in it", dir);
}

void keyring_warn_twins(const struct keyring *ring, size_t key, struct report *report)
{
	for (size_t i = 0; i < ring->count; i++)
		if (i != key && equal_secret(ring->secret[i], ring->secret[key], KEY_SIZE))
			report_warn(report,
			    "key %s is the same as key %s: its holder is taken for %s",
			    ring->key[i].name, ring->key[key].name, ring->key[key].name);
}

void keyring_wipe(struct keyring *ring)
{
	secret_free(ring->secret, (ring->room + 1) * sizeof(*ring->secret));
	secret_free(ring->scratch, sizeof(*ring->scratch));
	ring->secret = NULL;
	ring->scratch = NULL;
}
