/*
 * The load tool behind `make bench`: one server, and clients that measure what lies between.
 *
 *	load serve                                   the server; prints its port, ends with its stdin
 *	load flow [-b] [-n TUNNELS] [-t MS] [-w] PORT     throughput, -b: both ways at once
 *	load trip [-s SIZE] [-g GAP_US] [-t MS] [-w] PORT round trips of SIZE bytes, GAP_US apart
 *	load open [-j JOBS] [-m MOST] [-t MS] PORT        new connections, one byte echoed on each
 *	load hold [-n TUNNELS] [-m BYTES] PORT            idle, then BYTES over each, then silence
 *	load spawn [-n TIMES] -- COMMAND...               CPU of one spawn
 *	load pair [-6] [-n TIMES] -- ENC... -- DEC...     CPU of both ends of one connection
 *	load stranger [-6] [-n TIMES] -- DEC...           CPU of a refused stranger
 *
 * Every result is one line of `name value` pairs. -w: say "ready" when all connections stand, then
 * wait for a line; after the result, for the end of the input. In a COMMAND, {A} becomes the port
 * that the encrypting end's far side has to connect to and {B} the decrypting end's target; with
 * -6 the connection is on fds 6 and 7 instead.
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
#define STRANGER (32 + 256 + 32) /* a nonce and a first message */

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

static int listen_any(unsigned *port)
{
	struct sockaddr_in a = loopback(0);
	socklen_t size = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096) ||
	    getsockname(fd, (struct sockaddr *)&a, &size))
		die("listen");
	*port = ntohs(a.sin_port);
	return fd;
}

/* Returns a connected socket, or -1. */
static int try_connect(unsigned port)
{
	struct sockaddr_in a = loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1)
		die("socket");
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

