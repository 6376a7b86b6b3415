/*
 * An LD_PRELOAD library that makes one call of the program fail. It needs no system call of its own after its start, so
 * it works behind the program's sandbox.
 *
 *	FAULT_MAP=FILE		shared with the one who runs this: see struct map
 *	FAULT=WHO,NAME,N,KIND	in the process WHO, the Nth call (from 1) of NAME fails. KIND: an errno; 0: the
 *				failure value, errno as it is; -1: read or write 1 byte; -2: works, but SIGTERM comes
 *				first; -3: EAGAIN, after some time
 *
 * WHO: 0 is the program, 1 what it forks first, 2 what that forks. RELOADED is the program that a listener executes on
 * SIGHUP. All their calls are recorded, whether one fails or not; those of a listener's other children are not. What
 * else the program executes is left alone.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define CALLS_MOST 30000
#define RELOADED 10
#define OTHERS 20

struct map {
	uint32_t hit;   /* the call that was to fail did */
	uint32_t count; /* calls recorded */
	struct {
		char name[26];
		uint16_t who;
		uint32_t site; /* where in the program it returns to; 0: in a library */
	} calls[CALLS_MOST];
};

static struct map *map;
static uintptr_t base; /* of the program */
static int who, fault_who, fault_kind, fault_number, seen;
static char fault_name[32], again[4][256]; /* the environment of RELOADED */

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("FAULT_MAP"), *fault = getenv("FAULT"),
		   *number = getenv("FAULT_WHO");
	struct map *shared;
	int fd;

	base = getauxval(AT_PHDR) - sizeof(Elf64_Ehdr);
	if (fault != NULL)
		sscanf(fault, "%d,%31[^,],%d,%d", &fault_who, fault_name, &fault_number,
		    &fault_kind);
	if (number != NULL)
		who = atoi(number);
	snprintf(again[0], sizeof(again[0]), "LD_PRELOAD=%s", getenv("LD_PRELOAD"));
	snprintf(again[1], sizeof(again[1]), "FAULT_MAP=%s", path);
	snprintf(again[2], sizeof(again[2]), "FAULT=%s", fault == NULL ? "" : fault);
	snprintf(again[3], sizeof(again[3]), "FAULT_WHO=%d", RELOADED);
	fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
	if (fd == -1)
		return;
	shared = mmap(NULL, sizeof(*map), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	unsetenv("LD_PRELOAD");
	unsetenv("FAULT_MAP");
	unsetenv("FAULT");
	unsetenv("FAULT_WHO");
	if (shared != MAP_FAILED)
		map = shared; /* from here on calls count */
}

/* Record a call. True when it is the one that fails; errno is then set, unless it is to be short. */
static int hit(const char *name, const void *from)
{
	uintptr_t site = (uintptr_t)from - base;
	uint32_t i;

	if (map == NULL || who >= OTHERS)
		return 0;
	i = __atomic_fetch_add(&map->count, 1, __ATOMIC_RELAXED);
	if (i < CALLS_MOST) {
		strncpy(map->calls[i].name, name, sizeof(map->calls[i].name) - 1);
		map->calls[i].who = (uint16_t)who;
		map->calls[i].site = site < 1 << 20 ? (uint32_t)site : 0;
	}
	if (who != fault_who || strcmp(name, fault_name) != 0 || ++seen != fault_number)
		return 0;
	map->hit = 1;
	if (fault_kind == -2) {
		kill(getpid(), SIGTERM);
		return 0;
	}
	if (fault_kind == -3) {
		usleep(150000);
		errno = EAGAIN;
	}
	if (fault_kind > 0)
		errno = fault_kind;
	return 1;
}

#define FROM __builtin_return_address(0)

