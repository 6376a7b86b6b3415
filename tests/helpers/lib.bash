# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is for the tests
# What the .bats files share. Use: `load ../helpers/lib` as the first line. Every test then starts in its own empty
# directory with a key in ./key and another in ./other, and whatever it started with `background` or
# `listen` is stopped afterwards. Tests wait for conditions (`eventually`), never for a time.

bats_require_minimum_version 1.5.0

TESTS=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
case ${BUILD:=build} in
/*) ;;
*) BUILD=$(cd "$TESTS/.." && pwd)/$BUILD ;;
esac
CPUS=$(nproc)
ENC=$BUILD/spipe-enc
DEC=$BUILD/spipe-dec
NET=$TESTS/helpers/net.py
export BUILD CPUS ENC DEC

# setup_test: what setup() does; for files that define a setup() of their own. Where a setup_file has set CANNOT, which
# bats 1.8 would not let it skip for, each test is skipped.
setup_test() {
	[ -z "${CANNOT:-}" ] || skip "$CANNOT"
	pids=()
	cd "$BATS_TEST_TMPDIR" || return
	umask 077
	export LC_ALL=C TMPDIR=$BATS_TEST_TMPDIR
	# The leak check of sanitized builds would have to trace the process, which our programs forbid; and the limit on
	# core dumps is set by them.
	export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0:disable_coredump=0}
	unset CREDENTIALS_DIRECTORY LISTEN_FDS LISTEN_PID LISTEN_FDNAMES NOTIFY_SOCKET JOURNAL_STREAM
	unset REMOTE_ADDR REMOTE_PORT REMOTE_HOST TCPREMOTEIP TCPREMOTEPORT SOCAT_PEERADDR SOCAT_PEERPORT
	head -c 32 /dev/urandom >key
	head -c 32 /dev/urandom >other
}

# teardown_test: stop what the test started; when it failed, show every *.err file it left.
teardown_test() {
	local pid file all=()
	[ ! -e "$BATS_TEST_TMPDIR/.pids" ] || mapfile -t all <"$BATS_TEST_TMPDIR/.pids"
	for pid in "${all[@]}"; do
		kill "$pid" 2>/dev/null || true
	done
	for pid in "${all[@]}"; do
		gone_within 2 "$pid" || kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	pids=()
	rm -f "$BATS_TEST_TMPDIR/.pids"
	if [ -z "${BATS_TEST_COMPLETED:-}" ]; then
		for file in *.err; do
			[ -s "$file" ] && printf -- '-- %s\n%s\n' "$file" "$(tail -n 20 "$file")"
		done
	fi
	return 0
}

setup() { setup_test; }
teardown() { teardown_test; }

# background COMMAND...: start it, with no descriptor of bats' own; its pid is $! and the last of ${pids[@]}.
# Stopped at the end of the test. Redirections on the `background` line hold for the command; within `run` or
# $(...), which would wait for it, its output must go to a file or is lost.
background() {
	(
		self=$BASHPID
		for fd in 1 2; do
			case $(readlink "/proc/$self/fd/$fd") in pipe:*) eval "exec $fd>/dev/null" ;; esac
		done
		for fd in /proc/self/fd/*; do
			fd=${fd##*/}
			[ "$fd" -le 2 ] || eval "exec $fd>&-"
		done
		exec "$@"
	) <&0 &
	pids+=($!)
	echo "$!" >>"$BATS_TEST_TMPDIR/.pids"
}

