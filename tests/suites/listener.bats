#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2030,SC2031,SC2154
# A listening near side: the listener, its children, its limits and its signals.
load ../helpers/lib

# echo_server: sets $target to the address of a server that sends back what it gets.
echo_server() {
	listen echo cat
	target=127.0.0.1:$port
}

# serve_echo [OPTION...]: a listening spipe-dec in front of an echo server. Sets $target, $port, and $dec to its pid.
serve_echo() {
	echo_server
	serve dec "$DEC" -k key -t "$target" "$@"
	dec=$!
}

# serve_echo_from_copy: the same with ./spipe-dec, a copy that can be replaced or removed.
serve_echo_from_copy() {
	cp "$DEC" spipe-dec
	DEC=./spipe-dec serve_echo
}

# ends_well PID: it ends soon, with status 0.
ends_well() {
	ended 5 "$1"
	[ "$status" -eq 0 ]
}

# children PID: the pids of its children.
children() {
	local pids
	read -r -a pids <"/proc/$1/task/$1/children" || true
	echo "${pids[*]}"
}

# has_children PID N
has_children() {
	[ "$(children "$1" | wc -w)" -eq "$2" ]
}

# ask PORT TEXT: send TEXT through a spipe-enc of its own, and print what comes back.
ask() {
	printf '%s\n' "$2" | "$ENC" -o 60 -k key -t "127.0.0.1:$1"
}

# echoes PORT TEXT: TEXT comes back, and the connection ends well.
echoes() {
	run -0 ask "$1" "$2"
	[ "$output" = "$2" ]
}

# holder NAME PORT: a connection that stays open; what is written to NAME.in goes through it, to NAME.out.
holder() {
	mkfifo "$1.in"
	background "$ENC" -k key -t "127.0.0.1:$2" <>"$1.in" >"$1.out" 2>"$1.err"
}

# answers NAME: does what goes into this holder come back?
answers() {
	echo "$RANDOM" >>"$1.said"
	tail -n 1 "$1.said" >"$1.in"
	eventually 5 cmp -s "$1.said" "$1.out"
}

# silent N FROM NAME PORT: N connections from the address FROM that say one byte and stay. NAME is there when all are.
silent() {
	background /usr/bin/python3 -c '
import socket, sys, time
count, source, name, port = sys.argv[1:]
held = []
for _ in range(int(count)):
    held.append(socket.create_connection(("127.0.0.1", int(port)), source_address=(source, 0)))
    held[-1].send(b"x")
open(name, "w").close()
time.sleep(1000)
' "$@"
	eventually 5 test -e "$3"
}

@test "both programs serve a listening socket, as systemd and as inetd pass it" {
	echo_server
	for flags in "" -i; do
		serve $flags dec "$DEC" -k key -t "$target"
		local dec=$port
		serve $flags enc "$ENC" -k key -t "127.0.0.1:$dec"
		for n in 1 2 3; do
			run -0 nc -N -w 5 127.0.0.1 "$port" <<<"hello $n"
			[ "$output" = "hello $n" ]
		done
	done
}

@test "real systemd-socket-activate passes any number of listening sockets" {
	echo_server
	local one two
	serve placeholder sleep 1000
	one=$port
	kill $!
	gone_within 2 $!
	serve placeholder2 sleep 1000
	two=$port
	kill $!
	gone_within 2 $!
	background systemd-socket-activate -l "127.0.0.1:$one" -l "127.0.0.1:$two" -l "$PWD/unix.sock" \
		"$DEC" -k "$PWD/key" -t "$target" 2>activate.err
	eventually 5 listening "$PWD/unix.sock"
	for port in "$one" "$two"; do
		run -0 ask "$port" "by $port"
		[ "$output" = "by $port" ]
	done
	run -0 "$ENC" -k key -t "$PWD/unix.sock" <<<"by path"
	[ "$output" = "by path" ]
}

@test "a UNIX listening socket serves both programs" {
	echo_server
	serve -u dec "$DEC" -k key -t "$target"
	run -0 "$ENC" -k key -t "$PWD/$port" <<<hello
	[ "$output" = hello ]
}

