#!/usr/bin/env bats
# The units and spipetab under a real systemd, talked to by real spiped and spipe from outside.
# shellcheck disable=SC2154,SC2016

load ../helpers/lib
load ../helpers/systemd

setup_file() {
	systemd_prepare
	[ -z "${CANNOT:-}" ] || return 0
	cd "$ROOT" || return
	local key
	mkdir etc-spipe/clients
	for key in mail.key spipe-dec.key spipe-enc.key clients/alice clients/bob ruled.key wrong; do
		head -c 32 /dev/urandom >"etc-spipe/$key"
		chmod 600 "etc-spipe/$key"
	done
	echo 'from 192.0.2.0/24' >etc-spipe/ruled.key.conf
	# The shipped units, as their comments say.
	echo 'TARGET=127.0.0.1 9000' >etc-spipe/spipe-dec.env
	printf 'TARGET=far.example.net 7025\nOPTIONS=-g -i 60\n' >etc-spipe/spipe-enc.env
	ln -s /usr/local/lib/systemd/system/spipe-{dec,enc}.socket units/sockets.target.wants/
	cat >spipetab <<-'END'
		# NAME	ROLE	LISTEN		TARGET		KEY	OPTIONS
		mail-in	dec	127.0.0.1:8100	127.0.0.1:9000	mail.key maxconn=200,pfs=require,sandbox=require
		front	enc	/srv/front.sock	far.example.net:8100	mail.key mode=0666
		behind	dec	[::]:8101	/srv/app.sock	clients/
		nonsense dec	8102		nowhere		mail.key
		show	dec	127.0.0.1:8103	"exec:/usr/bin/printf %s| a$HOME %n \x41 ; $SPIPE_KEY ${SPIPE_KEY}" mail.key
		who	dec	127.0.0.1:8104	exec:/usr/bin/env mail.key network=no
		sealed	dec	127.0.0.1:8105	exec:/usr/bin/cat sealed.key encrypted
		ruled	dec	127.0.0.1:8106	exec:/usr/bin/cat ruled.key
		local	dec	127.0.0.1:8107	127.0.0.1:9000	mail.key allow=127.0.0.2
		far	dec	127.0.0.1:8108	198.51.100.1:9000 mail.key
		world	dec	127.0.0.1:8109	"exec:/bin/ls /etc" mail.key
		lazy	dec	127.0.0.1:8110	exec:/usr/bin/cat mail.key noauto
		bare	dec	127.0.0.1:8111	"/srv/app.sock" mail.key
		file	dec	127.0.0.1:8112	127.0.0.1:9000	mail.key key=missing.key
		bound	dec	127.0.0.1:8113	127.0.0.1:9001	mail.key bind=127.0.0.5
	END
	systemd_boot
}

teardown_file() { systemd_down; }

setup() {
	setup_test
	ETC=$ROOT/etc-spipe
	cp "$ETC/mail.key" mail
}

teardown() {
	[ -z "${CANNOT:-}" ] || return 0
	if [ -z "${BATS_TEST_COMPLETED:-}" ]; then
		inside journalctl -q --no-pager -n 30
	fi
	rm -f "$ROOT/shared/app.sock"
	teardown_test
}

