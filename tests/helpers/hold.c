/*
 * hold PID: stop the process at the moment of its exit, whatever leads to that, with all its memory still there. Says
 * "holds" when it is attached and "exits" when the process has got there; lets it go at the end of our input.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	pid_t pid = argc == 2 ? atoi(argv[1]) : 0;
	int status, number;

	if (pid <= 0 || ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACEEXIT) != 0) {
		perror("hold");
		return 77;
	}
	puts("holds");
	fflush(stdout);
	for (;;) {
		if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
			return 1;
		if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8))
			break;
		/* A signal on its way: the process gets it. */
		number = status >> 16 == 0 ? WSTOPSIG(status) : 0;
		ptrace(PTRACE_CONT, pid, NULL, (long)number);
	}
	puts("exits");
	fflush(stdout);
	while (getchar() != EOF)
		;
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
	return 0;
}
