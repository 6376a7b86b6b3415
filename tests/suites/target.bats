#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2030,SC2031,SC2154
# -t: the far side is a target that the program connects to by itself.
load ../helpers/lib

@test "-t connects in both programs, with every form of an address" {
	listen echo cat
	local echo=$port
	listen -u path cat
	for target in "127.0.0.1:$echo" "[127.0.0.1]:$echo" "localhost:$echo" "$PWD/path.sock"; do
		listen "dec${target//\//_}" "$DEC" -k key -t "$target"
		run -0 "$ENC" -k key -t "127.0.0.1:$port" <<<"by $target"
		[ "$output" = "by $target" ]
	done
}

@test "-t to an IPv6 address" {
	/usr/bin/python3 -c 'import socket; socket.create_server(("::1", 0), family=socket.AF_INET6)' ||
		skip "no IPv6 here"
	background socat -d -d TCP6-LISTEN:0,bind=[::1],fork PIPE 2>socat.err
	eventually 5 grep -q 'listening on' socat.err
	local target
	target="[::1]":$(sed -n 's/.*listening on AF=10 .*:\([0-9]*\)$/\1/p' socat.err | head -n 1)
	listen dec "$DEC" -k key -t "$target"
	run -0 "$ENC" -k key -t "127.0.0.1:$port" <<<hello
	[ "$output" = hello ]
}

@test "-t: all addresses of a name are tried in turn" {
	# ::1, where nobody listens, comes first
	printf '::1 several\n127.0.0.3 several\n127.0.0.1 several\n' >hosts
	unshare -m true || skip "no mount namespaces here"
	listen echo cat
	listen dec unshare -m sh -c 'mount --bind hosts /etc/hosts && exec "$@"' - "$DEC" -k key -t "several:$port"
	run -0 "$ENC" -k key -t "127.0.0.1:$port" <<<hello
	[ "$output" = hello ]
	# and when none answers, the last one is named
	refuse
	run -69 unshare -m sh -c 'mount --bind hosts /etc/hosts && exec "$@"' - "$ENC" -k key -t "several:$port" </dev/null
	[[ $output == *"cannot connect to several:$port ("*"): Connection refused (status 69)" ]]
}

@test "-t: nobody there: status 69, the address and the reason" {
	refuse
	run -69 --separate-stderr "$ENC" -k key -t "127.0.0.1:$port" </dev/null
	[ "$stderr" = "spipe-enc: cannot connect to 127.0.0.1:$port: Connection refused (status 69)" ]
	run -69 --separate-stderr "$ENC" -k key -t "localhost:$port" </dev/null
	[ "$stderr" = "spipe-enc: cannot connect to localhost:$port (127.0.0.1): Connection refused (status 69)" ]
	run -69 --separate-stderr "$ENC" -k key -t "$PWD/nowhere" </dev/null
	[ "$stderr" = "spipe-enc: cannot connect to $PWD/nowhere: No such file or directory (status 69)" ]
	run -69 --separate-stderr "$ENC" -k key -t "no-such-host.invalid:1" </dev/null
	[[ $stderr == "spipe-enc: cannot look up no-such-host.invalid: "*" (status 69)" ]]
}

@test "-t: spipe-dec says which target it cannot reach, and its client sees a break" {
	refuse
	local target=127.0.0.1:$port
	listen dec "$DEC" -k key -t "$target"
	run ! "$ENC" -k key -t "127.0.0.1:$port" </dev/null
	statuses dec 5 69
	one_line dec.err spipe-dec "cannot connect to $target: Connection refused \(status 69\)"
}

# never_answers ADDRESS PORT (0: any): a listening socket whose backlog is full. Its port is in ./full.
never_answers() {
	background /usr/bin/python3 -c '
import os, socket, sys, time
address = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
full = socket.socket(family)
full.bind(address)
full.listen(0)
held = []
for _ in range(8):
    s = socket.socket(family)
    s.setblocking(False)
    s.connect_ex(full.getsockname())
    held.append(s)
open("full.new", "w").write(str(full.getsockname()[1]))
os.rename("full.new", "full")
time.sleep(1000)' "$@"
	eventually 5 test -e full
}

@test "-t: an address that never answers leaves time for the next one" {
	printf '::1 several\n127.0.0.1 several\n' >hosts
	unshare -m true || skip "no mount namespaces here"
	[ -e /proc/net/if_inet6 ] || skip "no IPv6 here"
	listen dec "$DEC" -k key -- cat
	never_answers ::1 "$port"
	run -0 unshare -m sh -c 'mount --bind hosts /etc/hosts && exec "$@"' - "$ENC" -o 4 -k key -t "several:$port" <<<hello
	[ "$output" = hello ]
}

@test "-t: a target that never answers takes no longer than -o" {
	never_answers 127.0.0.1 0
	run -75 --separate-stderr timeout -s KILL 20 "$ENC" -o 0.5 -k key -t "127.0.0.1:$(<full)" </dev/null
	[ "$stderr" = "spipe-enc: the target 127.0.0.1:$(<full) did not answer in time (status 75)" ] ||
		[[ $stderr = "spipe-enc: cannot connect to 127.0.0.1:$(<full): "*" timed out (status 75)" ]]
	# a listener's connection has no launcher that somebody else could stop waiting for
	serve dec "$DEC" -o 0.5 -k key -t "127.0.0.1:$(<full)"
	run timeout -s KILL 20 "$ENC" -k key -t "127.0.0.1:$port" </dev/null
	eventually 5 grep -q ": cannot connect to 127.0.0.1:$(<full): .* timed out (status 75)\$" dec.err
}

