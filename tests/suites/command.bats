#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2016,SC2030,SC2031,SC2154
# The command: what it is given, how it ends, and that it never outlives us.
load ../helpers/lib

# through COMMAND...: what COMMAND behind a spipe-dec says, in ./out.
through() {
	listen dec "$DEC" -k key -- "$@"
	"$ENC" -k key -- nc -N 127.0.0.1 "$port" </dev/null >out
}

@test "the command gets descriptors 0, 1 and 2 and no other" {
	cat >fds.py <<-'EOF'
		import os, sys
		fds = [f for f in sorted(os.listdir("/proc/self/fd"), key=int) if os.path.exists("/proc/self/fd/" + f)]
		print(*fds, file=open(sys.argv[1], "w"))
	EOF
	listen dec bash -c 'exec 5</dev/null 9>/dev/null 77<"$0"; exec "$@"' key "$DEC" -k key -- \
		/usr/bin/python3 fds.py dec.fds
	"$ENC" -k key -- nc -N 127.0.0.1 "$port" </dev/null
	statuses dec 5 0
	# spipe-enc's command, and one whose far side is to be passed back
	exec 8</dev/null 9>/dev/null
	run "$ENC" -k key -- /usr/bin/python3 fds.py enc.fds </dev/null
	run "$ENC" -p -k key -- /usr/bin/python3 fds.py pass.fds </dev/null
	exec 8<&- 9>&-
	cat dec.fds enc.fds pass.fds
	[ "$(cat dec.fds)" = "0 1 2" ]
	[ "$(cat enc.fds)" = "0 1 2" ]
	[ "$(cat pass.fds)" = "0 1 2" ]
}

@test "its stdin and stdout are one socket, blocking" {
	through sh -c 'stat -L -c "%F %i" /proc/$$/fd/0 /proc/$$/fd/1; grep flags /proc/$$/fdinfo/0'
	[ "$(sed -n 1p out)" = "$(sed -n 2p out)" ]
	grep -q '^socket ' out
	local flags
	flags=$(sed -n 's/^flags:[[:space:]]*//p' out)
	[ $((flags & 04000)) -eq 0 ]
}

@test "its environment names the peer, and has nothing that is secret or meant for the filter" {
	export LISTEN_FDS=1 LISTEN_PID=1 LISTEN_FDNAMES=connection NOTIFY_SOCKET=/nowhere KEPT='as it was'
	export CREDENTIALS_DIRECTORY=$PWD
	head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >key
	through env
	grep -qx 'KEPT=as it was' out
	grep -qx 'SPIPE_KEY=key' out
	grep -qx 'SPIPE_PEER_ADDR=127.0.0.1' out
	grep -qE '^SPIPE_PEER_PORT=[1-9][0-9]*$' out
	grep -qx 'SPIPE_LOCAL_ADDR=127.0.0.1' out
	grep -qx "SPIPE_LOCAL_PORT=$port" out
	not grep -qE '^(LISTEN_|NOTIFY_SOCKET|CREDENTIALS_DIRECTORY)' out
	not grep -qF "$(cat key)" out
	not grep -qF "$(sha256sum <key | cut -d ' ' -f 1)" out
}

@test "it runs in the filter's directory, with its umask, in a process group of its own" {
	umask 027
	through sh -c 'pwd; umask; cat /proc/$$/stat'
	[ "$(sed -n 1p out)" = "$PWD" ]
	[ "$(sed -n 2p out)" = 0027 ]
	# after the name: state, parent, process group
	local parent group
	read -r parent group <<<"$(sed -n '3s/.*) . \([0-9]*\) \([0-9]*\) .*/\1 \2/p' out)"
	[ "$parent" = "$group" ] # the launcher's
}

@test "its resource limits are those that the filter was started with: core dumps are off for the filter only" {
	local here
	ulimit -Sc "$(ulimit -Hc)"
	here=$(bash -c 'ulimit -Sc; ulimit -Sn; ulimit -Sl')
	through bash -c 'ulimit -Sc; ulimit -Sn; ulimit -Sl'
	[ "$(cat out)" = "$here" ]
}

@test "a command that cannot be run: 69, and the reason" {
	printf 'no program' >plain
	local name
	for name in ./missing missing-from-path ./plain /; do
		run -69 --separate-stderr "$ENC" -k key -- "$name" </dev/null
		[ -z "$output" ]
		echo "$stderr" >enc.err
		one_line enc.err spipe-enc "$name"
		listen "dec" "$DEC" -k key -- "$name"
		run --separate-stderr "$ENC" -k key -- nc -N 127.0.0.1 "$port" </dev/null
		[ -z "$output" ]
		statuses dec 5 69
		one_line dec.err spipe-dec "$name"
		rm dec.*
	done
}

