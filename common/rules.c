#include "rules.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLANKS " \t\r"

static const char *parse_date(struct rules *rules, const char *word)
{
	struct tm day = { 0 }, given;
	const char *end = NULL;
	time_t start;

	if (rules->expires != 0)
		return "expires is given twice";
	if (word != NULL && strlen(word) == 10 && strspn(word, "-0123456789") == 10)
		end = strptime(word, "%Y-%m-%d", &day);
	if (end == NULL || *end != '\0')
		return "expires needs a date as YYYY-MM-DD";
	given = day;
	start = timegm(&day);
	if (given.tm_mon != day.tm_mon || given.tm_mday != day.tm_mday || start <= 0)
		return "expires needs a date that exists";
	rules->expires = start + 24 * 60 * 60;
	return NULL;
}

static const char *parse_network(struct rules *rules, const char *word)
{
	if (rules->network_count == RULES_NETWORKS)
		return "too many networks";
	return network_parse(&rules->network[rules->network_count++], word);
}

static const char *parse_target(struct rules *rules, const char *word)
{
	struct address_text parts;

	if (word == NULL)
		return "target needs an address";
	if (rules->destination.target != NULL)
		return "target is given twice";
	rules->destination.target = word;
	return address_split(&parts, word, false);
}

static const char *parse_command(struct rules *rules, char **words, size_t count)
{
	if (count == 0)
		return "command needs a program";
	if (rules->destination.command != NULL)
		return "command is given twice";
	if (count > RULES_WORDS)
		return "command has too many words";
	memcpy(rules->words, words, count * sizeof(*words));
	rules->destination.command = rules->words;
	return NULL;
}

static const char *parse_line(struct rules *rules, char *line)
{
	char *words[RULES_SIZE / 2 + 1], **values = words + 1, *rest;
	const char *problem = NULL;
	size_t count = 0; /* of values */

	words[0] = strtok_r(line, BLANKS, &rest);
	if (words[0] == NULL || words[0][0] == '#')
		return NULL;
	while ((values[count] = strtok_r(NULL, BLANKS, &rest)) != NULL)
		count++;
	if (strcmp(words[0], "expires") == 0) {
		problem = count > 1 ? "too many words" : parse_date(rules, values[0]);
	} else if (strcmp(words[0], "require-pfs") == 0) {
		rules->require_pfs = true;
		problem = count > 0 ? "require-pfs takes no value" : NULL;
	} else if (strcmp(words[0], "from") == 0) {
		problem = count == 0 ? "from needs a network" : NULL;
		for (size_t i = 0; i < count && problem == NULL; i++)
			problem = parse_network(rules, values[i]);
	} else if (strcmp(words[0], "command") == 0) {
		problem = parse_command(rules, values, count);
	} else if (strcmp(words[0], "target") == 0) {
		problem = count > 1 ? "too many words" : parse_target(rules, values[0]);
	} else
		problem = "unknown rule (known: expires, require-pfs, from, target, command)";
	if (problem == NULL && rules->destination.command != NULL &&
	    rules->destination.target != NULL)
		problem = "both a target and a command";
	return problem;
}

struct rules *rules_load(int dir, const char *conf, struct outcome *outcome)
{
	struct rules *rules;
	const char *problem;
	char where[24] = "";
	struct stat st;
	ssize_t got;
	int fd, line = 0;

	/* A link that leads nowhere is not the same as no rules. */
	if (fstatat(dir, conf, &st, AT_SYMLINK_NOFOLLOW) != 0 &&
	    (errno == ENOENT || errno == ENAMETOOLONG))
		return NULL;
	fd = openat(dir, conf, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	rules = calloc(1, sizeof(*rules));
	if (fd == -1 || rules == NULL || fstat(fd, &st) != 0 ||
	    (got = read(fd, rules->text, RULES_SIZE)) == -1)
		problem = strerror(errno);
	else if (!S_ISREG(st.st_mode))
		problem = "not a regular file";
	else if (got == RULES_SIZE || memchr(rules->text, '\0', (size_t)got) != NULL)
		problem = "too long, or not text";
	else if (strspn(rules->text, BLANKS "\n") == (size_t)got)
		/* What a full disk or an editor leaves behind must not mean that all is allowed. */
		problem = "empty (remove the file if there are none)";
	else {
		rules->mode = st.st_mode;
		problem = rules_parse(rules, &line);
	}
	if (fd != -1)
		close(fd);
	if (problem == NULL)
		return rules;
	free(rules);
	if (line > 0)
		snprintf(where, sizeof(where), " line %d", line);
	fail(outcome, EX_CONFIG, "its rules, %s%s: %s", conf, where, problem);
	return NULL;
}

const char *rules_parse(struct rules *rules, int *line)
{
	char *next = rules->text, *start;
	const char *problem = NULL;

	for (*line = 0; problem == NULL && (start = strsep(&next, "\n")) != NULL; ++*line)
		problem = parse_line(rules, start);
	return problem;
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
		if (network_contains(&rules->network[i], client))
			return 0;
	return fail(outcome, EX_NOPERM, "the client's key is not allowed from %s",
	    client->text[0] == '\0' ? "an unknown address" : client->text);
}
