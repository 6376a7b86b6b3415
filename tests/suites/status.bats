#!/usr/bin/env bats
# spipectl status and metrics, and what others make of the journal, under a real systemd; limits for strangers outside.
# shellcheck disable=SC2154

load ../helpers/lib
load ../helpers/systemd

setup_file() {
	systemd_prepare
	[ -z "${CANNOT:-}" ] || return 0
	cd "$ROOT" || return
	mkdir etc-spipe/{clients,named,odd}
	new_keys out.key ruled.key clients/alice clients/bob clients/carol odd/a:b wrong
	chmod 644 etc-spipe/clients/carol # the service takes it, so it counts
	cp etc-spipe/clients/alice etc-spipe/out.key
	echo 'from 192.0.2.0/24' >etc-spipe/ruled.key.conf
	cat >spipetab <<-'END'
		counted	dec	127.0.0.1:8100	127.0.0.1:9000	clients/
		out	enc	127.0.0.1:8101	127.0.0.1:8100	out.key
		each	dec	127.0.0.1:8102	127.0.0.1:9000	clients/ accept=yes
		asleep	dec	127.0.0.1:8103	127.0.0.1:9000	clients/ noauto
		full	dec	127.0.0.1:8104	127.0.0.1:9000	clients/ strangers=2
		open	dec	127.0.0.1:8105	127.0.0.1:9000	clients/
		banned	dec	[::]:8106	127.0.0.1:9000	clients/
		shown	dec	[::]:8107	127.0.0.1:9000	clients/
		metered	dec	127.0.0.1:8108	127.0.0.1:9000	clients/
		scraped	dec	127.0.0.1:8109	127.0.0.1:9000	clients/
		named	dec	127.0.0.1:8110	127.0.0.1:9000	named/
		wrong	dec	127.0.0.1:8111	127.0.0.1:9000	clients/
		ruled	dec	127.0.0.1:8112	127.0.0.1:9000	ruled.key
		command	dec	127.0.0.1:8114	exec:/usr/bin/cat clients/
		down	dec	127.0.0.1:8117	127.0.0.1:9001	clients/
		front	enc	127.0.0.1:8118	127.0.0.1:9001	out.key
		account	dec	/srv/account.sock 127.0.0.1:9000 clients/ user=nobody-has-this-name
		odd	dec	127.0.0.1:8119	127.0.0.1:9000	odd/
		typo	dec	127.0.0.1:8120	127.0.0.1:9000	clients/ maxcon=1
	END
	# A tunnel without the table: its keys are no credentials, and can have any name.
	mkdir shared/own units/spipe-own@.service.d
	printf '[Socket]\nListenStream=127.0.0.1:8115\nService=spipe-own@0.service\n' >units/spipe-own.socket
	printf '[Service]\nExecStart=/usr/local/bin/spipe-dec -K /srv/own -t 127.0.0.1:9000\n' >units/spipe-own@.service
	printf '[Service]\nRootDirectory=\nBindReadOnlyPaths=\nTemporaryFileSystem=\nReadOnlyPaths=\nDynamicUser=no\n' \
		>units/spipe-own@.service.d/20-own.conf
	ln -s ../spipe-own.socket units/sockets.target.wants/
	systemd_boot
}

teardown_file() { systemd_down; }

teardown() { systemd_teardown; }

echo_server() {
	near_background socat -t 10 TCP-LISTEN:9000,bind=127.0.0.1,fork,reuseaddr EXEC:cat 2>server.err
	eventually 5 listens 9000
}

# send PORT KEY SIZE [HOST]: that many random bytes through a tunnel, and back.
send() {
	random "$3" in
	near timeout -s KILL 40 "$NET" exchange in out spipe -o 30 -t "${4:-127.0.0.1}:$1" -k "$ROOT/etc-spipe/$2" 2>send.err
	cmp in out
}

# stranger PORT [FROM [TO]]: a connection that proves nothing, and ends.
stranger() {
	near nc -s "${2:-127.0.0.1}" -N "${3:-127.0.0.1}" "$1" </dev/null >nc.out
}

# field EXPRESSION WORD...: an expression of Python about t, what `spipectl status --json WORD...` says of its
# first tunnel.
field() {
	inside journalctl --sync
	inside spipectl status --json "${@:2}" >status.json || true
	/usr/bin/python3 -c '
import json, sys
t = json.load(open("status.json"))["tunnels"][0]
keys = {key["name"]: key for key in t["keys"]}
print(eval(sys.argv[1]))' "$1"
}