@test "spipe-enc: a command that fails before the handshake is named with its status" {
	run -69 --separate-stderr "$ENC" -k key -- sh -c 'exit 4' </dev/null
	echo "$stderr" >enc.err
	one_line enc.err spipe-enc 'sh.*4'
	run -69 --separate-stderr "$ENC" -k key -- sh -c 'kill -USR1 $$' </dev/null
	echo "$stderr" >enc.err
	one_line enc.err spipe-enc 'sh.*(USR1|10|User)'
}

@test "spipe-enc: nc -F without -p is recognized, and the message says so" {
	listen dec true
	run -77 --separate-stderr "$ENC" -k key -- nc -F 127.0.0.1 "$port" </dev/null
	echo "$stderr" >enc.err
	one_line enc.err spipe-enc 'before the handshake: .*nc -F without our -p'
}

@test "spipe-enc: a command that fails after its work is reported" {
	listen dec "$DEC" -k key -- cat
	echo hello >in
	run -69 --separate-stderr "$ENC" -k key -- bash -c 'nc -N 127.0.0.1 "$1"; exit 9' - "$port" <in
	[ "$output" = hello ]
	echo "$stderr" >enc.err
	one_line enc.err spipe-enc 'bash.*9'
	statuses dec 5 0
}

@test "-p: a command that passes back no socket is an error: 69" {
	local commands=('true' 'echo hello' 'exit 5' 'sleep 1000 </dev/null >/dev/null 2>&1 & exit 0'
		'kill -9 $$')
	local command number=0
	for command in "${commands[@]}"; do
		number=$((number + 1))
		run -69 --separate-stderr "$ENC" -o 3 -p -k key -- sh -c "$command" </dev/null
		echo "$stderr" >enc.err
		one_line enc.err spipe-enc 'sh'
		listen "dec$number" "$DEC" -o 3 -p -k key -- sh -c "$command"
		"$ENC" -k key -- nc -N 127.0.0.1 "$port" </dev/null >/dev/null 2>&1 || true
		statuses "dec$number" 5 69
		one_line "dec$number.err" spipe-dec 'sh'
	done
}

@test "-p: what is passed back must be exactly one socket" {
	local give="import socket,sys,os
s = socket.socket(fileno=1)
files = {'file': [open('key')], 'pipe': [os.pipe()[0]], 'two': socket.socketpair(), 'listening': [socket.socket()],
    'udp': [socket.socket(type=socket.SOCK_DGRAM)], 'seqpacket': socket.socketpair(type=socket.SOCK_SEQPACKET)[:1],
    'dgram': socket.socketpair(type=socket.SOCK_DGRAM)[:1], 'unconnected': [socket.socket()]}
files['udp'][0].connect(('127.0.0.1', 9))
if sys.argv[1] == 'listening': files['listening'][0].listen()
socket.send_fds(s, [b'x'], [f if isinstance(f, int) else f.fileno() for f in files[sys.argv[1]]])"
	local what
	for what in file pipe two listening unconnected udp seqpacket dgram; do
		run -69 --separate-stderr "$ENC" -o 3 -p -k key -- /usr/bin/python3 -c "$give" "$what" </dev/null
		echo "$stderr" >enc.err
		one_line enc.err spipe-enc 'no connected stream socket'
		listen "dec-$what" "$DEC" -o 3 -p -k key -- /usr/bin/python3 -c "$give" "$what"
		"$ENC" -k key -- nc -N 127.0.0.1 "$port" </dev/null >/dev/null 2>&1 || true
		statuses "dec-$what" 5 69
		one_line "dec-$what.err" spipe-dec 'no connected stream socket'
	done
}

@test "-p: a command that has passed back its socket sees the end of its input" {
	local give="import socket, sys
end, target = socket.socket(fileno=1), socket.create_connection(('127.0.0.1', int(sys.argv[1])))
socket.send_fds(end, [b'x'], [target.fileno()])
sys.stdin.read()"
	listen dec "$DEC" -k key -- cat
	run -0 timeout -s KILL 20 "$ENC" -o 10 -p -k key -- /usr/bin/python3 -c "$give" "$port" <<<hello
	[ "$output" = hello ]
}

@test "-p: nc that cannot connect is named" {
	refuse
	run -69 --separate-stderr "$ENC" -p -k key -- nc -F 127.0.0.1 "$port" </dev/null
	echo "$stderr" >enc.err
	grep '^spipe-enc: ' enc.err >own.err
	one_line own.err spipe-enc 'nc.*1'
}

