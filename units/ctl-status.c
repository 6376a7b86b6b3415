/* spipectl status: what each tunnel does, and has done. */

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ctl-tunnels.h"
#include "ctl.h"

#define TEXT_SIZE 48 /* of a time or a number of bytes */
#define WIDTH 80     /* of a terminal */

/* --- for people -------------------------------------------------------------------------- */

/* Points in time as "2026-11-25 14:03", local. */
static const char *format_time(int64_t seconds, char text[static TEXT_SIZE])
{
	time_t time = (time_t)seconds;
	struct tm local;

	snprintf(text, TEXT_SIZE, "-");
	if (seconds != 0 && localtime_r(&time, &local) != NULL)
		strftime(text, TEXT_SIZE, "%Y-%m-%d %H:%M", &local);
	return text;
}

/* The same in ten characters: "14:03" if it is less than a day ago, else "2026-11-25". */
static const char *format_short_time(int64_t seconds, char text[static TEXT_SIZE])
{
	bool recent = seconds > (int64_t)time(NULL) - 24 * 60 * 60;

	if (*format_time(seconds, text) == '-')
		return text;
	text[strlen("2026-11-25")] = '\0';
	return recent ? text + strlen("2026-11-25 ") : text;
}

/* "59s", "59m", "23h59m", "99d23h" */
static const char *format_age(uint64_t seconds, char text[static TEXT_SIZE])
{
	uint64_t minutes = seconds / 60, hours = minutes / 60;

	if (minutes == 0)
		snprintf(text, TEXT_SIZE, "%" PRIu64 "s", seconds);
	else if (hours == 0)
		snprintf(text, TEXT_SIZE, "%" PRIu64 "m", minutes);
	else if (hours < 24)
		snprintf(text, TEXT_SIZE, "%" PRIu64 "h%" PRIu64 "m", hours, minutes % 60);
	else
		snprintf(text, TEXT_SIZE, "%" PRIu64 "d%" PRIu64 "h", hours / 24, hours % 24);
	return text;
}

/* "999", "1.0k", "999.9k", "1.0M" ... with powers of 1000 */
static const char *format_bytes(uint64_t bytes, char text[static TEXT_SIZE])
{
	const char *unit = "kMGTPE";
	uint64_t scale = 1000;

	if (bytes < scale) {
		snprintf(text, TEXT_SIZE, "%" PRIu64, bytes);
		return text;
	}
	for (; bytes / scale >= 1000; scale *= 1000)
		unit++;
	snprintf(text, TEXT_SIZE, "%" PRIu64 ".%" PRIu64 "%c", bytes / scale,
	    bytes % scale / (scale / 10), *unit);
	return text;
}

/* Print the last word of a line of which `used` columns are taken: on the next line if need be. */
static void print_last(int used, const char *word)
{
	printf(used + (int)strlen(word) > WIDTH ? "\n        %s\n" : "%s\n", word);
}

static void print_line(const struct tunnel_state *tunnel)
{
	char since[TEXT_SIZE];

	printf("%-15s %-4s %-9s %-10s %4zu %9zu %7" PRIu64 " %7" PRIu64 " %7" PRIu64 "\n",
	    tunnel->name, tunnel->role, tunnel->state, format_short_time(tunnel->since, since),
	    tunnel_live(tunnel, false), tunnel_live(tunnel, true), tunnel->served, tunnel->failed,
	    tunnel->refused);
}

static void print_live(const struct tunnel_state *tunnel)
{
	char age[TEXT_SIZE], in[TEXT_SIZE], out[TEXT_SIZE];
	int used;

	printf("\nConnections now: %zu, strangers: %zu\n", tunnel_live(tunnel, false),
	    tunnel_live(tunnel, true));
	if (tunnel->live_count > 0)
		printf("      AGE      IN     OUT  KEY             PEER\n");
	for (size_t i = 0; i < tunnel->live_count; i++) {
		const struct live *live = &tunnel->live[i];

		used = printf("  %7s %7s %7s  %-15s ", format_age(live->seconds, age),
		    format_bytes(live->bytes_in, in), format_bytes(live->bytes_out, out),
		    live->key != NULL ? live->key : "(stranger)");
		print_last(used, live->peer);
	}
}

static void print_ended(const struct tunnel_state *tunnel)
{
	uint64_t count;

	printf("\nConnections that have ended: %" PRIu64 " served, %" PRIu64 " failed, %" PRIu64
	       " refused\n",
	    tunnel->served, tunnel->failed, tunnel->refused);
	for (size_t r = 0; r < REPORT_RESULTS; r++) {
		count = tunnel_ended(tunnel, r);
		if (count > 0)
			printf("  %10" PRIu64 " %s\n", count, report_results[r].word);
	}
	if (tunnel->left_out > 0)
		printf("  %10" PRIu64 " refused without a record\n", tunnel->left_out);
}

static void print_keys(const struct tunnel_state *tunnel)
{
	char last[TEXT_SIZE], in[TEXT_SIZE], out[TEXT_SIZE];
	int used;

	if (tunnel->key_count > 1)
		printf("\n    ENDED      IN     OUT  LAST USED         KEY             FROM\n");
	for (size_t i = 1; i < tunnel->key_count; i++) {
		const struct key_use *key = &tunnel->keys[i];

		used = printf("  %7" PRIu64 " %7s %7s  %-16s  %-15s ", key_use_ended(key),
		    format_bytes(key->bytes_in, in), format_bytes(key->bytes_out, out),
		    format_time(key->last, last), key->name);
		print_last(used, key->peer);
	}
}

