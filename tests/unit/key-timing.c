/*
 * Does the time to find a client's key tell which key it was, or whether it was one at all?
 *
 *	key-timing [keys [measurements]]
 *
 * Calls handshake_find_key over `keys` random keys (1,000) with proofs made with the first, the
 * middle one, the last and with none of them: so many times each (1,000), in random order, with
 * new nonces every time, timed in CPU time of the thread, so that what other programs do counts
 * little. The slowest tenth of all (interrupts) is left out, and each known key is compared with
 * the unknown one by Welch's t-test. Beyond noise would be |t| > 4.5, the bound that dudect uses:
 * then it measures again, and exits with 1 if that comes out the same way three times.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "handshake.h"
#include "secret.h"

#define CASES 4
#define TOO_MUCH 4.5
#define ROUNDS 3

static const char *const names[CASES] = { "first key", "middle key", "last key", "unknown key" };

static void die(const char *why)
{
	fprintf(stderr, "key-timing: %s\n", why);
	exit(2);
}

static void fill(void *out, size_t size)
{
	uint8_t *next = out;

	for (size_t part; size > 0; size -= part, next += part) {
		part = size < 256 ? size : 256;
		if (getentropy(next, part) != 0)
			die("no randomness");
	}
}

/* A client's first message in *h, made with `secret`. */
static void prove(struct handshake *h, const uint8_t secret[static KEY_SIZE])
{
	struct hmac_key key;

	fill(h->nonces, sizeof(h->nonces));
	fill(h->theirs, DH_SIZE);
	handshake_set_key(h, secret);
	hmac_key_set(&key, h->dhmac, HASH_SIZE);
	hmac(&key, h->theirs, DH_SIZE, NULL, 0, h->theirs + DH_SIZE);
	wipe(h->dhmac, sizeof(h->dhmac));
	wipe(&h->K, sizeof(h->K));
}

/* Newton's square root: libm is nothing that the programs, or we, are linked with. */
static double root(double x)
{
	double y = x > 1 ? x : 1;

	for (int i = 0; i < 100; i++)
		y = (y + x / y) / 2;
	return y;
}

static int64_t cpu_time(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t measure(const uint8_t (*secrets)[KEY_SIZE], size_t count, int which)
{
	static struct handshake h;
	uint8_t unknown[KEY_SIZE];
	long place = which == 0 ? 0 : which == 1 ? (long)count / 2 : (long)count - 1, found;
	int64_t start, end;

	fill(unknown, sizeof(unknown));
	prove(&h, which == CASES - 1 ? unknown : secrets[place]);
	start = cpu_time();
	found = handshake_find_key(&h, secrets, count);
	end = cpu_time();
	if (found != (which == CASES - 1 ? -1 : place))
		die("the wrong key was found");
	return end - start;
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

struct summary {
	double mean, variance;
	size_t count;
};

static struct summary summarize(const int64_t *times, size_t count, int64_t bound)
{
	struct summary s = { 0 };

	for (size_t i = 0; i < count; i++) {
		if (times[i] > bound)
			continue;
		double delta = (double)times[i] - s.mean;
		s.count++;
		s.mean += delta / (double)s.count;
		s.variance += delta * ((double)times[i] - s.mean);
	}
	if (s.count < 2)
		die("too few measurements");
	s.variance /= (double)(s.count - 1);
	return s;
}

/* One round. Returns the greatest |t| of a known key against the unknown one. */
static double run(const uint8_t (*secrets)[KEY_SIZE], size_t keys, int64_t *times, size_t each)
{
	size_t done[CASES] = { 0 }, total = CASES * each;
	int64_t *sorted = malloc(total * sizeof(*sorted));
	struct summary s[CASES];
	double worst = 0, t;
	uint8_t random;

	if (sorted == NULL)
		die("no memory");
	for (size_t i = 0; i < total; i++) {
		do
			fill(&random, 1);
		while (done[random % CASES] == each);
		times[(random % CASES) * each + done[random % CASES]++] = measure(secrets, keys,
		    random % CASES);
	}
	memcpy(sorted, times, total * sizeof(*sorted));
	qsort(sorted, total, sizeof(*sorted), compare);
	for (int i = 0; i < CASES; i++)
		s[i] = summarize(times + (size_t)i * each, each, sorted[total / 10 * 9]);
	free(sorted);
	for (int i = 0; i < CASES - 1; i++) {
		const struct summary *known = &s[i], *unknown = &s[CASES - 1];
		t = (known->mean - unknown->mean) /
		    root(known->variance / (double)known->count +
			unknown->variance / (double)unknown->count);
		printf("%-11s %9.1f us (sd %.1f, n %zu); unknown key %.1f us; difference %+.3f us, "
		       "t %+.2f\n",
		    names[i], known->mean / 1000, root(known->variance) / 1000, known->count,
		    unknown->mean / 1000, (known->mean - unknown->mean) / 1000, t);
		t = t < 0 ? -t : t;
		worst = t > worst ? t : worst;
	}
	return worst;
}

int main(int argc, char **argv)
{
	size_t keys = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
	size_t each = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000;
	uint8_t(*secrets)[KEY_SIZE];
	int64_t *times;

	if (keys < 3 || each < 20)
		die("usage: key-timing [keys [measurements]]");
	secrets = secret_alloc(keys * sizeof(*secrets));
	times = calloc(CASES * each, sizeof(*times));
	if (secrets == NULL || times == NULL)
		die("no memory");
	fill(secrets, keys * sizeof(*secrets));
	for (int i = 0; i < 20; i++)
		measure(secrets, keys, i % CASES); /* caches and clock speed settle */
	for (int round = 1; round <= ROUNDS; round++) {
		double worst = run(secrets, keys, times, each);
		printf("round %d: %zu keys, greatest |t| %.2f, bound %.1f\n", round, keys, worst,
		    TOO_MUCH);
		if (worst <= TOO_MUCH)
			return 0;
	}
	printf("the time to find a key depends on which it is\n");
	return 1;
}
