#include "title.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char **free_list(char **list)
{
	for (char **each = list; list != NULL && *each != NULL; each++)
		free(*each);
	free(list);
	return NULL;
}

/* Copy a list of `count` strings. Each string that begins at *end moves *end behind it. */
static char **copy_list(char **list, size_t count, char **end)
{
	char **copy = calloc(count + 1, sizeof(*copy));

	for (size_t i = 0; copy != NULL && i < count; i++) {
		if (*end == list[i])
			*end += strlen(list[i]) + 1;
		copy[i] = strdup(list[i]);
		if (copy[i] == NULL)
			copy = free_list(copy);
	}
	return copy;
}

char **title_take(struct title *title, int argc, char **argv)
{
	char *end = argv[0], **arguments = copy_list(argv, (size_t)argc, &end), **environment;
	size_t count = 0;

	while (environ[count] != NULL)
		count++;
	environment = copy_list(environ, count, &end);
	if (arguments == NULL || environment == NULL) {
		free_list(environment);
		return free_list(arguments);
	}
	environ = environment;
	*title = (struct title){ .place = argv[0], .size = (size_t)(end - argv[0]) };
	return arguments;
}

void title_set(const struct title *title, const char *format, ...)
{
	va_list arguments;

	if (title->place == NULL)
		return;
	memset(title->place, 0, title->size);
	va_start(arguments, format);
	vsnprintf(title->place, title->size, format, arguments);
	va_end(arguments);
}
