#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# Many connections under a real systemd, through units that its generator has made. SYSTEMD_TUNNELS says how many at
# once, SYSTEMD_SECONDS for how long they come and go, SYSTEMD_ACCEPT=yes that each has a service of its own.
load ../helpers/lib
load ../helpers/systemd

setup_file() {
	systemd_prepare
	[ -z "${CANNOT:-}" ] || return 0
	cd "$ROOT" || return
	new_keys key
	# A thousand processes start at once on few CPUs: they have the time for it.
	local more=maxconn=1000,timeout=240 dec=
	if [ "${SYSTEMD_ACCEPT:-no}" = yes ]; then
		more+=,accept=yes
	else
		more+=,exit-idle=1
		dec=,strangers=1000
	fi
	cat >spipetab <<-END
		near	enc	127.0.0.1:8200	127.0.0.1:8201	key	$more
		far	dec	127.0.0.1:8201	127.0.0.1:9000	key	$more$dec,persource=0
		near-u	enc	/srv/near.sock	/srv/wire.sock	key	$more,mode=0666
		far-u	dec	/srv/wire.sock	/srv/far.sock	key	$more$dec,mode=0666
	END
	systemd_boot
}

teardown_file() { systemd_down; }

setup() {
	setup_test
}

teardown() {
	[ -z "${CANNOT:-}" ] || return 0
	rm -f "$ROOT/shared/far.sock"
	systemd_teardown
}

# instances: how many services there are that are not just loaded, failed ones too.
instances() {
	inside systemctl list-units --all --plain --no-legend --state=active,activating,deactivating,failed \
		'spipe-*@*.service' | wc -l
}

none_left() {
	[ "$(instances)" -eq 0 ]
}

# nothing_left: no unit, no failed one, no process of ours.
nothing_left() {
	eventually 60 none_left || {
		inside systemctl list-units --all --plain --no-legend 'spipe-*@*' | head
		return 1
	}
	run inside systemctl list-units --all --plain --no-legend --state=failed
	[ -z "$output" ]
	run ! inside pgrep 'spipe-(enc|dec)'
	run inside systemctl list-units --plain --no-legend --state=listening 'spipe-*.socket'
	[ "$(wc -l <<<"$output")" -eq 4 ]
}

# results: SPIPE_RESULT of all records of the journal since the file .since, counted.
results() {
	inside journalctl --sync
	inside journalctl -q --no-pager -o json --output-fields=SPIPE_RESULT,SPIPE_ROLE --after-cursor="$cursor" |
		/usr/bin/python3 -c '
import collections, json, sys
entries = [json.loads(line) for line in sys.stdin]
found = collections.Counter((e["SPIPE_ROLE"], e["SPIPE_RESULT"]) for e in entries if "SPIPE_RESULT" in e)
for (role, result), count in sorted(found.items()):
    print(role, result, count)'
}

# from_here: results() counts from here on.
from_here() {
	cursor=$(inside journalctl -q --no-pager -n 0 --show-cursor | sed -n 's/^-- cursor: //p')
	[ -n "$cursor" ]
}

# tunnels NEAR FAR COUNT: that many at once, and what is left of them.
tunnels() {
	from_here
	run -0 near "$TESTS/helpers/load.py" through "$1" "$2" "$3" "$NSPAWN"
	printf '# %s\n' "${lines[@]}" >&3
	grep -q "$3 hashes equal" <<<"$output"
	grep -q 'memory of an idle spipe-enc' <<<"$output"
	grep -q 'memory of an idle spipe-dec' <<<"$output"
	nothing_left
	diff <(printf 'dec clean %d\nenc clean %d\n' "$3" "$3") <(results)
}

@test "systemd: 300 tunnels at once, TCP: data both ways, all hashes equal" {
	tunnels 8200 9000 "${SYSTEMD_TUNNELS:-300}"
}

@test "systemd: 60 tunnels at once, UNIX sockets: the same" {
	tunnels "$ROOT/shared/near.sock" "$ROOT/shared/far.sock" "$((${SYSTEMD_TUNNELS:-300} / 5))"
}

@test "systemd: connections that come and go leave no unit, no process, no file; and the manager does not grow" {
	local before after connections seconds=${SYSTEMD_SECONDS:-10}
	for _ in 1 2; do
		from_here
		run -0 near "$TESTS/helpers/load.py" come-and-go 8200 8201 9000 "$seconds"
		printf '# %s\n' "${lines[@]}" >&3
		connections=${lines[0]%% *}
		nothing_left
		results >ended
		sed 's/^/# /' ended >&3
		# what is not there: timeout, command, key, usage, system, terminated
		run ! grep -vE ' (clean|lost|refused|tampered) ' ended
		after=$(manager)
		echo "# the manager: $after (memory in kB, descriptors), credentials and credential mounts left" >&3
		before=${before:-$after}
	done
	read -r -a before <<<"$before"
	read -r -a after <<<"$after"
	# Its heap is as large as it ever had to be, and moves by a MB or two. A unit that stays takes many kB.
	[ "${after[0]}" -le $((before[0] + 2048 + connections)) ]
	[ "${after[1]}" -le $((before[1] + 5)) ]
	[ "${after[2]} ${after[3]}" = '0 0' ]
}

# manager: its private memory, its descriptors, the directories of credentials and the mounts of them.
manager() {
	local memory descriptors directories mounts
	memory=$(awk '/^Private/ { sum += $2 } END { print sum }' "/proc/$INIT/smaps_rollup")
	descriptors=$(find "/proc/$INIT/fd" | wc -l)
	directories=$(inside sh -c 'ls -d /run/credentials/spipe-* 2>/dev/null | wc -l')
	mounts=$(inside grep -c '/run/credentials/spipe-' /proc/self/mountinfo || true)
	echo "$memory $descriptors $directories $mounts"
}