# echo_server [ADDRESS:]PORT|PATH: what comes, goes back, in capitals.
echo_server() {
	case $1 in
	/*) near_background socat -t 10 "UNIX-LISTEN:$1,fork,mode=666" EXEC:'stdbuf -oL tr a-z A-Z' 2>server.err ;;
	*) near_background socat -t 10 "TCP-LISTEN:${1##*:},fork,reuseaddr,bind=${1%:*}" EXEC:'stdbuf -oL tr a-z A-Z' 2>server.err ;;
	esac
	case $1 in
	/*) eventually 5 test -S "$1" ;;
	*) eventually 5 listens "${1##*:}" ;;
	esac
}

listens() {
	[ -n "$(near ss -Hltn "sport = :$1")" ]
}

# ask PORT KEY [TEXT]: what real spipe gets back for TEXT (which may be empty). It is patient, as this machine
# may have other things to do.
ask() {
	printf '%s' "${3-hello}" >in
	rm -f out
	near timeout -s KILL 40 "$NET" exchange in out spipe -o 30 -t "127.0.0.1:$1" -k "$2" 2>ask.err || true
	cat out
}

# instances NAME: how many of its connections there are, in any state.
instances() {
	inside systemctl list-units --all --plain --no-legend "spipe-$1@*" | wc -l
}

gone() {
	[ "$(instances "$1")" -eq 0 ]
}

# field NAME FIELD: that of the last entry that spipe-dec or spipe-enc wrote for a connection of the tunnel.
field() {
	journal "spipe-$1@*" | /usr/bin/python3 -c '
import json, sys
entries = [json.loads(line) for line in sys.stdin]
print([e for e in entries if "SPIPE_RESULT" in e][-1][sys.argv[1]])' "$2"
}

is_field() {
	[ "$(field "$1" "$2")" = "$3" ]
}

@test "systemd: the generator makes all units but the wrong one, and says which" {
	run inside systemctl list-units --plain --no-legend --state=listening 'spipe-*.socket'
	[ "$(wc -l <<<"$output")" -eq 15 ]
	[[ $output != *nonsense* ]]
	[[ $output != *lazy* ]]
	run inside systemctl cat spipe-nonsense.socket
	[ "$status" -ne 0 ]
	inside systemctl start spipe-lazy.socket
	# at boot that goes to the kernel's log, which is not ours here
	inside systemctl daemon-reload
	inside journalctl --sync
	inside journalctl -q --no-pager | grep -aq 'spipe-generator failed with exit status 1'
	run inside sh -c 'mkdir /tmp/g && /usr/local/lib/systemd/system-generators/spipe-generator /tmp/g'
	diff <(echo "$output") - <<-'END'
		spipe-generator: /etc/spipetab:5: TARGET: not host:port, [address]:port, /path or vsock:CID:port
		spipe-generator: /etc/spipetab:8: warning: no key file /etc/spipe/sealed.key: connections will fail without it
		spipe-generator: /etc/spipetab:15: warning: no key file /etc/spipe/missing.key: connections will fail without it
	END
}

@test "systemd: verify has nothing to say" {
	run inside env SYSTEMD_UNIT_PATH=/run/systemd/generator: systemd-analyze verify --man=no spipe-dec.socket spipe-dec@1.service spipe-enc.socket \
		spipe-enc@1.service spipe-mail-in.socket spipe-mail-in@1.service spipe-front.socket \
		spipe-front@1.service spipe-behind.socket spipe-behind@1.service spipe-show@1.service
	echo "$output"
	[[ $output != *spipe* ]]
}

@test "systemd: how long a start may take is for the filter to say (-o, timeout=)" {
	local name
	for name in dec enc mail-in; do
		[ "$(inside systemctl show -P TimeoutStartUSec "spipe-$name@1.service")" = infinity ]
	done
}

# exposure NAME: systemd's figure times ten.
exposure() {
	inside systemd-analyze security --no-pager "spipe-$1@1.service" |
		sed -n 's/.*Overall exposure level.*: \([0-9]*\)\.\([0-9]\).*/\1\2/p' | sed 's/^0//'
}

@test "systemd: exposure" {
	[ "$(exposure dec)" -le 10 ]
	[ "$(exposure enc)" -le 11 ]
	[ "$(exposure mail-in)" -le 10 ]
	[ "$(exposure front)" -le 11 ]
	[ "$(exposure behind)" -le 6 ]
}

@test "systemd: spipe-dec.socket as shipped, from real spipe" {
	echo_server 127.0.0.1:9000
	random 300000 in
	tr '[:lower:]' '[:upper:]' <in >expected
	near "$NET" exchange in out spipe -t 127.0.0.1:8025 -k "$ETC/spipe-dec.key"
	cmp out expected
}

@test "systemd: spipe-enc.socket as shipped, through a target's name to real spiped" {
	echo_server 127.0.0.1:9000
	near_background spiped -F -d -s '[127.0.0.1]:7025' -t '[127.0.0.1]:9000' -k "$ETC/spipe-enc.key"
	eventually 5 listens 7025
	random 300000 in
	tr '[:lower:]' '[:upper:]' <in >expected
	near "$NET" exchange in out 127.0.0.1:2525
	cmp out expected
}

@test "systemd: spipetab, TCP to TCP, from real spiped" {
	echo_server 127.0.0.1:9000
	near_background spiped -F -e -s '[127.0.0.1]:7100' -t '[127.0.0.1]:8100' -k mail
	eventually 5 listens 7100
	random 300000 in
	tr '[:lower:]' '[:upper:]' <in >expected
	near "$NET" exchange in out 127.0.0.1:7100
	cmp out expected
	# pfs=require
	near_background spiped -F -f -e -s '[127.0.0.1]:7101' -t '[127.0.0.1]:8100' -k mail
	eventually 5 listens 7101
	near "$NET" exchange in out 127.0.0.1:7101 || true
	[ ! -s out ]
	eventually 5 gone mail-in
	eventually 5 is_field mail-in SPIPE_RESULT refused
}