static void print_details(const struct tunnel_state *tunnel)
{
	const char *problem = tunnel_problem(tunnel);
	char since[TEXT_SIZE];

	printf("%s", tunnel->name);
	if (*tunnel->role != '\0')
		printf(": %s from %s to %s", tunnel->role, tunnel->listen, tunnel->target);
	printf("\n%s since %s\n", tunnel->state, format_time(tunnel->since, since));
	if (*problem != '\0')
		printf("%s\n", problem);
	print_live(tunnel);
	print_ended(tunnel);
	print_keys(tunnel);
}

static void print_text(const struct tunnels *tunnels, const struct tunnel_state *only)
{
	if (only != NULL) {
		print_details(only);
		return;
	}
	printf("%-15s %-4s %-9s %-10s %4s %9s %7s %7s %7s\n", "TUNNEL", "ROLE", "STATE", "SINCE",
	    "NOW", "STRANGERS", "SERVED", "FAILED", "REFUSED");
	for (size_t i = 0; i < tunnels->count; i++)
		if (tunnel_is_here(&tunnels->tunnel[i]))
			print_line(&tunnels->tunnel[i]);
}

/* --- JSON -------------------------------------------------------------------------------- */

static void put_text(const char *name, const char *value)
{
	printf("\"%s\":", name);
	ctl_put_quoted(stdout, value);
	putchar(',');
}

static void put_number(const char *name, uint64_t value, const char *after)
{
	printf("\"%s\":%" PRIu64 "%s", name, value, after);
}

static void put_live(const struct live *live)
{
	put_text("peer", live->peer);
	if (live->key != NULL)
		put_text("key", live->key);
	put_number("seconds", live->seconds, ",");
	put_number("bytes_in", live->bytes_in, ",");
	put_number("bytes_out", live->bytes_out, "}");
}

static void put_lives(const struct tunnel_state *tunnel, const char *name, bool strangers)
{
	const char *before = "{";

	printf("\"%s\":[", name);
	for (size_t i = 0; i < tunnel->live_count; i++)
		if ((tunnel->live[i].key == NULL) == strangers) {
			fputs(before, stdout);
			put_live(&tunnel->live[i]);
			before = ",{";
		}
	fputs("],", stdout);
}

static void put_results(const struct tunnel_state *tunnel)
{
	fputs("\"results\":{", stdout);
	for (size_t r = 0; r < REPORT_RESULTS; r++)
		put_number(report_results[r].word, tunnel_ended(tunnel, r), ",");
	put_number("left_out", tunnel->left_out, "},");
}

static void put_keys(const struct tunnel_state *tunnel)
{
	fputs("\"keys\":[", stdout);
	for (size_t i = 1; i < tunnel->key_count; i++) {
		const struct key_use *key = &tunnel->keys[i];

		fputs(i > 1 ? ",{" : "{", stdout);
		put_text("name", key->name);
		put_text("id", key->id);
		put_text("last_peer", key->peer);
		put_number("last_used", (uint64_t)key->last, ",");
		put_number("connections", key_use_ended(key), ",");
		put_number("bytes_in", key->bytes_in, ",");
		put_number("bytes_out", key->bytes_out, "}");
	}
	fputs("]}", stdout);
}

static void put_tunnel(const struct tunnel_state *tunnel, bool details)
{
	putchar('{');
	put_text("name", tunnel->name);
	put_text("role", tunnel->role);
	put_text("listen", tunnel->listen);
	put_text("target", tunnel->target);
	put_text("state", tunnel->state);
	put_number("since", (uint64_t)tunnel->since, ",");
	if (details)
		put_text("problem", tunnel_problem(tunnel));
	put_lives(tunnel, "connections", false);
	put_lives(tunnel, "strangers", true);
	put_number("served", tunnel->served, ",");
	put_number("failed", tunnel->failed, ",");
	put_number("refused", tunnel->refused, ",");
	put_results(tunnel);
	put_keys(tunnel);
}

static void print_json(const struct tunnels *tunnels, const struct tunnel_state *only)
{
	const char *before = "";

	fputs("{\"tunnels\":[", stdout);
	for (size_t i = 0; i < tunnels->count; i++) {
		const struct tunnel_state *tunnel = &tunnels->tunnel[i];

		if (only != NULL ? tunnel != only : !tunnel_is_here(tunnel))
			continue;
		fputs(before, stdout);
		put_tunnel(tunnel, only != NULL);
		before = ",\n";
	}
	puts("]}");
}

int ctl_status(int argc, char **argv, struct outcome *outcome)
{
	struct tunnels tunnels = { 0 };
	const struct tunnel_state *only = NULL;
	const char *name = NULL, *since = NULL;
	bool json = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (strcmp(argv[i], "--since") == 0 && i + 1 < argc)
			since = argv[++i];
		else if (strncmp(argv[i], "--since=", 8) == 0)
			since = argv[i] + 8;
		else if (argv[i][0] != '-' && name == NULL)
			name = argv[i];
		else
			return fail(outcome, EX_USAGE,
			    "status takes: [--json] [--since TIME] [NAME]; see --help");
	}
	tunnels_read(&tunnels);
	if (tunnels_read_journal(&tunnels, since, NULL, outcome) != 0)
		return -1;
	if (name != NULL && (only = tunnels_find(&tunnels, name)) == NULL)
		return fail(outcome, EX_NOINPUT, "no tunnel has the name %s", name);
	if (json)
		print_json(&tunnels, only);
	else
		print_text(&tunnels, only);
	return only == NULL || tunnel_is_listening(only) ? 0 : EX_UNAVAILABLE;
}