@test "-p: one deadline for the command and the handshake" {
	run -75 --separate-stderr timeout -s KILL 5 "$ENC" -o 0.3 -p -k key -- sleep 100 </dev/null
	echo "$stderr" >enc.err
	one_line enc.err spipe-enc
	listen dec "$DEC" -o 0.5 -p -k key -- sleep 100
	run "$ENC" -k key -- nc -N 127.0.0.1 "$port" </dev/null
	statuses dec 3 75
	one_line dec.err spipe-dec
}

# held: a connection whose command is $1 and leaves its pid in ./pid; sets $enc and $dec, our pids.
held() {
	listen dec env --default-signal=INT "$DEC" -k key -- sh -c "$1"
	hold enc "$ENC" -k key -- nc -N 127.0.0.1 "$port"
	enc=$!
	eventually 5 test -s pid
	local acceptor=${pids[0]}
	read -r dec <"/proc/$acceptor/task/$acceptor/children" || [ -n "$dec" ]
}

@test "a command that leaves a few bytes unread: its output arrives, then the connection breaks" {
	listen dec "$DEC" -k key -- sh -c 'echo ready; sleep 0.3'
	local status=0
	{ # the input stays open until the answer is there
		echo QUIT
		eventually 10 test -s out
	} | "$ENC" -p -k key -- nc -F 127.0.0.1 "$port" >out 2>enc.err || status=$?
	[ "$status" -eq 74 ]
	[ "$(cat out)" = ready ]
	one_line enc.err spipe-enc 'the far side was lost'
	statuses dec 5 74
	one_line dec.err spipe-dec 'without reading all'
}

@test "no command is left when a signal ends the filter, even SIGKILL" {
	local signal
	for signal in TERM INT HUP KILL ABRT; do
		held 'sleep 1000 & echo $$ $! >pid.new; mv pid.new pid; trap "" HUP TERM INT; wait; sleep 1000'
		local command child
		read -r command child <pid
		alive "$command"
		alive "$child"
		kill "-$signal" "$dec"
		gone_within 4 "$dec"
		gone_within 2 "$command"
		gone_within 2 "$child"
		eventually 5 has_lines dec.status 1
		[ "$(cat dec.status)" = $((128 + $(kill -l "$signal"))) ]
		exec 9>&-
		ended 5 "$enc"
		teardown_test >/dev/null
		rm -f pid dec.*
	done
}

@test "SIGKILL of spipe-dec does not look like the end of its input to a command" {
	for _ in $(seq 20); do
		held 'echo $$ >pid.new; mv pid.new pid; cat >got; : >clean'
		echo hello >&9
		eventually 5 test -s got
		kill -KILL "$dec"
		gone_within 2 "$(cat pid)"
		[ ! -e clean ]
		exec 9>&-
		ended 5 "$enc"
		teardown_test >/dev/null
		rm -f pid got dec.*
	done
}

