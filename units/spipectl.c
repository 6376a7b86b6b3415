/* spipectl: what an administrator needs around the tunnels. See spipectl(8). */

#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#include "ctl.h"
#include "secret.h"

static const char usage[] =
    "usage: spipectl command ...\n"
    "Make and compare keys, check and watch tunnels, move from spiped.\n\n"
    "  key new FILE         make a key file\n"
    "  key id FILE ...      show the fingerprint of each key\n"
    "  check [--show NAME] [FILE]\n"
    "                       find what is wrong with /etc/spipetab or another table,\n"
    "                       its keys and addresses; with --show, print the units\n"
    "                       of a line instead of the numbers of problems\n"
    "  apply                have systemd run what /etc/spipetab says: start, stop and\n"
    "                       restart what has changed, and see that all listen\n"
    "  probe [-k FILE] [-o SECONDS] ADDRESS | NAME\n"
    "                       see whether the server at an address, or that of a line,\n"
    "                       answers with our key, and how fast; -k is needed for\n"
    "                       an address, and for a line with a key directory\n"
    "  status [--json] [--since TIME] [NAME]\n"
    "                       what each tunnel does and has done, or all about one;\n"
    "                       --since leaves out what ended earlier\n"
    "  metrics [FILE]       the numbers of status for Prometheus, printed or written\n"
    "                       to FILE, whose counts go on from one run to the next\n"
    "  from-spiped [--command] [--name NAME] --pid N | UNIT | -- WORD ...\n"
    "                       print the line of spipetab, or a command line, that\n"
    "                       replaces a spiped\n\n"
    "  -v, --version        show the version\n"
    "  -h, --help           show this help\n";

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv, struct outcome *);
} commands[] = {
	{ "key", ctl_key },
	{ "check", ctl_check },
	{ "apply", ctl_apply },
	{ "probe", ctl_probe },
	{ "status", ctl_status },
	{ "metrics", ctl_metrics },
	{ "from-spiped", ctl_from_spiped },
};

int ctl_end(const struct outcome *outcome)
{
	if (outcome->status != 0)
		fprintf(stderr, "spipectl: %s\n", outcome->reason);
	return outcome->status;
}

void ctl_make_printable(char *text)
{
	wchar_t character;
	size_t size;

	for (; *text != '\0'; text += size) {
		size = mbrtowc(&character, text, strlen(text), &(mbstate_t){ 0 });
		if (size > MB_LEN_MAX || iswcntrl((wint_t)character)) {
			*text = '?';
			size = 1;
		}
	}
}

void ctl_put_quoted(FILE *to, const char *text)
{
	putc('"', to);
	for (; *text != '\0'; text++) {
		if (*text == '"' || *text == '\\')
			putc('\\', to);
		putc(*text, to);
	}
	putc('"', to);
}

void *ctl_add_one(void *array, size_t *count, size_t size)
{
	char **start = array, *more = reallocarray(*start, *count + 1, size);

	if (more == NULL)
		abort();
	*start = more;
	return memset(more + size * (*count)++, 0, size);
}

static int run(int argc, char **argv, struct outcome *outcome)
{
	const char *word = argc > 1 ? argv[1] : "";

	if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0)
		return fputs(usage, stdout) == EOF ? EX_IOERR : 0;
	if (strcmp(word, "-v") == 0 || strcmp(word, "--version") == 0)
		return puts("spipectl " SPIPE_VERSION) == EOF ? EX_IOERR : 0;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(word, commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1, outcome);
	return *word == '\0' ? fail(outcome, EX_USAGE, "no command is given; see --help")
			     : fail(outcome, EX_USAGE, "%s is unknown; see --help", word);
}

int main(int argc, char **argv)
{
	struct outcome outcome = { 0 };
	int status;

	secret_harden();
	setlocale(LC_CTYPE, "C.UTF-8"); /* for ctl_make_printable */
	status = run(argc, argv, &outcome);
	if (status == -1)
		status = ctl_end(&outcome);
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fail(&outcome, EX_IOERR, "standard output cannot be written");
	return ctl_end(&outcome);
}
