/*
 * The rules beside a key. What is taken is what it says: dates, networks and commands are compared
 * with a second, slower reading of the same text.
 */

#include <arpa/inet.h>
#include <ctype.h>
#include <time.h>

#include "../../common/rules.h"
#include "fuzz.h"

/* Is the word a day as it must be written? */
static bool is_day(const char *word)
{
	static const char form[] = "dddd-dd-dd";
	size_t i;

	for (i = 0; form[i] != '\0'; i++)
		if (form[i] == 'd' ? !isdigit((unsigned char)word[i]) : word[i] != '-')
			return false;
	return word[i] == '\0';
}

/* What was taken from `text`: each of its lines makes sense by itself. */
static void check_lines(char *text, const struct rules *rules)
{
	const struct destination *destination = &rules->destination;
	size_t networks = 0, expires = 0, commands = 0, targets = 0, pfs = 0;
	char *line, *word, *rest;

	while ((line = strsep(&text, "\n")) != NULL) {
		word = strtok_r(line, " \t\r", &rest);
		if (word == NULL || word[0] == '#')
			continue;
		if (strcmp(word, "expires") == 0) {
			struct tm day;
			char again[16];
			time_t start = rules->expires - 86400;

			word = strtok_r(NULL, " \t\r", &rest);
			CHECK(word != NULL && is_day(word));
			gmtime_r(&start, &day);
			strftime(again, sizeof(again), "%Y-%m-%d", &day);
			CHECK(strcmp(word, again) == 0);
			expires++;
		} else if (strcmp(word, "from") == 0) {
			while (strtok_r(NULL, " \t\r", &rest) != NULL)
				networks++;
		} else if (strcmp(word, "command") == 0) {
			size_t i;

			for (i = 0; (word = strtok_r(NULL, " \t\r", &rest)) != NULL; i++) {
				CHECK(i < RULES_WORDS && destination->command[i] != NULL);
				CHECK(strcmp(word, destination->command[i]) == 0);
			}
			CHECK(i > 0 && destination->command[i] == NULL);
			commands++;
		} else if (strcmp(word, "target") == 0) {
			struct address_text parts;

			word = strtok_r(NULL, " \t\r", &rest);
			CHECK(word != NULL && strcmp(word, destination->target) == 0);
			CHECK(address_split(&parts, word, false) == NULL);
			targets++;
		} else {
			CHECK(strcmp(word, "require-pfs") == 0);
			pfs++;
		}
	}
	CHECK(networks == rules->network_count);
	CHECK(expires == (rules->expires != 0) && commands == (destination->command != NULL));
	CHECK(targets == (destination->target != NULL) && commands + targets <= 1);
	CHECK((pfs > 0) == rules->require_pfs);
}

/* within(), bit by bit. */
static bool inside(const struct network *n, const struct address *a)
{
	if (n->base.family != a->family)
		return false;
	for (unsigned bit = 0; bit < n->bits; bit++)
		if (((n->base.ip[bit / 8] ^ a->ip[bit / 8]) & (0x80 >> bit % 8)) != 0)
			return false;
	return true;
}

static void check_client(const struct rules *rules, const struct address *a, bool pfs, time_t now)
{
	bool good = rules->network_count == 0;
	struct outcome outcome = { 0 };
	int result = rules_check(rules, a, pfs, now, &outcome);

	for (size_t i = 0; i < rules->network_count; i++)
		good |= inside(&rules->network[i], a);
	good &= rules->expires == 0 || now < rules->expires;
	good &= !rules->require_pfs || pfs;
	CHECK(result == (good ? 0 : -1) && outcome.status == (good ? 0 : 77));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rules *rules = calloc(1, sizeof(*rules));
	char copy[RULES_SIZE + 1] = "";
	struct address a;
	int line = -1;

	/* As rules_load reads it: no NUL, and not the longest. */
	if (size > 0 && size < RULES_SIZE && memchr(data, '\0', size) == NULL) {
		memcpy(rules->text, data, size);
		memcpy(copy, data, size);
	}
	if (rules_parse(rules, &line) != NULL) {
		CHECK(line >= 1 && line <= RULES_SIZE);
		free(rules);
		return 0;
	}
	for (size_t i = 0; i < rules->network_count; i++) {
		const struct network *n = &rules->network[i];

		CHECK(n->base.family == AF_INET || n->base.family == AF_INET6);
		CHECK(n->bits <= (n->base.family == AF_INET ? 32 : 128));
		check_client(rules, &n->base, true, 1);
		a = n->base;
		for (unsigned bit = 0; bit < (n->base.family == AF_INET ? 32U : 128U); bit += 3) {
			a.ip[bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
			check_client(rules, &a, true, 1);
		}
	}
	memset(&a, 0, sizeof(a));
	check_client(rules, &a, false, 1);
	check_client(rules, &a, true, rules->expires - 1);
	check_client(rules, &a, true, rules->expires);
	CHECK(rules->expires >= 0 && rules->expires % 86400 == 0);
	check_lines(copy, rules);
	free(rules);
	return 0;
}
