#!/usr/bin/env bats
# xinetd and inetd, where even stderr is the connection: nothing but protocol bytes on the wire, whatever goes
# wrong. Real xinetd with the shipped files, and real OpenBSD inetd.
# shellcheck disable=SC2154

load ../helpers/lib
load ../helpers/systemd # for network_up

setup_file() {
	export BATS_NO_PARALLELIZE_WITHIN_FILE=true
	INETD=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/spipe-filters/openbsd-inetd
	export INETD
	network_up xinetd
}

teardown_file() {
	network_down
}

setup() {
	setup_test
	near_background socat -t 10 TCP-LISTEN:25,fork,reuseaddr,bind=127.0.0.1 EXEC:'stdbuf -oL tr a-z A-Z' 2>echo.err
	head -c 20 /dev/urandom >short
	: >empty
}

teardown() {
	# the processes of `wait = yes` would outlive their xinetd
	[ ! -s xinetd.pid ] || pkill -P "$(<xinetd.pid)" || true
	teardown_test
}

# Each server gets these, as lines `PORT PROGRAM ARGUMENTS`.
services() {
	local path=$PWD
	cat <<-END
		8001 dec -p -k $path/key -- nc -F 127.0.0.1 25
		8002 dec -k $path/key -- nc -N 127.0.0.1 25
		8003 dec -k $path/missing -- cat
		8004 dec -k $path/short -- cat
		8005 dec -k $path/empty -- cat
		8006 dec -k $path -- cat
		8007 dec --nonsense
		8008 dec -k $path/key
		8009 dec -k $path/key -- /nonexistent
		8010 dec -k $path/key -K $path -- false
		8011 dec -k $path/key -- false
		8012 dec -k $path/key -- nc -N 127.0.0.1 1
		8013 dec -p -k $path/key -- nc -F 127.0.0.1 1
		8014 dec -p -k $path/key -- echo no socket
		8015 dec -o 0.3 -k $path/key -- cat
		8016 dec -g --verbose -k $path/key -- $path/complain
		8017 dec
		8021 enc -p -k $path/key -- nc -F 127.0.0.1 8001
		8022 enc -p -k $path/other -- nc -F 127.0.0.1 8001
		8023 enc -k $path/missing -- nc -N 127.0.0.1 8001
		8024 enc -k $path/key -- false
		8025 enc -k $path/key -- /nonexistent
		8026 enc --nonsense
		8027 enc -p -k $path/key -- nc -F 127.0.0.1 1
		8028 enc -o 0.3 -k $path/key -- sleep 9
		8029 enc -k $path/key -- echo no protocol at all, but a line that is long enough to be taken for one
	END
	printf '#!/bin/sh\necho complaint >&2\nexec cat\n' >complain
	chmod +x complain
}

# start_xinetd [yes]: yes for `wait = yes`.
start_xinetd() {
	local port role arguments
	{
		printf 'defaults\n{\n}\n'
		services | while read -r port role arguments; do
			# the shipped file, with another name, port, user and arguments
			sed -e "s|@BINDIR@|$BUILD|" -e "s/^service spipe-$role/service test-$port/" \
				-e 's/disable\s*= yes/disable = no/' -e "s/port\s*= .*/port = $port/" \
				-e 's/\(user\|group\)\s*= spipe/\1 = root/' -e "s|server_args.*|server_args = $arguments|" \
				"$TESTS/../xinetd/spipe-$role"
		done
	} | sed "s/wait\s*= no/wait = ${1:-no}/" >xinetd.conf
	near_background xinetd -dontfork -f xinetd.conf -pidfile "$PWD/xinetd.pid" -filelog "$PWD/xinetd.log" \
		>xinetd.out 2>xinetd.err
	eventually 5 listens 8029
}

start_inetd() {
	local port role arguments
	[ -x "$INETD/usr/sbin/inetd" ] || skip "no OpenBSD inetd (make deps)"
	services | while read -r port role arguments; do
		echo "127.0.0.1:$port stream tcp nowait.10000 root $BUILD/spipe-$role spipe-$role $arguments"
	done >inetd.conf
	near_background env LD_LIBRARY_PATH="$INETD/libs" \
		"$INETD/usr/sbin/inetd" -i "$PWD/inetd.conf" >inetd.out 2>inetd.err
	eventually 5 listens 8029
}

