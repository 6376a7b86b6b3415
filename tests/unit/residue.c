/*
 * What functions that handle secrets leave behind on the stack, or in registers that a signal would copy there. Each
 * runs on a stack of its own, which is then searched for 16-byte pieces of the secrets that it had.
 *
 *	residue		one line for each piece that was found; exit status 0 if there is none
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "handshake.h"
#include "keys.h"
#include "packet.h"
#include "wait.h"

#define STACK (256 * 1024) /* bytes */
#define PIECE 16

static uint8_t *stack;
static int found;
static uint8_t secret[64];                  /* random; most functions take its first 32 bytes */
static char path[] = "/tmp/residue.XXXXXX"; /* a file that contains it */

static void on_signal(int number)
{
	(void)number;
}

/* Find pieces of `size` bytes at `wanted`, as they are or in the byte order of SHA256_CTX. */
__attribute__((no_sanitize("address"))) static int pieces(const uint8_t *wanted, size_t size)
{
	int count = 0;

	for (size_t i = 0; i + PIECE <= size; i += PIECE)
		for (size_t at = 0; at + PIECE <= STACK; at++) {
			size_t plain = 0, swapped = 0;

			while (plain < PIECE && stack[at + plain] == wanted[i + plain])
				plain++;
			while (swapped < PIECE && stack[at + swapped] == wanted[i + (swapped ^ 3)])
				swapped++;
			count += plain == PIECE || swapped == PIECE;
		}
	return count;
}

static void check(const char *name, const char *what, const void *wanted, size_t size)
{
	int count = pieces(wanted, size);

	if (count == 0)
		return;
	printf("%s leaves %d pieces of %s\n", name, count, what);
	found = 1;
}

static void (*function)(void);

static void on_stack(int number)
{
	(void)number;
	function();
}

/* Call `wanted` on a clean stack: that of signal handlers. */
static void run(void (*wanted)(void))
{
	struct sigaction action = { .sa_handler = on_stack, .sa_flags = SA_ONSTACK };
	stack_t there = { .ss_sp = stack, .ss_size = STACK };

	memset(stack, 0, STACK);
	function = wanted;
	if (sigaltstack(&there, NULL) != 0 || sigaction(SIGUSR1, &action, NULL) != 0 ||
	    raise(SIGUSR1) != 0)
		exit(2);
}

/* What a function that wipes nothing leaves must be found. */
static void leave_secret(void)
{
	uint8_t copy[sizeof(secret)];

	memcpy(copy, secret, sizeof(copy));
	__asm__ volatile("" : : "r"(copy) : "memory");
}

static struct hmac_key key;
static uint8_t mac[HASH_SIZE];

static void set_key(void)
{
	hmac_key_set(&key, secret, KEY_SIZE);
}

static void make_mac(void)
{
	hmac(&key, "text", 4, NULL, 0, mac);
}

static void check_hmac(void)
{
	uint8_t inner[KEY_SIZE], outer[KEY_SIZE];

	run(set_key);
	for (int i = 0; i < KEY_SIZE; i++) { /* not before: a register could keep some of it */
		inner[i] = secret[i] ^ 0x36;
		outer[i] = secret[i] ^ 0x5c;
	}
	check("hmac_key_set", "its key", secret, KEY_SIZE);
	check("hmac_key_set", "its inner key", inner, sizeof(inner));
	check("hmac_key_set", "its outer key", outer, sizeof(outer));
	run(make_mac);
	check("hmac", "its result", mac, sizeof(mac));
}

static struct handshake handshake;

static void find_key(void)
{
	uint8_t keys[2][KEY_SIZE] = { { 1 } };

	memcpy(keys[1], secret, KEY_SIZE);
	if (handshake_find_key(&handshake, keys, 2) != 1)
		exit(2);
	explicit_bzero(keys, sizeof(keys));
}

/* The server's search for the key of a client that has proved it. */
static void check_find_key(void)
{
	static struct handshake client;

	handshake_set_key(&client, secret);
	if (handshake_prove(&client, client.dhmac) != 0)
		exit(2);
	memcpy(handshake.theirs, client.ours, PROOF_SIZE);
	run(find_key);
	check("handshake_find_key", "the client's key", secret, KEY_SIZE);
	check("handshake_find_key", "its derived key", client.dhmac, sizeof(client.dhmac));
	check("handshake_find_key", "its inner HMAC key", client.K.inner.h, HASH_SIZE);
	check("handshake_find_key", "its outer HMAC key", client.K.outer.h, HASH_SIZE);
}

static struct keyring ring;

static void load_file(void)
{
	const char *paths[] = { path };
	struct outcome outcome = { 0 };

	if (keyring_load(&ring, paths, 1, NULL, false, NEVER, &outcome) != 0)
		exit(2);
	raise(SIGUSR2); /* the kernel copies all registers to the stack */
}

static void check_key_file(void)
{
	int fd = mkstemp(path);

	if (fd == -1 || write(fd, secret, sizeof(secret)) != sizeof(secret) || close(fd) != 0)
		exit(2);
	run(load_file);
	check("keyring_load", "the file", secret, sizeof(secret));
	check("keyring_load", "the key", ring.secret[0], KEY_SIZE);
	keyring_wipe(&ring);
	unlink(path);
}

static uint8_t file[256];
static size_t file_size;
static SHA256_CTX hashing;
static uint8_t hash[HASH_SIZE];

static void hash_and_clear(void)
{
	SHA256_Init(&hashing);
	SHA256_Update(&hashing, file, file_size);
	SHA256_Final(hash, &hashing);
	hash_clear_registers(file_size);
	raise(SIGUSR2);
}

/* The registers after hashes of different sizes, for which libcrypto has different code. */
static void check_registers(void)
{
	if (getentropy(file, sizeof(file)) != 0)
		exit(2);
	for (file_size = KEY_SIZE; file_size <= sizeof(file); file_size += 7) {
		run(hash_and_clear);
		check("hash_clear_registers", "what was hashed", file, file_size / PIECE * PIECE);
		check("hash_clear_registers", "the hash", hash, sizeof(hash));
	}
}

static void check_packet_state(void)
{
	struct packet_state state = { 0 };
	const uint8_t *bytes = (const uint8_t *)&state;
	int left = 0;

	if (packet_init(&state, secret, secret + CIPHER_KEY_SIZE) != 0)
		exit(2);
	packet_done(&state);
	for (size_t i = 0; i < sizeof(state); i++)
		left |= bytes[i];
	if (left != 0) {
		printf("packet_done leaves a part of the state\n");
		found = 1;
	}
}

int main(void)
{
	stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack == MAP_FAILED || getentropy(secret, sizeof(secret)) != 0)
		return 2;
	signal(SIGUSR2, on_signal);
	run(leave_secret);
	if (pieces(secret, sizeof(secret)) < (int)sizeof(secret) / PIECE) {
		printf("nothing is found\n");
		return 1;
	}
	check_hmac();
	check_find_key();
	check_key_file();
	check_registers();
	check_packet_state();
	return found;
}
