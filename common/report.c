#include "report.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "wait.h"

#define TEXT_SIZE 768

#ifdef WITH_SYSTEMD
/* A datagram socket connected to the one at `path` ('@' begins an abstract name), or -1. */
static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = strlen(path);
	int fd;

	if (length >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
		return -1;
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd != -1 && connect(fd, (struct sockaddr *)&address,
	    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Is our stderr the stream that systemd says leads to the journal? (systemd.exec(5)) */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream != NULL &&
	    sscanf(stream, "%llu:%llu", &device, &inode) == 2 && /* NOLINT(cert-err34-c): systemd's */
	    fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}
#endif

void report_open(struct report *report, const char *program, const char *role, bool wire_is_stderr)
{
	memset(report, 0, sizeof(*report));
	report->program = program;
	report->role = role;
	report->wire_is_stderr = wire_is_stderr;
	report->journal = report->notify = -1;
	report->started = time_now();
	snprintf(report->peer, sizeof(report->peer), "-");
#ifdef WITH_SYSTEMD
	const char *notify = getenv("NOTIFY_SOCKET");

	if (stderr_is_journal())
		report->journal = connect_to("/run/systemd/journal/socket");
	if (notify != NULL)
		report->notify = connect_to(notify);
#endif
	if (wire_is_stderr)
		openlog(program, LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

void report_on(struct report *report, const struct peer *peer, bool near_is_network, bool verbose)
{
	report->verbose = verbose && !report->wire_is_stderr;
	report->record_syslog = report->wire_is_stderr ||
	    (near_is_network && !verbose && report->journal == -1);
	if (report->record_syslog) {
		/* Now: the sandbox lets us neither connect to the log nor read the time zone. */
		openlog(report->program, LOG_PID | LOG_NDELAY, LOG_DAEMON);
		tzset();
	}
	address_format(&peer->remote, report->peer, sizeof(report->peer));
	report->connected = true;
}

/*
 * One entry in the journal's own format (systemd.io/JOURNAL_NATIVE_PROTOCOL): KEY=VALUE lines.
 * No value holds a newline: every text here is made by us or has been checked.
 */
static void to_journal(struct report *report, int priority, const char *message,
    const char *fields)
{
	char entry[4 * TEXT_SIZE];
	int size = snprintf(entry, sizeof(entry),
	    "MESSAGE=%s\nPRIORITY=%d\nSYSLOG_IDENTIFIER=%s\nSPIPE_ROLE=%s\n%s", message, priority,
	    report->program, report->role, fields);

	send(report->journal, entry, (size_t)size, MSG_NOSIGNAL);
}

/*
 * The journal asks the kernel which unit an entry's sender is of when it reads the entry: one that
 * has gone by then has none, and `journalctl -u` would not show it. So stay, for a second at most.
 */
static void await_journal(const struct report *report)
{
	int unread = 0;

	for (int i = 0; i < 1000 && ioctl(report->journal, SIOCOUTQ, &unread) == 0 && unread > 0; i++)
		wait_poll(NULL, 0, time_now() + SECOND / 1000);
}

/* One line, one write: whole lines even where several processes share stderr. */
static void to_stderr(const struct report *report, const char *text)
{
	char line[TEXT_SIZE + 32];
	int size = snprintf(line, sizeof(line), "%s: %s\n", report->program, text);

	(void)!write(STDERR_FILENO, line, (size_t)size);
}

/* A line on stderr, or where it can't go there, in the log. */
static void say(struct report *report, int priority, const char *text)
{
	if (report->journal != -1)
		to_journal(report, priority, text, "");
	else if (report->wire_is_stderr)
		syslog(priority, "%s", text);
	else
		to_stderr(report, text);
}

/* Text from outside (a file's name, say) stays one printable line. */
static void make_printable(char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < ' ' || *text == 127)
			*text = '?';
}

void report_warn(struct report *report, const char *format, ...)
{
	char text[TEXT_SIZE];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	make_printable(text);
	say(report, LOG_WARNING, text);
}

static double seconds(const struct report *report)
{
	return (double)(time_now() - report->started) / (double)SECOND;
}

static void describe(const struct report *report, const char *reason, char *text, size_t size)
{
	snprintf(text, size, "%s key %s: %llu bytes in, %llu bytes out, %.3f s: %s", report->peer,
	    report->key == NULL ? "-" : report->key, (unsigned long long)report->bytes_in,
	    (unsigned long long)report->bytes_out, seconds(report), reason);
	make_printable(text);
}

void report_progress(struct report *report)
{
	char text[TEXT_SIZE];

	describe(report, "in progress", text, sizeof(text));
	if (report->record_syslog)
		syslog(LOG_INFO, "%s", text);
	else
		say(report, LOG_INFO, text);
}

static void notify(struct report *report, const char *state, int flags)
{
	char text[TEXT_SIZE];
	int size;

	if (report->notify == -1)
		return;
	describe(report, "relaying", text, sizeof(text));
	report->notified = time_now();
	char message[TEXT_SIZE + 64];
	size = snprintf(message, sizeof(message), "%sSTATUS=%s\n", state, text);
	send(report->notify, message, (size_t)size, MSG_NOSIGNAL | flags);
}

void report_ready(struct report *report)
{
	notify(report, "READY=1\n", 0); /* must not be lost, however busy systemd is */
}

void report_status(struct report *report)
{
	if (report->notify != -1 && time_now() - report->notified >= 10 * SECOND)
		notify(report, "", MSG_DONTWAIT);
}

static const char *result_word(const struct outcome *outcome)
{
	if (outcome->signal != 0)
		return "terminated";
	switch (outcome->status) {
	case EX_OK: return "clean";
	case EX_USAGE: return "usage";
	case EX_UNAVAILABLE: return "command";
	case EX_IOERR: return "lost";
	case EX_TEMPFAIL: return "timeout";
	case EX_PROTOCOL: return "tampered";
	case EX_NOPERM: return "refused";
	case EX_CONFIG: return "key";
	default: return "system";
	}
}

void report_end(struct report *report, const struct outcome *outcome)
{
	bool failed = outcome->status != 0;
	int priority = !failed ? LOG_INFO : outcome->status == EX_NOPERM ? LOG_NOTICE : LOG_ERR;
	char reason[sizeof(outcome->reason) + 32], text[TEXT_SIZE], fields[TEXT_SIZE];

	if (failed && outcome->signal == 0)
		snprintf(reason, sizeof(reason), "%s (status %d)", outcome->reason, outcome->status);
	else
		snprintf(reason, sizeof(reason), "%s", failed ? outcome->reason : "ended cleanly");
	make_printable(reason);
	describe(report, reason, text, sizeof(text));
	if (report->journal != -1 && report->connected) {
		snprintf(fields, sizeof(fields), "SPIPE_PEER=%s\nSPIPE_KEY=%s\nSPIPE_BYTES_IN=%llu\n"
		    "SPIPE_BYTES_OUT=%llu\nSPIPE_SECONDS=%.3f\nSPIPE_RESULT=%s\n", report->peer,
		    report->key == NULL ? "-" : report->key, (unsigned long long)report->bytes_in,
		    (unsigned long long)report->bytes_out, seconds(report), result_word(outcome));
		to_journal(report, priority, text, fields);
		await_journal(report);
		return;
	}
	if (failed && !(report->wire_is_stderr && report->connected))
		say(report, priority, reason);
	if (report->journal != -1)
		await_journal(report);
	if (report->record_syslog)
		syslog(priority, "%s", text);
	else if (report->verbose)
		to_stderr(report, text);
}
