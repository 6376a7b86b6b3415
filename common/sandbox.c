#include "sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/net.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The filter is written by hand: CONTRIBUTING.md says why libseccomp is not used. */
#if defined(NO_SANDBOX)
#elif defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCHITECTURE AUDIT_ARCH_RISCV64
#elif defined(__i386__)
#define ARCHITECTURE AUDIT_ARCH_I386
#elif defined(__arm__) && defined(__ARM_EABI__) && defined(__ARMEL__)
#define ARCHITECTURE AUDIT_ARCH_ARM
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define ARCHITECTURE AUDIT_ARCH_PPC64LE
#elif defined(__s390x__)
#define ARCHITECTURE AUDIT_ARCH_S390X
#endif

/* Landlock, of Linux 5.13 and later. The program may run on a later kernel than its headers are of. */
#define LANDLOCK_CREATE 444 /* system calls, the same on all processors */
#define LANDLOCK_ADD 445
#define LANDLOCK_RESTRICT 446
#define CREATE_VERSION 1 /* flag: return the interface's version instead */
#define RULE_PATH_BENEATH 1
#define READ_FILE (UINT64_C(1) << 2)
#define ALL_OF_VERSION_1 ((UINT64_C(1) << 13) - 1)
#define SCOPE_SIGNAL (UINT64_C(1) << 1)

struct path_beneath {
	uint64_t allowed_access;
	int32_t parent_fd;
} __attribute__((packed));

/* As of the interface's version 6; earlier kernels know its beginning. */
struct ruleset {
	uint64_t handled_access_fs, handled_access_net, scoped;
};

/* A Landlock ruleset, or -1 where the kernel has none of what is asked for. */
static int create_ruleset(uint64_t access, uint64_t scoped)
{
	struct ruleset ruleset = { .handled_access_fs = access, .scoped = scoped };
	long version = syscall(LANDLOCK_CREATE, NULL, 0, CREATE_VERSION);

	return (int)syscall(LANDLOCK_CREATE, &ruleset,
	    version < 6 ? sizeof(ruleset.handled_access_fs) : sizeof(ruleset), 0);
}

/* From here on the ruleset holds. */
static void enforce(int ruleset)
{
	syscall(LANDLOCK_RESTRICT, ruleset, 0);
	close(ruleset);
}

#ifdef ARCHITECTURE

