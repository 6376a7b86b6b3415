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
		8018 dec -k $path/key -t 127.0.0.1:25
		8019 dec -k $path/key -t 127.0.0.1:1
		8021 enc -p -k $path/key -- nc -F 127.0.0.1 8001
		8022 enc -p -k $path/other -- nc -F 127.0.0.1 8001
		8023 enc -k $path/missing -- nc -N 127.0.0.1 8001
		8024 enc -k $path/key -- false
		8025 enc -k $path/key -- /nonexistent
		8026 enc --nonsense
		8027 enc -p -k $path/key -- nc -F 127.0.0.1 1
		8028 enc -o 0.3 -k $path/key -- sleep 9
		8029 enc -k $path/key -- echo no protocol at all, but a line that is long enough to be taken for one
		8030 enc -k $path/key -t 127.0.0.1:8018
		8031 enc -k $path/other -t 127.0.0.1:8018
		8032 enc -k $path/key -t 127.0.0.1:1
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
	eventually 5 listens 8032
}

start_inetd() {
	local port role arguments
	[ -x "$INETD/usr/sbin/inetd" ] || skip "no OpenBSD inetd (make deps)"
	services | while read -r port role arguments; do
		echo "127.0.0.1:$port stream tcp nowait.10000 root $BUILD/spipe-$role spipe-$role $arguments"
	done >inetd.conf
	near_background env LD_LIBRARY_PATH="$INETD/libs" \
		"$INETD/usr/sbin/inetd" -i "$PWD/inetd.conf" >inetd.out 2>inetd.err
	eventually 5 listens 8032
}

# wire PORT KEY: all bytes that a real spipe with this key gets from the port are in ./wire.PORT, its stdout in
# ./out.PORT. socat records them.
wire() {
	local recorder at=$(($1 - 1000))
	rm -f "wire.$1"
	near_background socat -r "sent.$1" -R "wire.$1" "TCP-LISTEN:$at,reuseaddr,bind=127.0.0.1" "TCP:127.0.0.1:$1" \
		2>"socat.$1.err"
	recorder=$!
	eventually 5 listens "$at"
	near timeout -s KILL 20 "$NET" exchange in "out.$1" spipe -t "127.0.0.1:$at" -k "$2" 2>"spipe.$1.err" || true
	gone_within 10 "$recorder"
	[ -e "wire.$1" ] || : >"wire.$1"
}

# plain PORT [SECONDS]: what spipe-enc's near side says within that time is in ./out.PORT.
plain() {
	near timeout -s KILL "${2:-20}" "$NET" exchange in "out.$1" "127.0.0.1:$1" || true
}

# at_once FUNCTION ARGUMENT... -- PORT...: `FUNCTION PORT ARGUMENT...` for all ports at the same time.
at_once() {
	local arguments=() calls=() port
	while [ "$1" != -- ]; do
		arguments+=("$1")
		shift
	done
	shift
	for port; do
		"${arguments[0]}" "$port" "${arguments[@]:1}" 3>&- &
		calls+=($!)
	done
	for port in "${calls[@]}"; do
		wait "$port"
	done
}

# only_protocol PORT: ./wire.PORT is nothing, a nonce, or a nonce, a proof and whole packets.
only_protocol() {
	local size
	size=$(stat -c %s "wire.$1")
	if [ "$size" -ne 0 ] && [ "$size" -ne 32 ] && { [ "$size" -lt 320 ] || [ $(((size - 320) % 1060)) -ne 0 ]; }; then
		echo "port $1: $size bytes"
		xxd "wire.$1" | tail -n 5
		return 1
	fi
	if grep -aE 'spipe|complaint|error|usage' "wire.$1"; then
		return 1
	fi
}

all_services() {
	local port size
	printf hello >in
	at_once wire key -- 8001 8002 8016 8018
	for port in 8001 8002 8016 8018; do
		only_protocol "$port"
	done
	[ "$(cat out.8001)" = HELLO ]
	[ "$(cat out.8002)" = HELLO ]
	[ "$(cat out.8016)" = hello ]
	[ "$(cat out.8018)" = HELLO ]
	# the wrong key: a nonce at most
	wire 8001 other
	[ ! -s out.8001 ]
	[ "$(stat -c %s wire.8001)" -le 32 ]
	at_once wire key -- {8003..8014} 8017 8019
	for port in {8003..8014} 8017 8019; do
		only_protocol "$port"
		[ ! -s "out.$port" ]
	done
	# nothing at all from a client's side of an spipe-dec that cannot start
	for port in 8003 8004 8005 8006 8007 8008 8017; do
		[ ! -s "wire.$port" ]
	done
	# silence ends in time, silently
	near timeout -s KILL 10 nc -d 127.0.0.1 8015 >out
	size=$(stat -c %s out)
	[ "$size" -eq 0 ] || [ "$size" -eq 32 ]
	# spipe-enc's near side is plain: data or nothing
	at_once plain -- {8021..8025} {8027..8032}
	plain 8026 5 # with `wait = yes`, nobody ever accepts it
	for port in 8021 8030; do
		[ "$(cat "out.$port")" = HELLO ]
	done
	for port in {8022..8029} 8031 8032; do
		if [ -s "out.$port" ]; then
			echo "port $port:"
			cat "out.$port"
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

# withstands: a thousand connections in a second do not turn services off, with a command and with -t.
withstands() {
	local port
	printf hello >in
	for port in 8001 8018; do
		near "$TESTS/helpers/flood.py" connect 127.0.0.1 "$port" 127.0.0.9 1000 1
		wire "$port" key
		[ "$(cat "out.$port")" = HELLO ]
	done
}

@test "xinetd: a thousand connections in a second do not turn the service off" {
	start_xinetd
	withstands
}

@test "xinetd, wait = yes: a thousand connections in a second do not turn the service off" {
	start_xinetd yes
	withstands
}