/* A call that returns `bad` when it fails. */
/* clang-format off */
#define CALL(type, bad, name, parameters, arguments) \
	type name parameters \
	{ \
		static type(*real) parameters; \
		if (real == NULL) \
			real = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
		return hit(#name, FROM) ? bad : real arguments; \
	}

/* One that moves `size` bytes, and can be short. */
#define MOVE(name, parameters, arguments) \
	ssize_t name parameters \
	{ \
		static ssize_t(*real) parameters; \
		if (real == NULL) \
			real = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name); \
		if (hit(#name, FROM)) { \
			if (fault_kind != -1) \
				return -1; \
			size = size > 1 ? 1 : size; \
		} \
		return real arguments; \
	}

MOVE(read, (int fd, void *data, size_t size), (fd, data, size))
MOVE(write, (int fd, const void *data, size_t size), (fd, data, size))
MOVE(recv, (int fd, void *data, size_t size, int flags), (fd, data, size, flags))
MOVE(send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags))
CALL(ssize_t, -1, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags))
CALL(int, -1, dup2, (int a, int b), (a, b))
CALL(int, -1, dup3, (int a, int b, int flags), (a, b, flags))
CALL(int, -1, socketpair, (int d, int t, int p, int fds[2]), (d, t, p, fds))
CALL(int, -1, socket, (int d, int t, int p), (d, t, p))
CALL(int, -1, connect, (int fd, const struct sockaddr *a, socklen_t size), (fd, a, size))
CALL(int, -1, getsockopt, (int fd, int l, int n, void *v, socklen_t *s), (fd, l, n, v, s))
CALL(int, -1, setsockopt, (int fd, int l, int n, const void *v, socklen_t s), (fd, l, n, v, s))
CALL(int, -1, getpeername, (int fd, struct sockaddr *a, socklen_t *s), (fd, a, s))
CALL(int, -1, getsockname, (int fd, struct sockaddr *a, socklen_t *s), (fd, a, s))
CALL(int, -1, fstat, (int fd, struct stat *st), (fd, st))
CALL(int, -1, fstatat, (int fd, const char *path, struct stat *st, int flags), (fd, path, st, flags))
CALL(int, -1, access, (const char *path, int mode), (path, mode))
CALL(int, -1, faccessat, (int fd, const char *path, int mode, int flags), (fd, path, mode, flags))
CALL(ssize_t, -1, readlink, (const char *path, char *to, size_t size), (path, to, size))
CALL(DIR *, NULL, opendir, (const char *path), (path))
CALL(struct dirent *, NULL, readdir, (DIR *directory), (directory))
CALL(int, 0, isatty, (int fd), (fd))
CALL(int, -1, tcgetattr, (int fd, struct termios *modes), (fd, modes))
CALL(int, -1, poll, (struct pollfd *p, nfds_t n, int t), (p, n, t))
CALL(int, -1, ppoll, (struct pollfd *p, nfds_t n, const struct timespec *t, const sigset_t *s), (p, n, t, s))
CALL(int, -1, kill, (pid_t pid, int number), (pid, number))
CALL(int, -1, setpgid, (pid_t pid, pid_t group), (pid, group))
CALL(int, -1, waitid, (idtype_t type, id_t id, siginfo_t *info, int flags), (type, id, info, flags))
CALL(pid_t, -1, waitpid, (pid_t pid, int *status, int flags), (pid, status, flags))
CALL(int, -1, accept4, (int fd, struct sockaddr *a, socklen_t *s, int flags), (fd, a, s, flags))
CALL(int, -1, bind, (int fd, const struct sockaddr *a, socklen_t size), (fd, a, size))
CALL(int, fault_kind > 0 ? EAI_SYSTEM : EAI_FAIL, getaddrinfo, (const char *host, const char *port,
    const struct addrinfo *hints, struct addrinfo **found), (host, port, hints, found))
