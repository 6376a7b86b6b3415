/*
 * The sandbox, tried from inside. Each attempt is made twice, in a child of its own: outside the sandbox, to show that
 * it would work, and inside, where it must be refused or fatal.
 *
 *	sandbox try		one line for each attempt: its name, the result outside, the result inside
 *	sandbox list		name each system call that the filter allows and should not, or denies and should not; exit
 *				status 0 if there is none
 *	sandbox use		do what the relay does, inside the sandbox; exit status 0 if all of it works
 */
#include <sys/mount.h> /* before linux/fs.h, which defines the same names in other ways */

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox.h"

#define CALLS_MOST 600 /* above the highest number that a kernel of today has */

static pid_t victim; /* a process of ours that sleeps; not the one that may be signalled */
static int listener, spare, bound, datagrams, terminal, directory;
static struct sockaddr_in address;
static struct sockaddr_un
    log_address;   /* of a datagram socket that is there, but not ours to write to */
static void *page; /* the victim has it too, at the same address */

static long clone_thread(void)
{
	long pid = syscall(__NR_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0)
		_exit(0);
	return pid;
}

static long fork_plain(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	return pid;
}

static long clone_3(void)
{
	uint64_t args[11] = { 0 }; /* struct clone_args */
	long pid;

	args[4] = SIGCHLD;
	pid = syscall(__NR_clone3, args, sizeof(args));
	if (pid == 0)
		_exit(0);
	return pid;
}

/* A program that exits with 0: the child's own status then says that it ran. */
static long run(int how)
{
	char name[] = "true", *argv[] = { name, NULL }, *envp[] = { NULL };
	int fd;

	if (how == 0)
		return execve("/bin/true", argv, envp);
	fd = (int)syscall(__NR_memfd_create, "x", 0);
	return fd == -1 ? -1 : syscall(__NR_execveat, AT_FDCWD, "/bin/true", argv, envp, 0);
}

static long executable_page(int how)
{
	void *p;

	if (how == 0) {
		p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		return p == MAP_FAILED ? -1 : 0;
	}
	if (how == 1)
		return mprotect(page, 4096, PROT_READ | PROT_EXEC);
	return syscall(__NR_pkey_mprotect, page, 4096, PROT_READ | PROT_EXEC, -1);
}

static long read_victim(void)
{
	char byte;
	struct iovec mine = { &byte, 1 }, theirs = { page, 1 };

	return process_vm_readv(victim, &mine, 1, &theirs, 1, 0);
}

static long write_victim(void)
{
	char byte = 0;
	struct iovec mine = { &byte, 1 }, theirs = { page, 1 };

	return process_vm_writev(victim, &mine, 1, &theirs, 1, 0);
}

static long bpf_map(void)
{
	union bpf_attr attr = { .map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = 4,
		.value_size = 4,
		.max_entries = 1 };

	return syscall(__NR_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
}

static long io_uring(void)
{
	struct io_uring_params params = { 0 };

	return syscall(__NR_io_uring_setup, 1, &params);
}

/* The relay sends where its sockets lead, not to whom it likes. */
static long send_elsewhere(const struct sockaddr_un *to)
{
	return sendto(datagrams, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)to,
	    sizeof(*to));
}

