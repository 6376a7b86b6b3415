#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# What the near side and the far side may be; relay.py has more of it.
load ../helpers/lib

# answering: a spipe-dec on $port that answers everything with itself.
answering() {
	listen dec "$DEC" -k key -- cat
}

@test "near side: regular files" {
	answering
	random 3000000 in
	"$ENC" -k key -- nc -N 127.0.0.1 "$port" <in >out
	cmp in out
	statuses dec 5 0
}

@test "near side: an output file on a full disk loses the connection" {
	[ -c /dev/full ]
	answering
	random 1000 in
	status=0
	"$ENC" -k key -- nc -N 127.0.0.1 "$port" <in >/dev/full 2>enc.err || status=$?
	[ "$status" -eq 74 ]
	one_line enc.err spipe-enc
}

@test "near side: /dev/null and a file, a pipe and a file" {
	answering
	"$ENC" -k key -- nc -N 127.0.0.1 "$port" </dev/null >out
	[ ! -s out ]
	printf hello | "$ENC" -k key -- nc -N 127.0.0.1 "$port" >out
	[ "$(cat out)" = hello ]
}

@test "near side: an output file opened for appending keeps what it had" {
	answering
	printf 'before ' >out
	printf after | "$ENC" -k key -- nc -N 127.0.0.1 "$port" >>out
	[ "$(cat out)" = "before after" ]
}

@test "ignored SIGCHLD and SIGPIPE do no harm, and the command has neither" {
	listen dec env --ignore-signal=CHLD,PIPE,TERM,HUP,INT "$DEC" -k key -- \
		sh -c 'grep -E "^Sig(Ign|Blk)" /proc/self/status; cat; exit 3'
	printf hello | env --ignore-signal=CHLD,PIPE "$ENC" -k key -- nc -N 127.0.0.1 "$port" >out || true
	grep -x 'hello' out
	statuses dec 5 69
	one_line dec.err spipe-dec '3'
	# PIPE and CHLD, at least, are as at login.
	local mask
	mask=$(sed -n 's/^SigIgn:[[:space:]]*//p' out)
	[ $((0x$mask & (1 << 12 | 1 << 16))) -eq 0 ]
	mask=$(sed -n 's/^SigBlk:[[:space:]]*//p' out)
	[ $((0x$mask)) -eq 0 ]
}

@test "ignored SIGPIPE: a reader that goes away is still noticed" {
	answering
	run bash -c 'set -o pipefail; (head -c 300000 /dev/zero; sleep 0.2) |
		env --ignore-signal=CHLD,PIPE "$ENC" -k key -- nc -N 127.0.0.1 "$1" 2>enc.err | head -c 1000 >/dev/null' - "$port"
	[ "$status" -eq 74 ]
	one_line enc.err spipe-enc
}

@test "closed fd 0 or 1 is an error, not a hang" {
	status=0
	timeout -s KILL 5 "$ENC" -k key -- cat <&- 2>a.err || status=$?
	[ "$status" -eq 64 ]
	one_line a.err spipe-enc
	status=0
	timeout -s KILL 5 "$ENC" -k key -- cat >&- 2>b.err </dev/null || status=$?
	[ "$status" -eq 64 ]
	one_line b.err spipe-enc
	status=0
	timeout -s KILL 5 "$DEC" -k key -- cat >&- 2>c.err </dev/null || status=$?
	[ "$status" -eq 64 ]
	one_line c.err spipe-dec
	status=0
	timeout -s KILL 5 "$DEC" -k key -- cat <&- >&- 2>d.err || status=$?
	[ "$status" -eq 64 ]
	one_line d.err spipe-dec
}

@test "a directory or a datagram socket as near side is an error" {
	run -64 --separate-stderr "$ENC" -k key -- touch ran <.
	[[ $stderr =~ ^spipe-enc:\ descriptor\ 0,\ the\ near\ side,\ is\ a\ directory ]]
	exec 8<>/dev/udp/127.0.0.1/9
	run -64 --separate-stderr "$DEC" -k key -- touch ran <&8
	[[ $stderr =~ ^spipe-dec:\ descriptor\ 0,\ the\ near\ side,\ is\ not\ a\ stream\ socket ]]
	run -64 --separate-stderr sh -c 'exec "$@" >&8' sh "$DEC" -k key -- touch ran </dev/null
	[[ $stderr =~ ^spipe-dec:\ descriptor\ 1,\ the\ near\ side,\ is\ not\ a\ stream\ socket ]]
	exec 8>&-
	[ ! -e ran ]
}