# is EXPRESSION VALUE WORD...: is that the field?
is() {
	[ "$(field "$1" "${@:3}")" = "$2" ]
}

@test "status: numbers are those of what the clients sent" {
	local since
	echo_server
	eventually 5 is 't["since"] < __import__("time").time() - 2' True counted
	since=$(field 't["since"]' counted)
	send 8100 clients/alice 1000
	send 8100 clients/alice 200000
	send 8100 clients/bob 30
	run -1 send 8100 wrong 50
	for _ in $(seq 15); do
		stranger 8100 127.0.0.8
	done
	eventually 10 is 't["served"]' 3 counted
	is 't["since"]' "$since" counted
	eventually 10 is 't["results"]["refused"]' 11 counted
	# On a reload it says how many others have ended by then.
	left_out() {
		inside systemctl reload spipe-counted@0.service
		is 't["results"]["left_out"]' 5 counted
	}
	eventually 10 left_out
	is 't["refused"]' 16 counted
	is 't["results"]["clean"]' 3 counted
	is '[(key["connections"], key["bytes_in"], key["bytes_out"]) for key in t["keys"]]' \
		'[(2, 201000, 201000), (1, 30, 30), (0, 0, 0)]' counted
	is '[key["name"] for key in t["keys"]]' "['alice', 'bob', 'carol']" counted
	is 'keys["carol"]["last_used"]' 0 counted
	is 'keys["alice"]["last_peer"].split(":")[0]' 127.0.0.1 counted
	for key in bob carol; do # from the journal, and from the directory
		is "keys['$key']['id']" "$("$BUILD/spipectl" key id "$ROOT/etc-spipe/clients/$key" | cut -d ' ' -f 1)" counted
	done
	eventually 2 is 'abs(keys["alice"]["last_used"] - __import__("time").time()) < 60' True counted
	# whose key is refused by its rules is not served
	run -1 send 8112 ruled.key 50
	eventually 10 is 't["served"], t["refused"], keys["ruled.key"]["connections"]' '(0, 1, 1)' ruled
	# --since is journalctl's
	is 't["served"]' 0 --since tomorrow counted
	is 't["served"]' 3 --since=-1h counted
	run -74 inside spipectl status --since nonsense
	[[ $output == *'spipectl: the journal cannot be read, or --since=nonsense is not a time' ]]
}

@test "status: whether it listens, and exit statuses" {
	is 't["state"]' listening counted
	is '(t["role"], t["listen"], t["target"])' "('dec', '127.0.0.1:8100', '127.0.0.1:9000')" counted
	is 'abs(t["since"] - __import__("time").time()) < 3600' True counted
	run -69 inside spipectl status asleep
	[[ $output == *'inactive since '* ]]
	inside systemctl start spipe-asleep.socket
	is 't["state"]' listening asleep
	run -0 inside spipectl status asleep
	# Until it is restarted it listens where it did, not where the table says.
	sed s/:8103/:8113/ "$ROOT/spipetab" >changed
	cat changed >"$ROOT/spipetab"
	inside systemctl daemon-reload
	is 't["state"]' 'not bound' asleep
	run -69 inside spipectl status asleep
	# A port alone listens, and is held, where there is no IPv6, too.
	without_ipv6() { inside systemd-run -q --wait --pipe -p 'RestrictAddressFamilies=~AF_INET6' -- "$@"; }
	run -0 without_ipv6 spipectl status shown
	near_background nc -kl 127.0.0.1 8116 >nc.out
	eventually 5 listens 8116
	echo 'taken dec 8116 127.0.0.1:9000 clients/' >"$ROOT/shared/taken"
	run -65 without_ipv6 spipectl check /srv/taken
	[[ $output == *'/srv/taken:1: 8116 is held by another process'* ]]
	inside systemctl stop spipe-asleep.socket
	is 't["state"]' inactive asleep
	run -0 inside spipectl status # what it says, not an error
	run -66 inside spipectl status absent
	[ "$output" = 'spipectl: no tunnel has the name absent' ]
	run -64 inside spipectl status --nonsense
	run -64 inside spipectl status a b
}

