#include "report.h"

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
	if (fd != -1 &&
	    connect(fd, (struct sockaddr *)&address,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Does systemd say that our stderr is the journal? (systemd.exec(5)) */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	/* NOLINTNEXTLINE(cert-err34-c): the numbers are systemd's */
	if (stream == NULL || sscanf(stream, "%llu:%llu", &device, &inode) != 2)
		return false;
	return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}
#endif

/*
 * Before the sandbox, which lets us neither connect to the log nor read the time zone. What a
 * listener has left its child may lead to a syslogd that has been restarted since.
 */
static void open_syslog(const char *program)
{
	closelog();
	openlog(program, LOG_PID | LOG_NDELAY, LOG_DAEMON);
	tzset();
}

void report_open(struct report *report, const char *program, const char *role, bool wire_is_stderr)
{
	*report = (struct report){ .program = program,
		.role = role,
		.journal = -1,
		.notify = -1,
		.started = time_now(),
		.peer = "-",
		.key = "-",
		.key_id = "-" };
	report->messages = wire_is_stderr ? TO_SYSLOG : TO_STDERR;
	if (wire_is_stderr)
		open_syslog(program);
#ifdef WITH_SYSTEMD
	const char *notify = getenv("NOTIFY_SOCKET");

	if (stderr_is_journal())
		report->journal = connect_to("/run/systemd/journal/socket");
	if (report->journal != -1)
		report->messages = TO_JOURNAL;
	if (notify != NULL)
		report->notify = connect_to(notify);
#endif
}

void report_on(struct report *report, const struct peer *peer, bool verbose)
{
	bool network = peer->local.family != AF_UNSPEC && peer->local.family != AF_UNIX;

	address_format(&peer->remote, report->peer, sizeof(report->peer));
	report->record = report->messages;
	if (report->messages == TO_STDERR && !verbose)
		report->record = network ? TO_SYSLOG : NOWHERE;
	if (report->record == TO_SYSLOG)
		open_syslog(report->program);
}

/*
 * One entry in the journal's own format (systemd.io/JOURNAL_NATIVE_PROTOCOL): KEY=VALUE lines.
 * No value holds a newline: every text here is made by us or has been checked.
 */
static void to_journal(struct report *report, int priority, const char *message, const char *fields)
{
	char entry[4 * TEXT_SIZE];
	int size = snprintf(entry, sizeof(entry),
	    "MESSAGE=%s\nPRIORITY=%d\nSYSLOG_IDENTIFIER=%s\nSPIPE_ROLE=%s\n%s", message, priority,
	    report->program, report->role, fields);

	send(report->journal, entry, (size_t)size, MSG_NOSIGNAL);
}

/*
 * When the journal reads an entry, it asks the kernel which unit the sender belongs to. If we had
 * exited by then, `journalctl -u` would not show the entry. So wait, for a second at most.
 */
static void await_journal(const struct report *report)
{
	int unread = 0;

	for (int i = 0; i < 1000 && ioctl(report->journal, SIOCOUTQ, &unread) == 0 && unread > 0;
	     i++)
		wait_poll(NULL, 0, time_now() + SECOND / 1000);
	wait_poll(NULL, 0, time_now() + SECOND / 1000); /* it has read the entry, and is asking */
}

/* One line in one write: lines stay whole even if several processes share stderr. */
static void to_stderr(const struct report *report, const char *text)
{
	char line[TEXT_SIZE + 32];
	int size = snprintf(line, sizeof(line), "%s: %s\n", report->program, text);

	(void)!write(STDERR_FILENO, line, (size_t)size);
}

/* One line, made printable: it may contain text from outside, such as a file's name. */
static void say(struct report *report, enum channel channel, int priority, char *text,
    const char *fields)
{
	if (report->muted)
		return;
	for (char *c = text; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 127)
			*c = '?';
	switch (channel) {
	case TO_STDERR: to_stderr(report, text); break;
	case TO_SYSLOG: syslog(priority, "%s", text); break;
	case TO_JOURNAL: to_journal(report, priority, text, fields); break;
	case NOWHERE: break;
	}
}

void report_warn(struct report *report, const char *format, ...)
{
	char text[TEXT_SIZE];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	say(report, report->messages, LOG_WARNING, text, "");
}

void report_left_out(struct report *report, const char *source, unsigned count)
{
	char text[TEXT_SIZE], fields[TEXT_SIZE];

	snprintf(text, sizeof(text),
	    "%s: %u more connections that did not prove a key are not in the log", source, count);
	snprintf(fields, sizeof(fields),
	    "MESSAGE_ID=" REPORT_LEFT_OUT "\nSPIPE_PEER=%s\nSPIPE_LEFT_OUT=%u\n", source, count);
	say(report, report->messages, LOG_WARNING, text, fields);
}

static double seconds(const struct report *report)
{
	return (double)(time_now() - report->started) / (double)SECOND;
}

static void describe(const struct report *report, const char *reason, char *text, size_t size)
{
	snprintf(text, size, "%s key %s: %llu bytes in, %llu bytes out, %.3f s: %s", report->peer,
	    report->key, (unsigned long long)report->bytes_in,
	    (unsigned long long)report->bytes_out, seconds(report), reason);
}

void report_progress(struct report *report)
{
	char text[TEXT_SIZE];

	describe(report, "in progress", text, sizeof(text));
	say(report, report->record == NOWHERE ? report->messages : report->record, LOG_INFO, text,
	    "");
}

static void notify(struct report *report, bool ready, const char *status, int flags)
{
	char message[TEXT_SIZE + 64];
	int size = snprintf(message, sizeof(message), "%sSTATUS=%s\n", ready ? "READY=1\n" : "",
	    status);

	if (report->notify != -1)
		send(report->notify, message, (size_t)size, MSG_NOSIGNAL | flags);
}

static void tell(struct report *report, bool ready, int flags)
{
	char text[TEXT_SIZE];

	describe(report, "relaying", text, sizeof(text));
	report->told = time_now();
	report->told_bytes = report->bytes_in + report->bytes_out;
	if (report->title != NULL)
		title_set(report->title, "%s: %s", report->program, text);
	notify(report, ready, text, flags);
}

void report_ready(struct report *report)
{
	tell(report, true, 0); /* must not be lost, however busy systemd is */
}

int64_t report_status(struct report *report)
{
	if (report->bytes_in + report->bytes_out == report->told_bytes)
		return NEVER;
	if (time_now() - report->told < 10 * SECOND)
		return report->told + 10 * SECOND;
	tell(report, false, MSG_DONTWAIT);
	return NEVER;
}

void report_listening(struct report *report, bool ready, bool progress, const char *format, ...)
{
	char text[TEXT_SIZE];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	notify(report, ready, text, ready ? 0 : MSG_DONTWAIT);
	if (progress)
		say(report, report->messages, LOG_INFO, text, "");
}

enum { BY_SIGNAL = -1, BY_LIMIT = -2 }; /* in place of an exit status */

const struct result report_results[REPORT_RESULTS] = {
	/* each is explained in units/spipe-filters.catalog */
	{ EX_OK, "clean", "0af363394fce43deaac4667232ef5a77" },
	{ EX_USAGE, "usage", "680de2bb44b7409a8c647172872caaa8" },
	{ EX_UNAVAILABLE, "target", "7e78d2aa987145d08291b9e77c81a8ea" },
	{ EX_IOERR, "lost", "e609ab3ada474c9faea6bcb48473e121" },
	{ EX_TEMPFAIL, "timeout", "21981a807e9f4419939f73a40b396152" },
	{ EX_PROTOCOL, "tampered", "5f73a3a5160a4d078403517bbafee82c" },
	{ EX_NOPERM, "refused", "d67c22e85e4c48bca3768bdaf287fef4" },
	{ EX_CONFIG, "key", "35337fdf9add4d2eaf5c49419e6e7731" },
	{ BY_LIMIT, "limit", "489090dc509643ba944ab33e9816d1aa" },
	{ BY_SIGNAL, "terminated", "1fc6e7b18e634253b2c04d67d7a9e384" },
	{ EX_OSERR, "system", "a8436bce7154447f8887fd0841f9a021" },
};

static const struct result *find_result(const struct outcome *outcome)
{
	const struct result *result = report_results;
	int status = outcome->status;

	if (outcome->signal != 0)
		status = status == EX_NOPERM ? BY_LIMIT : BY_SIGNAL;
	while (result->status != status && result->status != EX_OSERR)
		result++;
	return result;
}

void report_end(struct report *report, const struct outcome *outcome)
{
	bool failed = outcome->status != 0;
	int priority = !failed ? LOG_INFO : outcome->status == EX_NOPERM ? LOG_NOTICE : LOG_ERR;
	char reason[sizeof(outcome->reason) + 32], text[TEXT_SIZE], fields[TEXT_SIZE];
	const struct result *result = find_result(outcome);

	if (failed && outcome->signal == 0)
		snprintf(reason, sizeof(reason), "%s (status %d)", outcome->reason,
		    outcome->status);
	else
		snprintf(reason, sizeof(reason), "%s", failed ? outcome->reason : "ended cleanly");
	describe(report, reason, text, sizeof(text));
	/* A record in the log includes the error. */
	if (failed && (report->record == NOWHERE || report->messages == TO_STDERR))
		say(report, report->messages, priority, reason, "");
	snprintf(fields, sizeof(fields),
	    "MESSAGE_ID=%s\nSPIPE_RESULT=%s\nSPIPE_PEER=%s\nSPIPE_KEY=%s\nSPIPE_KEY_ID=%s\n"
	    "SPIPE_BYTES_IN=%llu\nSPIPE_BYTES_OUT=%llu\nSPIPE_SECONDS=%.3f\n",
	    result->id, result->word, report->peer, report->key, report->key_id,
	    (unsigned long long)report->bytes_in, (unsigned long long)report->bytes_out,
	    seconds(report));
	say(report, report->record, priority, text, fields);
	if (report->journal != -1)
		await_journal(report);
}