@test "options for a listener are refused with one connection" {
	for option in -n1 --max-connections=1 --exit-idle=1 --max-strangers=1 --max-strangers-per-source=1; do
		run -64 --separate-stderr "$DEC" "$option" -k key -t 127.0.0.1:1 </dev/null
		[[ $stderr == *"needs a listening socket as the near side, not one connection"* ]]
	done
}

@test "a connection among the listening sockets is refused" {
	serve -u dec bash -c 'exec 4</dev/null; LISTEN_FDS=2 exec "$@"' - "$DEC" -k key -t 127.0.0.1:1
	ended 5 $!
	[ "$status" -eq 64 ]
	one_line dec.err spipe-dec 'descriptor 4 was passed with listening sockets, but is not one'
}

@test "SIGTERM breaks every connection and the listener ends with status 0" {
	serve_echo
	holder one "$port"
	local one=$!
	answers one
	kill -TERM "$dec"
	ends_well "$dec"
	ended 5 "$one"
	[ "$status" -eq 74 ]
	run ! ask "$port" hello
}

@test "SIGUSR2 hands the socket over: no new connections, and the old ones go on" {
	serve_echo
	holder one "$port"
	local one=$!
	answers one
	kill -USR2 "$dec"
	background "$ENC" -o 2 -k key -t "127.0.0.1:$port" >late.out 2>late.err
	local late=$!
	ended 5 "$late"
	[ "$status" -eq 75 ]
	answers one
	alive "$dec"
	kill -TERM "$one"
	ends_well "$dec"
}

@test "SIGHUP executes the program that is there now, and no connection notices" {
	serve_echo_from_copy
	holder one "$port"
	local one=$!
	answers one
	# a replaced program, as an upgrade leaves it
	cp "$DEC" new
	mv new spipe-dec
	kill -HUP "$dec"
	eventually 5 test "/proc/$dec/exe" -ef spipe-dec
	answers one
	echoes "$port" new
	eventually 5 has_children "$dec" 1
	alive "$one"
	kill -TERM "$dec"
	ends_well "$dec"
	ended 5 "$one"
	[ "$status" -eq 74 ]
}

@test "SIGHUP when the program is gone: a message, and the old one goes on" {
	serve_echo_from_copy
	run -0 ask "$port" before
	rm spipe-dec
	kill -HUP "$dec"
	eventually 5 grep -q 'cannot reload: ./spipe-dec: No such file or directory' dec.err
	echoes "$port" after
}

