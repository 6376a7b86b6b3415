#include "parse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wait.h"

#define SECONDS_MOST 1000000000.0

bool parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *number)
{
	if (*text == '\0' || strspn(text, "0123456789") != strlen(text) ||
	    (text[0] == '0' && text[1] != '\0'))
		return false;
	errno = 0;
	*number = strtoull(text, NULL, 10);
	return errno == 0 && *number >= least && *number <= most;
}

int64_t parse_seconds(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (strspn(text, "0123456789.") != strlen(text) || *end != '\0' || value > SECONDS_MOST ||
	    value * SECOND < 1)
		return -1;
	return (int64_t)(value * SECOND);
}

const char *file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}
