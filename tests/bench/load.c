/*
 * The load tool behind `make bench`: one server, and clients that measure what lies between.
 *
 *	load serve [PORT]                               the server; prints its port, ends with its stdin
 *	load flow [-b] [-n TUNNELS] [-t MS] PORT        throughput, -b: both ways at once
 *	load trip [-s SIZE] [-g GAP_US] [-t MS] PORT    round trips of SIZE bytes, GAP_US apart
 *	load open [-j JOBS] [-m MOST] [-g GAP_US] [-t MS] PORT  new connections, one byte echoed on each
 *	load hold [-n TUNNELS] PORT                     idle connections
 *	load flood [-k KIND] [-r RATE] [-a ADDRESSES] [-t MS] PORT  strangers: RATE a second
 *	load spawn [-n TIMES] -- COMMAND...             CPU of one spawn
 *	load pair [-n TIMES] -- ENC... -- DEC...        CPU of both ends of one connection
 *	load stranger [-n TIMES] -- DEC...              CPU of a refused stranger
 *
 * Every result is one line of `name value` pairs. In a COMMAND, {A} becomes the address that the
 * encrypting end has to connect to and {B} the decrypting end's target. Strangers of KIND `leave`
 * send one byte and close, `silent` ones send one and stay, `wrong` ones send a wrong proof; `mixed`
 * are every other silent and wrong.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK (256 * 1024)       /* most bytes in one send */
#define CHUNK (1024 * 1024)      /* a chunk of a flow: its 4-byte length first */
#define TURN (1024 * 1024)       /* most bytes one stream moves before the next has its turn */
#define HEAD 8                   /* a connection begins: mode, 3 spare bytes, milliseconds */
#define READY 'r'                /* the server's answer to the head */
#define PATIENCE 60              /* seconds until a client gives up on everything */
#define UNANSWERED 5             /* seconds until it gives up on one connection */
#define STRANGER (32 + 256 + 32) /* a nonce and a first message */
#define STRANGERS 16384          /* most that a flood has open at once */
#define STAY 6                   /* seconds that they stay */

enum { MODE_ECHO = 'E', MODE_FLOW = 'F' };

/* One direction pair of a flow; both the server and the client are made of these. */
struct stream {
	int fd;
	bool echo;
	bool sends, is_server;
	bool waits; /* has not seen its head yet */
	bool end_sent, end_received, failed;
	uint8_t head[HEAD];
	size_t got;           /* bytes in head */
	uint32_t left;        /* of the chunk being received */
	uint32_t offset;      /* in the chunk being sent */
	uint32_t ms;          /* how long the server sends */
	uint32_t watched;     /* the events asked for */
	uint64_t until, most; /* when or after how many bytes to stop sending */
	uint64_t sent, received;
};

static uint8_t block[BLOCK];

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void usage(void)
{
	fprintf(stderr, "load: see the head of load.c for the usage\n");
	exit(64);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t number(const char *text)
{
	char *end;
	unsigned long long n = strtoull(text, &end, 10);

	if (*text == 0 || *end != 0)
		usage();
	return n;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The value below which `part` of the `n` values lie; sorts them. */
static uint64_t quantile(uint64_t *values, size_t n, double part)
{
	if (n == 0)
		return 0;
	qsort(values, n, sizeof *values, compare);
	return values[(size_t)(part * (double)(n - 1) + 0.5)];
}

static void no_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static struct sockaddr_in loopback(unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

/* Listens on *port, or if that is 0 on any, which *port becomes. */
static int listen_on(unsigned *port)
{
	struct sockaddr_in a = loopback(*port);
	socklen_t size = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
	    bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096) ||
	    getsockname(fd, (struct sockaddr *)&a, &size))
		die("listen");
	*port = ntohs(a.sin_port);
	return fd;
}

/* Returns a connected socket, or -1. */
static int try_connect(unsigned port)
{
	struct sockaddr_in a = loopback(port);
	struct timeval most = { .tv_sec = UNANSWERED };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
	if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
		close(fd);
		return -1;
	}
	no_delay(fd);
	return fd;
}

