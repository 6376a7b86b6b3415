#!/usr/bin/env bats
# spipectl under a real systemd.
# shellcheck disable=SC2120,SC2154 # bats: $stderr and the like

load ../helpers/lib
load ../helpers/systemd

setup_file() {
	systemd_prepare
	[ -z "${CANNOT:-}" ] || return 0
	cd "$ROOT" || return
	mkdir etc-spipe/keys
	new_keys mail.key keys/one
	cat >spipetab <<-'END'
		first	dec	8100			127.0.0.1:9000	mail.key
		second	enc	127.0.0.1:8101		127.0.0.1:8100	mail.key
		third	enc	/srv/third.sock		127.0.0.1:8100	mail.key mode=0666
		vm	dec	vsock::8104		127.0.0.1:9000	mail.key
		more	dec	[::]:8105		127.0.0.1:9000	keys/
		piped	enc	127.0.0.1:8106		"exec:/usr/bin/nc -N 127.0.0.1 8100" mail.key
		dec.a	dec	8110			127.0.0.1:9000	mail.key
		unix	dec	/srv/unix.sock		127.0.0.1:9000	mail.key pfs=require,timeout=3
	END
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

teardown() { systemd_teardown; }

@test "check: the tunnels' own sockets and units are not errors" {
	run -0 inside spipectl check
	[ "$output" = '/etc/spipetab: tunnels: 8, errors: 0, warnings: 0' ]
	# nor for others, who cannot find out whose they are
	chown -R 65534 "$ROOT/etc-spipe"
	run -0 --separate-stderr inside setpriv --reuid=65534 --regid=65534 --clear-groups spipectl check
	chown -R 0 "$ROOT/etc-spipe"
	[ "$stderr" = 'spipectl: /etc/spipetab: warning: run as root to check that the addresses are free' ]
}

@test "check: a new table before it counts: addresses of units and processes, but not of other tunnels" {
	near_background nc -l 8103
	near_pid=$!
	eventually 5 listens 8103
	inside systemd-run -q --unit=holder spiped -d -F -s '[127.0.0.1]:8108' -t '[127.0.0.1]:25' -k /etc/spipe/mail.key
	eventually 10 listens 8108
	cat >"$ROOT/shared/new" <<-'END'
		first	dec	8101	127.0.0.1:9000	mail.key
		new	dec	8100	127.0.0.1:9000	mail.key
		third	dec	8102	127.0.0.1:9000	mail.key
		fourth	dec	8103	127.0.0.1:9000	mail.key
		fifth	dec	8108	127.0.0.1:9000	mail.key
		each	dec	8109	127.0.0.1:9000	mail.key accept=yes
	END
	run -65 --separate-stderr inside spipectl check /srv/new
	alive "$near_pid"
	diff <(echo "$stderr") - <<-END
		spipectl: /srv/new:3: 8102 is held by other.socket
		spipectl: /srv/new:4: 8103 is held by another process
		spipectl: /srv/new:5: 8108 is held by spiped, pid $(inside systemctl show -P MainPID holder)
	END
	inside systemctl stop holder
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

# traffic: one short connection after the other to port 8120, until ./stop is there; a line for each in ./results.
traffic() {
	local answer
	while [ ! -e stop ]; do
		answer=$(timeout -s KILL 20 spipe -t '[127.0.0.1]:8120' -k "$ROOT/etc-spipe/mail.key" <<<hello 2>&1) || true
		echo "${answer:-nothing}" >>results
	done
}

# after_more: true once three more connections have ended.
after_more() {
	eventually 20 has_lines results $(($(wc -l <results) + 3))
}

# new_line NAME PORT: what replaces the spiped, in the table and started.
new_line() {
	"$BUILD/spipectl" from-spiped --name "$1" --pid "$spiped" |
		sed "s/8120/$2/; s,$ROOT/etc-spipe/,," >>"$ROOT/spipetab"
	inside systemctl daemon-reload
	inside systemctl start "spipe-$1.socket"
}

@test "the manual page's way from spiped, under traffic: nobody is refused" {
	local page=$TESTS/../man/spipectl.8
	command -v nft >/dev/null || skip 'needs nft'
	near_background socat TCP-LISTEN:9000,bind=127.0.0.1,fork,reuseaddr EXEC:cat 2>target.err
	near_background spiped -d -F -s '[127.0.0.1]:8120' -t '[127.0.0.1]:9000' -k "$ROOT/etc-spipe/mail.key" 2>spiped.err
	spiped=$!
	eventually 5 listens 9000
	eventually 5 listens 8120
	: >results
	export -f traffic
	export ROOT
	near_background bash -c traffic
	mkfifo old redirected
	exec 8<>old 9<>redirected
	near_background spipe -t '[127.0.0.1]:8120' -k "$ROOT/etc-spipe/mail.key" <old >old.out 2>old.err
	old=$!
	echo one >&8
	eventually 10 has_lines old.out 1
	after_more

	new_line move-a 8121
	line=$(tail -n 1 "$ROOT/spipetab")
	sed -n '/^table ip spipe-move/,/^}/p' "$page" | sed 's/8025/8120/; s/8026/8121/' >table.nft
	near nft -f table.nft
	near_background spipe -t '[127.0.0.1]:8120' -k "$ROOT/etc-spipe/mail.key" <redirected >redirected.out 2>redirected.err
	redirected=$!
	echo one >&9
	eventually 10 has_lines redirected.out 1
	after_more
	kill "$spiped"
	after_more
	echo two >&8
	eventually 10 has_lines old.out 2
	exec 8>&-
	ended 10 "$old"
	[ "$status" -eq 0 ]
	eventually 10 not listens 8120
	gone_within 5 "$spiped"
	sed 's/move-a/move-b/; s/8121/8120/' <<<"$line" >>"$ROOT/spipetab"
	inside systemctl daemon-reload
	inside systemctl start spipe-move-b.socket
	grep '^# nft insert' "$page" >accept
	[ "$(wc -l <accept)" -eq 2 ]
	sed -i 's/^# //' accept
	near sh -e accept
	after_more
	echo two >&9
	eventually 10 has_lines redirected.out 2
	exec 9>&-
	ended 10 "$redirected"
	[ "$status" -eq 0 ]
	near nft delete table ip spipe-move
	after_more
	touch stop

	[ "$(wc -l <results)" -ge 12 ]
	run ! grep -vx hello results
	for name in a b; do
		[ "$(journal "spipe-move-$name@*" | grep -c '"SPIPE_RESULT":"clean"')" -ge 3 ]
	done
}