@test "systemd: spipetab, a UNIX socket in front" {
	echo_server 127.0.0.1:9000
	[ "$(stat -c %a "$ROOT/shared/front.sock")" = 666 ]
	random 300000 in
	tr '[:lower:]' '[:upper:]' <in >expected
	"$NET" exchange in out "$ROOT/shared/front.sock"
	cmp out expected
}

@test "systemd: spipetab, a UNIX socket behind, a directory of keys, rotation without reload" {
	echo_server "$ROOT/shared/app.sock"
	[ "$(ask 8101 "$ETC/clients/alice")" = HELLO ]
	[ "$(field behind SPIPE_KEY)" = alice ]
	[ "$(ask 8101 "$ETC/clients/bob")" = HELLO ]
	[ "$(field behind SPIPE_KEY)" = bob ]
	[ -z "$(ask 8101 other)" ]
	cp other "$ETC/clients/carol"
	[ "$(ask 8101 other)" = HELLO ]
	mv "$ETC/clients/alice" revoked
	[ -z "$(ask 8101 revoked)" ]
	[ "$(ask 8101 other)" = HELLO ]
	mv revoked "$ETC/clients/alice"
	rm "$ETC/clients/carol"
	# one key, and no network at all
	[ "$(ask 8111 mail)" = HELLO ]
}

@test "systemd: an encrypted credential" {
	inside systemd-creds encrypt --with-key=host --name=sealed.key /etc/spipe/mail.key /etc/spipe/sealed.key ||
		skip "systemd-creds cannot encrypt here"
	[ "$(ask 8105 mail)" = hello ]
	[ "$(field sealed SPIPE_KEY)" = sealed.key ]
}

@test "systemd: a key's rules hold beside a credential, and a key that is not there is an error" {
	[ -z "$(ask 8106 "$ETC/ruled.key")" ]
	[ "$(field ruled SPIPE_RESULT)" = refused ]
	rm "$ETC/ruled.key.conf"
	[ "$(ask 8106 "$ETC/ruled.key")" = hello ]
	[ -z "$(ask 8112 mail)" ]
	eventually 5 gone file
	# as spipetab(5) tells
	inside journalctl --sync
	inside journalctl -q --no-pager -u 'spipe-file@*' | grep -aq 'status=243/CREDENTIALS'
	inside systemctl is-active -q spipe-file.socket
}

@test "systemd: a command gets the words of its line as they stand" {
	[ "$(ask 8103 mail "")" = 'a$HOME|%n|\x41|;|$SPIPE_KEY|${SPIPE_KEY}|' ]
	ask 8104 mail "" >environment
	grep -x SPIPE_KEY=mail.key environment
	grep -x SPIPE_PEER_ADDR=127.0.0.1 environment
	run ! grep -E '^(LISTEN_|NOTIFY_SOCKET|CREDENTIALS_DIRECTORY)' environment
	# exec: sees the machine's files
	ask 8109 mail "" | grep -x hosts
}

@test "systemd: what the walls leave of the world" {
	local pid
	echo_server 127.0.0.1:9000
	near_background spipe -t 127.0.0.1:8100 -k mail </dev/zero >/dev/null
	eventually 10 inside pgrep -ox spipe-dec
	pid=$(inside pgrep -ox spipe-dec)
	[ "$(inside ls "/proc/$pid/root" | tr '\n' ' ')" = 'bin dev etc lib lib64 proc run sys tmp usr var ' ] || {
		inside ls "/proc/$pid/root"
		inside grep ' / ' "/proc/$pid/mountinfo"
		false
	}
	run ! inside touch "/proc/$pid/root/x"
	inside grep -qE '^CapBnd:\s*0+$' "/proc/$pid/status"
	inside grep -qE '^NoNewPrivs:\s*1$' "/proc/$pid/status"
	inside grep -qE '^Seccomp:\s*2$' "/proc/$pid/status"
	[ "$(inside stat -c %u "/proc/$pid")" -ne 0 ]
	inside grep -q '^0::/spipe.slice/' "/proc/$pid/cgroup"
}

