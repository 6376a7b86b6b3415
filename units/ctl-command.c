#include "ctl-command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl-run.h"

int command_of_process(struct command_line *command, const char *pid, struct outcome *outcome)
{
	char path[64];
	size_t size = 0;
	ssize_t got;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%s/cwd", pid);
	got = readlink(path, command->directory, sizeof(command->directory) - 1);
	command->directory[got > 0 ? got : 0] = '\0';
	snprintf(path, sizeof(path), "/proc/%s/cmdline", pid);
	file = fopen(path, "re");
	if (file == NULL)
		return fail(outcome, EX_NOINPUT, "process %s: %s", pid, strerror(errno));
	got = getdelim(&command->text, &size, EOF, file);
	fclose(file);
	for (ssize_t i = 0; i < got && command->count < COMMAND_WORDS;
	     i += (ssize_t)strlen(command->text + i) + 1)
		command->words[command->count++] = command->text + i;
	return command->count > 0
	    ? 0
	    : fail(outcome, EX_NOINPUT, "process %s has no command line", pid);
}

/* A unit that does not run: ExecStart as systemctl shows it, "{ path=... ; argv[]=... ; ...". */
static int take_exec_start(struct command_line *command, const char *unit, struct outcome *outcome)
{
	char *directory = unit_property(unit, "WorkingDirectory"), *word, *end;

	snprintf(command->directory, sizeof(command->directory), "%s",
	    *directory == '/' ? directory : "/");
	free(directory);
	command->text = unit_property(unit, "ExecStart");
	word = strstr(command->text, "argv[]=");
	end = word != NULL ? strstr(word, " ; ") : NULL;
	if (end == NULL)
		return fail(outcome, EX_NOINPUT, "unit %s: not loaded, or it starts nothing", unit);
	*end = '\0';
	word += strlen("argv[]=");
	if (strpbrk(word, "$%\"'\\") != NULL)
		return fail(outcome, EX_NOINPUT,
		    "unit %s: its command line has variables or quotes: start it first", unit);
	for (char *rest = word;
	     (word = strsep(&rest, " ")) != NULL && command->count < COMMAND_WORDS;)
		if (*word != '\0')
			command->words[command->count++] = word;
	return 0;
}

int command_of_unit(struct command_line *command, const char *unit, struct outcome *outcome)
{
	char *pid = unit_property(unit, "MainPID");
	int result = *pid != '\0' && strcmp(pid, "0") != 0
	    ? command_of_process(command, pid, outcome)
	    : take_exec_start(command, unit, outcome);

	free(pid);
	return result;
}

int command_given(struct command_line *command, int count, char **words)
{
	if (getcwd(command->directory, sizeof(command->directory)) == NULL)
		*command->directory = '\0';
	for (int i = 0; i < count && i < COMMAND_WORDS; i++)
		command->words[command->count++] = words[i];
	return 0;
}
