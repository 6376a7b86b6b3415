/* For the build of tests/coverage: a process that ends by a signal or at once writes its counts first. */
#ifndef SPIPE_COVERAGE_H
#define SPIPE_COVERAGE_H

#include <signal.h>
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

#define kill coverage_kill
#define _exit coverage_exit

#endif