/* Macros and a table that read best one entry per line. */
/* clang-format off */
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, (action))
#define DENY (SECCOMP_RET_ERRNO | EPERM)
/* How many instructions to skip if what was loaded is equal, and if it is not. */
#define EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (yes), (no))
#define ALLOW(call) EQUAL(__NR_##call, 0, 1), RETURN(SECCOMP_RET_ALLOW)
/* Arguments are 64 bits, loaded in halves; what we compare fits the lower half. */
#define HALF(n, offset) \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[n]) + (offset))
#define ARGUMENT(n) HALF(n, __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0 : 4)
/* The allowed call with the highest number. */
#ifdef __NR_futex_time64
#define LAST_CALL __NR_futex_time64
#else
#define LAST_CALL __NR_mlock2
#endif
/* ALLOW the call if its argument n is NULL. */
#define ALLOW_NULL(call, n) \
	EQUAL(__NR_##call, 0, 6), HALF(n, 0), EQUAL(0, 0, 2), HALF(n, 4), EQUAL(0, 1, 0), \
	RETURN(DENY), RETURN(SECCOMP_RET_ALLOW)
/* ALLOW setsockopt(2) of one option. */
#define ALLOW_OPTION(level, option) \
	EQUAL(__NR_setsockopt, 0, 5), ARGUMENT(1), EQUAL(level, 0, 3), ARGUMENT(2), \
	EQUAL(option, 0, 1), RETURN(SECCOMP_RET_ALLOW), LOAD(nr)
/* ALLOW the call if its argument n has none of the bits. */
#define ALLOW_WITHOUT(call, n, bits) \
	EQUAL(__NR_##call, 0, 4), ARGUMENT(n), \
	BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (bits), 0, 1), RETURN(DENY), RETURN(SECCOMP_RET_ALLOW)
/* ALLOW the call if its argument n is a or b. */
#define ALLOW_IF(call, n, a, b) \
	EQUAL(__NR_##call, 0, 5), ARGUMENT(n), EQUAL(a, 1, 0), EQUAL(b, 0, 1), \
	RETURN(SECCOMP_RET_ALLOW), LOAD(nr)

static int filter_calls(pid_t child)
{
	struct sock_filter program[] = {
		LOAD(arch),
		EQUAL(ARCHITECTURE, 1, 0),
		RETURN(SECCOMP_RET_KILL_PROCESS),
		LOAD(nr),
		/* No newer call is allowed. The kernel asks the filter about every call there is. */
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LAST_CALL, 0, 1),
		RETURN(DENY),
		/* Relaying, most used first. */
		ALLOW(ppoll),
		ALLOW(recvfrom),
		ALLOW_NULL(sendto, 4), /* to the peer of a socket that we have, and to nobody else */
		ALLOW(read),
		ALLOW(write),
		ALLOW(sched_yield),
		ALLOW(shutdown),
		ALLOW(close),
		ALLOW_IF(getsockopt, 2, SO_ERROR, SO_TYPE), /* why a socket failed; if it is a stream */
		ALLOW_OPTION(SOL_SOCKET, SO_LINGER), /* a reset, or a clean end */
		ALLOW_IF(ioctl, 1, SIOCOUTQ, SIOCOUTQ), /* what the peer has not taken yet */
#ifdef __NR_poll
		ALLOW(poll), /* readiness of a shared descriptor */
#endif
		/* The socket that the command hands back. */
		ALLOW(recvmsg),
		ALLOW(getpeername),
		ALLOW(getsockname),
		ALLOW_OPTION(IPPROTO_TCP, TCP_NODELAY),
		ALLOW_OPTION(SOL_SOCKET, SO_KEEPALIVE),
		ALLOW_OPTION(SOL_SOCKET, SO_OOBINLINE),
		ALLOW_IF(fcntl, 1, F_SETFD, F_SETFD),
		/* Time, randomness, memory: what the handshake, libcrypto and malloc need. */
		ALLOW(clock_gettime),
		ALLOW(getrandom),
		ALLOW(brk),
#ifdef __s390x__
		ALLOW(mmap), /* its arguments are in memory, where a filter cannot look */
#elif !defined(__NR_mmap2)
		ALLOW_WITHOUT(mmap, 2, PROT_EXEC),
#endif
		ALLOW_WITHOUT(mprotect, 2, PROT_EXEC),
		ALLOW(munmap),
		ALLOW(mremap),
		ALLOW(madvise),
		ALLOW(mlock2), /* memory for secrets */
		ALLOW(futex), /* libcrypto's run-once */
		/* Ending the command, and ourselves. */
		ALLOW_IF(kill, 0, (uint32_t)-child, (uint32_t)child),
		ALLOW_IF(kill, 0, (uint32_t)getpid(), (uint32_t)getpid()),
		ALLOW(wait4),
		ALLOW(waitid),
		ALLOW(rt_sigaction),
		ALLOW(rt_sigprocmask),
		ALLOW(rt_sigreturn),
		ALLOW(restart_syscall),
		ALLOW(getpid), /* syslog(3) */
		ALLOW(exit_group),
#ifdef __NR_send
		ALLOW(send),
		ALLOW(recv),
#endif
#ifdef __NR_sigreturn
		ALLOW(sigreturn),
#endif
#ifdef __NR_clock_gettime64 /* 32-bit systems: the same with 64-bit times and offsets */
		ALLOW(ppoll_time64),
		ALLOW_IF(fcntl64, 1, F_SETFD, F_SETFD),
		ALLOW(clock_gettime64),
		ALLOW_WITHOUT(mmap2, 2, PROT_EXEC),
		ALLOW(futex_time64),
#endif
#if defined(__i386__) || defined(__s390x__)
		/* The C library's way to the socket calls above. Their arguments are in memory, so
		 * neither sendto's address nor the option is checked. */
		ALLOW_IF(socketcall, 0, SYS_SEND, SYS_RECV),
		ALLOW_IF(socketcall, 0, SYS_SENDTO, SYS_RECVFROM),
		ALLOW_IF(socketcall, 0, SYS_RECVMSG, SYS_SHUTDOWN),
		ALLOW_IF(socketcall, 0, SYS_GETSOCKOPT, SYS_SETSOCKOPT),
		ALLOW_IF(socketcall, 0, SYS_GETPEERNAME, SYS_GETSOCKNAME),
#endif
#ifdef __SANITIZE_ADDRESS__
		ALLOW(sigaltstack),
		ALLOW(gettid),
#endif
		RETURN(DENY),
	};
	/* clang-format on */
	struct sock_fprog filter = {
		.len = sizeof(program) / sizeof(program[0]),
		.filter = program,
	};

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

const bool sandbox_built = true;

const char *sandbox_enter(pid_t child)
{
	/* kill(2) reads 0 and -1 as more than one process: no child, then only ourselves. */
	if (child <= 1)
		child = -getpid();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return "no_new_privs";
	/* A second barrier behind the filter, if the kernel has Landlock: no path can be opened. */
	enforce(create_ruleset(ALL_OF_VERSION_1, 0));
	return filter_calls(child) == 0 ? NULL : "seccomp";
}

#else
#pragma message("the programs will have no sandbox: SANDBOX=no, or no filter for this processor")

const bool sandbox_built = false;

const char *sandbox_enter(pid_t child)
{
	(void)child;
	return "a sandbox for this build";
}

#endif

/* Allow reading everything in the directory `path` but the entry `except`, `size` bytes long. */
static void allow_siblings(int ruleset, const char *path, const char *except, size_t size)
{
	DIR *directory = opendir(path);
	struct dirent *entry;

	while (directory != NULL && (entry = readdir(directory)) != NULL) {
		struct path_beneath rule = { .allowed_access = READ_FILE };

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    (strncmp(entry->d_name, except, size) == 0 && entry->d_name[size] == '\0'))
			continue;
		rule.parent_fd = openat(dirfd(directory), entry->d_name, O_PATH | O_CLOEXEC);
		if (rule.parent_fd == -1)
			continue;
		syscall(LANDLOCK_ADD, ruleset, RULE_PATH_BENEATH, &rule, 0);
		close(rule.parent_fd);
	}
	if (directory != NULL)
		closedir(directory);
}

void sandbox_confine_command(const char *directory)
{
	char path[PATH_MAX] = "/";
	size_t end = 1; /* of the part of `directory` that is in `path` */
	int ruleset;

	if (directory == NULL && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return;
	/* Landlock has no rule to deny something: allow everything beside each part of the path. */
	ruleset = create_ruleset(directory != NULL ? READ_FILE : 0, SCOPE_SIGNAL);
	if (ruleset == -1)
		return;
	while (directory != NULL && directory[end] != '\0' && end < sizeof(path)) {
		size_t size = strcspn(directory + end, "/");

		allow_siblings(ruleset, path, directory + end, size);
		end += size + (directory[end + size] == '/');
		snprintf(path, sizeof(path), "%.*s", (int)end, directory);
	}
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	enforce(ruleset);
}
