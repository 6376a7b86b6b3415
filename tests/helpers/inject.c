/*
 * inject [-s] PID: make a live process try what its sandbox forbids, as code that an attacker got to run in it would.
 * Every call is put into the process by ptrace, as root; the process then goes on where it was. One line for each
 * call: its name and "denied" (EPERM), "works" or "error-N". With -s, seccomp is switched off for the calls (the
 * kernel lets root do that), to see what the second barrier refuses. Exit status 0: all was tried; 77: not on this
 * machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif

#ifdef __x86_64__

static pid_t pid;
static struct user_regs_struct saved;
static unsigned long room; /* of the process's stack, well below what it uses */

static void need(int good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
	exit(77);
}

/* Put bytes into the process; returns their address there. */
static unsigned long put(const void *data, size_t size)
{
	struct iovec mine = { (void *)(uintptr_t)data, size }, theirs = { (void *)room, size };

	need(process_vm_writev(pid, &mine, 1, &theirs, 1, 0) == (ssize_t)size,
	    "writing its memory");
	room += (size + 15) & ~15UL;
	return room - ((size + 15) & ~15UL);
}

static void call(const char *name, long number, unsigned long a, unsigned long b, unsigned long c,
    unsigned long d)
{
	struct user_regs_struct regs = saved;
	long result;
	int status;

	regs.rip -= 2; /* it sleeps in a call: the instruction before is `syscall` */
	regs.orig_rax = (unsigned long)-1;
	regs.rax = (unsigned long)number;
	regs.rdi = a;
	regs.rsi = b;
	regs.rdx = c;
	regs.r10 = d;
	regs.r8 = regs.r9 = 0;
	need(ptrace(PTRACE_SETREGS, pid, NULL, &regs) == 0, "setting registers");
	need(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0, "stepping");
	need(waitpid(pid, &status, 0) == pid, "waiting");
	if (!WIFSTOPPED(status)) {
		printf("%s killed\n", name);
		exit(0);
	}
	ptrace(PTRACE_GETREGS, pid, NULL, &regs);
	result = (long)regs.rax;
	if (result == -EPERM)
		printf("%s denied\n", name);
	else if (result >= 0 || result < -4095)
		printf("%s works\n", name);
	else
		printf("%s error-%ld\n", name, -result);
}

int main(int argc, char **argv)
{
	int behind = argc == 3 && strcmp(argv[1], "-s") == 0, status;
	long options = behind ? PTRACE_O_SUSPEND_SECCOMP : 0;
	unsigned long file, passwd, program, arguments, address;
	struct sockaddr_un unix_address = { .sun_family = AF_UNIX, .sun_path = "/dev/log" };
	uint8_t code[2];
	struct iovec mine = { code, 2 }, theirs;

	if (argc != 2 + behind)
		return 64;
	pid = atoi(argv[1 + behind]);
	need(ptrace(PTRACE_SEIZE, pid, NULL, options) == 0, "attaching");
	need(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0, "interrupting");
	need(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "waiting");
	ptrace(PTRACE_GETREGS, pid, NULL, &saved);
	theirs = (struct iovec){ (void *)(saved.rip - 2), 2 };
	need(process_vm_readv(pid, &mine, 1, &theirs, 1, 0) == 2, "reading its memory");
	if (code[0] != 0x0f || code[1] != 0x05) {
		errno = EAGAIN;
		need(0, "it is not asleep in a system call");
	}
	room = (saved.rsp - 8192) & ~15UL;
	file = put("/dev/null", 10);
	passwd = put("/etc/passwd", 12);
	program = put("/bin/true", 10);
	arguments = put((unsigned long[2]){ program, 0 }, 16);
	address = put(&unix_address, sizeof(unix_address));

	call("openat", SYS_openat, (unsigned long)AT_FDCWD, passwd, O_RDONLY, 0);
	call("open", SYS_open, file, O_WRONLY, 0, 0);
	if (!behind) {
		call("socket", SYS_socket, AF_INET, SOCK_STREAM, 0, 0);
		call("socket-unix", SYS_socket, AF_UNIX, SOCK_DGRAM, 0, 0);
		call("connect", SYS_connect, 0, address, sizeof(unix_address), 0);
		call("execve", SYS_execve, program, arguments, 0, 0);
		call("fork", SYS_fork, 0, 0, 0, 0);
		call("clone", SYS_clone, SIGCHLD, 0, 0, 0);
		call("ptrace", SYS_ptrace, PTRACE_SEIZE, (unsigned long)getppid(), 0, 0);
		call("kill", SYS_kill, (unsigned long)getppid(), 0, 0, 0);
		call("mmap-exec", SYS_mmap, 0, 4096, 5, 0x22);
		call("io_uring", SYS_io_uring_setup, 1, room, 0, 0);
		call("bpf", SYS_bpf, 0, room, 32, 0);
		call("dup", SYS_dup, 0, 0, 0, 0);
		call("getpid", SYS_getpid, 0, 0, 0,
		    0); /* allowed: shows that this tool calls at all */
	}
	need(ptrace(PTRACE_SETREGS, pid, NULL, &saved) == 0, "restoring registers");
	need(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0, "detaching");
	return 0;
}

#else

int main(void)
{
	fprintf(stderr, "inject: written for x86-64 only\n");
	return 77;
}

#endif
