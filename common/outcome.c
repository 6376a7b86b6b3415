#include "outcome.h"

#include <stdarg.h>
#include <stdio.h>

int fail(struct outcome *outcome, int status, const char *format, ...)
{
	va_list arguments;

	outcome->status = status;
	va_start(arguments, format);
	vsnprintf(outcome->reason, sizeof(outcome->reason), format, arguments);
	va_end(arguments);
	return -1;
}