static int must_connect(unsigned port)
{
	int fd = try_connect(port);

	if (fd == -1)
		die("connect");
	return fd;
}

static int must_accept(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd == -1)
		die("accept");
	no_delay(fd);
	return fd;
}

/* Reads or writes all `size` bytes of a blocking socket; false at the end of it. */
static bool read_all(int fd, void *p, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = recv(fd, (char *)p + done, size - done, 0);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		done += n;
	}
	return true;
}

static bool write_all(int fd, const void *p, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = send(fd, (const char *)p + done, size - done, MSG_NOSIGNAL);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return false;
		done += n;
	}
	return true;
}

/* Opens a connection through the tunnel and returns once the server has answered, or -1. */
static int greet(unsigned port, int mode, uint32_t ms)
{
	uint8_t head[HEAD] = { mode };
	uint8_t answer;
	int fd = try_connect(port);

	if (fd == -1)
		return -1;
	memcpy(head + 4, &ms, sizeof ms);
	if (!write_all(fd, head, sizeof head) || !read_all(fd, &answer, 1) || answer != READY) {
		close(fd);
		return -1;
	}
	return fd;
}

static void wait_for_line(void)
{
	char line[16];

	printf("ready\n");
	fflush(stdout);
	if (fgets(line, sizeof line, stdin) == NULL)
		exit(1);
}

/* --- flows ------------------------------------------------------------------------------- */

static void stream_end(struct stream *s)
{
	static const uint8_t zero[4];

	/* The socket may be full: the four bytes then wait for the next time. */
	if (send(s->fd, zero, sizeof zero, MSG_NOSIGNAL) == sizeof zero)
		s->end_sent = true;
	else if (errno != EAGAIN)
		s->failed = true;
}

static bool stream_is_over(const struct stream *s)
{
	return s->sent >= s->most || now() >= s->until;
}

static void stream_send(struct stream *s)
{
	size_t turn = 0;

	while (turn < TURN && !s->failed) {
		if (s->offset == 0 && (!s->sends || stream_is_over(s))) {
			s->sends = false;
			if (!s->is_server || s->end_received)
				stream_end(s);
			return;
		}
		uint32_t at = s->offset % BLOCK;
		ssize_t n = send(s->fd, block + at, BLOCK - at, MSG_NOSIGNAL);
		if (n == -1) {
			s->failed = errno != EAGAIN && errno != EINTR;
			return;
		}
		s->offset = (s->offset + n) % CHUNK;
		s->sent += n;
		turn += n;
		if (n < BLOCK - (ssize_t)at)
			return;
	}
}

/* The data itself is thrown away inside the kernel: the tool's own cost is none of the tunnel's. */
static void stream_receive(struct stream *s)
{
	size_t turn = 0;

	while (turn < TURN && !s->end_received) {
		ssize_t n;
		if (s->left > 0) {
			n = recv(s->fd, block, s->left, MSG_TRUNC);
			if (n > 0)
				s->left -= n;
		} else {
			n = recv(s->fd, s->head + s->got, 4 - s->got, 0);
			if (n > 0 && (s->got += n) == 4) {
				memcpy(&s->left, s->head, 4);
				s->got = 0;
				s->end_received = s->left == 0;
			}
		}
		if (n == -1 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			s->failed = true;
			return;
		}
		s->received += n;
		turn += n;
	}
}

static void block_fill(void)
{
	uint32_t length = CHUNK - 4, x = 1;

	for (size_t i = 0; i < BLOCK; i++) {
		x = x * 1664525 + 1013904223;
		block[i] = x >> 24;
	}
	memcpy(block, &length, sizeof length);
}

