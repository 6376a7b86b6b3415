/* For the build of tests/tools/coverage: a process that ends by a signal or at once writes its counts first. */
#ifndef SPIPE_COVERAGE_H
#define SPIPE_COVERAGE_H

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

void __gcov_dump(void);

static inline int coverage_kill(pid_t pid, int number)
{
	if (pid == getpid())
		__gcov_dump();
	return kill(pid, number);
}

static inline void __attribute__((noreturn)) coverage_exit(int status)
{
	__gcov_dump();
	_exit(status);
}

#ifndef NO_SANDBOX
/* No file can be opened inside the sandbox: Landlock is left out, and the counts are written before the filter is set. */
#define syscall(number, ...) \
	((number) == __NR_landlock_restrict_self ? 0 : syscall(number, __VA_ARGS__))
#define prctl(what, ...) \
	((what) == PR_SET_SECCOMP ? __gcov_dump() : (void)0, prctl(what, __VA_ARGS__))
#endif
#define kill coverage_kill
#define _exit coverage_exit

#endif
