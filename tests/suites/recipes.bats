#!/usr/bin/env bats
# The recipes of the manual pages, as they are written there: with their ports, names and paths, in a network
# and a view of /usr/local/bin, where `make install` puts the programs, and of /etc of their own.
# shellcheck disable=SC2154

load ../helpers/lib
load ../helpers/systemd # for network_up

setup_file() {
	export BATS_NO_PARALLELIZE_WITHIN_FILE=true
	INETD=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/spipe-filters/openbsd-inetd
	export INETD
	network_up
	[ -z "${CANNOT:-}" ] || return 0
	WORLD=$(mktemp -d /tmp/spipe-recipes.XXXXXX)
	export WORLD
	mkdir -p "$WORLD/etc/spipe"
	# -o: other tests are using these programs, so nothing is rebuilt
	env -u MAKEFLAGS -u MFLAGS -u MAKEOVERRIDES make -s -C "$TESTS/.." install BUILD="$BUILD" DESTDIR="$WORLD" \
		WITH_SYSTEMD=no -o "$BUILD/spipe-enc" -o "$BUILD/spipe-dec" >"$WORLD/install.log" 2>&1 || {
		cat "$WORLD/install.log"
		return 1
	}
	echo '127.0.0.1 localhost server.example proxy.example host' >"$WORLD/etc/hosts"
	head -c 32 /dev/urandom >"$WORLD/etc/spipe/inside.key"
	# the user of the line for inetd.conf
	{
		grep -v '^spipe:' /etc/passwd
		echo 'spipe:x:64999:64999::/nonexistent:/usr/sbin/nologin'
	} >"$WORLD/etc/passwd"
	chmod 755 "$WORLD" "$WORLD"/{etc,etc/spipe}
	chmod 644 "$WORLD"/etc/{hosts,passwd}
	chown 64999 "$WORLD/etc/spipe/inside.key"
	chmod 400 "$WORLD/etc/spipe/inside.key"
	if ! near mount -t overlay -o "lowerdir=$WORLD/usr/local/bin:/usr/local/bin" overlay /usr/local/bin ||
		! near mount -t overlay -o "lowerdir=$WORLD/etc:/etc" overlay /etc; then
		export CANNOT="cannot mount over /usr/local/bin and /etc here"
	fi
}

teardown_file() {
	network_down
	[ -z "${WORLD:-}" ] || rm -rf "$WORLD"
}

setup() {
	setup_test
	PAGE=$WORLD/usr/local/share/man/man7/spipe-filters.7
	cp "$WORLD/etc/spipe/inside.key" inside.key
	cp key mail.key
	export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
}

# recipe TEXT: the one command line in the manual page that contains TEXT.
recipe() {
	local line
	line=$(sed -e ':again' -e '/\\e$/{N;s/ *\\e\n */ /;b again' -e '}' -e 's/\\e/\\/g' "$PAGE" |
		grep -F -e "$1")
	if [ "$(wc -l <<<"$line")" -ne 1 ] || [ -z "$line" ]; then
		echo "not one line with $1: $line" >&2
		return 1
	fi
	echo "$line"
}

# echo_server PORT: what comes, goes back, in capitals.
echo_server() {
	near_background socat -t 10 "TCP-LISTEN:$1,fork,reuseaddr,bind=127.0.0.1" EXEC:'stdbuf -oL tr a-z A-Z' 2>echo.err
	eventually 5 listens "$1"
}

# works: what real spipe sends through port 8022 comes back.
works() {
	random 100000 in
	tr '[:lower:]' '[:upper:]' <in >expected
	near timeout -s KILL 20 "$NET" exchange in out spipe -t 127.0.0.1:8022 -k inside.key
	cmp out expected
}