@test "SIGKILL of spipe-dec does not look like an end to a command that has left its process group, either" {
	# The kernel does not kill it when the launcher has died: it has seen to that.
	held "exec /usr/bin/python3 -c 'import ctypes, os, sys
os.setsid()
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
with open(\"pid.new\", \"w\") as file:
    print(os.getpid(), file=file)
os.rename(\"pid.new\", \"pid\")
sys.stdin.read()
open(\"clean\", \"w\")'"
	kill -KILL "$dec"
	gone_within 2 "$(cat pid)"
	[ ! -e clean ]
	exec 9>&-
	ended 5 "$enc"
}

@test "spipe-enc: no command is left when a signal ends the filter" {
	local signal command enc
	for signal in TERM INT HUP KILL; do
		rm -f pid
		hold enc env --default-signal=INT "$ENC" -o 60 -k key -- sh -c 'echo $$ >pid.new; mv pid.new pid; sleep 1000'
		enc=$!
		eventually 5 test -s pid
		read -r command <pid
		kill "-$signal" "$enc"
		ended 4 "$enc"
		[ "$status" -eq $((128 + $(kill -l "$signal"))) ]
		gone_within 2 "$command"
		exec 9>&-
	done
}

@test "-p: a signal while the command is still connecting ends the filter and the command, with a message" {
	hold enc "$ENC" -o 60 -p -k key -- sh -c 'echo $$ >pid.new; mv pid.new pid; exec sleep 1000'
	local enc=$! command
	eventually 5 test -s pid
	read -r command <pid
	kill -TERM "$enc"
	ended 4 "$enc"
	[ "$status" -eq 143 ]
	gone_within 2 "$command"
	one_line enc.err spipe-enc 'signal 15 \(Terminated\) before the far side was ready$'
	exec 9>&-
}

@test "a signal while the command is slow to end: the command is killed, with a message" {
	local enc command seconds
	listen dec "$DEC" -k key -- cat
	# nothing shows from outside that it waits for the command, which it does for two seconds
	for seconds in 0 0.3 1; do
		rm -f pid
		hold enc "$ENC" -k key -- sh -c 'nc -N 127.0.0.1 "$0"; exec </dev/null >&0; echo $$ >pid.new; mv pid.new pid; exec sleep 1000' "$port"
		enc=$!
		exec 9>&-
		eventually 5 test -s pid
		read -r command <pid
		sleep "$seconds"
		kill -TERM "$enc"
		ended 1 "$enc"
		[ "$status" -eq 143 ]
		gone_within 2 "$command"
		! grep -q 'while the command was ending$' enc.err || break
	done
	one_line enc.err spipe-enc 'signal 15 \(Terminated\) while the command was ending$'
}

@test "a signal during the handshake ends the filter at once" {
	local signal dec
	for signal in TERM INT HUP; do
		hold dec env --default-signal=INT "$DEC" -o 60 -k key -- sh -c 'echo ran >ran'
		dec=$!
		eventually 5 test -s dec.out
		kill "-$signal" "$dec"
		ended 1 "$dec"
		[ "$status" -eq $((128 + $(kill -l "$signal"))) ]
		[ ! -e ran ]
		exec 9>&-
	done
}

@test "no zombies while the connection lives" {
	held 'echo $$ >pid.new; mv pid.new pid; exec cat'
	local child state
	echo hello >&9
	eventually 5 grep -q hello enc.out
	for child in $(cat "/proc/$dec/task/$dec/children") $(cat "/proc/$enc/task/$enc/children"); do
		state=$(sed 's/.*) \(.\) .*/\1/' "/proc/$child/stat")
		[ "$state" != Z ]
	done
	exec 9>&-
	ended 5 "$enc"
	[ "$status" -eq 0 ]
	statuses dec 5 0
}

@test "a command has the filter's stderr" {
	listen dec "$DEC" -k key -- sh -c 'echo from the command >&2'
	"$ENC" -k key -- nc -N 127.0.0.1 "$port" </dev/null
	statuses dec 5 0
	eventually 2 grep -qx 'from the command' dec.err
}

@test "a command that leaves its process group is killed as well" {
	run -75 --separate-stderr timeout -s KILL 20 "$ENC" -k key -o 0.5 -- /usr/bin/python3 -c \
		'import os, time; os.setpgid(0, 0); print(os.getpid(), file=open("pid", "w")); time.sleep(60)' </dev/null
	gone_within 2 "$(cat pid)"
}

# landlock_version: the kernel's, 0 for none.
landlock_version() {
	/usr/bin/python3 -c '
import ctypes
print(max(0, ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint(1))))'
}

@test "a command can read all files but the credentials" {
	[ "$(landlock_version)" -ge 1 ] || skip "no Landlock in this kernel"
	mkdir -p run/credentials/unit run/credentials/other
	cp key run/credentials/unit/
	for file in run/file run/credentials/file run/credentials/other/file run/credentials/unitfile; do
		echo "$file" >"$file"
	done
	export CREDENTIALS_DIRECTORY=$PWD/run/credentials/unit
	listen dec "$DEC" -k key -- sh -c '
		cd "$0" && cat /etc/passwd run/file run/credentials/file run/credentials/other/file run/credentials/unitfile
		cat run/credentials/unit/key
		echo "status $?"' "$PWD"
	unset CREDENTIALS_DIRECTORY
	"$ENC" -k key -- nc -N 127.0.0.1 "$port" </dev/null >out
	cat /etc/passwd run/file run/credentials/file run/credentials/other/file run/credentials/unitfile - <<<"status 1" |
		cmp - out
	grep -q "run/credentials/unit/key: Permission denied" dec.err
}

@test "a command cannot signal the filter where no_new_privs is set" {
	[ "$(landlock_version)" -ge 6 ] || skip "this kernel's Landlock cannot confine signals"
	listen dec setpriv --no-new-privs "$DEC" -k key -- sh -c 'kill -0 $PPID; echo "status $?"; kill -0 "$(ps -o ppid= -p $PPID)"; echo "status $?"; sleep 1000 & kill $!; echo "status $?"'
	"$ENC" -k key -- nc -N 127.0.0.1 "$port" </dev/null >out
	[ "$(cat out)" = "$(printf 'status 1\nstatus 1\nstatus 0')" ]
	# set-user-ID programs keep working elsewhere
	listen plain "$DEC" -k key -- sh -c 'kill -0 $PPID; echo "status $?"; grep NoNewPrivs /proc/self/status'
	"$ENC" -k key -- nc -N 127.0.0.1 "$port" </dev/null >out
	[ "$(cat out)" = "$(printf 'status 0\nNoNewPrivs:\t0')" ]
}