@test "closed fd 2 puts nothing of ours anywhere" {
	listen dec sh -c 'exec 2>&-; exec "$@"' sh "$DEC" -k key -- sh -c 'echo diagnostics >&2; cat'
	random 100000 in
	"$ENC" -k key -- nc -N 127.0.0.1 "$port" <in >out
	cmp in out
	run -77 exchange in out "$ENC" -k other -- nc -N 127.0.0.1 "$port"
	statuses dec 5 0 77
	run -78 sh -c 'exec 2>&-; exec "$@"' sh "$ENC" -k missing -- true
	[ -z "$output" ]
}

# What a person reads who types `2>&1 |`, with the input from a terminal, a file or, for spipe-enc, a pipe.
# Where both ends are pipes spipe-dec has to take them for the wire: nothing goes there.
@test "2>&1 and a pipe: messages go to the pipe, and never to the peer" {
	"$ENC" -k missing -- true 2>&1 </dev/null | cat >enc.null
	echo hello | "$ENC" -k missing -- true 2>&1 | cat >enc.pipe
	"$DEC" -k missing -- true 2>&1 </dev/null | cat >dec.null
	echo hello | "$DEC" -k missing -- true 2>&1 | cat >dec.pipe
	one_line enc.null spipe-enc missing
	one_line enc.pipe spipe-enc missing
	one_line dec.null spipe-dec missing
	[ ! -s dec.pipe ]
}

@test "no far side: no command, and fds 6 and 7 closed" {
	local program closed
	for program in "$ENC" "$DEC"; do
		for closed in '6<&- 7>&-' '6</dev/null 7>&-' '6<&- 7>/dev/null'; do
			status=0
			eval '"$program" -k key '"$closed"' </dev/null >out 2>program.err' || status=$?
			echo "$program $closed: $status"
			[ "$status" -eq 64 ]
			one_line program.err "${program##*/}"
			[ ! -s out ]
		done
	done
}

@test "far side: fds 6 and 7 that are not streams, or are listening" {
	local give="import os,socket,sys
near, far = socket.socketpair()
os.dup2(near.fileno(), 0), os.dup2(near.fileno(), 1)
bad = {'udp': socket.socket(type=socket.SOCK_DGRAM), 'listening': socket.socket(),
    'seqpacket': socket.socketpair(type=socket.SOCK_SEQPACKET)[0]}
bad['listening'].listen()
fd = os.open('.', os.O_RDONLY) if sys.argv[1] == 'directory' else bad[sys.argv[1]].fileno()
good = socket.socketpair()[0]
fds = [os.dup(fd if sys.argv[2] == which else good.fileno()) for which in '67']
os.dup2(fds[0], 60), os.dup2(fds[1], 70), os.dup2(60, 6), os.dup2(70, 7)
os.execv(sys.argv[3], sys.argv[3:])"
	local program what which
	for program in "$ENC" "$DEC"; do
		for what in udp seqpacket listening directory; do
			for which in 6 7; do
				run -64 --separate-stderr /usr/bin/python3 -c "$give" "$what" $which "$program" -o 3 -k key
				echo "$stderr" >program.err
				one_line program.err "${program##*/}" "descriptor $which, the far side, is (not a stream|a listening|a dir)"
			done
		done
	done
}

@test "far side: -p with nc -F, both programs" {
	listen target cat
	local target=$port
	listen dec "$DEC" -p -k key -- nc -F 127.0.0.1 "$target"
	random 5000000 in
	exchange in out "$ENC" -p -k key -- nc -F 127.0.0.1 "$port"
	cmp in out
	statuses dec 5 0
	statuses target 5 0
}

@test "far side: with -p no other process stays, and none is left as a zombie" {
	listen target cat
	local target=$port children
	listen dec "$DEC" -p -k key -- nc -F 127.0.0.1 "$target"
	hold enc "$ENC" -p -k key -- nc -F 127.0.0.1 "$port"
	local enc=$!
	echo hello >&9
	eventually 5 test -s enc.out
	children=$(cat "/proc/$enc/task/$enc/children")
	[ -z "$children" ]
	local acceptor dec
	acceptor=${pids[1]}
	read -r dec <"/proc/$acceptor/task/$acceptor/children" || [ -n "$dec" ]
	children=$(cat "/proc/$dec/task/$dec/children")
	[ -z "$children" ]
	exec 9>&-
	ended 5 "$enc"
	[ "$status" -eq 0 ]
	statuses dec 5 0
}

@test "far side: tcpclient's fds 6 and 7, near side: tcpserver" {
	listen target cat
	background tcpserver -RHl0 -1 127.0.0.1 0 tcpclient -RHl0 127.0.0.1 "$port" "$DEC" -k key >tcpserver.port 2>dec.err
	eventually 5 test -s tcpserver.port
	random 3000000 in
	exchange in out tcpclient -RHl0 127.0.0.1 "$(cat tcpserver.port)" "$ENC" -k key
	cmp in out
	statuses target 5 0
}