/* The same with an address in memory whose lower half is that of NULL. */
static long send_far_elsewhere(void)
{
	struct sockaddr_un *far = mmap((void *)(uintptr_t)(1ULL << 32), 4096,
	    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (far == MAP_FAILED)
		return -1;
	*far = log_address;
	return send_elsewhere(far);
}

static long attach_filter(void)
{
	struct sock_filter all = { BPF_RET | BPF_K, 0, 0, 0xffff };

	return setsockopt(spare, SOL_SOCKET, SO_ATTACH_FILTER, &(struct sock_fprog){ 1, &all },
	    sizeof(struct sock_fprog));
}

/* The other architecture's way in. Number 24 is getuid there; here it is sched_yield, which is allowed. */
static long other_abi(void)
{
#if defined(__x86_64__)
	long result = 24;

	__asm__ volatile("int $0x80" : "+a"(result) : : "memory");
	return result;
#else
	raise(SIGSYS);
	return -1;
#endif
}

/* The third way on x86-64: its numbers have this bit. */
static long x32_open(void)
{
	return syscall(0x40000000 | __NR_openat, AT_FDCWD, "/etc/passwd", O_RDONLY);
}

#define ATTEMPTS(X) \
	X(open_read, syscall(__NR_openat, AT_FDCWD, "/etc/passwd", O_RDONLY)) \
	X(open_write, open("/dev/null", O_WRONLY)) \
	X(open_here, openat(directory, "x", O_RDONLY | O_CREAT, 0600)) \
	X(open_path, open("/", O_PATH)) \
	X(openat2, syscall(__NR_openat2, AT_FDCWD, "/", (uint64_t[3]){ 0 }, 24)) \
	X(creat, creat("/dev/null", 0600)) \
	X(access, access("/", F_OK)) \
	X(stat, fstatat(AT_FDCWD, "/etc/passwd", page, 0)) \
	X(statx, syscall(__NR_statx, AT_FDCWD, "/", 0, 0, page)) \
	X(unlink, unlinkat(directory, "y", 0)) \
	X(mkdir, mkdirat(directory, "d", 0700)) \
	X(chdir, chdir("/")) \
	X(readlink, readlink("/proc/self/exe", (char[8]){ 0 }, 8)) \
	X(getdents, syscall(__NR_getdents64, directory, page, 4096)) \
	X(memfd, syscall(__NR_memfd_create, "x", 0)) \
	X(pipe, pipe2((int[2]){ 0 }, 0)) \
	X(dup, dup(0)) \
	X(dup_fcntl, fcntl(0, F_DUPFD, 10)) \
	X(socket_tcp, socket(AF_INET, SOCK_STREAM, 0)) \
	X(socket_udp, socket(AF_INET, SOCK_DGRAM, 0)) \
	X(socket_unix, socket(AF_UNIX, SOCK_STREAM, 0)) \
	X(socketpair, socketpair(AF_UNIX, SOCK_STREAM, 0, (int[2]){ 0 })) \
	X(connect, connect(spare, (struct sockaddr *)&address, sizeof(address))) \
	X(bind, \
	    bind(bound, (struct sockaddr *)&(struct sockaddr_in){ .sin_family = AF_INET }, \
		sizeof(address))) \
	X(listen, listen(bound, 1)) \
	X(accept, accept4(listener, NULL, NULL, SOCK_NONBLOCK)) \
	X(sendmsg, sendmsg(spare, &(struct msghdr){ 0 }, MSG_NOSIGNAL)) \
	X(send_elsewhere, send_elsewhere(&log_address)) \
	X(send_far_elsewhere, send_far_elsewhere()) \
	X(setsockopt_ip, setsockopt(spare, IPPROTO_IP, IP_TTL, &(int){ 9 }, sizeof(int))) \
	X(setsockopt_filter, attach_filter()) \
	X(setsockopt_tcp, setsockopt(spare, IPPROTO_TCP, TCP_CONGESTION, "reno", 4)) \
	X(getsockopt_other, \
	    getsockopt(spare, SOL_SOCKET, SO_RCVBUF, page, &(socklen_t){ sizeof(int) })) \
	X(execve, run(0)) \
	X(execveat, run(1)) \
	X(fork, fork_plain()) \
	X(clone, clone_thread()) \
	X(clone3, clone_3()) \
	X(unshare, unshare(CLONE_FILES)) \
	X(ptrace, ptrace(PTRACE_SEIZE, victim, NULL, NULL)) \
	X(traceme, ptrace(PTRACE_TRACEME, 0, NULL, NULL)) \
	X(process_vm_readv, read_victim()) \
	X(process_vm_writev, write_victim()) \
	X(pidfd_open, syscall(__NR_pidfd_open, victim, 0)) \
	X(kill_other, kill(victim, SIGCONT)) \
	X(kill_parent, kill(getppid(), SIGCONT)) \
	X(kill_all, kill(-1, 0)) \
	X(kill_group, kill(0, SIGCONT)) \
	X(tgkill, syscall(__NR_tgkill, victim, victim, SIGCONT)) \
	X(sigqueue, \
	    syscall(__NR_rt_sigqueueinfo, victim, SIGCONT, &(siginfo_t){ .si_code = SI_QUEUE })) \
	X(mmap_exec, executable_page(0)) \
	X(mprotect_exec, executable_page(1)) \
	X(pkey_mprotect_exec, executable_page(2)) \
	X(bpf, bpf_map()) \
	X(io_uring, io_uring()) \
	X(userfaultfd, syscall(__NR_userfaultfd, 1)) \
	X(perf_event, syscall(__NR_perf_event_open, (uint32_t[32]){ 1, 128 }, 0, -1, -1, 0)) \
	X(keyctl, syscall(__NR_keyctl, 0, -3, 1)) \
	X(mount, mount("none", "/proc", "tmpfs", MS_REMOUNT, NULL)) \
	X(chroot, chroot("/")) \
	X(setuid, setuid(getuid())) \
	X(setrlimit, setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 })) \
	X(dumpable, prctl(PR_SET_DUMPABLE, 1)) \
	X(seccomp, syscall(__NR_seccomp, 2, 0, &(uint32_t){ 0x7fff0000 })) \
	X(ioctl_tty, ioctl(terminal, FIONREAD, page)) \
	X(ioctl_inject, ioctl(terminal, TIOCSTI, "x")) \
	X(x32_abi, x32_open()) \
	X(other_abi, other_abi())

