#include "rules.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLANKS " \t\r"

static const char *parse_date(struct rules *rules, const char *word)
{
	struct tm day = { 0 }, given;
	int used = 0;
	time_t start;

	if (rules->expires != 0)
		return "expires is given twice";
	if (word == NULL || strlen(word) != 10 || strspn(word, "-0123456789") != 10 ||
	    sscanf(word, "%4d-%2d-%2d%n", /* NOLINT(cert-err34-c): few digits */
		&day.tm_year, &day.tm_mon, &day.tm_mday, &used) != 3 ||
	    used != 10)
		return "expires needs a date as YYYY-MM-DD";
	day.tm_year -= 1900;
	day.tm_mon--;
	given = day;
	start = timegm(&day);
	if (given.tm_mon != day.tm_mon || given.tm_mday != day.tm_mday || start <= 0)
		return "expires needs a date that exists";
	rules->expires = start + 24 * 60 * 60;
	return NULL;
}

static const char *parse_network(struct rules *rules, char *word)
{
	struct network *network = &rules->network[rules->network_count];
	char *slash = strchr(word, '/'), *end;
	unsigned long bits;

	if (rules->network_count == RULES_NETWORKS)
		return "too many networks";
	if (slash != NULL)
		*slash = '\0';
	if (address_parse(&network->base, word) != 0)
		return "from needs numeric addresses, with or without /bits";
	network->bits = network->base.family == AF_INET ? 32 : 128;
	if (slash != NULL) {
		if (network->base.family == AF_INET && strchr(word, ':') != NULL)
			return "from needs IPv4 networks in IPv4 notation";
		bits = strtoul(slash + 1, &end, 10);
		if (slash[1] < '0' || slash[1] > '9' || *end != '\0' || bits > network->bits)
			return "from has an invalid prefix length";
		network->bits = (unsigned)bits;
	}
	rules->network_count++;
	return NULL;
}

static const char *parse_target(struct rules *rules, char *word)
{
	struct address_text parts;

	if (word == NULL)
		return "target needs an address";
	if (rules->destination.target != NULL)
		return "target is given twice";
	rules->destination.target = word;
	return address_split(&parts, word, false);
}

/* The command is the rest of the line. */
static const char *parse_command(struct rules *rules, char *word, char **rest)
{
	size_t count = 0;

	if (word == NULL)
		return "command needs a program";
	if (rules->destination.command != NULL)
		return "command is given twice";
	rules->destination.command = rules->words;
	for (; word != NULL && count < RULES_WORDS; word = strtok_r(NULL, BLANKS, rest))
		rules->words[count++] = word;
	return word == NULL ? NULL : "command has too many words";
}

static const char *parse_line(struct rules *rules, char *line)
{
	char *rest, *rule = strtok_r(line, BLANKS, &rest), *word;
	const char *problem = NULL;

	if (rule == NULL || rule[0] == '#')
		return NULL;
	word = strtok_r(NULL, BLANKS, &rest);
	if (strcmp(rule, "expires") == 0) {
		problem = parse_date(rules, word);
	} else if (strcmp(rule, "require-pfs") == 0) {
		rules->require_pfs = true;
		return word == NULL ? NULL : "require-pfs takes no value";
	} else if (strcmp(rule, "from") == 0) {
		if (word == NULL)
			return "from needs a network";
		for (; word != NULL && problem == NULL; word = strtok_r(NULL, BLANKS, &rest))
			problem = parse_network(rules, word);
		return problem;
	} else if (strcmp(rule, "command") == 0) {
		problem = parse_command(rules, word, &rest);
	} else if (strcmp(rule, "target") == 0) {
		problem = parse_target(rules, word);
	} else
		return "unknown rule (known: expires, require-pfs, from, target, command)";
	if (problem == NULL && strtok_r(NULL, BLANKS, &rest) != NULL)
		problem = "too many words";
	if (problem == NULL && rules->destination.command != NULL &&
	    rules->destination.target != NULL)
		problem = "both a target and a command";
	return problem;
}

int rules_load(struct rules **rules, mode_t *mode, int dir, const char *path,
    struct outcome *outcome)
{
	char conf[PATH_MAX];
	const char *problem;
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
		fail(outcome, EX_CONFIG, "its rules, %s: %s", conf, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		fail(outcome, EX_CONFIG, "its rules, %s: not a regular file", conf);
	else if (got == RULES_SIZE || memchr((*rules)->text, '\0', (size_t)got) != NULL)
		fail(outcome, EX_CONFIG, "its rules, %s: too long, or not text", conf);
	else if (strspn((*rules)->text, BLANKS "\n") == (size_t)got)
		/* What a full disk or an editor leaves behind must not mean that all is allowed. */
		fail(outcome, EX_CONFIG, "its rules, %s: empty (remove the file if there are none)",
		    conf);
	else if (rules_parse(*rules, &line, &problem) != 0)
		fail(outcome, EX_CONFIG, "its rules, %s line %d: %s", conf, line, problem);
	*mode = st.st_mode;
	if (fd != -1)
		close(fd);
	if (outcome->status == 0)
		return 0;
	free(*rules);
	*rules = NULL;
	return -1;
}

int rules_parse(struct rules *rules, int *line, const char **problem)
{
	char *next = rules->text, *start;

	for (*line = 1; (start = strsep(&next, "\n")) != NULL; ++*line) {
		*problem = parse_line(rules, start);
		if (*problem != NULL)
			return -1;
	}
	return 0;
}

static bool within(const struct network *network, const struct address *client)
{
	unsigned whole = network->bits / 8, rest = network->bits % 8;

	if (client->family != network->base.family ||
	    memcmp(client->ip, network->base.ip, whole) != 0)
		return false;
	return rest == 0 || ((client->ip[whole] ^ network->base.ip[whole]) >> (8 - rest)) == 0;
}

int rules_check(const struct rules *rules, const struct address *client, bool forward_secret,
    time_t now, struct outcome *outcome)
{
	if (rules->expires != 0 && now >= rules->expires)
		return fail(outcome, EX_NOPERM, "the client's key has expired");
	if (rules->require_pfs && !forward_secret)
		return fail(outcome, EX_NOPERM,
		    "no forward secrecy (-f, here or at the client), and the client's key requires it");
	if (rules->network_count == 0)
		return 0;
	for (size_t i = 0; i < rules->network_count; i++)
		if (within(&rules->network[i], client))
			return 0;
	return fail(outcome, EX_NOPERM, "the client's key is not allowed from %s",
	    client->text[0] == '\0' ? "an unknown address" : client->text);
}
