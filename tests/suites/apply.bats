#!/usr/bin/env bats
# spipectl apply, and what systemd shows of wrong lines, under a real systemd.
# shellcheck disable=SC2016,SC2120,SC2154 # bats: $stderr and the like

load ../helpers/lib
load ../helpers/systemd

setup_file() {
	systemd_prepare
	[ -z "${CANNOT:-}" ] || return 0
	cd "$ROOT" || return
	new_keys mail.key
	cat >table <<-'END'
		mail	dec	127.0.0.1:8200	exec:/usr/bin/cat	mail.key
		other	dec	127.0.0.1:8201	exec:/usr/bin/cat	mail.key
		front	enc	/srv/front.sock	127.0.0.1:8200		mail.key mode=0666
		lazy	dec	127.0.0.1:8203	exec:/usr/bin/cat	mail.key noauto
		each	dec	127.0.0.1:8204	exec:/usr/bin/cat	mail.key accept=yes
	END
	{
		cat table
		echo 'wrong dec 127.0.0.1:8205 25 mail.key maxcon=1'
		echo 'no/name dec 127.0.0.1:8206 25 mail.key'
	} >spipetab
	systemd_boot
	[ -n "${CANNOT:-}" ] || inside systemctl --failed --plain --no-legend >at-boot
}

teardown_file() { systemd_down; }

setup() {
	setup_test
	[ -z "${CANNOT:-}" ] || return 0
	cp "$ROOT/etc-spipe/mail.key" mail
	table
	inside systemctl daemon-reload
	inside systemctl stop spipe-lazy.socket
	inside spipectl apply >/dev/null
}

teardown() { systemd_teardown; }

