#!/usr/bin/env bats
# A fleet, as spipe-filters(7) describes it: three tunnels with the line that the page shows, behind HAProxy with the
# configuration that it shows. All are one machine, with the addresses of the page, in a network of its own.
# shellcheck shell=bash disable=SC2154,SC2016,SC2034 # variables of lib.bash, and in what eval reads
load ../helpers/lib
load ../helpers/systemd

setup_file() {
	systemd_prepare
	command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || export CANNOT='needs haproxy'
	[ -z "${CANNOT:-}" ] || return 0
	cd "$ROOT" || return
	local line number
	section "$TESTS/../man/spipe-filters.7" >page
	line=$(grep '^api-in dec 8080 127.0.0.1:80 api/ ' page)
	for number in 1 2 3; do
		sed "s,api-in,api$number,; s,8080,192.0.2.1$number:8080,; s,:80 ,:800$number ,; s,api/,api$number/," <<<"$line"
		mkdir "etc-spipe/api$number"
	done >spipetab
	echo 'client enc 127.0.0.1:8081 192.0.2.1:8080 client.key' >>spipetab
	new_keys old.key new.key
	systemd_boot
	[ -z "${CANNOT:-}" ] || return 0
	for number in 1 11 12 13; do
		near ip address add "192.0.2.$number/32" dev lo
	done
}

teardown_file() { systemd_down; }

# section FILE: that of the fleet in a manual page
section() {
	awk '/^\.Sh /{ on = $0 == ".Sh A FLEET" } on' "$1"
}

# Each test starts with a fleet that holds the old key, the services behind it, and HAProxy in front of it.
setup() {
	setup_test
	PATH=$PATH:/usr/sbin
	ETC=$ROOT/etc-spipe
	local number
	for number in 1 2 3; do
		rm -f "$ETC/api$number/"*
		cp -p "$ETC/old.key" "$ETC/api$number/"
	done
	cp -p "$ETC/old.key" "$ETC/client.key"
	inside systemctl restart spipe-{api1,api2,api3,client}.socket

	cat >services.cfg <<-'END'
		global
			log stdout format raw local0
		defaults
			mode http
			log global
			timeout client 1h
			timeout server 1h
			timeout connect 10s
	END
	for number in 1 2 3; do
		cat <<-END
			frontend $number
				bind 127.0.0.1:800$number accept-proxy
				log-format "machine $number %ci %[fc_pp_authority]"
				http-request return status 200 content-type text/plain lf-string "machine $number %[src] %[fc_pp_authority]"
		END
	done >>services.cfg
	near_background haproxy -db -f services.cfg >services.log 2>services.err
	{
		printf 'global\n\tstats socket %s/admin.sock\n' "$BATS_TEST_TMPDIR"
		sed -n '/^listen api/,/^\.Ed/p' "$ROOT/page" | sed '/^\.Ed/d; /mode tcp/a default-server inter 50ms'
	} >haproxy.cfg
	near_background haproxy -db -f haproxy.cfg >haproxy.log 2>haproxy.err
	eventually 10 listens 8003
	eventually 10 eval '[ "$(near ss -Hltn "src 192.0.2.1:8080")" ]'
}

teardown() { systemd_teardown; }

# opened: how many connections have been opened in that network since it is there
opened() {
	near awk '$1 == "Tcp:" && ++line == 2 { print $6 }' /proc/net/snmp
}

# records: how many the three tunnels have left in the journal
records() {
	journal 'spipe-api*@*' | grep -c SPIPE_RESULT || true
}

# state MACHINE: what HAProxy says of it, UP or DOWN
state() {
	echo 'show stat' | nc -N -U admin.sock | awk -F, -v name="$1" '$2 == name { print $18 }'
}

# ask KEYFILE MACHINE: the answer to a request that real spipe makes of that machine itself
ask() {
	printf 'GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n' >request
	near timeout -s KILL 40 "$NET" exchange request answer spipe -o 30 -t "192.0.2.1$2:8080" -k "$1" 2>ask.err || true
	tail -n 1 answer
}

# start_load CONNECTIONS: start requests through the client's line; load.log says what becomes of them, see fleet.py.
start_load() {
	near_background /usr/bin/python3 "$TESTS/uses/fleet.py" 127.0.0.1 8081 "$1" >load.log 2>load.err
	eventually 40 eval '[ "$(grep -c ^opened load.log)" -eq '"$1"' ]'
}

# load_ends: have the load make its last requests.
load_ends() {
	touch stop
	ended 40 "${pids[-1]}"
	[ "$status" -eq 0 ]
}

@test "fleet: health checks start no service, reach no target and fill no log" {
	local connections before
	before=$(records)
	eventually 10 eval '[ "$(state one) $(state two) $(state three)" = "UP UP UP" ]'
	connections=$(opened)
	eventually 30 eval '[ "$(opened)" -ge $((connections + 100)) ]'
	run inside systemctl list-units --plain --no-legend --state=active,activating,failed 'spipe-api*@*.service'
	[ -z "$output" ]
	[ ! -s services.log ]
	# those of others are strangers, of which ten leave a record
	for _ in $(seq 15); do
		near nc -z 192.0.2.13 8080
	done
	eventually 20 eval '[ "$(records)" -eq $((before + 10)) ]'
	[ ! -s services.log ]
	# HAProxy does notice a machine that is gone
	inside systemctl stop spipe-api2.socket
	eventually 10 eval '[ "$(state two)" = DOWN ]'
	# and there is something to see in the log
	[ "$(ask "$ETC/old.key" 1)" = 'machine 1 192.0.2.11 old.key' ]
	eventually 10 has_lines services.log 1
	eventually 20 eval '[ "$(records)" -eq $((before + 11)) ]'
}

@test "fleet: a machine that is killed under load disturbs no connection of the others" {
	start_load 30
	local machine
	for machine in 1 2 3; do
		grep -qx "opened $machine" load.log
	done
	inside systemctl kill -s KILL 'spipe-api2@*.service'
	inside systemctl stop spipe-api2.socket
	# all that were there find another machine
	eventually 60 eval '[ "$(grep -c "^opened [13]" load.log)" -eq 30 ]'
	load_ends
	run grep '^lost [13]' load.log
	[ -z "$output" ]
	[ "$(grep -c '^kept' load.log)" -eq "$(sed 30q load.log | grep -c '^opened [13]')" ]
	grep -q '^lost 2' load.log
}

@test "fleet: replacing the key, with old and new side by side, disturbs nobody" {
	start_load 10
	local machine
	for machine in 1 2 3; do
		cp -p "$ETC/new.key" "$ETC/api$machine/"
	done
	for machine in 1 2 3; do
		eventually 30 eval '[ "$(ask "$ETC/new.key" $machine)" = "machine $machine 192.0.2.1$machine new.key" ]'
		[ "$(ask "$ETC/old.key" "$machine")" = "machine $machine 192.0.2.1$machine old.key" ]
	done
	cp -p "$ETC/new.key" "$ETC/client.key"
	eventually 30 eval 'near curl -sS --max-time 20 http://127.0.0.1:8081/ | grep -q new.key'
	for machine in 1 2 3; do
		rm "$ETC/api$machine/old.key"
	done
	for machine in 1 2 3; do
		eventually 30 eval '! ask "$ETC/old.key" $machine | grep machine'
		[ "$(ask "$ETC/new.key" "$machine")" = "machine $machine 192.0.2.1$machine new.key" ]
	done
	load_ends
	[ "$(grep -c '^kept' load.log)" -eq 10 ]
}