#define FUNCTION(name, call) \
	static long try_##name(void) \
	{ \
		return (long)(call); \
	}
ATTEMPTS(FUNCTION)

#define ROW(name, call) { #name, try_##name },
static const struct attempt {
	const char *name;
	long (*try)(void);
} attempts[] = { ATTEMPTS(ROW) };

/*
 * Not to try. The arguments of most are in memory, where the filter cannot look; 32-bit systems have no memory so far
 * up.
 */
static const char *const unseen[] = {
#if defined(__i386__) || defined(__s390x__)
	"send_elsewhere", "send_far_elsewhere", "setsockopt_ip", "setsockopt_filter",
	"setsockopt_tcp", "getsockopt_other",
#endif
#ifdef __s390x__
	"mmap_exec",
#endif
#if UINTPTR_MAX == UINT32_MAX
	"send_far_elsewhere",
#endif
	NULL
};

static int is_unseen(const char *name)
{
	for (size_t i = 0; unseen[i] != NULL; i++)
		if (strcmp(name, unseen[i]) == 0)
			return 1;
	return 0;
}

static void enter(void)
{
	if (sandbox_enter(0) != NULL)
		_exit(250);
}

/* How an attempt ended, as a word: works, EPERM, killed (by SIGSYS) or the error's number. */
static const char *outcome(const struct attempt *attempt, int inside)
{
	static char text[32];
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpgid(0, 0); /* kill(0, ...) is for us alone */
		signal(SIGSYS, SIG_DFL);
		if (inside)
			enter();
		_exit(attempt->try() == -1 ? errno : 0);
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status)) {
		snprintf(text, sizeof(text), WTERMSIG(status) == SIGSYS ? "killed" : "signal-%d",
		    WTERMSIG(status));
		return text;
	}
	if (WEXITSTATUS(status) == 0)
		return "works";
	if (WEXITSTATUS(status) == EPERM)
		return "EPERM";
	snprintf(text, sizeof(text), "error-%d", WEXITSTATUS(status));
	return text;
}

static int try_all(void)
{
	socklen_t size = sizeof(address);

	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	victim = fork();
	if (victim == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpgid(0, 0);
		for (;;)
			pause();
	}
	directory = open(".", O_RDONLY | O_DIRECTORY);
	close(open("y", O_CREAT | O_WRONLY, 0600));
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	terminal = posix_openpt(O_RDWR | O_NOCTTY);
	log_address.sun_family = AF_UNIX;
	strcpy(log_address.sun_path, "log");
	datagrams = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (bind(datagrams, (struct sockaddr *)&log_address, sizeof(log_address)) != 0)
		return 1;
	datagrams = socket(AF_UNIX, SOCK_DGRAM, 0);
	bound = socket(AF_INET, SOCK_STREAM, 0);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	spare = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 8) != 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &size) != 0)
		return 1;
	for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
		if (is_unseen(attempts[i].name))
			continue;
		printf("%s %s", attempts[i].name, outcome(&attempts[i], 0));
		printf(" %s\n", outcome(&attempts[i], 1));
		fflush(stdout);
	}
	kill(victim, SIGKILL);
	return 0;
}

