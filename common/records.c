#include "records.h"

#include <string.h>

#include "wait.h"

void records_init(struct records *records)
{
	memset(records, 0, sizeof(*records));
	records->next = NEVER;
}

/* The count of a source. When there are too many sources, the rest share the first. */
static struct record_count *find(struct records *records, const struct source_network *source,
    int64_t now)
{
	struct record_count *found = NULL;

	for (size_t i = 1; i < RECORDS_SOURCES; i++) {
		struct record_count *count = &records->count[i];

		if (count->since != 0 && source_equal(&count->source, source))
			return count;
		if (count->since == 0 && found == NULL)
			found = count;
	}
	if (found == NULL)
		found = &records->count[0];
	else
		found->source = *source;
	if (found->since == 0)
		found->since = now;
	if (records->next > found->since + RECORDS_SPAN)
		records->next = found->since + RECORDS_SPAN;
	return found;
}

static bool is_spent(const struct record_count *count)
{
	return count->made >= RECORDS_MOST;
}

bool records_spent(struct records *records, const struct source_network *source, int64_t now)
{
	return is_spent(find(records, source, now));
}

bool records_reserve(struct records *records, const struct source_network *source, int64_t now)
{
	struct record_count *count = find(records, source, now);

	if (is_spent(count))
		return false;
	count->made++;
	return true;
}

void records_release(struct records *records, const struct source_network *source, int64_t now)
{
	struct record_count *count = find(records, source, now);

	if (count->made > 0) /* else its time span is over */
		count->made--;
}

void records_leave_out(struct records *records, const struct source_network *source, int64_t now)
{
	find(records, source, now)->left_out++;
}

void records_sum_up(struct records *records, int64_t now, struct report *report)
{
	char text[64];

	if (now < records->next)
		return;
	records->next = NEVER;
	for (size_t i = 0; i < RECORDS_SOURCES; i++) {
		struct record_count *count = &records->count[i];
		int64_t end = count->since + RECORDS_SPAN;

		if (count->since == 0)
			continue;
		if (end > now) {
			if (end < records->next)
				records->next = end;
			continue;
		}
		source_format(&count->source, text, sizeof(text));
		if (count->left_out > 0)
			report_left_out(report, text, count->left_out);
		memset(count, 0, sizeof(*count));
	}
}
