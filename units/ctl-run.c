#include "ctl-run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void become(const char *const *words, int out)
{
	int null = open("/dev/null", O_RDONLY);
	char **arguments;

	dup2(null, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	/* execvp changes none of them; its prototype is older than const. */
	memcpy(&arguments, &words, sizeof(arguments));
	execvp(arguments[0], arguments);
	_exit(127);
}

static void read_all(int fd, FILE *to)
{
	char part[4096];
	ssize_t got;

	while ((got = read(fd, part, sizeof(part))) > 0 || (got == -1 && errno == EINTR))
		if (got > 0)
			fwrite(part, 1, (size_t)got, to);
}

int run_program(const char *const *words, char **output)
{
	size_t size;
	FILE *collected = open_memstream(output, &size);
	int ends[2], status = 0;
	pid_t pid = -1;

	if (collected == NULL)
		abort(); /* no memory for an empty string */
	if (pipe2(ends, O_CLOEXEC) == 0) {
		pid = fork();
		if (pid == 0)
			become(words, ends[1]);
		close(ends[1]);
		if (pid != -1)
			read_all(ends[0], collected);
		close(ends[0]);
	}
	fclose(collected);
	if (pid == -1 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return 127;
	return WEXITSTATUS(status);
}