static void watch(int set, struct stream *s, int op)
{
	struct epoll_event e = { .data.ptr = s };
	bool can_end = !s->is_server || s->end_received;

	if (!s->end_received || s->echo)
		e.events |= EPOLLIN;
	if (!s->waits && !s->echo && !s->end_sent && (s->sends || s->offset != 0 || can_end))
		e.events |= EPOLLOUT;
	if (op == EPOLL_CTL_MOD && e.events == s->watched)
		return;
	s->watched = e.events;
	if (epoll_ctl(set, op, s->fd, &e))
		die("epoll_ctl");
}

/* --- the server -------------------------------------------------------------------------- */

/* Takes the head of a connection; false when the connection is of no use. */
static bool serve_head(struct stream *s)
{
	ssize_t n = recv(s->fd, s->head + s->got, HEAD - s->got, 0);
	uint8_t answer = READY;

	if (n <= 0)
		return n == -1 && errno == EAGAIN;
	if ((s->got += n) < HEAD)
		return true;
	s->got = 0;
	s->waits = false;
	s->echo = s->head[0] == MODE_ECHO;
	memcpy(&s->ms, s->head + 4, sizeof s->ms);
	return send(s->fd, &answer, 1, MSG_NOSIGNAL) == 1;
}

static bool serve_echo(struct stream *s)
{
	static uint8_t data[65536];
	ssize_t n = recv(s->fd, data, sizeof data, 0);

	if (n == -1)
		return errno == EAGAIN;
	for (ssize_t done = 0; done < n;) {
		ssize_t m = send(s->fd, data + done, n - done, MSG_NOSIGNAL);
		if (m == -1 && errno == EAGAIN) {
			struct pollfd p = { .fd = s->fd, .events = POLLOUT };
			poll(&p, 1, 1000);
		} else if (m == -1) {
			return false;
		} else {
			done += m;
		}
	}
	return n > 0;
}

static bool serve_flow(struct stream *s, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		bool first = s->received == 0;
		stream_receive(s);
		if (first && s->received > 0 && s->ms > 0) {
			s->sends = true;
			s->until = now() + s->ms * 1000000ull;
		}
		if (s->end_received && s->end_sent)
			return false;
	}
	if (!s->end_sent && (s->sends || s->offset != 0 || s->end_received))
		stream_send(s);
	return !s->failed;
}

static int serve(unsigned port)
{
	int set = epoll_create1(EPOLL_CLOEXEC), listener = listen_on(&port);
	struct epoll_event e = { .events = EPOLLIN }, events[64];

	fcntl(listener, F_SETFL, O_NONBLOCK);
	epoll_ctl(set, EPOLL_CTL_ADD, listener, &e);
	e.data.ptr = &port; /* means standard input */
	epoll_ctl(set, EPOLL_CTL_ADD, 0, &e);
	printf("port %u\n", port);
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(set, events, 64, -1);
		for (int i = 0; i < n; i++) {
			struct stream *s = events[i].data.ptr;
			if (events[i].data.ptr == &port)
				return 0;
			if (s == NULL) {
				int fd = accept4(listener, NULL, NULL,
				    SOCK_NONBLOCK | SOCK_CLOEXEC);
				if (fd == -1)
					continue;
				no_delay(fd);
				s = calloc(1, sizeof *s);
				if (s == NULL)
					die("calloc");
				*s = (struct stream){ .fd = fd,
					.is_server = true,
					.waits = true,
					.most = UINT64_MAX };
				watch(set, s, EPOLL_CTL_ADD);
				continue;
			}
			bool lives = s->waits ? serve_head(s)
			    : s->echo         ? serve_echo(s)
					      : serve_flow(s, events[i].events);
			/* After the end of a flow only the peer's close is of interest. */
			if (lives && s->end_sent && s->end_received) {
				s->echo = true;
				s->end_received = false;
			}
			if (lives) {
				watch(set, s, EPOLL_CTL_MOD);
			} else {
				close(s->fd);
				free(s);
			}
		}
	}
}

/* --- the clients ------------------------------------------------------------------------- */

static struct stream *streams_open(unsigned port, size_t n, uint32_t ms)
{
	struct stream *s = calloc(n, sizeof *s);