/* Stays, with all connections open, until whoever reads the result has read more. */
static void wait_for_end(void)
{
	fflush(stdout);
	while (getchar() != EOF)
		;
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

static int serve(void)
{
	unsigned port;
	int set = epoll_create1(EPOLL_CLOEXEC), listener = listen_any(&port);
	struct epoll_event e = { .events = EPOLLIN }, events[64];

	fcntl(listener, F_SETFL, O_NONBLOCK);
	epoll_ctl(set, EPOLL_CTL_ADD, listener, &e);
	e.data.ptr = &port; /* stands for the standard input */
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

static int flow(unsigned port, size_t tunnels, bool both, uint32_t ms, bool waits)
{
	struct stream *s = streams_open(port, tunnels, both ? ms : 0);

	if (waits)
		wait_for_line();
	uint64_t start = now();
	for (size_t i = 0; i < tunnels; i++)
		s[i].until = start + ms * 1000000ull;
	uint64_t total = streams_run(s, tunnels);
	uint64_t took = now() - start;
	printf("bytes %ju seconds %.6f rate %.2f\n", (uintmax_t)total, took / 1e9,
	    total * 1e3 / took);
	if (waits)
		wait_for_end();
	return 0;
}

static int hold(unsigned port, size_t tunnels, uint64_t bytes)
{
	struct stream *s = streams_open(port, tunnels, 0);

	wait_for_line();
	for (size_t i = 0; i < tunnels; i++)
		s[i].most = bytes;
	streams_run(s, tunnels);
	wait_for_line();
	return 0;
}

static int trip(unsigned port, size_t size, unsigned gap, uint32_t ms, bool waits)
{
	size_t n = 0, room = 1 << 20;
	uint64_t *times = malloc(room * sizeof *times), sum = 0;
	int fd = greet(port, MODE_ECHO, 0);

	if (times == NULL || size == 0 || size > BLOCK)
		usage();
	if (fd == -1)
		die("the tunnel did not open");
	if (waits)
		wait_for_line();
	uint64_t end = now() + ms * 1000000ull;
	while (n < room) {
		uint64_t start = now();
		if (start >= end)
			break;
		if (!write_all(fd, block, size) || !read_all(fd, block, size))
			die("the tunnel broke");
		times[n] = now() - start;
		sum += times[n++];
		if (gap > 0) {
			struct timespec t = { .tv_nsec = gap * 1000L };
			nanosleep(&t, NULL);
		}
	}
	if (n == 0)
		die("no round trip");
	printf("trips %zu median_us %.2f mean_us %.2f p99_us %.2f\n", n,
	    quantile(times, n, 0.5) / 1e3, sum / 1e3 / n, quantile(times, n, 0.99) / 1e3);
	if (waits)
		wait_for_end();
	return 0;
}

/* One job of `open`; its counts go down the pipe. */
static void open_job(unsigned port, uint64_t end, uint64_t most, int pipe)
{
	uint64_t counts[2] = { 0, 0 };

	while (counts[0] < most && counts[1] < 100 && now() < end) {
		uint8_t byte = 'x';
		int fd = greet(port, MODE_ECHO, 0);
		if (fd != -1 && write_all(fd, &byte, 1) && read_all(fd, &byte, 1))
			counts[0]++;
		else
			counts[1]++;
		if (fd != -1)
			close(fd);
	}
	if (write(pipe, counts, sizeof counts) != sizeof counts)
		_exit(1);
	_exit(0);
}

static int open_many(unsigned port, size_t jobs, uint64_t most, uint32_t ms)
{
	int pipes[2];
	uint64_t counts[2], done = 0, failed = 0, start = now();

	if (pipe(pipes))
		die("pipe");
	for (size_t i = 0; i < jobs; i++) {
		pid_t pid = fork();
		if (pid == -1)
			die("fork");
		if (pid == 0) {
			alarm(PATIENCE);
			open_job(port, start + ms * 1000000ull, most / jobs, pipes[1]);
		}
	}
	close(pipes[1]);
	while (read(pipes[0], counts, sizeof counts) == sizeof counts) {
		done += counts[0];
		failed += counts[1];
	}
	double took = (now() - start) / 1e9;
	while (wait(NULL) != -1)
		;
	printf("connections %ju failed %ju seconds %.6f rate %.1f\n", (uintmax_t)done,
	    (uintmax_t)failed, took, done / took);
	return 0;
}

/* --- the spawn meter --------------------------------------------------------------------- */

/* Starts a command with `near` as fds 0 and 1 and, unless -1, `far` as fds 6 and 7. */
static pid_t spawn(char **argv, int near, int far)
{
	pid_t pid = vfork();

	if (pid == -1)
		die("vfork");
	if (pid == 0) {
		if (near != -1) {
			dup2(near, 0);
			dup2(near, 1);
		}
		if (far != -1) {
			dup2(far, 6);
			dup2(far, 7);
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

/* Descriptors from 10 up, so that fds 6 and 7 are free to be given away. */
static int high(int fd)
{
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, 10);

	if (moved == -1)
		die("fcntl");
	close(fd);
	return moved;
}

/* A connected pair of TCP sockets. */
static void tcp_pair(int listener, unsigned port, int pair[2])
{
	pair[0] = high(must_connect(port));
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd == -1)
		die("accept");
	pair[1] = high(fd);
	no_delay(pair[1]);
}

static int accept_high(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd == -1)
		die("accept");
	no_delay(fd);
	return high(fd);
}

static void put_ports(char **argv, unsigned a, unsigned b)
{
	for (; *argv != NULL; argv++)
		if (strcmp(*argv, "{A}") == 0 || strcmp(*argv, "{B}") == 0) {
			char *text = malloc(6);
			if (text == NULL)
				die("malloc");
			snprintf(text, 6, "%u", (*argv)[1] == 'A' ? a : b);
			*argv = text;
		}
}

static int spawn_plain(char **argv, size_t times)
{
	uint64_t *cpu = values(times), *wall = values(times);
	int status = 0;

	for (size_t i = 0; i < times; i++) {
		uint64_t start = now();
		cpu[i] = reap(spawn(argv, -1, -1), &status);
		wall[i] = now() - start;
	}
	printf("cpu_us %ju wall_us %.1f status %d\n", (uintmax_t)quantile(cpu, times, 0.5),
	    quantile(wall, times, 0.5) / 1e3, WEXITSTATUS(status));
	return 0;
}

/* Both ends of one connection, one byte there and back, ended by the near client. */
static int spawn_pair(char **enc, char **dec, size_t times, bool on_fds)
{
	uint64_t *enc_cpu = values(times), *dec_cpu = values(times), *wall = values(times);
	unsigned port, a, b;
	int any = high(listen_any(&port)), far = high(listen_any(&a)),
	    target = high(listen_any(&b));
	int enc_status = 0, dec_status = 0;

	put_ports(enc, a, b);
	put_ports(dec, a, b);
	for (size_t i = 0; i < times; i++) {
		int near[2], wire[2], end[2] = { -1, -1 };
		uint8_t byte = 'x';
		tcp_pair(any, port, near);
		if (on_fds)
			tcp_pair(far, a, wire);
		uint64_t start = now();
		pid_t enc_pid = spawn(enc, near[1], on_fds ? wire[0] : -1);
		close(near[1]);
		if (on_fds)
			close(wire[0]);
		else
			wire[1] = accept_high(far);
		if (on_fds)
			tcp_pair(target, b, end);
		pid_t dec_pid = spawn(dec, wire[1], on_fds ? end[0] : -1);
		close(wire[1]);
		if (on_fds)
			close(end[0]);
		if (!write_all(near[0], &byte, 1))
			die("near side");
		if (!on_fds)
			end[1] = accept_high(target);
		if (!read_all(end[1], &byte, 1) || !write_all(end[1], &byte, 1) ||
		    !read_all(near[0], &byte, 1))
			die("the byte did not come back");
		wall[i] = now() - start;
		shutdown(near[0], SHUT_WR);
		if (recv(end[1], &byte, 1, 0) != 0)
			die("no end of stream at the target");
		close(end[1]);
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
static int spawn_stranger(char **dec, size_t times, bool on_fds)
{
	uint64_t *cpu = values(times), *wall = values(times);
	unsigned port, a, b;
	int any = high(listen_any(&port)), far = high(listen_any(&a)),
	    target = high(listen_any(&b));
	int status = 0;

	(void)far;
	put_ports(dec, a, b);
	for (size_t i = 0; i < times; i++) {
		int near[2], end[2] = { -1, -1 };
		uint8_t nonce[32];
		tcp_pair(any, port, near);
		if (on_fds)
			tcp_pair(target, b, end);
		uint64_t start = now();
		pid_t pid = spawn(dec, near[1], end[0]);
		close(near[1]);
		if (on_fds)
			close(end[0]);
		if (!read_all(near[0], nonce, sizeof nonce))
			die("no nonce");
		wall[i] = now() - start;
		if (!write_all(near[0], block, STRANGER))
			die("stranger");
		cpu[i] = reap(pid, &status);
		close(near[0]);
		if (on_fds)
			close(end[1]);
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
	bool both = false, waits = false, on_fds = false;
	unsigned gap = 0;
	uint32_t ms = 1000;
	uint64_t n = 1, jobs = 4, most = UINT64_MAX, size = 1;
	int c;

	if (argc < 2)
		usage();
	const char *what = argv[1];
	argc--, argv++;
	while ((c = getopt(argc, argv, "+6bg:j:m:n:s:t:w")) != -1)
		switch (c) {
		case '6': on_fds = true; break;
		case 'b': both = true; break;
		case 'g': gap = number(optarg); break;
		case 'j': jobs = number(optarg); break;
		case 'm': most = number(optarg); break;
		case 'n': n = number(optarg); break;
		case 's': size = number(optarg); break;
		case 't': ms = number(optarg); break;
		case 'w': waits = true; break;
		default: usage();
		}
	argc -= optind, argv += optind;
	if (gap >= 1000000 || n == 0 || jobs == 0)
		usage();
	block_fill();
	if (strcmp(what, "serve") == 0)
		return serve();
	if (argc < 1)
		usage();
	alarm(PATIENCE);
	if (strcmp(what, "spawn") == 0)
		return spawn_plain(argv, n);
	if (strcmp(what, "pair") == 0) {
		char **dec = second_command(argv);
		return spawn_pair(argv, dec, n, on_fds);
	}
	if (strcmp(what, "stranger") == 0)
		return spawn_stranger(argv, n, on_fds);
	unsigned port = number(argv[0]);
	if (strcmp(what, "flow") == 0)
		return flow(port, n, both, ms, waits);
	if (strcmp(what, "trip") == 0)
		return trip(port, size, gap, ms, waits);
	if (strcmp(what, "open") == 0)
		return open_many(port, jobs, most, ms);
	if (strcmp(what, "hold") == 0)
		return hold(port, n, most);
	usage();
}