@test "SIGHUP from a terminal that hangs up ends the listener" {
	background /usr/bin/python3 -c '
import os, pty, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
pid, master = pty.fork()
if pid == 0:
    os.dup2(listener.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    os.execv(sys.argv[1], sys.argv[1:])
# it listens: a connection that is closed at once leaves its line on the terminal
socket.create_connection(listener.getsockname()).close()
assert b"closed" in os.read(master, 1000)
os.close(master)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
' "$DEC" -k key -t 127.0.0.1:1
	ended 10 $!
	[ "$status" -eq 0 ]
}

@test "a listener that is killed leaves its connections alone" {
	serve_echo
	holder one "$port"
	local one=$!
	answers one
	kill -KILL "$dec"
	gone_within 2 "$dec"
	answers one
	exec 8>one.in
	kill -TERM "$one"
	gone_within 5 "$one"
	exec 8>&-
}

@test "--exit-idle ends a listener without connections, not one with" {
	serve_echo --exit-idle 1
	holder one "$port"
	local one=$!
	answers one
	never 2 not alive "$dec"
	kill -TERM "$one"
	ends_well "$dec"
}

@test "-n: the next connection waits until one has ended" {
	serve_echo -n 2
	holder one "$port"
	local one=$!
	holder two "$port"
	answers one
	answers two
	ask "$port" third >third.out &
	local third=$!
	never 1 test -s third.out
	kill -TERM "$one"
	wait "$third"
	[ "$(cat third.out)" = third ]
	answers two
	alive "$dec"
}

# made_room N: spipe-dec has closed N connections of strangers for newer ones.
made_room() {
	[ "$(grep -c 'to make room for newer connections' dec.err)" -eq "$1" ]
}

@test "--max-strangers: the oldest stranger makes room, a holder never does" {
	serve_echo --max-strangers 3 -o 60
	holder one "$port"
	answers one
	silent 10 127.0.0.1 silent.ready "$port"
	eventually 5 made_room 7
	eventually 5 has_children "$dec" 4
	echoes "$port" hello
	answers one
	eventually 5 has_children "$dec" 3
}

@test "--max-strangers-per-source: one source's strangers make room for each other only" {
	serve_echo --max-strangers-per-source 2 -o 60
	silent 1 127.0.0.9 quiet.ready "$port"
	silent 5 127.0.0.8 loud.ready "$port"
	eventually 5 made_room 3
	eventually 5 has_children "$dec" 3
	run -0 ask "$port" hello
	eventually 5 has_children "$dec" 3
}

@test "connections of a holder do not count as strangers" {
	serve_echo --max-strangers 2 --max-strangers-per-source 1
	for i in $(seq 20); do
		holder "h$i" "$port"
		answers "h$i"
	done
	for i in $(seq 20); do
		answers "h$i"
	done
}

@test "strangers leave ten records a minute per source, and a count of the rest" {
	serve dec "$DEC" --verbose -k key -t 127.0.0.1:1
	local dec=$!
	for i in $(seq 25); do
		head -c 1 /dev/zero | nc -s 127.0.0.8 -N 127.0.0.1 "$port" >nc.out
		eventually 5 has_children "$dec" 0
	done
	head -c 1 /dev/zero | nc -s 127.0.0.9 -N 127.0.0.1 "$port" >nc.out
	eventually 5 has_children "$dec" 0
	[ "$(grep -c '^spipe-dec: 127\.0\.0\.8:.* key -: ' dec.err)" -eq 10 ]
	[ "$(grep -c '^spipe-dec: 127\.0\.0\.9:.* key -: ' dec.err)" -eq 1 ]
	# the count comes at the end of the minute, or of the listener
	kill -TERM "$dec"
	ended 5 "$dec"
	grep -qx 'spipe-dec: 127.0.0.8: 15 more connections that did not prove a key are not in the log' dec.err
}

@test "strangers leave a hundred records a minute in all" {
	local source
	serve dec "$DEC" --verbose -k key -t 127.0.0.1:1
	local dec=$!
	for source in 127.0.0.{11..23}; do
		silent 9 "$source" "$source.ready" "$port"
		kill "$!"
		eventually 5 has_children "$dec" 0
	done
	[ "$(grep -c '^spipe-dec: 127\..* key -: ' dec.err)" -eq 100 ]
	kill -TERM "$dec"
	ended 5 "$dec"
	[ "$(grep -c 'more connections that did not prove' dec.err)" -eq 2 ]
	grep -qx 'spipe-dec: 127.0.0.22: 8 more connections that did not prove a key are not in the log' dec.err
	grep -qx 'spipe-dec: 127.0.0.23: 9 more connections that did not prove a key are not in the log' dec.err
}

@test "strangers that come all at once leave no more records than others" {
	serve dec "$DEC" --verbose -k key -t 127.0.0.1:1 --max-strangers-per-source 40 -o 60
	local dec=$!
	silent 30 127.0.0.8 silent.ready "$port"
	eventually 5 has_children "$dec" 30
	kill "$!"
	eventually 5 has_children "$dec" 0
	[ "$(grep -c '^spipe-dec: 127\.0\.0\.8:.* key -: ' dec.err)" -eq 10 ]
	kill -TERM "$dec"
	ended 5 "$dec"
	grep -qx 'spipe-dec: 127.0.0.8: 20 more connections that did not prove a key are not in the log' dec.err
}

@test "a holder's records are all there, however many strangers its source had" {
	serve_echo --verbose
	for i in $(seq 12); do
		head -c 1 /dev/zero | nc -N 127.0.0.1 "$port" >nc.out
		eventually 5 has_children "$dec" 0
	done
	for i in 1 2 3; do
		ask "$port" hello
	done
	eventually 5 has_children "$dec" 0
	[ "$(grep -c 'key key: 6 bytes in, 6 bytes out, .*: ended cleanly' dec.err)" -eq 3 ]
}

@test "a stranger who resets at once is known by its address" {
	serve dec "$DEC" --verbose -k key -t 127.0.0.1:1
	/usr/bin/python3 -c '
import socket, struct, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), source_address=("127.0.0.7", 0))
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
s.close()' "$port"
	eventually 5 grep -q '^spipe-dec: 127\.0\.0\.7:[0-9]* key -: ' dec.err
}