	if (s == NULL)
		die("calloc");
	for (size_t i = 0; i < n; i++) {
		s[i] = (struct stream){ .fd = greet(port, MODE_FLOW, ms),
			.sends = true,
			.until = UINT64_MAX,
			.most = UINT64_MAX };
		if (s[i].fd == -1)
			die("a tunnel did not open");
		fcntl(s[i].fd, F_SETFL, O_NONBLOCK);
	}
	return s;
}

/* Runs all streams to their ends and returns the bytes moved. */
static uint64_t streams_run(struct stream *s, size_t n)
{
	int set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event events[64];
	size_t open = n;
	uint64_t total = 0;

	for (size_t i = 0; i < n; i++)
		watch(set, &s[i], EPOLL_CTL_ADD);
	while (open > 0) {
		int ready = epoll_wait(set, events, 64, -1);
		for (int i = 0; i < ready; i++) {
			struct stream *t = events[i].data.ptr;
			bool sending = !t->end_sent;
			if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				stream_receive(t);
			if (sending && (events[i].events & EPOLLOUT))
				stream_send(t);
			if (t->failed)
				die("a tunnel broke");
			if (t->end_received) {
				total += t->sent + t->received;
				epoll_ctl(set, EPOLL_CTL_DEL, t->fd, NULL);
				open--;
			} else if (sending && t->end_sent) {
				watch(set, t, EPOLL_CTL_MOD);
			}
		}
	}
	close(set);
	return total;
}

static int flow(unsigned port, size_t tunnels, bool both, uint32_t ms)
{
	struct stream *s = streams_open(port, tunnels, both ? ms : 0);

	uint64_t start = now();
	for (size_t i = 0; i < tunnels; i++)
		s[i].until = start + ms * 1000000ull;
	uint64_t total = streams_run(s, tunnels);
	uint64_t took = now() - start;
	printf("bytes %ju seconds %.6f rate %.2f\n", (uintmax_t)total, took / 1e9,
	    total * 1e3 / took);
	return 0;
}

static int hold(unsigned port, size_t tunnels)
{
	streams_open(port, tunnels, 0);
	wait_for_line();
	return 0;
}

static int trip(unsigned port, size_t size, unsigned gap, uint32_t ms)
{
	size_t n = 0, room = 1 << 20;
	uint64_t *times = malloc(room * sizeof *times), sum = 0;
	int fd = greet(port, MODE_ECHO, 0);

	if (times == NULL || size == 0 || size > BLOCK)
		usage();
	if (fd == -1)
		die("the tunnel did not open");
	uint64_t end = now() + ms * 1000000ull;
	while (n < room) {
		uint64_t start = now();
		if (start >= end)
			break;
		if (!write_all(fd, block, size) || !read_all(fd, block, size))
			die("the tunnel broke");
		times[n] = now() - start;
		sum += times[n++];
		if (gap > 0)
			usleep(gap);
	}
	if (n == 0)
		die("no round trip");
	printf("trips %zu median_us %.2f mean_us %.2f p99_us %.2f\n", n,
	    quantile(times, n, 0.5) / 1e3, sum / 1e3 / n, quantile(times, n, 0.99) / 1e3);
	return 0;
}

/* One job of `open`; how long each connection took goes down the pipe, or 0 for one that failed. */
static void open_job(unsigned port, uint64_t end, uint64_t most, unsigned gap, int pipe)
{
	for (uint64_t start; most > 0 && (start = now()) < end; most--) {
		uint8_t byte = 'x';
		int fd = greet(port, MODE_ECHO, 0);
		bool served = fd != -1 && write_all(fd, &byte, 1) && read_all(fd, &byte, 1);
		uint64_t took = served ? now() - start : 0;
		if (fd != -1)
			close(fd);
		if (write(pipe, &took, sizeof took) != sizeof took)
			_exit(1);
		if (gap > 0 || !served)
			usleep(served ? gap : 10000);
	}
	_exit(0);
}