# wire PORT KEY: all bytes that a real spipe with this key gets from the port are in ./wire, its stdout in ./out.
# socat records them.
wire() {
	local recorder
	rm -f wire
	near_background socat -r sent -R wire TCP-LISTEN:7000,reuseaddr,bind=127.0.0.1 "TCP:127.0.0.1:$1" 2>socat.err
	recorder=$!
	eventually 5 listens 7000
	printf hello >in
	near timeout -s KILL 20 "$NET" exchange in out spipe -t 127.0.0.1:7000 -k "$2" 2>spipe.err || true
	gone_within 10 "$recorder"
	[ -e wire ] || : >wire
}

# only_protocol: ./wire is nothing, a nonce, or a nonce, a proof and whole packets.
only_protocol() {
	local size
	size=$(stat -c %s wire)
	if [ "$size" -ne 0 ] && [ "$size" -ne 32 ] && { [ "$size" -lt 320 ] || [ $(((size - 320) % 1060)) -ne 0 ]; }; then
		echo "port $1: $size bytes"
		xxd wire | tail -n 5
		return 1
	fi
	if grep -aE 'spipe|complaint|error|usage' wire; then
		return 1
	fi
}

all_services() {
	local port size
	wire 8001 key
	[ "$(cat out)" = HELLO ]
	only_protocol 8001
	wire 8002 key
	[ "$(cat out)" = HELLO ]
	only_protocol 8002
	wire 8016 key
	[ "$(cat out)" = hello ]
	only_protocol 8016
	# the wrong key: a nonce at most
	wire 8001 other
	[ ! -s out ]
	[ "$(stat -c %s wire)" -le 32 ]
	for port in {8003..8014} 8017; do
		wire "$port" key
		only_protocol "$port"
		[ ! -s out ]
	done
	# nothing at all from a client's side of an spipe-dec that cannot start
	for port in 8003 8004 8005 8006 8007 8008 8017; do
		wire "$port" key
		[ ! -s wire ]
	done
	# silence ends in time, silently
	near timeout -s KILL 10 nc -d 127.0.0.1 8015 >out
	size=$(stat -c %s out)
	[ "$size" -eq 0 ] || [ "$size" -eq 32 ]
	# spipe-enc's near side is plain: data or nothing
	near "$NET" exchange in out 127.0.0.1:8021
	[ "$(cat out)" = HELLO ]
	for port in {8022..8029}; do
		near timeout -s KILL 20 "$NET" exchange in out "127.0.0.1:$port" || true
		if [ -s out ]; then
			echo "port $port:"
			cat out
			return 1
		fi
	done
}

@test "xinetd: nothing but protocol bytes, whatever goes wrong" {
	start_xinetd
	all_services
}

@test "xinetd, wait = yes: the same from one process for all connections" {
	start_xinetd yes
	all_services
}

@test "inetd: nothing but protocol bytes, whatever goes wrong" {
	start_inetd
	all_services
}

@test "xinetd: the shipped files are disabled, and valid" {
	local role
	for role in dec enc; do
		grep -qE '^\s*disable\s*= yes$' "$TESTS/../xinetd/spipe-$role"
	done
	printf 'defaults\n{\n}\nincludedir %s\n' "$PWD/xinetd.d" >conf
	mkdir xinetd.d
	for role in dec enc; do
		sed -e "s|@BINDIR@|$BUILD|" -e 's/= spipe$/= root/' -e 's/disable\s*= yes/disable = no/' \
			"$TESTS/../xinetd/spipe-$role" >"xinetd.d/spipe-$role"
	done
	near_background xinetd -dontfork -f conf -pidfile "$PWD/pid" -filelog "$PWD/log" >out 2>&1
	eventually 5 listens 8025
	eventually 5 listens 2525
	run ! grep -E 'ERROR|WARNING|CRITICAL' log
	# plain connections come from this machine only
	[ "$(near ss -Hltn 'sport = :2525' | awk '{print $4}')" = 127.0.0.1:2525 ]
}

@test "xinetd: a thousand connections in a second do not turn the service off" {
	start_xinetd
	near "$TESTS/helpers/flood.py" connect 127.0.0.1 8001 127.0.0.9 1000 1
	wire 8001 key
	[ "$(cat out)" = HELLO ]
}
