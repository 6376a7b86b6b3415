#!/usr/bin/env bats
# The units and spipetab under a real systemd, talked to by real spiped and spipe from outside.
# shellcheck disable=SC2154,SC2016

load ../helpers/lib
load ../helpers/systemd

setup_file() {
	systemd_prepare
	[ -z "${CANNOT:-}" ] || return 0
	cd "$ROOT" || return
	mkdir etc-spipe/clients etc-spipe/odd
	new_keys mail.key spipe-dec.key spipe-enc.key clients/alice clients/bob ruled.key wrong
	echo 'from 192.0.2.0/24' >etc-spipe/ruled.key.conf
	cp etc-spipe/mail.key shared/else.key
	# The shipped units, as their comments say.
	echo 'TARGET=127.0.0.1:9000' >etc-spipe/spipe-dec.env
	printf 'TARGET=far.example.net:7025\nOPTIONS=-g -i 60\n' >etc-spipe/spipe-enc.env
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
		each	dec	127.0.0.1:8115	127.0.0.1:9000	mail.key accept=yes,pfs=require
		d.o-t_s	dec	127.0.0.1:8116	127.0.0.1:9000	mail.key exit-idle=0.5
		nodir	dec	127.0.0.1:8117	127.0.0.1:9000	nowhere/
		odd	dec	127.0.0.1:8118	127.0.0.1:9000	odd/
		else	dec	127.0.0.1:8119	127.0.0.1:9000	/srv/else.key
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
	rm -f "$ROOT/shared/app.sock"
	systemd_teardown
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

# ask PORT KEY [TEXT]: what real spipe gets back for TEXT (which may be empty). It is patient, as this machine
# may have other things to do.
ask() {
	printf '%s' "${3-hello}" >in
	rm -f out
	near timeout -s KILL 40 "$NET" exchange in out spipe -o 30 -t "127.0.0.1:$1" -k "$2" 2>ask.err || true
	cat out
}

# answers ANSWER PORT KEY: what `ask` gets.
answers() {
	[ "$(ask "$2" "$3")" = "$1" ]
}

# instances NAME: how many of its services there are, in any state.
instances() {
	inside systemctl list-units --all --plain --no-legend --state=active,activating,deactivating,failed \
		"spipe-$1@*" | wc -l
}

# processes NAME: those of its connections. One service for all connections is a process more.
processes() {
	inside sh -c 'cat /sys/fs/cgroup/spipe.slice/spipe-"$0"@*/cgroup.procs 2>/dev/null | wc -l' "$1"
}

# gone NAME: it serves no connection.
gone() {
	[ "$(processes "$1")" -le "$(inside sh -c 'ls -d /sys/fs/cgroup/spipe.slice/spipe-"$0"@[0-9].service 2>/dev/null | wc -l' "$1")" ]
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
	[ "$(wc -l <<<"$output")" -eq 20 ]
	[[ $output != *nonsense* ]]
	[[ $output != *lazy* ]]
	inside systemctl start spipe-lazy.socket
	# at boot that goes to the kernel's log, which is not ours here
	inside systemctl daemon-reload
	inside journalctl --sync
	inside journalctl -q --no-pager | grep -aEq "spipe-generator'? failed with exit status 1"
	run inside sh -c 'mkdir /tmp/g && /usr/local/lib/systemd/system-generators/spipe-generator /tmp/g'
	diff <(echo "$output") - <<-'END'
		spipe-generator: /etc/spipetab:5: TARGET is none of port, host:port, [address]:port, /path, vsock:CID:port and exec:command
		spipe-generator: /etc/spipetab:8: warning: no key file /etc/spipe/sealed.key: connections will fail without it
		spipe-generator: /etc/spipetab:15: warning: no key file /etc/spipe/missing.key: connections will fail without it
		spipe-generator: /etc/spipetab:19: warning: no key directory /etc/spipe/nowhere: connections will fail without it
	END
}

@test "systemd: systemd-analyze verify finds nothing" {
	run inside env SYSTEMD_UNIT_PATH=/run/systemd/generator: systemd-analyze verify --man=no spipe-dec.socket spipe-dec@1.service spipe-enc.socket \
		spipe-enc@1.service spipe-mail-in.socket spipe-mail-in@1.service spipe-front.socket \
		spipe-front@1.service spipe-behind.socket spipe-behind@1.service spipe-show@1.service \
		renew-spipe.path renew-spipe.service spipe-bare.path spipe-each.socket spipe-each@1.service renew-spipe@mail-in.service
	# a setting of version 255
	output=$(grep -v "Unknown key .*'PollLimitIntervalSec'" <<<"$output" || true)
	echo "$output"
	[[ $output != *spipe* ]]
}

@test "systemd: only the filter limits how long a start may take (-o, timeout=)" {
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
	[ "$(exposure dec)" -le 12 ]
	[ "$(exposure enc)" -le 12 ]
	[ "$(exposure mail-in)" -le 10 ]
	[ "$(exposure front)" -le 11 ]
	[ "$(exposure behind)" -le 6 ]
	[ "$(exposure each)" -le 12 ]
}

@test "systemd: settings that only count when something goes wrong" {
	local unit
	for unit in spipe-dec@1 spipe-enc@1 spipe-mail-in@1 spipe-each@1 spipe-show@1; do
		[ "$(inside systemctl show -P KillMode "$unit.service")" = mixed ]
		[ "$(inside systemctl show -P TimeoutStopUSec "$unit.service")" = 5s ]
		[ "$(inside systemctl show -P SocketBindDeny "$unit.service")" = any ]
		[ "$(inside systemctl show -P LimitCORE "$unit.service")" = 0 ]
		[ "$(inside systemctl show -P UMask "$unit.service")" = 0777 ]
		[ "$(inside systemctl show -P CollectMode "$unit.service")" = inactive-or-failed ]
		[ "$(inside systemctl show -P NotifyAccess "$unit.service")" = main ]
	done
	# a socket must not be turned off by those who connect to it
	for unit in spipe-dec spipe-enc spipe-mail-in spipe-each; do
		[ "$(inside systemctl show -P TriggerLimitIntervalUSec "$unit.socket")" = 0 ]
	done
	if [ "$(inside systemctl --version | awk 'NR == 1 { print $2 }')" -ge 255 ]; then
		[ "$(inside systemctl show -P PollLimitIntervalUSec spipe-each.socket)" = 0 ]
		[ "$(inside systemctl show -P PollLimitIntervalUSec spipe-dec.socket)" = 0 ]
	fi
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
	eventually 5 is_field behind SPIPE_KEY alice
	[ "$(ask 8101 "$ETC/clients/bob")" = HELLO ]
	eventually 5 is_field behind SPIPE_KEY bob
	[ -z "$(ask 8101 other)" ]
	cp other "$ETC/clients/carol"
	eventually 5 answers HELLO 8101 other
	mv "$ETC/clients/alice" revoked
	eventually 5 answers '' 8101 revoked
	[ "$(ask 8101 other)" = HELLO ]
	mv revoked "$ETC/clients/alice"
	rm "$ETC/clients/carol"
	eventually 5 answers '' 8101 other
	# one key, and no network at all
	[ "$(ask 8111 mail)" = HELLO ]
}

@test "systemd: a UNIX target that is made again is found again" {
	echo_server "$ROOT/shared/app.sock"
	eventually 5 answers HELLO 8111 mail
	kill "${pids[0]}"
	gone_within 5 "${pids[0]}"
	rm -f "$ROOT/shared/app.sock"
	eventually 5 answers '' 8111 mail
	echo_server "$ROOT/shared/app.sock"
	eventually 5 answers HELLO 8111 mail
}

# hold_tunnel PORT KEY: a tunnel that stays open; lines written to descriptor 5 come back in ./answer.
hold_tunnel() {
	rm -f fifo
	mkfifo fifo
	exec 5<>fifo
	near_background spipe -t "127.0.0.1:$1" -k "$2" <fifo >answer
	echo first >&5
	eventually 10 grep -q FIRST answer
}

@test "systemd: a new key takes over, and no connection is disturbed" {
	echo_server 127.0.0.1:9000
	hold_tunnel 8100 mail
	[ "$(instances mail-in)" -eq 1 ]
	cat other >"$ETC/mail.key"
	eventually 10 answers HELLO 8100 other
	[ -z "$(ask 8100 mail)" ]
	# two changes at once, and while one of them takes effect
	cat mail >"$ETC/mail.key"
	cat other >"$ETC/mail.key"
	cat mail >"$ETC/mail.key"
	eventually 10 answers HELLO 8100 mail
	[ -z "$(ask 8100 other)" ]
	echo second >&5
	eventually 5 grep -q SECOND answer
	# the old service ends with its last connection, the new one stays
	exec 5>&-
	eventually 10 only_one mail-in
	[ "$(ask 8100 mail)" = HELLO ]
	inside systemctl is-active -q renew-spipe.path
	none_failed
}

@test "systemd: a key that is not in /etc/spipe is watched, too, and so are its rules" {
	echo_server 127.0.0.1:9000
	[ "$(ask 8119 mail)" = HELLO ]
	cp other "$ROOT/shared/new"
	mv "$ROOT/shared/new" "$ROOT/shared/else.key"
	eventually 5 answers HELLO 8119 other
	[ -z "$(ask 8119 mail)" ]
	echo 'from 192.0.2.0/24' >"$ROOT/shared/else.key.conf"
	eventually 5 answers '' 8119 other
	rm "$ROOT/shared/else.key.conf"
	eventually 5 answers HELLO 8119 other
	cp mail "$ROOT/shared/else.key"
	eventually 5 answers HELLO 8119 mail
}

# none_failed: no unit of ours, but for the line that is wrong.
none_failed() {
	diff <(inside systemctl list-units --all --plain --no-legend --state=failed 'spipe*' 'renew*' | cut -d ' ' -f 1) \
		- <<<spipe-nonsense.socket
}

only_one() {
	[ "$(instances "$1")" -eq 1 ]
}

none_left() {
	[ "$(instances "$1")" -eq 0 ]
}

@test "systemd: a service that has nothing to do ends, and the next connection starts it again" {
	echo_server 127.0.0.1:9000
	[ "$(ask 8116 mail)" = HELLO ]
	eventually 10 none_left d.o-t_s
	[ "$(ask 8116 mail)" = HELLO ]
	# one that has taken over stays: if it ended, nobody would accept until the old one has ended
	hold_tunnel 8116 mail
	inside systemctl start renew-spipe@d.o-t_s
	run -1 inside systemctl start renew-spipe@nobody
	inside systemctl reset-failed renew-spipe@nobody
	[ "$(ask 8116 mail)" = HELLO ]
	[ "$(instances d.o-t_s)" -eq 2 ]
	inside sleep 1
	[ "$(instances d.o-t_s)" -eq 2 ]
	[ "$(ask 8116 mail)" = HELLO ]
	exec 5>&-
	eventually 10 only_one d.o-t_s
	inside systemctl stop 'spipe-d.o-t_s@*'
	[ "$(ask 8116 mail)" = HELLO ]
}

@test "systemd: reload executes the program again, and no connection is disturbed" {
	local unit pid
	echo_server 127.0.0.1:9000
	hold_tunnel 8100 mail
	unit=$(inside systemctl list-units --plain --no-legend 'spipe-mail-in@*' | cut -d ' ' -f 1)
	pid=$(inside systemctl show -P MainPID "$unit")
	inside systemctl reload "$unit"
	[ "$(ask 8100 mail)" = HELLO ]
	[ "$(inside systemctl show -P MainPID "$unit")" = "$pid" ]
	echo second >&5
	eventually 5 grep -q SECOND answer
	exec 5>&-
	inside systemctl is-active -q "$unit"
}

@test "systemd: after a service was killed, a client that waits 4 s is served" {
	echo_server 127.0.0.1:9000
	[ "$(ask 8100 mail)" = HELLO ]
	inside systemctl kill -s KILL 'spipe-mail-in@*'
	near timeout -s KILL 40 "$NET" exchange in out spipe -o 4 -t 127.0.0.1:8100 -k mail
	[ "$(cat out)" = HELLO ]
}

# restarts NAME: how often systemd has tried its service again.
restarts() {
	inside systemctl show -P NRestarts "spipe-$1@*.service" | sort -n | tail -n 1
}

@test "systemd: a missing key file or directory: connections fail, the service stays, and a key helps" {
	local name
	echo_server 127.0.0.1:9000
	[ -z "$(ask 8112 mail)" ]
	eventually 5 is_field file SPIPE_RESULT key
	[ -z "$(ask 8117 mail)" ]
	eventually 5 is_field nodir SPIPE_RESULT key
	for name in file nodir; do
		inside systemctl is-active -q "spipe-$name.socket"
		[ "$(restarts "$name")" = 0 ]
	done
	cp other "$ETC/missing.key"
	eventually 5 answers HELLO 8112 mail
	mkdir "$ETC/nowhere"
	cp mail "$ETC/nowhere/carol"
	eventually 5 answers HELLO 8117 mail
	rm -r "$ETC/missing.key" "$ETC/nowhere"
	eventually 5 answers '' 8112 mail
	eventually 5 answers '' 8117 mail
}

@test "systemd: a file that systemd cannot pass on: the service is tried again slowly, until it is gone" {
	echo_server 127.0.0.1:9000
	cp mail "$ETC/odd/alice"
	cp mail "$ETC/odd/b:ob"
	near_background sh -c 'echo | socat -t 30 -,ignoreeof TCP:127.0.0.1:8118'
	eventually 5 failed_credentials
	inside sleep 1
	[ "$(inside journalctl -q --no-pager -u 'spipe-odd@*' | grep -ac 'status=243/CREDENTIALS')" -le 2 ]
	rm "$ETC/odd/b:ob"
	eventually 10 answers HELLO 8118 mail
	inside systemctl is-active -q spipe-odd.socket
}

# As spipetab(5) says.
failed_credentials() {
	inside journalctl --sync
	inside journalctl -q --no-pager -u 'spipe-odd@*' | grep -aq 'status=243/CREDENTIALS'
}

@test "systemd: an encrypted credential" {
	inside systemd-creds encrypt --with-key=host --name=sealed.key /etc/spipe/mail.key /etc/spipe/sealed.key ||
		skip "systemd-creds cannot encrypt here"
	[ "$(ask 8105 mail)" = hello ]
	eventually 5 is_field sealed SPIPE_KEY sealed.key
}

@test "systemd: a key's rules hold beside a credential" {
	[ -z "$(ask 8106 "$ETC/ruled.key")" ]
	eventually 5 is_field ruled SPIPE_RESULT refused
	rm "$ETC/ruled.key.conf"
	eventually 5 answers hello 8106 "$ETC/ruled.key"
	echo 'from 127.0.0.0/8' >"$ETC/ruled.key.conf"
	inside systemctl restart spipe-ruled.socket
	[ "$(ask 8106 "$ETC/ruled.key")" = hello ]
}

@test "systemd: a command gets the words of its line unchanged" {
	[ "$(ask 8103 mail "")" = 'a$HOME|%n|\x41|;|$SPIPE_KEY|${SPIPE_KEY}|' ]
	ask 8104 mail "" >environment
	grep -x SPIPE_KEY=mail.key environment
	grep -x SPIPE_PEER_ADDR=127.0.0.1 environment
	run ! grep -E '^(LISTEN_|NOTIFY_SOCKET|CREDENTIALS_DIRECTORY)' environment
	# exec: sees the machine's files
	ask 8109 mail "" | grep -x hosts
}

@test "systemd: what a service can still see and write" {
	local pid
	echo_server 127.0.0.1:9000
	near_background spipe -t 127.0.0.1:8100 -k mail </dev/zero >/dev/null
	eventually 10 not gone mail-in
	pid=$(inside sh -c 'cat /sys/fs/cgroup/spipe.slice/spipe-mail-in@*/cgroup.procs' | head -n 1)
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
	writable "$pid" >writable
	diff writable - </dev/null
}

# writable PID: the files and directories that it could write, but for devices, sockets and itself.
writable() {
	inside nsenter -t "$1" -m -- /usr/bin/python3 -c '
import os, stat, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
for folder, folders, files in os.walk("/"):
    folders[:] = [] if folder in ("/proc", "/sys", "/usr") else folders
    for name in [folder] + [os.path.join(folder, file) for file in files]:
        mode = os.lstat(name).st_mode
        if (stat.S_ISDIR(mode) or stat.S_ISREG(mode)) and os.access(name, os.W_OK):
            print(name)' "$(inside stat -c %u "/proc/$1")"
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
	echo 'TARGET=198.51.100.1:9000' >"$ETC/spipe-dec.env"
	run ask 8025 "$ETC/spipe-dec.key"
	echo 'TARGET=127.0.0.1:9000' >"$ETC/spipe-dec.env"
	inside journalctl -q | grep -aq 'does not support BPF/cgroup firewalling' && skip "no limits by address here"
	[ -z "$output" ]
	run near timeout -s KILL 2 nc -N -s 127.0.0.3 127.0.0.1 8107 </dev/null
	[ "$status" -ne 0 ]
	near timeout -s KILL 2 nc -z -s 127.0.0.2 127.0.0.1 8107
}

@test "systemd: one journal entry for each connection" {
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
	eventually 5 is_field mail-in SPIPE_RESULT refused
	eventually 5 is_field mail-in SPIPE_KEY -
	eventually 5 is_field mail-in SPIPE_BYTES_OUT 0
	# no target: its address and the reason
	kill "${pids[@]}"
	[ -z "$(ask 8100 mail)" ]
	eventually 5 is_field mail-in SPIPE_RESULT target
	[[ $(field mail-in MESSAGE) == *'cannot connect to 127.0.0.1:9000: Connection refused'* ]]
	"$NET" exchange in out "$ROOT/shared/front.sock" || true
	eventually 5 gone front
	eventually 5 is_field front SPIPE_ROLE enc
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

@test "systemd: activating until the peer has proved its key, then a readable status" {
	local unit
	echo_server 127.0.0.1:9000
	# a connection that says its nonce and no more
	near_background sh -c 'head -c 32 /dev/urandom | socat -t 30 -,ignoreeof TCP:127.0.0.1:8115'
	eventually 5 test_state activating
	eventually 10 gone each
	eventually 5 is_field each SPIPE_RESULT timeout
	mkfifo fifo
	exec 5<>fifo
	near_background spipe -t 127.0.0.1:8115 -k mail <fifo >answer
	echo hello >&5
	eventually 5 test_state active
	unit=$(inside systemctl list-units --plain --no-legend 'spipe-each@*' | cut -d ' ' -f 1)
	run inside systemctl show -p StatusText "$unit"
	[[ $output =~ 127\.0\.0\.1:[0-9]+\ key\ mail\.key: ]]
	eventually 5 test -s answer
	exec 5>&-
	eventually 5 gone each
	# one service for all: it is up at once, and counts
	mkfifo fifo2
	exec 5<>fifo2
	near_background spipe -t 127.0.0.1:8100 -k mail <fifo2 >answer2
	echo hello >&5
	eventually 5 test -s answer2
	eventually 15 counts_one
	exec 5>&-
}

counts_one() {
	inside systemctl show -P StatusText 'spipe-mail-in@*' | grep -q '^1 connections'
}

test_state() {
	[ "$(inside systemctl list-units --all --plain --no-legend 'spipe-each@*' | awk '{print $3}')" = "$1" ]
}

# withstands NAME PORT KEY: strangers do what they can, and the holder of KEY gets through.
withstands() {
	local name=$1 port=$2 key=$3 before
	echo_server 127.0.0.1:9000
	mkfifo hold
	exec 5<>hold
	near_background "$TESTS/helpers/flood.py" silent 127.0.0.1 "$port" 127.0.0.9 300 <hold >silent.out
	eventually 10 test -s silent.out
	near "$TESTS/helpers/flood.py" connect 127.0.0.1 "$port" 127.0.0.9 2000 2
	# during, from another address
	[ "$(ask "$port" "$key")" = HELLO ]
	near timeout -s KILL 60 "$TESTS/helpers/flood.py" wrong 127.0.0.1 "$port" 127.0.0.9 500 >wrong.out &
	before=$!
	[ "$(ask "$port" "$key")" = HELLO ]
	wait "$before"
	read -r closed _ <wrong.out
	[ "$closed" -eq 500 ]
	exec 5>&-
	[ "$(ask "$port" "$key")" = HELLO ]
	inside systemctl is-active -q "spipe-$name.socket"
	eventually 30 gone "$name"
	none_failed
}

@test "systemd: 2,000 connections in 2 s, 300 held idle, 500 wrong keys; holders get through" {
	withstands dec 8025 "$ETC/spipe-dec.key"
}

@test "systemd: the same against one service for all connections, also from the holders' address" {
	local i
	withstands mail-in 8100 mail
	# more of them than there are places, from the same address
	rm hold
	mkfifo hold
	exec 5<>hold
	for i in 1 2 3; do
		near_background "$TESTS/helpers/flood.py" silent 127.0.0.1 8100 127.0.0.1 100 <hold >"silent.$i"
		eventually 10 test -s "silent.$i"
		[ "$(ask 8100 mail)" = HELLO ]
	done
	exec 5>&-
	# the log is not flooded: of 3,000, those who were there at once before the first had ended
	[ "$(journal 'spipe-mail-in@*' SPIPE_RESULT=refused | wc -l)" -le 200 ]
}

@test "systemd: after daemon-reload, a restart of the socket makes a changed line count, and stop ends a removed one" {
	cp "$ROOT/spipetab" table
	echo_server 127.0.0.1:9000
	hold_tunnel 8100 mail
	sed -e '/^mail-in/s/8100/8114/' -e '/^bound/s/9001/9000/' table >"$ROOT/spipetab"
	inside systemctl daemon-reload
	# what there is goes on
	echo second >&5
	eventually 5 grep -q SECOND answer
	inside systemctl restart spipe-mail-in.socket
	eventually 5 not alive "${pids[1]}"
	exec 5>&-
	[ "$(ask 8114 mail)" = HELLO ]
	not listens 8100
	# a new TARGET, without a moment without listener
	inside systemctl start renew-spipe@bound
	eventually 5 answers HELLO 8113 mail
	inside systemctl stop spipe-mail-in.socket
	not listens 8114
	cat table >"$ROOT/spipetab"
	inside systemctl daemon-reload
	inside systemctl start spipe-mail-in.socket
	inside systemctl restart spipe-bound.socket
	[ "$(ask 8100 mail)" = HELLO ]
}

@test "systemd: stopping a socket ends its connections, stopping the slice ends all" {
	echo_server 127.0.0.1:9000
	hold_tunnel 8100 mail
	inside systemctl stop spipe-mail-in.socket
	not listens 8100
	[ "$(instances mail-in)" -eq 0 ]
	eventually 5 not alive "${pids[1]}"
	exec 5>&-
	eventually 5 is_field mail-in SPIPE_RESULT terminated
	inside systemctl start spipe-mail-in.socket
	# with accept=yes, connections go on
	hold_tunnel 8115 mail
	inside systemctl stop spipe-each.socket
	run near nc -z 127.0.0.1 8115
	[ "$status" -ne 0 ]
	[ "$(instances each)" -eq 1 ]
	[ "$(ask 8100 mail)" = HELLO ]
	inside systemctl stop spipe.slice
	[ "$(instances each)" -eq 0 ]
	[ "$(instances mail-in)" -eq 0 ]
	exec 5>&-
	run inside systemctl list-units --plain --no-legend --state=listening 'spipe-*.socket'
	[ -z "$output" ]
	run ! inside pgrep spipe-dec
	[ ! -e "$ROOT/shared/front.sock" ]
	eventually 5 is_field each SPIPE_RESULT terminated
	inside systemctl start spipe-mail-in.socket
	[ "$(ask 8100 mail)" = HELLO ]
}