# eventually SECONDS COMMAND...: true as soon as COMMAND is, false when it is not within SECONDS (whole). On a machine
# with more to do than these tests, it waits longer: what takes a second there may take several.
eventually() {
	local load end
	read -r load _ </proc/loadavg
	end=$((SECONDS + $1 * (1 + ${load%.*} / (2 * CPUS)) + 1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.02
	done
}

# never SECONDS COMMAND...: false as soon as COMMAND is true, true when it is not within SECONDS (whole).
never() {
	local end=$((SECONDS + $1 + 1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 0
		sleep 0.02
	done
	return 1
}

# alive PID: true while the process runs (a zombie does not run).
alive() {
	local stat
	read -r stat <"/proc/$1/stat" || return 1
	stat=${stat##*) }
	[ "${stat%% *}" != Z ] && [ "${stat%% *}" != X ]
} 2>/dev/null

not() { ! "$@"; }

# gone_within SECONDS PID: true when the process has ended within SECONDS.
gone_within() {
	eventually "$1" not alive "$2"
}

# ended SECONDS PID: wait for a `background` job; its exit status in $status. False if it is late.
ended() {
	gone_within "$1" "$2" || return
	status=0
	wait "$2" || status=$?
}

# listen NAME COMMAND...: take TCP connections on 127.0.0.1 and run COMMAND for each with the connection as
# fds 0 and 1. Sets $port. Each exit status (128 + N for signal N) becomes a line of NAME.status;
# stderr goes to NAME.err. `listen -u NAME`: the UNIX socket NAME.sock instead.
listen() {
	local unix=()
	if [ "$1" = -u ]; then
		unix=(-u)
		shift
	fi
	rm -f "$1.port"
	background "$NET" listen "${unix[@]}" "$@" 2>"$1.err"
	eventually 10 test -e "$1.port" || return
	port=$(<"$1.port")
}

# serve [-i] [-u] NAME COMMAND...: start COMMAND with a listening socket on a free port as descriptor 3, as systemd
# does with Accept=no; with -i as descriptors 0, 1 and 2, as inetd's wait; with -u a UNIX socket, NAME.sock. Sets
# $port, and $! is COMMAND's pid. Without -i stderr goes to NAME.err.
serve() {
	local name flags=()
	while [[ $1 = -[iu] ]]; do
		flags+=("$1")
		shift
	done
	name=$1
	rm -f "$name.port"
	background "$NET" serve "${flags[@]}" "$@" 2>"$name.err"
	eventually 10 test -e "$name.port" || return
	port=$(<"$name.port")
}

# refuse: sets $port to one that refuses every connection.
refuse() {
	background "$NET" refuse refusing
	eventually 10 test -e refusing.port || return
	port=$(<refusing.port)
}

# free_port: a TCP port that nobody uses now. It is not one of those that the kernel gives to clients, who could have it
# before it is used.
free_port() {
	/usr/bin/python3 - <<-'END'
		import random, socket
		while True:
		    port = random.randint(10000, 32000)
		    try:
		        socket.create_server(("", port)).close()
		        break
		    except OSError:
		        pass
		print(port)
	END
}

# hold NAME COMMAND...: start COMMAND in the background with an input that stays open and silent: what is
# written to fd 9 is its input, and `exec 9>&-` ends it. Output goes to NAME.out, stderr to NAME.err.
hold() {
	local name=$1
	shift
	rm -f "$name.hold"
	mkfifo "$name.hold"
	exec 9<>"$name.hold"
	background "$@" <"$name.hold" >"$name.out" 2>"$name.err"
}

# listening PATH: true when somebody listens on the UNIX socket PATH (its file is there a moment earlier).
listening() {
	grep -q "^[^ ]* [^ ]* [^ ]* 00010000 .* $1\$" /proc/net/unix
}

# statuses NAME SECONDS STATUS...: true when, within SECONDS, exactly these exit statuses came from the
# connections of `listen NAME`, in this order.
statuses() {
	local name=$1 seconds=$2
	shift 2
	eventually "$seconds" has_lines "$name.status" $# || true
	diff <(printf '%s\n' "$@") "$name.status"
}

# has_lines FILE N: true when FILE has N lines or more.
has_lines() {
	[ -e "$1" ] && [ "$(wc -l <"$1")" -ge "$2" ]
}

# exchange IN OUT COMMAND...: run COMMAND with a socketpair as stdin and stdout, send it the file IN and an
# end while collecting what it sends in OUT. Its exit status is COMMAND's. With an address (HOST:PORT or
# /path) in place of COMMAND: the same with a connection to it. With neither: with our own stdin
# and stdout, for use as a far side's command.
exchange() {
	"$NET" exchange "$@"
}

# random SIZE FILE: SIZE random bytes in FILE.
random() {
	head -c "$1" /dev/urandom >"$2"
}

# one_line FILE PROGRAM [REGEX]: FILE is one line that starts with `PROGRAM: ` (and matches REGEX).
one_line() {
	local lines
	mapfile -t lines <"$1"
	if [ "${#lines[@]}" -ne 1 ] || [[ ${lines[0]} != "$2: "* ]] || ! [[ ${lines[0]} =~ ${3:-.} ]]; then
		echo "not one line '$2: ...' with '${3:-.}':"
		printf '%s\n' "${lines[@]}"
		return 1
	fi
}