@test "status: a strangers' limit that closed some is a refusal" {
	for _ in 1 2 3 4; do
		near_background nc -q -1 127.0.0.1 8104 </dev/null >nc.out
	done
	eventually 10 is 't["results"]["limit"], t["refused"], [s["peer"].split(":")[0] for s in t["strangers"]]' \
		"(2, 2, ['127.0.0.1', '127.0.0.1'])" full
	[ "$(journal 'spipe-full@*' SPIPE_RESULT=limit PRIORITY=5 | wc -l)" -eq 2 ]
	# one that may have two processes, as the second waits to become a command, is one
	near_background nc -q -1 127.0.0.1 8114 </dev/null >nc.out
	eventually 10 inside pgrep -f '^spipe-dec: 127.0.0.1:'
	eventually 10 is 'len(t["strangers"])' 1 command
	is 'len(t["strangers"])' 1 command
}

@test "status: a connection whose target is down has failed" {
	run -1 send 8117 clients/alice 50
	eventually 10 is 't["served"], t["failed"], t["refused"], t["results"]["target"]' '(0, 1, 0, 1)' down
	is 'keys["alice"]["connections"]' 1 down
	near nc -N 127.0.0.1 8118 </dev/null >nc.out
	eventually 10 is 't["served"], t["failed"], t["refused"], t["results"]["target"]' '(0, 1, 0, 1)' front
	run -0 inside spipectl status front
	[[ $output == *'Connections that have ended: 0 served, 1 failed, 0 refused'* ]]
}

@test "status: why a socket or a service has failed, in systemd's words" {
	run -69 inside spipectl status account
	[[ ${lines[1]} == 'failed since '* ]]
	[[ ${lines[2]} == '/srv/account.sock does not listen: spipe-account.socket: '*user* ]]
	is 't["state"], t["problem"][:17]' "('failed', '/srv/account.sock')" account
	near_background sh -c 'echo | socat -t 60 -,ignoreeof TCP:127.0.0.1:8119' # it is never accepted
	failing() {
		inside journalctl --sync
		run -0 inside spipectl status odd
		[[ ${lines[1]} == 'listening since '* && ${lines[2]} == 'spipe-odd@0.service: Failed to set up credentials: '* ]]
	}
	eventually 10 failing
	inside systemctl stop spipe-odd.socket
	is 't["problem"]' '' counted
	run -69 inside spipectl status typo
	[ "${lines[2]}" = "/etc/spipetab:$(grep -n ^typo "$ROOT/spipetab" | cut -d : -f 1): option maxcon: no such option" ]
}

# talk NAME PORT TEXT: a connection that says TEXT, and stays.
talk() {
	mkfifo "$1.in"
	near_background spipe -t "127.0.0.1:$2" -k "$ROOT/etc-spipe/clients/alice" <>"$1.in" >"$1.out" 2>"$1.err"
	echo -n "$3" >"$1.in"
	eventually 10 test -s "$1.out"
}

@test "status: connections now, of a service for all and one for each" {
	echo_server
	talk one 8105 12345
	talk two 8102 1234567
	for name in open each; do
		is 'len(t["connections"]), len(t["strangers"])' '(1, 0)' "$name"
		is 't["connections"][0]["key"], t["connections"][0]["peer"].split(":")[0]' "('alice', '127.0.0.1')" "$name"
	done
	# what the title says is at most ten seconds old
	echo -n 678 >one.in
	eventually 30 is 't["connections"][0]["bytes_in"], t["connections"][0]["bytes_out"]' '(8, 8)' open
	eventually 30 is 't["connections"][0]["bytes_in"], t["connections"][0]["bytes_out"]' '(7, 7)' each
	is '8 < t["connections"][0]["seconds"] < 120' True open # it took that long to say 8
	# Nobody else's processes are counted.
	inside mkdir -p '/sys/fs/cgroup/other.slice/spipe-open@9.service'
	inside bash -c 'echo $$ >"/sys/fs/cgroup/other.slice/spipe-open@9.service/cgroup.procs"
		exec -a "spipe-dec: 192.0.2.1:5 key alice" sleep 60' 3>&- 4>&- &
	eventually 5 inside pgrep -f '^spipe-dec: 192.0.2.1:5 key alice'
	is 'len(t["connections"])' 1 open
	kill $!
	run -0 inside spipectl status open
	[[ $output == *'Connections now: 1, strangers: 0'*' 8       8  alice           127.0.0.1:'* ]]
}

