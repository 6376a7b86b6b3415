#include "outcome.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int fail(struct outcome *outcome, int status, const char *format, ...)
{
	va_list arguments;

	outcome->status = status;
	va_start(arguments, format);
	vsnprintf(outcome->reason, sizeof(outcome->reason), format, arguments);
	va_end(arguments);
	return -1;
}

int fail_signal(struct outcome *outcome, int number, const char *when)
{
	outcome->signal = number;
	return fail(outcome, EX_TEMPFAIL, "ended by signal %d (%s)%s", number, strsignal(number),
	    when);
}