@test "the listener connects to an IP address itself, and a launcher of the child looks up a name" {
	local child
	serve_echo -o 60
	silent 1 127.0.0.2 one "$port"
	eventually 5 has_children "$dec" 1
	child=$(children "$dec")
	"$DEC" --version | grep -q 'sandbox: no' || eventually 5 grep -q '^Seccomp:.*2' "/proc/$child/status"
	has_children "$child" 0
	echoes "$port" hello
	serve named "$DEC" -k key -t "localhost:${target#*:}" -o 60
	local named=$!
	silent 1 127.0.0.2 two "$port"
	eventually 5 has_children "$named" 1
	eventually 5 has_children "$(children "$named")" 1
	echoes "$port" hello
}

@test "a target that the listener cannot connect to is named, with the reason" {
	background "$NET" refuse target
	eventually 5 test -e target.port
	target=127.0.0.1:$(<target.port)
	serve dec "$DEC" --verbose -k key -t "$target"
	run ask "$port" hello
	[ "$status" -ne 0 ]
	eventually 5 grep -q "key key: .*: cannot connect to $target: Connection refused (status 69)" dec.err
	serve bound "$DEC" --verbose -k key -t "$target" -b 127.0.0.9
	run ask "$port" hello
	eventually 5 grep -q "cannot connect to $target from 127.0.0.9: Connection refused (status 69)" bound.err
	serve nowhere "$DEC" --verbose -k key -t "$target" -b 192.0.2.1
	run ask "$port" hello
	eventually 5 grep -qE "cannot connect to $target from 192.0.2.1: (Cannot assign requested address|Address not available)" nowhere.err
}

@test "without descriptors accepting pauses, which is said once, and goes on" {
	echo_server
	serve dec bash -c 'ulimit -n 13; exec "$@"' - "$DEC" -k key -t "$target" -o 60
	for i in 1 2 3 4 5 6; do
		holder "h$i" "$port"
		local last=$!
		answers "h$i"
	done
	ask "$port" late >late.out &
	local late=$!
	eventually 5 grep -qE 'cannot make a channel: (Too many open files|No file descriptors available); trying again' dec.err
	never 1 test -s late.out
	kill -TERM "$last"
	wait "$late"
	[ "$(cat late.out)" = late ]
	[ "$(grep -c 'trying again' dec.err)" -eq 1 ]
}

@test "keys are read for each connection" {
	echo_server
	mkdir -m 700 keys
	cp key keys/alice.key
	serve dec "$DEC" -K keys -t "$target"
	run -0 ask "$port" hello
	rm keys/alice.key
	cp other keys/bob.key
	run -77 ask "$port" hello
	cp key keys/carol.key
	run -0 ask "$port" hello
}

@test "ps shows whom each process serves" {
	local child
	serve_echo
	holder one "$port"
	answers one
	child=$(children "$dec")
	[[ "$(ps -o args= -p "$child")" == "spipe-dec: 127.0.0.1:"*" key key: "*" bytes in, "*" bytes out, "*" s: relaying" ]]
	[[ "$(ps -o args= -p "$dec")" == *"-k key -t $target"* ]]
	# strangers are not known by a key
	silent 1 127.0.0.1 silent.ready "$port"
	eventually 5 has_children "$dec" 2
	eventually 5 grep -qxz 'spipe-dec: 127\.0\.0\.1:[0-9]*' "/proc/$(children "$dec" | cut -d ' ' -f 2)/cmdline"
}