@test "status: for people, within 80 columns" {
	local long=2001:db8:1234:5678:9abc:def0:1234:5678
	echo_server
	near ip address add "$long/128" dev lo
	send 8107 clients/alice 201000
	send 8107 clients/bob 1 "[$long]"
	stranger 8107
	eventually 10 is 't["served"], t["refused"]' '(2, 1)' shown
	run -0 inside spipectl status
	[ "${lines[0]}" = 'TUNNEL          ROLE STATE     SINCE       NOW STRANGERS  SERVED  FAILED REFUSED' ]
	[ "${#lines[@]}" -eq 21 ]
	for name in shown out each full open; do
		inside spipectl status "$name"
	done >details
	printf '%s\n' "${lines[@]}" >>details
	run ! grep -E '.{81}' details
	grep -qE '^shown +dec +listening +[0-2][0-9]:[0-5][0-9] +0 +0 +2 +0 +1$' details
	grep -qxE '^        1  201\.0k  201\.0k  20..-..-.. ..:..  alice           127\.0\.0\.1:[0-9]+' details
	grep -qE '^        0       0       0  -                 carol' details
	grep -qx "        \[$long\]:[0-9]*" details
}

# metric NAME LABELS FILE: its value.
metric() {
	sed -n "s/^$1{$2} //p" "$3"
}

@test "metrics: the same numbers, and they go on when the journal forgets" {
	local out=$ROOT/shared/spipe.prom
	echo_server
	send 8108 clients/alice 1000
	send 8108 clients/alice 200000
	stranger 8108
	eventually 10 is 't["served"], t["refused"]' '(2, 1)' metered
	inside spipectl metrics >all
	inside spipectl metrics /srv/spipe.prom
	diff all <(grep -v '^# cursor ' "$out")
	[ "$(metric spipe_connections_ended_total 'tunnel="metered",result="clean"' "$out")" -eq 2 ]
	[ "$(metric spipe_connections_ended_total 'tunnel="metered",result="refused"' "$out")" -eq 1 ]
	[ "$(metric spipe_strangers_left_out_total 'tunnel="metered"' "$out")" -eq 0 ]
	[ "$(metric spipe_key_in_bytes_total 'tunnel="metered",key="alice"' "$out")" -eq 201000 ]
	[ "$(metric spipe_key_out_bytes_total 'tunnel="metered",key="alice"' "$out")" -eq 201000 ]
	[ "$(metric spipe_key_connections_ended_total 'tunnel="metered",key="carol"' "$out")" -eq 0 ]
	[ "$(metric spipe_listening 'tunnel="metered"' "$out")" -eq 1 ]
	[ "$(metric spipe_connections 'tunnel="metered"' "$out")" -eq 0 ]
	[ "$(metric spipe_strangers 'tunnel="metered"' "$out")" -eq 0 ]
	[ "$(metric spipe_listening 'tunnel="asleep"' "$out")" -eq 0 ] # as long as nobody has started it

	# Once more: nothing is counted twice, and nothing is lost with the journal.
	grep 'tunnel="metered"' "$out" >before
	inside spipectl metrics /srv/spipe.prom
	diff before <(grep 'tunnel="metered"' "$out")
	inside journalctl -q --rotate
	inside journalctl -q --vacuum-time=1us
	is 't["served"]' 0 metered
	inside spipectl metrics /srv/spipe.prom
	diff before <(grep 'tunnel="metered"' "$out")
	send 8108 clients/alice 500
	eventually 10 is 't["served"]' 1 metered
	inside spipectl metrics /srv/spipe.prom
	[ "$(metric spipe_connections_ended_total 'tunnel="metered",result="clean"' "$out")" -eq 3 ]
	[ "$(metric spipe_key_in_bytes_total 'tunnel="metered",key="alice"' "$out")" -eq 201500 ]
	[ "$(stat -c %a "$out")" = 644 ]
	[ "$(find "$ROOT/shared" -name 'spipe.prom*')" = "$out" ]
	run -73 inside spipectl metrics /nowhere/spipe.prom
	run -64 inside spipectl metrics a b

	# A file that has no cursor or a wrong one, and what is not a file of metrics.
	inside spipectl metrics >"$out"
	inside spipectl metrics /srv/spipe.prom
	[ "$(metric spipe_connections_ended_total 'tunnel="metered",result="clean"' "$out")" -eq 1 ]
	sed -i 's/^# cursor .*/# cursor nonsense/' "$out"
	run -74 inside spipectl metrics /srv/spipe.prom
	[[ $output == *'the journal cannot be read from where /srv/spipe.prom ends; to start again, delete it' ]]
	echo victim >"$ROOT/shared/victim"
	for name in link spipe.prom.new; do
		ln -s victim "$ROOT/shared/$name"
	done
	for name in /srv/link /dev/full; do
		run -73 inside timeout -s KILL 10 spipectl metrics "$name"
		[ "$output" = "spipectl: $name is not a regular file" ]
	done
	rm "$out"
	inside spipectl metrics /srv/spipe.prom
	[ "$(<"$ROOT/shared/victim")" = victim ]
	rm "$ROOT/shared/"{link,spipe.prom.new,victim}
}

