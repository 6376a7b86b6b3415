#include "keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto.h"
#include "report.h"

#define KEY_BUFFER 16384

void *secret_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, size, MADV_DONTDUMP);
	madvise(p, size, MADV_WIPEONFORK);
	mlock(p, size);
	return p;
}

void secret_guard(void *p, size_t size)
{
	size_t before = (uintptr_t)p % (uintptr_t)sysconf(_SC_PAGESIZE);

	if (p != NULL)
		madvise((char *)p - before, before + size, MADV_DONTDUMP);
}

void secret_free(void *p, size_t size)
{
	if (p == NULL)
		return;
	wipe(p, size);
	munmap(p, size);
}

static struct rlimit core_limit;

void secret_harden(void)
{
	struct rlimit none;

	getrlimit(RLIMIT_CORE, &core_limit);
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = core_limit.rlim_max };
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
}

void secret_unharden(void)
{
	setrlimit(RLIMIT_CORE, &core_limit);
}

char *const *keyring_command(const struct keyring *ring, size_t key, char *const *usual)
{
	struct rules *rules = ring->key[key].rules;

	return rules != NULL && rules->command[0] != NULL ? rules->command : usual;
}

/*
 * Warn where others than the owner may write to a file or directory, and so let themselves in, or
 * may read a key.
 */
static void check_mode(const char *what, const char *path, mode_t mode, struct report *report)
{
	bool key = strcmp(what, "key") == 0, writable = (mode & (S_IWGRP | S_IWOTH)) != 0;
	mode_t others = writable ? S_IWOTH : S_IROTH;

	if (writable || (key && (mode & (S_IRGRP | S_IROTH)) != 0))
		report_warn(report, "%s %s: %s by %s, chmod %s it", what, path,
		    writable ? "writable" : "readable",
		    (mode & others) != 0 ? "everyone" : "its group", key ? "600" : "go-w");
}

/* Open a key file and say what is wrong with it, if anything. */
static int open_key(int dir, const char *path, struct stat *st, const char **problem)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd == -1) {
		*problem = strerror(errno);
		return -1;
	}
	if (fstat(fd, st) != 0)
		*problem = strerror(errno);
	else if (S_ISDIR(st->st_mode))
		*problem = "is a directory";
	else if (!S_ISREG(st->st_mode) && !S_ISFIFO(st->st_mode))
		*problem = "is not a file";
	else {
		if (S_ISFIFO(st->st_mode))
			fcntl(fd, F_SETFL, 0); /* it has a writer, or is empty: no open to hang in */
		return fd;
	}
	close(fd);
	return -1;
}

/* hash = SHA256 of all of fd. Returns NULL, or what is wrong. `buffer` is secret memory. */
static const char *hash_file(int fd, const struct stat *st, uint8_t *buffer, size_t size,
    uint8_t hash[static KEY_SIZE])
{
	SHA256_CTX *state = (SHA256_CTX *)buffer;
	size_t total = 0, last = 0;
	ssize_t got;

	buffer += sizeof(*state);
	size -= sizeof(*state);
	SHA256_Init(state);
	while ((got = read(fd, buffer, size)) != 0) {
		if (got == -1 && errno == EINTR)
			continue;
		if (got == -1)
			return strerror(errno);
		SHA256_Update(state, buffer, (size_t)got);
		total += (size_t)got;
		last = (size_t)got;
		if (S_ISREG(st->st_mode) && total == (size_t)st->st_size)
			break; /* a call less for each of many keys */
	}
	SHA256_Final(hash, state);
	wipe(buffer, size);
	/*
	 * Vector registers still hold the file's last bytes, and the kernel puts those on our stack
	 * when a signal comes: the same way again, with zeros.
	 */
	SHA256_Init(state);
	SHA256_Update(state, buffer, last);
	SHA256_Final(buffer, state);
	wipe(state, sizeof(*state) + HASH_SIZE);
	if (total == 0)
		return "is empty";
	return total < KEY_FILE_LEAST ? "is shorter than 32 bytes" : NULL;
}

/* Read PATH.conf. Returns 0, with *rules NULL where there is none, or -1 with `problem` set. */
static int load_rules(int dir, const char *path, struct rules **rules, bool credential,
    struct report *report, char *problem, size_t size)
{
	char conf[PATH_MAX];
	const char *what;
	struct stat st;
	ssize_t got;
	int fd, line;

