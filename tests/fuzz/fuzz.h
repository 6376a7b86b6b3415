#ifndef SPIPE_FUZZ_H
#define SPIPE_FUZZ_H

/*
 * What the harnesses share. Each is one file with an LLVMFuzzerTestOneInput, for libFuzzer and
 * AFL++ (see tests/fuzz/run). Built with -DREPLAY it is a program that runs the files it is given,
 * with any compiler.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An invariant. A broken one is a finding, like a crash. */
#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/* The input as it is used up; zeros follow its end. */
struct input {
	const uint8_t *next;
	size_t left;
};

static inline uint8_t take_byte(struct input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->next++;
}

static inline void take(struct input *in, void *out, size_t size)
{
	size_t most = size < in->left ? size : in->left;

	memset(out, 0, size);
	if (most > 0)
		memcpy(out, in->next, most);
	in->next += most;
	in->left -= most;
}

/* The next string: up to a NUL or the end, in a buffer of `size` bytes. */
static inline char *take_text(struct input *in, char *out, size_t size)
{
	size_t length = strnlen((const char *)in->next, in->left), kept;

	kept = length < size ? length : size - 1;
	if (kept > 0)
		memcpy(out, in->next, kept);
	out[kept] = '\0';
	if (length < in->left)
		length++;
	in->next += length;
	in->left -= length;
	return out;
}

#ifdef REPLAY
int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		FILE *file = fopen(argv[i], "rb");
		size_t size = 0, room = 1 << 20;
		uint8_t *data = malloc(room), *exact;

		CHECK(file != NULL && data != NULL);
		size = fread(data, 1, room, file);
		fclose(file);
		/* No byte more than its size, so that a sanitizer sees the end. */
		exact = malloc(size > 0 ? size : 1);
		CHECK(exact != NULL);
		memcpy(exact, data, size);
		free(data);
		LLVMFuzzerTestOneInput(exact, size);
		free(exact);
	}
	printf("%d inputs\n", argc - 1);
	return 0;
}
#endif

#endif