@test "metrics: the timer's service writes them, and a real node_exporter reads them" {
	command -v prometheus-node-exporter >/dev/null || skip 'needs prometheus-node-exporter'
	echo_server
	send 8109 clients/alice 3000
	eventually 10 is 't["served"]' 1 scraped
	inside mkdir -p /var/lib/prometheus/node-exporter
	inside systemctl start metrics-spipe.timer
	inside systemctl start metrics-spipe.service
	inside cat /var/lib/prometheus/node-exporter/spipe.prom >spipe.prom
	[ "$(metric spipe_listening 'tunnel="scraped"' spipe.prom)" -eq 1 ]
	near_background prometheus-node-exporter --collector.disable-defaults --collector.textfile \
		--collector.textfile.directory="$PWD" --web.listen-address=127.0.0.1:9100 2>exporter.err
	eventually 10 listens 9100
	near curl -sS --max-time 20 http://127.0.0.1:9100/metrics >scraped
	grep -qx 'node_textfile_scrape_error 0' scraped
	# In its own order of labels.
	[ "$(metric spipe_connections_ended_total 'result="clean",tunnel="scraped"' scraped)" -eq 1 ]
	[ "$(metric spipe_key_in_bytes_total 'key="alice",tunnel="scraped"' scraped)" -eq 3000 ]
	[ "$(grep -c '^spipe_' scraped)" -eq "$(grep -c '^spipe_' spipe.prom)" ]
	[ "$(grep -c '^# TYPE spipe_.* counter' scraped)" -eq 5 ]
}

@test "status and metrics: names are quoted" {
	local name=$'a"b\\c\xff\xc3\xa4 key x'
	cp "$ROOT/etc-spipe/clients/bob" "$ROOT/etc-spipe/named/$name"
	is 'list(keys)' "['a\"b\\\\c?ä key x']" named
	inside spipectl metrics | grep -xF 'spipe_key_in_bytes_total{tunnel="named",key="a\"b\\c?ä key x"} 0'
	# and in the journal, which does not have such a name as text
	echo_server
	cp "$ROOT/etc-spipe/named/$name" "$ROOT/shared/own/"
	send 8115 clients/bob 6
	eventually 10 is '[(key["name"], key["bytes_in"]) for key in t["keys"]]' "[('a\"b\\\\c?ä key x', 6)]" own
}

# forge NAME FIELD=VALUE...: a record in the journal, as if from a service of this tunnel.
forge() {
	inside mkdir -p "/sys/fs/cgroup/spipe.slice/spipe-$1@9.service"
	inside python3 -c '
import os, socket, subprocess, sys
with open("/sys/fs/cgroup/spipe.slice/spipe-%s@9.service/cgroup.procs" % sys.argv[1], "w") as group:
    group.write(str(os.getpid()))
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.sendto(os.fsencode("\n".join(sys.argv[2:])) + b"\n", "/run/systemd/journal/socket")
subprocess.run(["journalctl", "--sync"], check=True)' "$@" # which takes us for the service only while we run
}

@test "status and metrics: forged records never reach a terminal as they are, and add nothing negative" {
	local clean=0af363394fce43deaac4667232ef5a77
	for _ in 1 2; do
		forge forged "MESSAGE_ID=$clean" SPIPE_BYTES_IN=7 SPIPE_BYTES_OUT=-1 SPIPE_LEFT_OUT=-3 SPIPE_KEY=$'a\033[31m\302\233b\177' SPIPE_PEER=$'c\033]0;d\a'
	done
	run -69 inside spipectl status forged
	[ -z "$(tr -d '[:print:]\n' <<<"$output")" ]
	[[ $output == *'        2      14       0  '*'  a?[31m??b? '*' c?]0;d?'* ]]
	# a tunnel that only has records has counters
	inside spipectl metrics >all
	[ "$(metric spipe_connections_ended_total 'tunnel="forged",result="clean"' all)" -eq 2 ]
	run ! grep -E '^spipe_(listening|connections|strangers){tunnel="forged"}' all
}