# offer TEXT: run that recipe, and test what it offers. Then once more from 127.0.0.9, with a command that tells
# whom it sees.
offer() {
	local line server
	echo_server 22
	line=$(recipe "$1")
	near_background bash -c "exec $line" >server.out 2>server.err
	server=${pids[-1]}
	eventually 5 listens 8022
	works
	kill "$server"
	gone_within 5 "$server"
	eventually 5 not listens 8022
	line=${line//'\:'/:}
	[[ $line == *'-k inside.key -t 127.0.0.1:22'* ]]
	near_background bash -c "exec ${line/-k inside.key -t 127.0.0.1:22/-k inside.key env}" >>server.out 2>>server.err
	eventually 5 listens 8022
	: >in
	near timeout -s KILL 20 "$NET" exchange in out spipe-enc -k inside.key nc -N -s 127.0.0.9 127.0.0.1 8022 2>enc.err
	grep -x SPIPE_PEER_ADDR=127.0.0.9 out
	grep -x SPIPE_KEY=inside.key out
}

@test "recipe: tcpserver" {
	offer 'tcpserver -HR -l 0 0.0.0.0 8022'
}

@test "recipe: socat with nofork" {
	offer "22',nofork"
}

@test "recipe: systemd-socket-activate, listening" {
	command -v systemd-socket-activate >/dev/null || skip "no systemd-socket-activate"
	offer 'systemd-socket-activate -l 8022 /usr'
}

@test "recipe: systemd-socket-activate" {
	command -v systemd-socket-activate >/dev/null || skip "no systemd-socket-activate"
	offer 'systemd-socket-activate --accept -l'
}

@test "recipe: systemd-socket-activate --inetd" {
	command -v systemd-socket-activate >/dev/null || skip "no systemd-socket-activate"
	offer 'systemd-socket-activate --accept --inetd'
}

@test "recipe: ncat" {
	command -v ncat >/dev/null || skip "no ncat"
	echo_server 22
	# a session of its own: when it is ended, ncat 7.99 ends its whole process group
	near_background setsid bash -c "exec $(recipe 'ncat -l -k -e')" >server.out 2>server.err
	eventually 5 listens 8022
	# ncat ends the connection at the client's end of input: ask, and end only after the answer
	mkfifo fifo
	exec 5<>fifo
	near_background spipe -t 127.0.0.1:8022 -k inside.key <fifo >answer
	echo hello >&5
	eventually 10 grep -qx HELLO answer
	exec 5>&-
}

@test "recipe: socat that relays" {
	offer 'socat -t 60 TCP-LISTEN'
}

# inetd_works TEXT: that line, with a real inetd.
inetd_works() {
	[ -x "$INETD/usr/sbin/inetd" ] || skip "no OpenBSD inetd (make deps)"
	echo_server 22
	recipe "$1" >inetd.conf
	near_background env LD_LIBRARY_PATH="$INETD/libs" \
		"$INETD/usr/sbin/inetd" -i "$PWD/inetd.conf" >inetd.out 2>inetd.err
	eventually 5 listens 8022
	works
}

@test "recipe: a wait line in inetd.conf" {
	inetd_works 'stream tcp wait'
}

@test "recipe: a nowait line in inetd.conf" {
	inetd_works 'stream tcp nowait'
}

@test "recipe: tcpserver in front of a far mail server" {
	echo_server 25
	near_background spiped -F -d -s '[127.0.0.1]:8025' -t '[127.0.0.1]:25' -k mail.key
	eventually 5 listens 8025
	near_background bash -c "exec $(recipe 'tcpserver -HR -l 0 127.0.0.1 2525')" 2>server.err
	eventually 5 listens 2525
	random 100000 in
	tr '[:lower:]' '[:upper:]' <in >expected
	near timeout -s KILL 20 "$NET" exchange in out 127.0.0.1:2525
	cmp out expected
}

@test "recipe: an archive, whole or not at all" {
	mkdir dir there
	cp key there
	random 3000000 dir/file
	near_background bash -c "cd there && exec $(recipe "gunzip | tar x'")" 2>server.err
	eventually 5 listens 8025
	# tcpclient asks a DNS server for names, and there is none here
	near bash -c "$(recipe 'tar cz dir' | sed 's/ host / 127.0.0.1 /')"
	eventually 5 cmp dir/file there/dir/file
	[ ! -s server.err ]
	run near bash -c "$(recipe 'tar cz dir' | sed 's/ host / 127.0.0.1 /; s/|/| head -c 1000000 |/')"
	eventually 5 grep -q 'the command sh exited with status' server.err
}

@test "recipe: a SOCKS proxy" {
	echo_server 25
	near_background spiped -F -d -s '[127.0.0.1]:8025' -t '[127.0.0.1]:25' -k mail.key
	eventually 5 listens 8025
	# SOCKS 5 (RFC 1928), for a connection to a name of 14 characters
	cat >socks <<-'END'
		head -c 3 >hello
		printf '\005\000'
		head -c 5 >request
		head -c 14 >name
		head -c 2 >port
		printf '\005\000\000\001\000\000\000\000\000\000'
		exec nc -N 127.0.0.1 8025
	END
	near_background socat TCP-LISTEN:1080,bind=127.0.0.1 EXEC:'sh socks' 2>socks.err
	eventually 5 listens 1080
	random 100000 in
	tr '[:lower:]' '[:upper:]' <in >expected
	near timeout -s KILL 20 "$NET" exchange in out bash -c "exec $(recipe 'proxy.example:1080')"
	cmp out expected
	[ "$(<name)" = server.example ]
}

@test "spipetab(5): every line that it shows makes its units" {
	sed -n '/^\.Bd/,/^\.Ed/p' "$TESTS/../man/spipetab.5" | grep -E '^[a-z-]+ (enc|dec) ' >lines
	[ "$(wc -l <lines)" -ge 8 ]
	[ -x "$BUILD/spipe-generator" ] || skip "built without systemd"
	local line
	while read -r line; do
		rm -rf units
		mkdir units
		echo "$line" >tab
		SPIPETAB=$PWD/tab "$BUILD/spipe-generator" units
		[ -e "units/spipe-${line%% *}.socket" ]
		[ -e "units/spipe-${line%% *}@.service" ]
	done <lines
	# spiped takes the lines that are said to do the same
	grep '^spiped ' "$TESTS/../man/spipetab.5" >theirs
	[ "$(wc -l <theirs)" -eq 3 ]
	while read -r line; do
		line=${line/-k *key/-k missing}
		run bash -c "${line/-u redis/}"
		[[ $output != *usage* ]]
	done <theirs
}

@test "spipetab(5): the command that it shows takes what a client sends" {
	local command
	command=$(sed -n 's/^[a-z]* dec [^ ]* "exec:\([^"]*\)" .*/\1/p' "$TESTS/../man/spipetab.5")
	[ "$(wc -l <<<"$command")" -eq 1 ]
	# shellcheck disable=SC2086
	listen server "$DEC" -k key $command
	[ "$(printf hello | "$ENC" -k key nc -N 127.0.0.1 "$port")" = hello ]
	statuses server 10 0
}

@test "spipetab(5) has every option that the generator knows, and no other" {
	sed -n '/^\.Ss Options of the tunnel/,/^\.Ss Isolation/p' "$TESTS/../man/spipetab.5" | grep '^\.It' |
		grep -oE 'Cm [a-z-]+' | cut -c 4- | sort -u >page
	{
		grep -oE '^\s*\[TUNNEL_[A-Z_]+\] = \{ "[a-z-]+' "$TESTS/../units/table.c" | grep -oE '[a-z-]+$'
		grep -oE 'strcmp\(word, "[a-z-]+"' "$TESTS/../units/table.c" | grep -oE '"[a-z-]+' | tr -d '"'
	} | sort -u >code
	diff page code
	[ "$(wc -l <code)" -ge 20 ]
}