@test "far side: tcpclient under spipe-dec's command" {
	listen dec "$DEC" -k key -- sh -c 'cat <&0'
	random 100000 in
	exchange in out tcpclient -RHl0 127.0.0.1 "$port" "$ENC" -k key
	cmp in out
	statuses dec 5 0
}

# Without shut-down socat passes on an end only after its -t, when standard output is a socket.
@test "far side: socat as the command, with half-closes" {
	listen -u target "$NET" exchange back got
	local target=$PWD/$port
	listen dec "$DEC" -k key -- socat -t 60 -,shut-down "UNIX-CONNECT:$target"
	random 1000000 in
	random 2000000 back
	exchange in out "$ENC" -k key -- socat -t 60 -,shut-down "TCP:127.0.0.1:$port"
	cmp back out
	eventually 5 cmp in got
	statuses dec 5 0
}

@test "near side: socat EXEC, as a socketpair and as pipes" {
	background socat -d -d -t 60 TCP-LISTEN:0,bind=127.0.0.1,reuseaddr,fork "EXEC:$DEC -k key cat" 2>socat.err
	eventually 5 grep -q 'listening on' socat.err
	port=$(sed -n 's/.*listening on AF=2 127\.0\.0\.1:\([0-9]*\).*/\1/p' socat.err | head -n 1)
	random 1000000 in
	exchange in out "$ENC" -k key -- nc -N 127.0.0.1 "$port"
	cmp in out
	# socat keeps the other end of its own pipe open: only its -t ends it.
	background socat -d -d -t 2 TCP-LISTEN:0,bind=127.0.0.1,reuseaddr,fork "EXEC:$DEC -k key cat,pipes" 2>socat2.err
	eventually 5 grep -q 'listening on' socat2.err
	port=$(sed -n 's/.*listening on AF=2 127\.0\.0\.1:\([0-9]*\).*/\1/p' socat2.err | head -n 1)
	exchange in out "$ENC" -k key -- nc -N 127.0.0.1 "$port"
	cmp in out
}

@test "near side: systemd-socket-activate --accept, with and without --inetd" {
	command -v systemd-socket-activate >/dev/null || skip "no systemd-socket-activate"
	random 1000000 in
	local path
	for mode in '' --inetd; do
		path=$PWD/activate$mode.sock
		background systemd-socket-activate --accept $mode -l "$path" "$DEC" -k "$PWD/key" -- cat 2>"activate$mode.err"
		eventually 5 listening "$path"
		exchange in out "$ENC" -k key -- nc -N -U "$path"
		cmp in out
	done
}

@test "descriptors open for the wrong direction: 64, and nothing is written to what they read" {
	: >file
	run -64 --separate-stderr sh -c 'exec "$@" 0>>file' sh "$ENC" -k key -- cat
	[[ $stderr =~ 'descriptor 0, the near side, is open for writing only' ]]
	run -64 --separate-stderr sh -c 'exec "$@" 1<file' sh "$ENC" -k key -- cat </dev/null
	[[ $stderr =~ 'descriptor 1, the near side, is open for reading only' ]]
	run -64 --separate-stderr sh -c 'exec "$@" 6<file 7<file' sh "$ENC" -k key </dev/null
	[[ $stderr =~ 'descriptor 7, the far side, is open for reading only' ]]
}

@test "a raw terminal that is wire and stderr at once gets no diagnostics, one that is read by a person does" {
	/usr/bin/python3 -c '
import os, pty, sys, tty
for raw in True, False:
    pid, master = pty.fork()
    if pid == 0:
        if raw:
            tty.setraw(0)
        os.execv(sys.argv[1], [sys.argv[1], "-k", "missing", "cat"])
    said = b""
    try:
        while more := os.read(master, 1000):
            said += more
    except OSError:
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 78
    assert (b"missing" in said) != raw, (raw, said)
' "$DEC"
}

@test "the address of a connection that has been reset already is the one that the supervisor gives" {
	cat >reset.py <<-'EOF'
		import os, socket, struct, sys
		server = socket.create_server(("127.0.0.1", 0))
		client = socket.create_connection(server.getsockname())
		connection, _ = server.accept()
		client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
		client.close()
		os.dup2(connection.fileno(), 0)
		os.dup2(connection.fileno(), 1)
		os.environ.update(TCPREMOTEIP="192.0.2.9", TCPREMOTEPORT="4321")
		os.execv(sys.argv[1], sys.argv[1:])
	EOF
	run ! --separate-stderr /usr/bin/python3 reset.py "$DEC" --verbose -k key -t 127.0.0.1:1
	grep -q '^spipe-dec: 192\.0\.2\.9:4321 key -: ' <<<"$stderr"
}
