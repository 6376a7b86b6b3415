#include "rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\r"

static const char *parse_date(struct rules *rules, const char *word)
{
	struct tm day = { 0 }, given;
	int used = 0;
	time_t start;

	if (rules->expires != 0)
		return "a second expires";
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
		return "expires needs a date of the calendar";
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
			return "from needs an IPv4 network in its own notation";
		bits = strtoul(slash + 1, &end, 10);
		if (slash[1] < '0' || slash[1] > '9' || *end != '\0' || bits > network->bits)
			return "from has a wrong prefix length";
		network->bits = (unsigned)bits;
	}
	rules->network_count++;
	return NULL;
}

static const char *parse_line(struct rules *rules, char *line)
{
	char *rest, *rule = strtok_r(line, BLANKS, &rest), *word;
	const char *problem = NULL;
	size_t count = 0;

	if (rule == NULL || rule[0] == '#')
		return NULL;
	word = strtok_r(NULL, BLANKS, &rest);
	if (strcmp(rule, "expires") == 0) {
		problem = parse_date(rules, word);
	} else if (strcmp(rule, "require-pfs") == 0) {
		rules->require_pfs = true;
		return word == NULL ? NULL : "require-pfs stands alone";
	} else if (strcmp(rule, "from") == 0) {
		if (word == NULL)
			return "from needs a network";
		for (; word != NULL && problem == NULL; word = strtok_r(NULL, BLANKS, &rest))
			problem = parse_network(rules, word);
		return problem;
	} else if (strcmp(rule, "command") == 0) {
		if (rules->command[0] != NULL || word == NULL)
			return word == NULL ? "command needs a program" : "a second command";
		for (; word != NULL && count < RULES_WORDS; word = strtok_r(NULL, BLANKS, &rest))
			rules->command[count++] = word;
		return word == NULL ? NULL : "command has too many words";
	} else
		return "unknown rule (known: expires, require-pfs, from, command)";
	if (problem == NULL && strtok_r(NULL, BLANKS, &rest) != NULL)
		problem = "too many words";
	return problem;
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