@test "systemd: only the target's address can be reached, only allowed ones get in" {
	near ip address replace 198.51.100.1/32 dev lo
	echo_server 198.51.100.1:9000
	[ "$(ask 8108 mail)" = HELLO ]
	# bind=
	near_background socat -t 10 TCP-LISTEN:9001,fork,reuseaddr,bind=127.0.0.1 SYSTEM:'cat; echo $SOCAT_PEERADDR' 2>server.err
	eventually 5 listens 9001
	[ "$(ask 8113 mail "")" = 127.0.0.5 ]
	# the shipped unit stays on this machine until told otherwise
	echo 'TARGET=198.51.100.1 9000' >"$ETC/spipe-dec.env"
	run ask 8025 "$ETC/spipe-dec.key"
	echo 'TARGET=127.0.0.1 9000' >"$ETC/spipe-dec.env"
	inside journalctl -q | grep -aq 'does not support BPF/cgroup firewalling' && skip "no limits by address here"
	[ -z "$output" ]
	run near timeout -s KILL 2 nc -N -s 127.0.0.3 127.0.0.1 8107 </dev/null
	[ "$status" -ne 0 ]
	near timeout -s KILL 2 nc -z -s 127.0.0.2 127.0.0.1 8107
}

@test "systemd: one journal entry a connection" {
	local i
	echo_server 127.0.0.1:9000
	[ "$(ask 8100 mail)" = HELLO ]
	eventually 5 gone mail-in
	for i in SPIPE_ROLE=dec SPIPE_KEY=mail.key SPIPE_BYTES_IN=5 SPIPE_BYTES_OUT=5 SPIPE_RESULT=clean PRIORITY=6 \
		SYSLOG_IDENTIFIER=spipe-dec; do
		[ "$(field mail-in "${i%%=*}")" = "${i#*=}" ]
	done
	[[ $(field mail-in SPIPE_PEER) =~ ^127\.0\.0\.1:[0-9]+$ ]]
	[[ $(field mail-in SPIPE_SECONDS) =~ ^[0-9]+\.[0-9]{3}$ ]]
	[[ $(field mail-in MESSAGE) =~ ^127\.0\.0\.1:[0-9]+\ key\ mail\.key:\ 5\ bytes\ in,\ 5\ bytes\ out,\ .*\ s:\ ended\ cleanly$ ]]
	[ -z "$(ask 8100 other)" ]
	eventually 5 gone mail-in
	[ "$(field mail-in SPIPE_RESULT)" = refused ]
	[ "$(field mail-in SPIPE_KEY)" = - ]
	[ "$(field mail-in SPIPE_BYTES_OUT)" = 0 ]
	# no target: the command is named
	kill "${pids[@]}"
	[ -z "$(ask 8100 mail)" ]
	[ "$(field mail-in SPIPE_RESULT)" = command ]
	[[ $(field mail-in MESSAGE) == *nc* ]]
	"$NET" exchange in out "$ROOT/shared/front.sock" || true
	eventually 5 gone front
	[ "$(field front SPIPE_ROLE)" = enc ]
}

@test "systemd: a record belongs to its unit also when the journal reads it late" {
	local journald
	journald=$(inside pgrep -ox systemd-journal)
	echo_server 127.0.0.1:9000
	inside kill -STOP "$journald"
	run ask 8100 mail "so quiet"
	inside kill -CONT "$journald"
	[ "$output" = "SO QUIET" ]
	eventually 5 gone mail-in
	[ "$(journal 'spipe-mail-in@*' SPIPE_BYTES_IN=8 | wc -l)" -eq 1 ]
}

@test "systemd: activating until the peer has proved itself, then a status that a person can read" {
	local unit
	echo_server 127.0.0.1:9000
	# a connection that says its nonce and no more
	near_background sh -c 'head -c 32 /dev/urandom | socat -t 30 -,ignoreeof TCP:127.0.0.1:8100'
	eventually 5 test_state activating
	eventually 10 gone mail-in
	[ "$(field mail-in SPIPE_RESULT)" = timeout ]
	mkfifo fifo
	exec 5<>fifo
	near_background spipe -t 127.0.0.1:8100 -k mail <fifo >answer
	echo hello >&5
	eventually 5 test_state active
	unit=$(inside systemctl list-units --plain --no-legend 'spipe-mail-in@*' | cut -d ' ' -f 1)
	run inside systemctl show -p StatusText "$unit"
	[[ $output =~ 127\.0\.0\.1:[0-9]+\ key\ mail\.key: ]]
	eventually 5 test -s answer
	exec 5>&-
	eventually 5 gone mail-in
}

test_state() {
	[ "$(inside systemctl list-units --all --plain --no-legend 'spipe-mail-in@*' | awk '{print $3}')" = "$1" ]
}