/* Allowed whatever their arguments are. Each call added here makes the sandbox weaker. */
static const long allowed[] = {
	__NR_ppoll, __NR_recvfrom, __NR_read, __NR_write, __NR_sched_yield, __NR_shutdown,
	__NR_close, __NR_recvmsg, __NR_getpeername, __NR_getsockname, __NR_clock_gettime,
	__NR_getrandom, __NR_brk, __NR_munmap, __NR_mremap, __NR_madvise, __NR_mlock2, __NR_futex,
	__NR_wait4, __NR_waitid, __NR_rt_sigaction, __NR_rt_sigprocmask, __NR_rt_sigreturn,
	__NR_restart_syscall, __NR_getpid, __NR_exit_group,
#ifdef __NR_poll
	__NR_poll,
#endif
#ifdef __NR_send
	__NR_send, __NR_recv,
#endif
#ifdef __NR_sigreturn
	__NR_sigreturn,
#endif
#ifdef __NR_clock_gettime64
	__NR_ppoll_time64, __NR_clock_gettime64, __NR_futex_time64,
#endif
#ifdef __s390x__
	__NR_mmap,
#endif
#ifdef __x86_64__
	335, 336, /* uretprobe, uprobe: the kernel's own, which seccomp does not filter */
#endif
};

static int is_allowed(long number)
{
	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
		if (number == allowed[i])
			return 1;
	return 0;
}

/*
 * Makes every system call by its number, each in a child of its own, with arguments that are good for nothing. The
 * filter allows a call that does not fail with EPERM.
 */
static int list(void)
{
	int wrong = 0;

	for (long number = 0; number < CALLS_MOST; number++) {
		int status, denied;
		pid_t pid = fork();

		if (pid == 0) {
			enter();
			_exit(syscall(number, -1L, -1L, -1L, -1L, -1L, -1L) == -1 && errno == EPERM
				? 99
				: 0);
		}
		waitpid(pid, &status, 0);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 250)
			return 1;
		denied = WIFEXITED(status) && WEXITSTATUS(status) == 99;
		if (denied != is_allowed(number))
			continue;
		printf("system call %ld is %s\n", number, denied ? "denied" : "allowed");
		wrong = 1;
	}
	return wrong;
}

/* What a relay does must still work: a sandbox that forbids everything would pass the other tests. */
static int use(void)
{
	int pair[2], value = 1, type;
	char byte = 'x';
	struct pollfd ready;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
		return 1;
	enter();
	ready = (struct pollfd){ .fd = pair[1], .events = POLLIN };
	return !(send(pair[0], &byte, 1, MSG_NOSIGNAL) == 1 && ppoll(&ready, 1, NULL, NULL) == 1 &&
	    recv(pair[1], &byte, 1, 0) == 1 && write(pair[1], &byte, 1) == 1 &&
	    read(pair[0], &byte, 1) == 1 &&
	    setsockopt(pair[0], SOL_SOCKET, SO_KEEPALIVE, &value, sizeof(value)) == 0 &&
	    getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &type, &(socklen_t){ sizeof(type) }) == 0 &&
	    malloc(1 << 20) != NULL && kill(getpid(), 0) == 0 && shutdown(pair[0], SHUT_WR) == 0 &&
	    close(pair[0]) == 0);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "try") == 0)
		return try_all();
	if (argc == 2 && strcmp(argv[1], "list") == 0)
		return list();
	if (argc == 2 && strcmp(argv[1], "use") == 0)
		return use();
	fprintf(stderr, "usage: sandbox try|list|use\n");
	return 64;
}
