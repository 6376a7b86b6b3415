#ifndef SPIPE_TITLE_H
#define SPIPE_TITLE_H

#include <stddef.h>

/*
 * What ps(1) shows of a process. The kernel reads it from where the command line and, behind it,
 * the environment were when the program started.
 */
struct title {
	char *place; /* NULL: none was taken */
	size_t size;
};

/*
 * Take over the area ps reads, after copying the command line and environment elsewhere. Returns
 * the copy of argv, or NULL if memory ran out.
 */
char **title_take(struct title *, int argc, char **argv);

/* Show a printf-style text instead of the command line, cut to what there is room for. */
void title_set(const struct title *, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