@test "-t: a UNIX target whose queue is full is waited for" {
	background /usr/bin/python3 -c '
import os, socket, time
full = socket.socket(socket.AF_UNIX)
full.bind("full.sock")
full.listen(0)
first = socket.socket(socket.AF_UNIX)
first.connect("full.sock")
open("ready", "w").close()
while not os.path.exists("go"):
    time.sleep(0.02)
full.accept()
connection, _ = full.accept()
connection.sendall(b"late\n")'
	eventually 5 test -e ready
	run -75 --separate-stderr "$ENC" -o 0.5 -k key -t "$PWD/full.sock" </dev/null
	[[ $stderr == *"(status 75)" ]]
	# spipe-enc waits too; what it is answered is no handshake, so it says that
	background "$ENC" -o 60 -k key -t "$PWD/full.sock" 2>enc.err
	local enc=$!
	never 1 not alive "$enc"
	touch go
	ended 5 "$enc"
	[ "$status" -eq 77 ]
}

@test "-t: spipe-dec does not touch its target before the peer has proved its key" {
	listen echo sh -c 'touch touched; cat'
	listen dec "$DEC" -k key -t "127.0.0.1:$port"
	head -c 400 /dev/urandom | nc -N 127.0.0.1 "$port" >/dev/null
	run -77 "$ENC" -k other -t "127.0.0.1:$port" </dev/null
	statuses dec 5 77 77
	[ ! -e touched ]
	run -0 "$ENC" -k key -t "127.0.0.1:$port" </dev/null
	[ -e touched ]
}

@test "-b: the connection comes from that address, with or without a port" {
	listen echo sh -c 'echo $SOCAT_PEERADDR; cat'
	background /usr/bin/python3 -c '
import os, socket
server = socket.create_server(("127.0.0.1", 0))
open("where.new", "w").write(str(server.getsockname()[1]))
os.rename("where.new", "where")
while True:
    connection, peer = server.accept()
    open("peers", "a").write("%s %d\n" % peer)
    connection.close()'
	eventually 5 test -e where
	"$ENC" -k key -b 127.0.0.5 -t "127.0.0.1:$(<where)" </dev/null || true
	"$ENC" -k key -b '[127.0.0.6]:0' -t "127.0.0.1:$(<where)" </dev/null || true
	eventually 5 has_lines peers 2
	[ "$(cut -d ' ' -f 1 peers | paste -sd ' ')" = "127.0.0.5 127.0.0.6" ]
	run -69 --separate-stderr "$ENC" -k key -b 192.0.2.1 -t "127.0.0.1:$(<where)" </dev/null
	[[ $stderr = "spipe-enc: cannot connect to 127.0.0.1:$(<where) from 192.0.2.1: "*ddress*" (status 69)" ]]
}

@test "-t and what it excludes" {
	run -64 --separate-stderr "$ENC" -k key -t 127.0.0.1:1 -- cat
	[[ $stderr == *"-t (a target) and a command cannot be combined; see --help (status 64)" ]]
	run -64 --separate-stderr "$ENC" -k key -p -t 127.0.0.1:1
	[[ $stderr == *"-t (a target) and -p (the command connects) cannot be combined; see --help (status 64)" ]]
	run -64 --separate-stderr "$ENC" -k key -b 127.0.0.1 cat
	[[ $stderr == *"-b works only with -t (a target), not with a command; see --help (status 64)" ]]
	for bad in "" 25 host: :25 '[::1]' '::1:25' host:0 host:65536 'a b:1' vsock:1 vsock:4294967296:1 vsock:1:4294967296 127.0.0.300:1 "vsock:$(printf %0400d 1):1"; do
		run -64 --separate-stderr "$ENC" -k key -t "$bad"
		[ "$stderr" = "spipe-enc: option -t takes host:port, [v6]:port, /path or vsock:CID:port; see --help (status 64)" ]
	done
	run -64 --separate-stderr "$ENC" -k key -b localhost -t 127.0.0.1:1
	[ "$stderr" = "spipe-enc: option -b takes a numeric address, with or without a port; see --help (status 64)" ]
}

@test "-t: a target that resets breaks the near side, one that ends ends it" {
	listen reset /usr/bin/python3 -c '
import socket, struct
s = socket.socket(fileno=0)
s.recv(1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))'
	listen dec "$DEC" -k key -t "127.0.0.1:$port"
	run -74 "$ENC" -k key -t "127.0.0.1:$port" <<<x
	statuses dec 5 74
}

@test "-t: a target that resets at once is a lost one, however early that is noticed: 74, not 69" {
	background /usr/bin/python3 -c '
import socket, struct
s = socket.create_server(("127.0.0.1", 0), backlog=64)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
while True:
    print(s.getsockname()[1], flush=True)
    s.accept()[0].close()' >where
	eventually 10 test -s where
	serve dec "$DEC" -k key --verbose -t "127.0.0.1:$(head -n 1 where)"
	for _ in {1..10}; do
		run ! "$ENC" -k key -t "127.0.0.1:$port" <<<x
	done
	eventually 5 has_lines dec.err 10
	run -1 grep -v 'the far side was lost: .*(status 74)' dec.err
}