static int open_many(unsigned port, size_t jobs, uint64_t most, unsigned gap, uint32_t ms)
{
	static uint64_t times[1 << 20];
	size_t done = 0, failed = 0;
	uint64_t start = now(), took;
	int pipes[2];

	if (pipe(pipes))
		die("pipe");
	for (size_t i = 0; i < jobs; i++) {
		pid_t pid = fork();
		if (pid == -1)
			die("fork");
		if (pid == 0) {
			alarm(PATIENCE);
			open_job(port, start + ms * 1000000ull, most / jobs, gap, pipes[1]);
		}
	}
	close(pipes[1]);
	while (done < sizeof times / sizeof *times &&
	    read(pipes[0], &took, sizeof took) == sizeof took)
		if (took == 0)
			failed++;
		else
			times[done++] = took;
	double seconds = (now() - start) / 1e9;
	while (wait(NULL) != -1)
		;
	printf("connections %zu failed %zu rate %.1f median_ms %.2f p99_ms %.2f\n", done, failed,
	    done / seconds, quantile(times, done, 0.5) / 1e6, quantile(times, done, 0.99) / 1e6);
	return 0;
}

/* --- strangers --------------------------------------------------------------------------- */

enum kind { LEAVE, SILENT, WRONG, MIXED };

struct stranger {
	int fd; /* -1: closed */
	enum kind kind;
	bool spoke;
	uint64_t until;
};

static enum kind kind_of(const char *text)
{
	static const char *const names[] = { "leave", "silent", "wrong", "mixed" };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(text, names[i]) == 0)
			return (enum kind)i;
	usage();
	return LEAVE;
}

