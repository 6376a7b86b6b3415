#include "ctl-run.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl.h"

static _Noreturn void become(const char *const *words, int out, bool errors)
{
	int null = open("/dev/null", O_RDONLY);
	char **arguments;

	dup2(null, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	if (errors)
		dup2(out, STDERR_FILENO);
	/* execvp changes none of them; its prototype is older than const. */
	memcpy(&arguments, &words, sizeof(arguments));
	execvp(arguments[0], arguments);
	_exit(127);
}

FILE *run_start(const char *const *words, bool errors, pid_t *pid)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) != 0)
		return NULL;
	*pid = fork();
	if (*pid == 0)
		become(words, ends[1], errors);
	close(ends[1]);
	if (*pid != -1)
		return fdopen(ends[0], "r");
	close(ends[0]);
	return NULL;
}

int run_end(FILE *output, pid_t pid)
{
	int status = 0;

	fclose(output);
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 127;
}

int run_program(const char *const *words, char **output)
{
	size_t size, got;
	FILE *collected = open_memstream(output, &size), *from;
	char part[4096];
	pid_t pid;

	if (collected == NULL)
		abort(); /* no memory for an empty string */
	from = run_start(words, true, &pid);
	while (from != NULL && (got = fread(part, 1, sizeof(part), from)) > 0)
		fwrite(part, 1, got, collected);
	fclose(collected);
	return from != NULL ? run_end(from, pid) : 127;
}

bool process_read(const char *pid, const char *file, char *text, size_t size)
{
	char path[300];
	FILE *from;
	size_t got = 0;

	snprintf(path, sizeof(path), "/proc/%s/%s", pid, file);
	from = fopen(path, "re");
	if (from != NULL) {
		got = fread(text, 1, size - 1, from);
		fclose(from);
	}
	text[got] = '\0';
	return got > 0;
}

/* Run a program, and return the first line of what it prints. */
static char *first_line(const char *const *words)
{
	char *output;

	if (run_program(words, &output) != 0)
		*output = '\0';
	output[strcspn(output, "\n")] = '\0';
	return output;
}

char *unit_property(const char *unit, const char *name)
{
	const char *const words[] = { "systemctl", "show", "--value", "-p", name, "--", unit,
		NULL };

	return first_line(words);
}

char *unit_error(const char *unit)
{
	char match[64], *id = unit_property(unit, "InvocationID"), *error;
	/* With -u, journalctl may miss what a short-lived child of systemd's has said. */
	const char *const words[] = { "journalctl", "-q", "-o", "cat", "-p", "notice", match,
		"_UID=0", NULL };

	snprintf(match, sizeof(match), "INVOCATION_ID=%s", id);
	free(id);
	error = first_line(words);
	ctl_make_printable(error);
	return error;
}