@test "the journal's catalog explains records" {
	inside journalctl --update-catalog
	stranger 8111
	explained() {
		inside journalctl --sync
		inside journalctl -q --no-pager -x -u 'spipe-wrong@*' >explained
		grep -q 'Subject: An encrypted connection was refused' explained
	}
	eventually 10 explained
	grep -q 'Without a key ("-"), the peer 127.0.0.1:[0-9]* has not' explained
}

@test "fail2ban bans those who have proved no key, and nobody else" {
	inside sh -c 'command -v fail2ban-server && python3 -c "import systemd.journal"' >/dev/null 2>&1 ||
		skip 'needs fail2ban and python3-systemd'
	local etc=$ROOT/shared/fail2ban
	near ip address add 2001:db8:1::77/128 dev lo
	near ip address add 2001:db8:1::88/128 dev lo
	cp -r /etc/fail2ban "$etc"
	rm -f "$etc"/jail.d/*
	cp -r "$TESTS/../fail2ban/." "$etc"
	printf '[Definition]\nactionban = echo <ip> >>/srv/banned\n' >"$etc/action.d/note.conf"
	printf '[Definition]\nlogtarget = /srv/fail2ban.log\ndbfile = None\n' >"$etc/fail2ban.local"
	printf '[DEFAULT]\nbanaction = note\nignoreself = false\n' >"$etc/jail.local"
	: >"$ROOT/shared/banned"
	inside systemd-run -q --unit=ban fail2ban-server -c /srv/fail2ban -s /run/ban.sock -p /run/ban.pid -xf start
	eventually 20 grep -qs "Jail 'spipe-dec' started" "$ROOT/shared/fail2ban.log"
	echo_server
	for _ in 1 2 3 4 5 6; do
		stranger 8106 127.0.0.77
		stranger 8106 2001:db8:1::77 ::1
		send 8106 clients/alice 100 '[2001:db8:1::88]'
	done
	stranger 8106 127.0.0.78
	banned() { diff <(sort "$ROOT/shared/banned") <(printf '127.0.0.77\n2001:db8:1::77\n') >/dev/null; }
	eventually 20 banned
	# It has seen the others, too, and has not banned them.
	eventually 10 is 't["served"], t["refused"]' '(6, 13)' banned
	eventually 10 grep -q 'Found 127.0.0.78' "$ROOT/shared/fail2ban.log"
	banned
	run ! grep -E 'Found 2001:db8:1::88|ERROR' "$ROOT/shared/fail2ban.log"
	inside systemctl stop ban
}

# begins FROM: a connection to port 8113 from there comes about.
begins() {
	near nc -w 1 -s "$1" -z 2001:db8:2::1 8113
}

@test "nftables: connections are counted by address, and for IPv6 by network" {
	command -v nft >/dev/null || skip 'needs nft'
	for address in 1::1 1::2 2::1; do
		near ip address add "2001:db8:$address/128" dev lo
	done
	near_background nc -kl 2001:db8:2::1 8113 >nc.out
	near_background nc -kl 127.0.0.1 8113 >nc.out
	for address in 127.0.0.1 2001:db8:2::1; do
		eventually 5 near nc -z "$address" 8113
	done
	near nft -c -f "$TESTS/../nftables/spipe-dec.nft"
	sed -e 's/8025/8113/' -e 's,20/second burst 200,1/hour burst 3,' "$TESTS/../nftables/spipe-dec.nft" >limit.nft
	[ "$(diff limit.nft "$TESTS/../nftables/spipe-dec.nft" | grep -c '^<')" -eq 3 ]
	near nft -f limit.nft
	begins 2001:db8:1::1
	begins 2001:db8:1::2
	begins 2001:db8:1::1
	run ! begins 2001:db8:1::2
	run ! begins 2001:db8:1::1
	begins 2001:db8:2::1
	for address in 1 1 1 2; do
		near nc -w 1 -s "127.0.0.$address" -z 127.0.0.1 8113
	done
	run ! near nc -w 1 -s 127.0.0.1 -z 127.0.0.1 8113
	# Twice is not twice as many.
	near nft -f limit.nft
	[ "$(near nft list ruleset | grep -c 'jump new')" -eq 1 ]
	near nft delete table inet spipe-dec
	begins 2001:db8:1::2
}