@test "systemd: 2,000 connects in 2 s, 300 held idle, 500 wrong keys; the rightful get through" {
	local before
	echo_server 127.0.0.1:9000
	mkfifo hold
	exec 5<>hold
	near_background "$TESTS/helpers/flood.py" silent 127.0.0.1 8025 127.0.0.9 300 <hold >silent.out
	eventually 10 test -s silent.out
	near "$TESTS/helpers/flood.py" connect 127.0.0.1 8025 127.0.0.9 2000 2
	# during, from another address
	[ "$(ask 8025 "$ETC/spipe-dec.key")" = HELLO ]
	near timeout -s KILL 60 "$TESTS/helpers/flood.py" wrong 127.0.0.1 8025 127.0.0.9 500 >wrong.out &
	before=$!
	[ "$(ask 8025 "$ETC/spipe-dec.key")" = HELLO ]
	wait "$before"
	read -r closed _ <wrong.out
	[ "$closed" -eq 500 ]
	exec 5>&-
	[ "$(ask 8025 "$ETC/spipe-dec.key")" = HELLO ]
	inside systemctl is-active -q spipe-dec.socket
	eventually 30 gone dec
	run inside systemctl list-units --all --plain --no-legend --state=failed 'spipe*'
	[ -z "$output" ]
}

@test "systemd: daemon-reload closes the port of a line that is gone or listens elsewhere, a restart opens the new one" {
	local socket
	cp "$ROOT/spipetab" table
	echo_server 127.0.0.1:9000
	mkfifo fifo
	exec 5<>fifo
	near_background spipe -t 127.0.0.1:8100 -k mail <fifo >answer
	echo one >&5
	eventually 10 grep -q ONE answer
	sed -e '/^mail-in/d' -e '/^who/s/8104/8114/' -e '/^bound/s/9001/9000/' table >"$ROOT/spipetab"
	inside systemctl daemon-reload
	# both units still claim to listen, and a start changes nothing
	inside systemctl start sockets.target
	for socket in mail-in who; do
		[ "$(inside systemctl show -P SubState "spipe-$socket.socket")" = listening ]
	done
	not listens 8100
	not listens 8104
	not listens 8114
	inside systemctl restart spipe-who.socket
	listens 8114
	not listens 8104
	inside systemctl stop spipe-mail-in.socket
	# a new TARGET needs no restart, and connections stand
	[ "$(ask 8113 mail)" = HELLO ]
	echo two >&5
	eventually 10 grep -q TWO answer
	exec 5>&-
	cat table >"$ROOT/spipetab"
	inside systemctl daemon-reload
	inside systemctl restart spipe-mail-in.socket spipe-who.socket
	listens 8100
	listens 8104
}

@test "systemd: README.md's two machines, both ends on this one" {
	local step
	cp "$ROOT/spipetab" table
	echo_server 127.0.0.1:9000
	grep -oE '(mail-in +dec|mail-out +enc) .*' "$TESTS/../README.md" |
		sed -e 's/^mail-in/far-in/' -e 's/8025/8125/' -e 's/:25 /:9000 /' -e 's/:2525/:2625/' -e 's/server.example/127.0.0.1/' >>"$ROOT/spipetab"
	step=$(grep -oE 'systemctl daemon-reload && systemctl start sockets.target' "$TESTS/../README.md")
	inside sh -c "$step"
	printf hello >in
	near timeout -s KILL 40 "$NET" exchange in out 127.0.0.1:2625
	[ "$(cat out)" = HELLO ]
	eventually 5 gone far-in
	[ "$(field far-in SPIPE_KEY)" = mail.key ]
	inside systemctl stop spipe-far-in.socket spipe-mail-out.socket
	cat table >"$ROOT/spipetab"
	inside systemctl daemon-reload
}

@test "systemd: stopping a socket leaves its connections, stopping the slice ends them" {
	echo_server 127.0.0.1:9000
	mkfifo fifo
	exec 5<>fifo
	near_background spipe -t 127.0.0.1:8100 -k mail <fifo >answer
	echo one >&5
	eventually 5 grep -q ONE answer || [ "$(instances mail-in)" -eq 1 ]
	inside systemctl stop spipe-mail-in.socket
	run near nc -z 127.0.0.1 8100
	[ "$status" -ne 0 ]
	[ "$(instances mail-in)" -eq 1 ]
	echo two >&5
	inside systemctl stop spipe.slice
	[ "$(instances mail-in)" -eq 0 ]
	eventually 5 not alive "${pids[1]}"
	exec 5>&-
	run inside systemctl list-units --plain --no-legend --state=listening 'spipe-*.socket'
	[ -z "$output" ]
	run ! inside pgrep spipe-dec
	[ ! -e "$ROOT/shared/front.sock" ]
	[ "$(field mail-in SPIPE_RESULT)" = terminated ]
	inside systemctl start spipe-mail-in.socket
	[ "$(ask 8100 mail)" = HELLO ]
}