/* Connects from the address with this number, of 127.0.1.1 and up. */
static void stranger_open(struct stranger *s, unsigned port, uint32_t number, int set)
{
	struct sockaddr_in to = loopback(port), from = loopback(0);
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = s };
	int one = 1;

	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->fd == -1)
		die("socket");
	from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 256 * (1 + number / 250) + number % 250);
	setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
	if (bind(s->fd, (struct sockaddr *)&from, sizeof from))
		die("bind");
	if (connect(s->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
		die("connect");
	epoll_ctl(set, EPOLL_CTL_ADD, s->fd, &e);
}

static void stranger_close(struct stranger *s)
{
	if (s->fd != -1)
		close(s->fd);
	s->fd = -1;
}

/* Says what there is to say, and throws away what comes. */
static void stranger_continue(struct stranger *s, uint32_t events)
{
	ssize_t n;

	if ((events & EPOLLOUT) && !s->spoke) {
		s->spoke = true;
		send(s->fd, block, s->kind == WRONG ? STRANGER : 1, MSG_NOSIGNAL);
	}
	n = recv(s->fd, block, 4096, MSG_TRUNC);
	if ((n == -1 && errno != EAGAIN) || n == 0 || (s->kind == LEAVE && s->spoke))
		stranger_close(s);
}

static int flood(unsigned port, enum kind kind, unsigned rate, unsigned addresses, uint32_t ms)
{
	static struct stranger all[STRANGERS];
	struct rlimit most;
	int set = epoll_create1(EPOLL_CLOEXEC);
	uint64_t start = now(), end = start + ms * 1000000ull, made = 0, over = 0, t;

	getrlimit(RLIMIT_NOFILE, &most);
	most.rlim_cur = most.rlim_max;
	setrlimit(RLIMIT_NOFILE, &most);
	while ((t = now()) < end) {
		struct epoll_event events[64];
		for (; over < made && t > all[over % STRANGERS].until; over++)
			stranger_close(&all[over % STRANGERS]);
		for (; made - over < STRANGERS && made < (t - start) * rate / 1000000000; made++) {
			struct stranger *s = &all[made % STRANGERS];
			*s = (struct stranger){ .kind = kind, .until = t + STAY * 1000000000ull };
			if (kind == MIXED)
				s->kind = made / addresses % 2 == 0 ? SILENT : WRONG;
			stranger_open(s, port, made % addresses, set);
		}
		int n = epoll_wait(set, events, 64, 1);
		for (int i = 0; i < n; i++)
			stranger_continue(events[i].data.ptr, events[i].events);
	}
	printf("made %ju rate %.1f\n", (uintmax_t)made, made * 1e9 / (t - start));
	return 0;
}

/* --- the spawn meter --------------------------------------------------------------------- */

/* Starts a command, unless -1 with `near` as fds 0 and 1. */
static pid_t spawn(char **argv, int near)
{
	pid_t pid = vfork();

	if (pid == -1)
		die("vfork");
	if (pid == 0) {
		if (near != -1) {
			dup2(near, 0);
			dup2(near, 1);
		}
		execvp(argv[0], argv);
		_exit(126);
	}
	return pid;
}

/* Waits for a child and returns its CPU time, and its children's, in microseconds. */
static uint64_t reap(pid_t pid, int *status)
{
	struct rusage u;

	while (wait4(pid, status, 0, &u) == -1)
		if (errno != EINTR)
			die("wait4");
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000ull + u.ru_utime.tv_usec +
	    u.ru_stime.tv_usec;
}

static uint64_t *values(size_t n)
{
	uint64_t *v = calloc(n, sizeof *v);

	if (n == 0 || v == NULL)
		usage();
	return v;
}

/* A connected pair of TCP sockets. */
static void tcp_pair(int listener, unsigned port, int pair[2])
{
	pair[0] = must_connect(port);
	pair[1] = must_accept(listener);
}

static void put_addresses(char **argv, unsigned a, unsigned b)
{
	for (; *argv != NULL; argv++)
		if (strcmp(*argv, "{A}") == 0 || strcmp(*argv, "{B}") == 0) {
			if (asprintf(argv, "127.0.0.1:%u", (*argv)[1] == 'A' ? a : b) == -1)
				die("malloc");
		}
}

static int spawn_plain(char **argv, size_t times)
{
	uint64_t *cpu = values(times), *wall = values(times);
	int status = 0;

	for (size_t i = 0; i < times; i++) {
		uint64_t start = now();
		cpu[i] = reap(spawn(argv, -1), &status);
		wall[i] = now() - start;
	}
	printf("cpu_us %ju wall_us %.1f status %d\n", (uintmax_t)quantile(cpu, times, 0.5),
	    quantile(wall, times, 0.5) / 1e3, WEXITSTATUS(status));
	return 0;
}

/* Both ends of one connection, one byte there and back, ended by the near client. */
static int spawn_pair(char **enc, char **dec, size_t times)
{
	uint64_t *enc_cpu = values(times), *dec_cpu = values(times), *wall = values(times);
	unsigned port = 0, a = 0, b = 0;
	int any = listen_on(&port), far = listen_on(&a), target = listen_on(&b);
	int enc_status = 0, dec_status = 0;

	put_addresses(enc, a, b);
	put_addresses(dec, a, b);
	for (size_t i = 0; i < times; i++) {
		int near[2], wire, end;
		uint8_t byte = 'x';
		tcp_pair(any, port, near);
		uint64_t start = now();
		pid_t enc_pid = spawn(enc, near[1]);
		close(near[1]);
		wire = must_accept(far);
		pid_t dec_pid = spawn(dec, wire);
		close(wire);
		if (!write_all(near[0], &byte, 1))
			die("near side");
		end = must_accept(target);
		if (!read_all(end, &byte, 1) || !write_all(end, &byte, 1) ||
		    !read_all(near[0], &byte, 1))
			die("the byte did not come back");
		wall[i] = now() - start;
		shutdown(near[0], SHUT_WR);
		if (recv(end, &byte, 1, 0) != 0)
			die("no end of stream at the target");
		close(end);
		if (recv(near[0], &byte, 1, 0) != 0)
			die("no end of stream at the near side");
		close(near[0]);
		enc_cpu[i] = reap(enc_pid, &enc_status);
		dec_cpu[i] = reap(dec_pid, &dec_status);
	}
	printf("enc_cpu_us %ju dec_cpu_us %ju wall_us %.1f enc_status %d dec_status %d\n",
	    (uintmax_t)quantile(enc_cpu, times, 0.5), (uintmax_t)quantile(dec_cpu, times, 0.5),
	    quantile(wall, times, 0.5) / 1e3, WEXITSTATUS(enc_status), WEXITSTATUS(dec_status));
	return 0;
}

/* A peer without the key. ready_us: from spawn until the filter's nonce has arrived. */
static int spawn_stranger(char **dec, size_t times)
{
	uint64_t *cpu = values(times), *wall = values(times);
	unsigned port = 0;
	int any = listen_on(&port), status = 0;

	put_addresses(dec, port, port); /* nobody gets that far */
	for (size_t i = 0; i < times; i++) {
		int near[2];
		uint8_t nonce[32];
		tcp_pair(any, port, near);
		uint64_t start = now();
		pid_t pid = spawn(dec, near[1]);
		close(near[1]);
		if (!read_all(near[0], nonce, sizeof nonce))
			die("no nonce");
		wall[i] = now() - start;
		if (!write_all(near[0], block, STRANGER))
			die("stranger");
		cpu[i] = reap(pid, &status);
		close(near[0]);
	}
	printf("cpu_us %ju ready_us %.1f status %d\n", (uintmax_t)quantile(cpu, times, 0.5),
	    quantile(wall, times, 0.5) / 1e3, WEXITSTATUS(status));
	return 0;
}

/* Ends the first of two commands parted by `--` and returns the second. */
static char **second_command(char **argv)
{
	for (; *argv != NULL; argv++)
		if (strcmp(*argv, "--") == 0) {
			*argv = NULL;
			return argv + 1;
		}
	usage();
	return NULL;
}

int main(int argc, char **argv)
{
	bool both = false;
	unsigned gap = 0, rate = 100, addresses = 1;
	uint32_t ms = 1000;
	uint64_t n = 1, jobs = 4, most = UINT64_MAX, size = 1;
	enum kind kind = WRONG;
	int c;

	if (argc < 2)
		usage();
	const char *what = argv[1];
	argc--, argv++;
	while ((c = getopt(argc, argv, "+a:bg:j:k:m:n:r:s:t:")) != -1)
		switch (c) {
		case 'a': addresses = number(optarg); break;
		case 'b': both = true; break;
		case 'g': gap = number(optarg); break;
		case 'j': jobs = number(optarg); break;
		case 'k': kind = kind_of(optarg); break;
		case 'm': most = number(optarg); break;
		case 'n': n = number(optarg); break;
		case 'r': rate = number(optarg); break;
		case 's': size = number(optarg); break;
		case 't': ms = number(optarg); break;
		default: usage();
		}
	argc -= optind, argv += optind;
	if (gap >= 1000000 || n == 0 || jobs == 0 || addresses == 0)
		usage();
	block_fill();
	if (strcmp(what, "serve") == 0)
		return serve(argc < 1 ? 0 : number(argv[0]));
	if (argc < 1)
		usage();
	alarm(PATIENCE);
	if (strcmp(what, "spawn") == 0)
		return spawn_plain(argv, n);
	if (strcmp(what, "pair") == 0) {
		char **dec = second_command(argv);
		return spawn_pair(argv, dec, n);
	}
	if (strcmp(what, "stranger") == 0)
		return spawn_stranger(argv, n);
	unsigned port = number(argv[0]);
	if (strcmp(what, "flow") == 0)
		return flow(port, n, both, ms);
	if (strcmp(what, "trip") == 0)
		return trip(port, size, gap, ms);
	if (strcmp(what, "open") == 0)
		return open_many(port, jobs, most, gap, ms);
	if (strcmp(what, "hold") == 0)
		return hold(port, n);
	if (strcmp(what, "flood") == 0)
		return flood(port, kind, rate, addresses, ms);
	usage();
}