# table [SED-WORD...]: the table is the first one, edited like this.
table() {
	[ $# -gt 0 ] || set -- ''
	sed "$@" "$ROOT/table" >edited
	cat edited >"$ROOT/spipetab"
}

# apply STATUS: run it; $output, and its messages in $stderr.
apply() {
	run "-$1" --separate-stderr inside spipectl apply
	echo "$stderr"
}

# applied LINE...: a run of it does this and nothing else, and says so.
applied() {
	apply 0
	diff <(echo "$output" | sed '$d') <(printf '%s' "${@/%/$'\n'}")
	[ -z "$stderr" ]
}

# answers PORT: a connection is served there.
answers() {
	printf hello >in
	near timeout -s KILL 40 "$NET" exchange in out spipe -o 30 -t "127.0.0.1:$1" -k mail 2>ask.err && cmp -s in out
}

# hold PORT DESCRIPTOR: a connection that stays open.
hold() {
	mkfifo "fifo$1"
	eval "exec $2<>fifo$1"
	near_background spipe -t "127.0.0.1:$1" -k mail <"fifo$1" >"answer$1"
	echo first >&"$2"
	eventually 10 grep -q first "answer$1"
}

# goes_on PORT DESCRIPTOR: that connection is still served.
goes_on() {
	echo more >&"$2"
	eventually 10 grep -q more "answer$1"
}

# in_failed REGEX: `systemctl --failed` has such a line.
in_failed() {
	inside systemctl --failed --plain --no-legend | grep -E "$1"
}

@test "apply: a wrong line is in systemctl --failed from boot on, and goes when it is corrected" {
	grep -E '^spipe-wrong\.socket .*/etc/spipetab:6: option maxcon: no such option$' "$ROOT/at-boot"
	grep -E '^spipetab-line-7\.socket .*/etc/spipetab:7: NAME may hold letters and digits' "$ROOT/at-boot"
	[ "$(wc -l <"$ROOT/at-boot")" -eq 2 ]
	table -e '$awrong dec 127.0.0.1:8205 25 mail.key maxcon=1' -e '$ano/name dec 127.0.0.1:8206 25 mail.key'
	inside systemctl daemon-reload
	inside systemctl start sockets.target
	in_failed '^spipe-wrong\.socket .*/etc/spipetab:6: option maxcon: no such option$'
	inside systemctl status spipe-wrong.socket | grep -F '/etc/spipetab:6: option maxcon: no such option'
	not listens 8205
	answers 8200
	apply 65
	[ "${stderr_lines[-1]}" = 'spipectl: nothing was changed, because /etc/spipetab has errors: 2' ]
	table
	applied
	[ "$output" = '/etc/spipetab: tunnels: 5, listening: 4' ]
	[ -z "$(inside systemctl --failed --plain --no-legend)" ]
	applied
}

@test "apply: a typo closes no port, not even with a daemon-reload; corrected, all listen" {
	hold 8201 5
	inside systemctl stop 'spipe-mail@*' # it has no service now
	table 's/^other.*/& maxcon=1/; s/^mail.*/& maxcon=1/'
	apply 65
	[[ $stderr == *'/etc/spipetab:1: option maxcon: no such option'* ]]
	answers 8200
	answers 8201
	inside systemctl stop 'spipe-mail@*'
	inside systemctl daemon-reload
	listens 8200
	listens 8201
	inside systemctl status spipe-other.socket | grep -F '/etc/spipetab:2: option maxcon: no such option'
	# one that is running goes on; one that would have to be started fails, and that can be seen
	answers 8201
	not answers 8200
	eventually 20 in_failed '^spipe-mail\.socket .*/etc/spipetab:1: option maxcon: no such option$'
	table
	applied 'starting mail'
	goes_on 8201 5
	exec 5>&-
	answers 8200
	answers 8201
	[ -z "$(inside systemctl --failed --plain --no-legend)" ]
}

@test "apply: the same when LISTEN is what is wrong" {
	answers 8200
	table 's/^mail\(.*\)127.0.0.1:8200\texec/mail\1127.0.0.1\texec/'
	inside systemctl daemon-reload
	inside systemctl status spipe-mail.socket | grep -F '/etc/spipetab:1: LISTEN is none of '
	table
	inside systemctl daemon-reload
	# systemd takes it for active, and has closed its socket
	inside systemctl is-active spipe-mail.socket
	applied 'restarting mail'
	answers 8200
}

@test "apply: starts, stops, restarts and renews what has changed, and nobody else notices" {
	hold 8200 5
	hold 8201 6
	other=$(inside systemctl show -P MainPID 'spipe-other@*')
	table -e 's/^mail.*/& timeout=7/' -e '/^front/d' -e '/^each/s/8204/8207/' \
		-e '$anew dec 127.0.0.1:8208 exec:/usr/bin/cat mail.key'
	applied 'stopping front' 'renewing mail' 'restarting each' 'starting new'
	[ ! -e "$ROOT/shared/front.sock" ]
	answers 8207
	answers 8208
	not listens 8204
	# mail has a new service for new connections
	eventually 10 in_arguments mail '-o 7'
	answers 8200
	goes_on 8200 5
	goes_on 8201 6
	[ "$(inside systemctl show -P MainPID 'spipe-other@*')" = "$other" ]
	applied
	# addresses that are exchanged, a line that goes while it is in use, and one that was started by hand
	inside systemctl start spipe-lazy.socket
	table -e '/^mail/d' -e '/^each/s/8204/8208/' -e '/^lazy/s/8203/8209/' \
		-e '$anew dec 127.0.0.1:8207 exec:/usr/bin/cat mail.key'
	apply 0
	diff <(sort <<<"$output") - <<-'END'
		/etc/spipetab: tunnels: 5, listening: 5
		restarting each
		restarting lazy
		restarting new
		starting front
		stopping mail
	END
	answers 8207
	answers 8208
	answers 8209
	not listens 8200
	eventually 10 none_of mail
	goes_on 8201 6
	exec 5>&- 6>&-
}

# in_arguments NAME WORDS: one of its services has been started with them.
in_arguments() {
	inside sh -c 'cat /sys/fs/cgroup/spipe.slice/spipe-"$0"@*/cgroup.procs | while read -r pid; do
		tr "\0" " " </proc/$pid/cmdline; done' "$1" | grep -qe "$2"
}

none_of() {
	[ -z "$(inside systemctl list-units --plain --no-legend "spipe-$1@*")" ]
}

@test "apply: finds what has changed whoever had systemd reload" {
	answers 8200
	table -e '/^mail/s/8200/8210/' -e 's/^other.*/& nodefer/' -e '/^front/s/0666/0600/'
	inside systemctl daemon-reload
	applied 'restarting mail' 'restarting other' 'restarting front'
	answers 8210
	[ "$(stat -c %a "$ROOT/shared/front.sock")" = 600 ]
	table
	inside systemctl daemon-reload
	inside systemctl restart spipe-other.socket
	applied 'restarting mail' 'restarting front'
	# with accept=yes, the next connection has a new service anyway
	table -e 's/^mail.*/& idle=60/' -e '/^each/s/accept=yes/&,timeout=9/'
	inside systemctl daemon-reload
	inside systemctl start renew-spipe@mail
	applied
	table
	applied 'renewing mail'
}

@test "apply: without the copies of what was started, no connection is cut, and later changes are found" {
	hold 8200 5
	inside rm -r /run/spipe
	apply 0
	[[ $output != *starting* ]]
	goes_on 8200 5
	exec 5>&-
	applied
	table '/^each/s/.*/&,nodefer/'
	applied 'restarting each'
}

@test "apply: an address that is taken, and by whom; a path that cannot be" {
	inside systemd-run -q --unit=old-spiped spiped -d -F -s '[127.0.0.1]:8211' -t '[127.0.0.1]:25' -k /etc/spipe/mail.key
	eventually 10 listens 8211
	pid=$(inside systemctl show -P MainPID old-spiped)
	table '$anew dec 127.0.0.1:8211 exec:/usr/bin/cat mail.key'
	apply 65
	[ "${stderr_lines[0]}" = "spipectl: /etc/spipetab:6: 127.0.0.1:8211 is held by spiped, pid $pid" ]
	inside systemctl stop old-spiped
	applied 'starting new'
	answers 8211
	table '$anew dec /srv/new.sock exec:/usr/bin/cat mail.key user=nobody-has-this-name'
	apply 65
	[ "${stderr_lines[0]}" = 'spipectl: /etc/spipetab:6: option user: there is no user nobody-has-this-name' ]
	: >"$ROOT/shared/file"
	table '$anew dec /srv/file/new.sock exec:/usr/bin/cat mail.key'
	apply 69
	[ "$output" = "$(printf '%s\n' 'restarting new' '/etc/spipetab: tunnels: 6, listening: 4')" ]
	[[ ${stderr_lines[0]} == 'spipectl: /etc/spipetab:6: /srv/file/new.sock does not listen: spipe-new.socket: '*' (/srv/file/new.sock): Not a directory' ]]
	[ "${stderr_lines[1]}" = 'spipectl: tunnels that do not listen: 1' ]
}

@test "apply: reads the sockets of the machine three times, however many tunnels there are" {
	applied
	run near timeout -s KILL 60 strace -f -qq -o trace -e trace=openat nsenter -t "$INIT" -m -p -u -i -n -C -r -w -- \
		spipectl apply
	grep -qs openat trace || skip 'strace cannot trace here'
	[ "$status" -eq 0 ]
	[ "$(grep -c '"/proc/net/tcp"' trace)" -eq 3 ]
	[ "$(grep -c '"/proc/1/fd"' trace)" -eq 3 ]
}

@test "README.md's two machines, both ends on this one" {
	table
	grep -oE '(mail-in +dec|mail-out +enc) .*' "$TESTS/../README.md" |
		sed -e 's,127.0.0.1:25 ,exec:/usr/bin/cat ,' -e 's/server.example/127.0.0.1/' >>"$ROOT/spipetab"
	grep -q '`spipectl apply`' "$TESTS/../README.md"
	applied 'starting mail-in' 'starting mail-out'
	printf hello >in
	near timeout -s KILL 40 "$NET" exchange in out 127.0.0.1:2525
	cmp in out
}

@test "apply: usage errors, no table, no systemd" {
	run -64 "$BUILD/spipectl" apply now
	[ "$output" = 'spipectl: apply takes no arguments; see --help' ]
	run -66 unshare --mount sh -c 'mount -t tmpfs none /etc && exec "$0" apply' "$BUILD/spipectl"
	[ "$output" = 'spipectl: /etc/spipetab: No such file or directory' ]
	run -69 unshare --mount sh -c 'mount -t tmpfs none /etc && : >/etc/spipetab && PATH=/nowhere exec "$0" apply' \
		"$BUILD/spipectl"
	[ "$output" = 'spipectl: systemctl daemon-reload: cannot be run' ]
}