@test "the service manager is told READY=1 at once, and how many connections there are" {
	echo_server
	background socat -u UNIX-RECV:notify.sock CREATE:notify.out
	eventually 5 test -S notify.sock
	NOTIFY_SOCKET=$PWD/notify.sock serve dec "$DEC" -k key -t "$target"
	local dec=$!
	if ! "$DEC" --version | grep -q 'systemd: yes'; then
		skip "built without systemd"
	fi
	eventually 5 grep -q '^READY=1$' notify.out
	[ "$(grep -c READY notify.out)" -eq 1 ]
	run -0 ask "$port" hello
	eventually 5 has_children "$dec" 0
	kill -USR1 "$dec"
	eventually 5 grep -qx 'STATUS=0 connections, 0 strangers; 1 served, 0 refused, 6 bytes in, 6 bytes out' notify.out
	grep -q '1 served, 0 refused' dec.err
	[ "$(grep -c READY notify.out)" -eq 1 ]
}

@test "a command serves a listener's connections as well" {
	serve dec "$DEC" -k key -- cat
	echoes "$port" hello
}

@test "neither a child nor its command keeps a descriptor of the listener" {
	serve dec "$DEC" -k key -- sh -c 'exec sleep 1000'
	local dec=$! child
	holder one "$port"
	holder two "$port"
	eventually 5 has_children "$dec" 2
	for child in $(children "$dec"); do
		eventually 5 grep -q sleep "/proc/$child/task/$child/children" /dev/null ||
			eventually 5 test -n "$(children "$child")"
		! find "/proc/$child/fd" "/proc/$(children "$child" | tr -d ' ')/fd" -lname 'socket:*' -printf '%l\n' |
			grep -qF "$(readlink "/proc/$dec/fd/3")"
	done
}

# serve_without_forks NAME COMMAND...: serve, as a user of its own who may not fork until forks_again PID.
serve_without_forks() {
	local name=$1
	shift
	[ "$(id -u)" -eq 0 ] || skip "not root"
	user=(setpriv --reuid=$((60000 + BASHPID % 5000)) --clear-groups)
	serve "$name" "${user[@]}" --inh-caps=+dac_override --ambient-caps=+dac_override \
		bash -c 'ulimit -S -u 1; exec "$@"' - "$@"
}

forks_again() {
	"${user[@]}" prlimit --pid "$1" --nproc=1000:
}

@test "when fork fails the connection waits, and SIGHUP waits for the connection" {
	echo_server
	cp "$DEC" spipe-dec
	serve_without_forks dec ./spipe-dec -k key -t "$target"
	local dec=$!
	holder one "$port"
	eventually 5 grep -q 'cannot fork: Resource temporarily unavailable; trying again' dec.err
	cp "$DEC" new
	mv new spipe-dec
	kill -HUP "$dec"
	# neither signal may get into the connection that is served next
	kill -USR1 "$dec"
	eventually 5 grep -q '0 served' dec.err
	forks_again "$dec"
	answers one
	eventually 5 test "/proc/$dec/exe" -ef spipe-dec
	answers one
	[ "$(grep -c 'trying again' dec.err)" -eq 1 ]
	eventually 5 has_children "$dec" 1
}

@test "a connection that still waits for its process at the listener's end is reset" {
	serve_without_forks dec "$DEC" -k key -t 127.0.0.1:1
	local dec=$!
	background /usr/bin/python3 -c '
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
try:
    s.recv(1)
except ConnectionResetError:
    sys.exit(3)' "$port"
	local client=$!
	eventually 5 grep -q 'cannot fork' dec.err
	kill -TERM "$dec"
	ends_well "$dec"
	ended 5 "$client"
	[ "$status" -eq 3 ]
}

@test "SIGHUP after SIGUSR2 disturbs no connection" {
	serve_echo
	holder one "$port"
	local one=$!
	answers one
	kill -USR2 "$dec"
	kill -HUP "$dec"
	# both have been received when a third has
	kill -USR1 "$dec"
	eventually 5 grep -q '1 connections, 0 strangers' dec.err
	kill -HUP "$dec"
	kill -USR1 "$dec"
	eventually 5 has_lines dec.err 2
	answers one
	kill -TERM "$one"
	ends_well "$dec"
}

@test "SIGTERM ends a connection whose process is stopped" {
	serve_echo
	holder one "$port"
	local one=$!
	answers one
	kill -STOP "$(children "$dec")"
	kill -TERM "$dec"
	ends_well "$dec"
	ended 5 "$one"
	[ "$status" -eq 74 ]
}
