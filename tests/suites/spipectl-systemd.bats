#!/usr/bin/env bats
# spipectl under a real systemd.
# shellcheck disable=SC2120,SC2154 # bats: $stderr and the like

load ../helpers/lib
load ../helpers/systemd

setup_file() {
	systemd_prepare
	[ -z "${CANNOT:-}" ] || return 0
	cd "$ROOT" || return
	random 32 etc-spipe/mail.key
	chmod 600 etc-spipe/mail.key
	cat >spipetab <<-'END'
		first	dec	8100			127.0.0.1:9000	mail.key
		second	enc	127.0.0.1:8101		127.0.0.1:8100	mail.key
		third	enc	/srv/third.sock		127.0.0.1:8100	mail.key mode=0666
		vm	dec	vsock::8104		127.0.0.1:9000	mail.key
		more	dec	[::]:8105		127.0.0.1:9000	keys/
		piped	enc	127.0.0.1:8106		"exec:/usr/bin/nc -N 127.0.0.1 8100" mail.key
		unix	dec	/srv/unix.sock		127.0.0.1:9000	mail.key pfs=require,timeout=3
	END
	mkdir etc-spipe/keys
	random 32 etc-spipe/keys/one
	chmod 600 etc-spipe/keys/one
	printf '[Socket]\nListenStream=8102\nAccept=yes\n' >units/other.socket
	printf '[Service]\nExecStart=/bin/cat\nStandardInput=socket\n' >units/other@.service
	for name in stopped running; do
		cat >"units/spiped-$name.service" <<-END
			[Service]
			WorkingDirectory=/etc/spipe
			Environment=SOURCE=[127.0.0.1]:8107
			ExecStart=/usr/bin/spiped -d -F -s [127.0.0.1]:8107 -t [127.0.0.1]:9000 -k "mail.key"
		END
	done
	sed -i 's/-s [^ ]*/-s $SOURCE/' units/spiped-running.service
	ln -s ../other.socket units/sockets.target.wants/
	systemd_boot
}

teardown_file() { systemd_down; }

teardown() {
	[ -z "${CANNOT:-}" ] || return 0
	if [ -z "${BATS_TEST_COMPLETED:-}" ]; then
		inside journalctl -q --no-pager -n 30
	fi
	teardown_test
}

@test "check: the tunnels' own sockets and units are no error" {
	run -0 inside spipectl check
	[ "$output" = '/etc/spipetab: tunnels: 7, errors: 0, warnings: 0' ]
}

@test "check: a new table before it counts: addresses of units and processes" {
	near_background nc -l 8103
	near_pid=$!
	eventually 5 listens 8103
	cat >"$ROOT/shared/new" <<-'END'
		first	dec	8100	127.0.0.1:9000	mail.key
		new	dec	8101	127.0.0.1:9000	mail.key
		third	dec	8102	127.0.0.1:9000	mail.key
		fourth	dec	8103	127.0.0.1:9000	mail.key
	END
	run -65 --separate-stderr inside spipectl check /srv/new
	alive "$near_pid"
	diff <(echo "$stderr") - <<-END
		spipectl: /srv/new:2: 8101 is held by spipe-second.socket
		spipectl: /srv/new:3: 8102 is held by other.socket
		spipectl: /srv/new:4: 8103 is held by another process
	END
}

@test "probe: a line of the table, of either role" {
	near_background socat TCP-LISTEN:9000,bind=127.0.0.1,fork,reuseaddr EXEC:cat 2>target.err
	eventually 5 listens 9000
	for probe in 'first 127.0.0.1:8100' 'second 127.0.0.1:8100' 'third 127.0.0.1:8100' 'unix /srv/unix.sock'; do
		run -0 inside spipectl probe "${probe% *}"
		[[ $output == "${probe#* }: "*' ms (connection '* ]]
	done
	run -0 inside spipectl probe -k /etc/spipe/keys/one more
	[[ $output == '127.0.0.1:8105: '* ]]
	run -64 inside spipectl probe more
	[ "$output" = 'spipectl: the key of more is a directory: give one with -k' ]
	run -64 inside spipectl probe piped
	[ "$output" = 'spipectl: the target of piped is a command: give an address' ]
	run -64 inside spipectl probe absent
	[ "$output" = 'spipectl: absent is not an address, and no valid line of /etc/spipetab has that name' ]
	run -77 inside spipectl probe -k /etc/spipe/keys/one first
}

@test "from-spiped: a unit, whether it runs or not" {
	run -0 inside spipectl from-spiped spiped-stopped.service
	[ "${lines[-1]}" = 'stopped dec 127.0.0.1:8107 127.0.0.1:9000 /etc/spipe/mail.key' ]
	run -66 inside spipectl from-spiped spiped-running.service
	inside systemctl start spiped-running.service
	eventually 5 listens 8107
	run -0 inside spipectl from-spiped spiped-running
	[ "${lines[-1]}" = 'running dec 127.0.0.1:8107 127.0.0.1:9000 /etc/spipe/mail.key' ]
	inside systemctl stop spiped-running.service
	run -66 inside spipectl from-spiped absent.service
	[ "$output" = 'spipectl: unit absent.service: not loaded, or it starts nothing' ]
}

listens() {
	[ -n "$(near ss -Hltn "sport = :$1")" ]
}