CALL(ssize_t, -1, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
CALL(int, -1, memfd_create, (const char *name, unsigned flags), (name, flags))
CALL(off_t, -1, lseek, (int fd, off_t offset, int whence), (fd, offset, whence))
CALL(int, EAI_AGAIN, getnameinfo, (const struct sockaddr *a, socklen_t size, char *host, socklen_t most, char *port,
    socklen_t most_port, int flags), (a, size, host, most, port, most_port, flags))
CALL(FILE *, NULL, open_memstream, (char **text, size_t *size), (text, size))
CALL(FILE *, NULL, fdopen, (int fd, const char *mode), (fd, mode))
CALL(int, -1, signalfd, (int fd, const sigset_t *set, int flags), (fd, set, flags))
CALL(int, -1, sigaction, (int n, const struct sigaction *a, struct sigaction *old), (n, a, old))
CALL(int, -1, sigprocmask, (int how, const sigset_t *set, sigset_t *old), (how, set, old))
CALL(int, -1, madvise, (void *p, size_t size, int advice), (p, size, advice))
CALL(int, -1, mlock2, (const void *p, size_t size, unsigned flags), (p, size, flags))
CALL(int, -1, munmap, (void *p, size_t size), (p, size))
CALL(void *, MAP_FAILED, mmap, (void *p, size_t n, int prot, int flags, int fd, off_t o), (p, n, prot, flags, fd, o))
CALL(int, -1, getentropy, (void *p, size_t size), (p, size))
CALL(int, -1, setenv, (const char *n, const char *v, int over), (n, v, over))
CALL(int, -1, scandir, (const char *path, struct dirent ***list, int (*filter)(const struct dirent *),
    int (*compare)(const struct dirent **, const struct dirent **)), (path, list, filter, compare))
CALL(char *, NULL, strdup, (const char *text), (text))

typedef void any; /* libcrypto's types do not matter here */
CALL(int, 0, OPENSSL_init_crypto, (uint64_t options, const any *settings), (options, settings))
CALL(any *, NULL, BN_CTX_new, (void), ())
CALL(any *, NULL, BN_MONT_CTX_new, (void), ())
CALL(any *, NULL, BN_new, (void), ())
CALL(any *, NULL, BN_get_rfc3526_prime_2048, (any *n), (n))
CALL(any *, NULL, BN_bin2bn, (const unsigned char *data, int size, any *n), (data, size, n))
CALL(int, -1, BN_bn2binpad, (const any *n, unsigned char *data, int size), (n, data, size))
CALL(int, 0, BN_set_word, (any *n, unsigned long word), (n, word))
CALL(int, 0, BN_MONT_CTX_set, (any *mont, const any *n, any *ctx), (mont, n, ctx))
CALL(int, 0, BN_mod_exp_mont_consttime, (any *r, const any *a, const any *p, const any *m, any *ctx, any *mont),
    (r, a, p, m, ctx, mont))
CALL(any *, NULL, EVP_CIPHER_meth_dup, (const any *cipher), (cipher))
CALL(any *, NULL, EVP_CIPHER_CTX_new, (void), ())
CALL(int, 0, EVP_EncryptInit_ex, (any *ctx, const any *cipher, any *engine, const unsigned char *key,
    const unsigned char *iv), (ctx, cipher, engine, key, iv))
CALL(int, 0, EVP_EncryptUpdate, (any *ctx, unsigned char *out, int *n, const unsigned char *in, int size),
    (ctx, out, n, in, size))
/* clang-format on */

/* These two do what they are asked to and say that they did not, as the kernel's do. */
#define DONE(name, parameters, arguments) \
	int name parameters \
	{ \
		static int(*real) parameters; \
		int failed = hit(#name, FROM), result; \
		if (real == NULL) \
			real = (int(*) parameters)dlsym(RTLD_NEXT, #name); \
		result = real arguments; \
		if (failed && fault_kind > 0) \
			errno = fault_kind; \
		return failed ? -1 : result; \
	}

DONE(close, (int fd), (fd))
DONE(shutdown, (int fd, int how), (fd, how))

pid_t fork(void)
{
	static pid_t (*real)(void);
	static int forks;
	pid_t pid;

	if (real == NULL)
		real = (pid_t(*)(void))dlsym(RTLD_NEXT, "fork");
	if (hit("fork", FROM))
		return -1;
	pid = real();
	if (pid == 0) {
		who = who == RELOADED || (who == 0 && forks > 0) ? OTHERS : who + 1;
		seen = forks = 0;
	}
	forks += pid > 0;
	return pid;
}

int execvp(const char *path, char *const argv[])
{
	static int (*real)(const char *, char *const *);
	int result;

	if (real == NULL)
		real = (int (*)(const char *, char *const *))dlsym(RTLD_NEXT, "execvp");
	if (hit("execvp", FROM))
		return -1;
	for (int i = 0; i < 4 && who == 0; i++)
		putenv(again[i]);
	result = real(path, argv);
	for (int i = 0; i < 4 && who == 0; i++)
		putenv(i == 0    ? "LD_PRELOAD"
			: i == 1 ? "FAULT_MAP"
			: i == 2 ? "FAULT"
				 : "FAULT_WHO");
	return result;
}

/* What poll and dprintf are with _FORTIFY_SOURCE. */
int __poll_chk(struct pollfd *slots, nfds_t count, int time, size_t size)
{
	static int (*real)(struct pollfd *, nfds_t, int);

	if (real == NULL)
		real = (int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll");
	return hit("poll", FROM) ? -1 : real(slots, count, time);
}

int __dprintf_chk(int fd, int flag, const char *format, ...)
{
	va_list arguments;
	int result;

	if (hit("dprintf", FROM))
		return -1;
	va_start(arguments, format);
	result = vdprintf(fd, format, arguments);
	va_end(arguments);
	return result;
}

/* Those with arguments that may be there or not: they take one that is not, too. */
#define VARIADIC(name, parameters, before, arguments) \
	int name parameters \
	{ \
		static int(*real) parameters; \
		va_list list; \
		long last; \
		if (real == NULL) \
			real = (int(*) parameters)dlsym(RTLD_NEXT, #name); \
		va_start(list, before); \
		last = va_arg(list, long); \
		va_end(list); \
		return hit(#name, FROM) ? -1 : real arguments; \
	}

VARIADIC(open, (const char *path, int flags, ...), flags, (path, flags, last))
VARIADIC(openat, (int dir, const char *path, int flags, ...), flags, (dir, path, flags, last))
VARIADIC(fcntl, (int fd, int command, ...), command, (fd, command, last))
VARIADIC(ioctl, (int fd, unsigned long request, ...), request, (fd, request, last))

int prctl(int option, ...)
{
	static int (*real)(int, ...);
	unsigned long a[4];
	va_list list;

	if (real == NULL)
		real = (int (*)(int, ...))dlsym(RTLD_NEXT, "prctl");
	va_start(list, option);
	for (int i = 0; i < 4; i++)
		a[i] = va_arg(list, unsigned long);
	va_end(list);
	return hit("prctl", FROM) ? -1 : real(option, a[0], a[1], a[2], a[3]);
}

long syscall(long number, ...)
{
	static long (*real)(long, ...);
	long a[6];
	va_list list;

	if (real == NULL)
		real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	return hit("syscall", FROM) ? -1 : real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

void *malloc(size_t size)
{
	return hit("malloc", FROM) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return hit("calloc", FROM) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *p, size_t size)
{
	return hit("realloc", FROM) ? NULL : __libc_realloc(p, size);
}

/* The names of those that programs built with 64-bit offsets call. They differ in nothing here. */
#define ALSO_64(name) __asm__(".globl " #name "64\n.set " #name "64, " #name)

ALSO_64(open);
ALSO_64(openat);
ALSO_64(fcntl);
ALSO_64(fstat);
ALSO_64(fstatat);
ALSO_64(mmap);
ALSO_64(lseek);
ALSO_64(scandir);
ALSO_64(readdir);
