#include "records.h"

#include <string.h>

#include "wait.h"

void records_init(struct records *records)
{
	memset(records, 0, sizeof(*records));
	records->sources = 1; /* the first count is for all that have none of their own */
	records->end = NEVER;
}

static struct record_count *find(struct records *records, const struct source_network *source,
    int64_t now)
{
	if (records->end == NEVER)
		records->end = now + RECORDS_SPAN;
	for (size_t i = 0; i < records->sources; i++)
		if (source_equal(&records->count[i].source, source))
			return &records->count[i];
	if (records->sources == RECORDS_SOURCES)
		return &records->count[0];
	records->count[records->sources].source = *source;
	return &records->count[records->sources++];
}

static bool is_spent(const struct records *records, const struct record_count *count)
{
	return count->made >= RECORDS_MOST || records->made >= RECORDS_TOTAL;
}

bool records_spent(struct records *records, const struct source_network *source, int64_t now)
{
	return is_spent(records, find(records, source, now));
}

bool records_reserve(struct records *records, const struct source_network *source, int64_t now)
{
	struct record_count *count = find(records, source, now);

	if (is_spent(records, count))
		return false;
	count->made++;
	records->made++;
	return true;
}

void records_release(struct records *records, const struct source_network *source, int64_t now)
{
	struct record_count *count = find(records, source, now);

	if (count->made == 0) /* its time span is over */
		return;
	count->made--;
	records->made--;
}

void records_leave_out(struct records *records, const struct source_network *source, int64_t now)
{
	find(records, source, now)->left_out++;
}

void records_sum_up(struct records *records, int64_t now, struct report *report)
{
	char text[64];

	if (now < records->end)
		return;
	for (size_t i = 0; i < records->sources; i++) {
		source_format(&records->count[i].source, text, sizeof(text));
		if (records->count[i].left_out > 0)
			report_left_out(report, text, records->count[i].left_out);
	}
	records_init(records);
}