	*rules = NULL;
	snprintf(conf, sizeof(conf), "%s.conf", path);
	/* A link that leads nowhere is not the same as no rules. */
	if (fstatat(dir, conf, &st, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT)
		return 0;
	fd = openat(dir, conf, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	*rules = calloc(1, sizeof(**rules));
	if (fd == -1 || *rules == NULL ||
	    (got = read(fd, (*rules)->text, RULES_SIZE)) == -1)
		snprintf(problem, size, "its rules, %s: %s", conf, strerror(errno));
	else if (got == RULES_SIZE || memchr((*rules)->text, '\0', (size_t)got) != NULL)
		snprintf(problem, size, "its rules, %s: too long, or no text", conf);
	else if (rules_parse(*rules, &line, &what) != 0)
		snprintf(problem, size, "its rules, %s line %d: %s", conf, line, what);
	else {
		if (!credential && fstat(fd, &st) == 0)
			check_mode("rules", conf, st.st_mode, report);
		close(fd);
		return 0;
	}
	if (fd != -1)
		close(fd);
	free(*rules);
	*rules = NULL;
	return -1;
}

/*
 * Load one key as the ring's next, from `dir` or, where that is AT_FDCWD, as given by its name.
 * Returns 0, or -1 with `problem` set and the ring unchanged.
 */
static int load_key(struct keyring *ring, int dir, const char *path, const char *name,
    bool with_rules, bool credential, struct report *report, char *problem, size_t size)
{
	struct key *key = &ring->key[ring->count];
	const char *what = NULL;
	struct stat st = { 0 };
	int fd;

	/* It goes into logs, headers and the command's environment. */
	for (const char *c = name; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			what = "a control character in its name";
	fd = what == NULL ? open_key(dir, path, &st, &what) : -1;
	if (fd != -1) {
		/* In a directory nobody has said that this one is a key. */
		if (dir != AT_FDCWD && !credential && (st.st_mode & (S_IROTH | S_IWOTH)) != 0)
			what = "open to everyone, and so no secret; if it is a key, chmod 600 it";
		else
			what = hash_file(fd, &st, ring->buffer, KEY_BUFFER,
			    ring->secret[ring->count]);
		close(fd);
	}
	if (what != NULL) {
		snprintf(problem, size, "%s", what);
		return -1;
	}
	if (!credential && S_ISREG(st.st_mode))
		check_mode("key", path, st.st_mode, report);
	if (with_rules &&
	    load_rules(dir, path, &key->rules, credential, report, problem, size) != 0)
		return -1;
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
		report_warn(report, "rules %s belong to no key: there is no %s beside them", conf, key);
}

static bool is_regular(int dir, const struct dirent *entry)
{
	struct stat st;

	if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK)
		return entry->d_type == DT_REG;
	return fstatat(dir, entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode);
}

static void load_directory(struct keyring *ring, int dir, struct dirent **entries, int count,
    const char *prefix, bool with_rules, struct report *report)
{
	char problem[PATH_MAX + 128];
	const char *name;

	for (int i = 0; i < count; i++) {
		name = entries[i]->d_name;
		if (strncmp(name, prefix, strlen(prefix)) != 0 || name[strlen(prefix)] == '.' ||
		    strncmp(name + strlen(prefix), "README", strlen("README")) == 0 ||
		    !is_regular(dir, entries[i]))
			continue;
		if (ends_with(name, ".conf")) {
			check_owner(dir, name, report);
			continue;
		}
		if (load_key(ring, dir, name, name + strlen(prefix), with_rules, prefix[0] != '\0',
		    report, problem, sizeof(problem)) != 0)
			report_warn(report, "key %s is skipped: %s", name, problem);
	}
}

int keyring_load(struct keyring *ring, const char *const *files, size_t count, const char *dir,
    bool with_rules, struct report *report, struct outcome *outcome)
{
	const char *credentials = getenv("CREDENTIALS_DIRECTORY"), *path;
	char problem[PATH_MAX + 128], prefix[NAME_MAX + 2] = "", found[PATH_MAX];
	struct dirent **entries = NULL;
	struct stat st;
	int dir_fd = -1, entry_count = 0;
	bool credential;

	if (dir != NULL) {
		path = dir;
		if (credentials != NULL && strchr(dir, '/') == NULL) {
			path = credentials;
			snprintf(prefix, sizeof(prefix), "%s_", dir);
		}
		dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir_fd == -1 || (entry_count = scandir(path, &entries, matters, alphasort)) == -1)
			return fail(outcome, EX_CONFIG, "key directory %s: %s", path, strerror(errno));
		if (prefix[0] == '\0' && fstat(dir_fd, &st) == 0)
			check_mode("key directory", path, st.st_mode, report);
	}
	ring->room = count + (size_t)entry_count;
	ring->key = calloc(ring->room + 1, sizeof(*ring->key));
	ring->secret = secret_alloc((ring->room + 1) * sizeof(*ring->secret));
	ring->buffer = secret_alloc(KEY_BUFFER);
	if (ring->key == NULL || ring->secret == NULL || ring->buffer == NULL)
		return fail(outcome, EX_OSERR, "no memory for %zu keys", ring->room);

	for (size_t i = 0; i < count; i++) {
		path = files[i];
		credential = credentials != NULL && strchr(path, '/') == NULL;
		if (credential) {
			snprintf(found, sizeof(found), "%s/%s", credentials, path);
			credential = access(found, F_OK) == 0;
			path = credential ? found : path;
		}
		if (load_key(ring, AT_FDCWD, path, basename(files[i]), with_rules, credential, report,
		    problem, sizeof(problem)) != 0)
			return fail(outcome, EX_CONFIG, "key %s: %s", path, problem);
	}
	if (dir == NULL)
		return 0;
	load_directory(ring, dir_fd, entries, entry_count, prefix, with_rules, report);
	ring->entries = entries;
	close(dir_fd);
	return ring->count > 0 ? 0 :
	    fail(outcome, EX_CONFIG, "key directory %s: no usable key in it", dir);
}

void keyring_warn_twins(const struct keyring *ring, size_t key, struct report *report)
{
	for (size_t i = 0; i < ring->count; i++)
		if (i != key && equal_secret(ring->secret[i], ring->secret[key], KEY_SIZE))
			report_warn(report, "key %s is the same as key %s: its holder goes by that name",
			    ring->key[i].name, ring->key[key].name);
}

void keyring_wipe(struct keyring *ring)
{
	secret_free(ring->secret, (ring->room + 1) * sizeof(*ring->secret));
	secret_free(ring->buffer, KEY_BUFFER);
	ring->secret = NULL;
	ring->buffer = NULL;
}
