#!/usr/bin/env bats
# The five steps of README.md, as they are written there, under a real systemd that is both machines.
# shellcheck shell=bash disable=SC2154,SC2016
load ../helpers/lib
load ../helpers/systemd

setup_file() {
	systemd_prepare
	[ -z "${CANNOT:-}" ] || return 0
	echo '127.0.0.1 localhost server.example' >"$ROOT/hosts"
	systemd_boot
}

teardown_file() { systemd_down; }

teardown() { systemd_teardown; }

# step NUMBER TEXT: the command in backquotes in that step, or `after` the steps, that contains TEXT
step() {
	awk -v number="$1" '/^[0-9]\. /{ step = $1 } /^$/ && step == "5." { step = "after." } /^## / { step = "" }
		step == number "."' "$TESTS/../README.md" |
		tr '\n' ' ' | grep -o '`[^`]*`' | tr -d '`' | tr -s ' ' | grep -F -e "$2" | head -n 1 | grep .
}

# on_machine COMMAND: a line for the shell of its administrator
on_machine() {
	inside bash -c "PATH=/usr/local/bin:\$PATH; $1"
}

@test "README.md: five steps to a tunnel" {
	near_background socat TCP-LISTEN:25,bind=127.0.0.1,fork,reuseaddr 'SYSTEM:echo 220 server.example ESMTP' 2>mail.err
	eventually 10 listens 25
	on_machine "$(step 1 mkdir)"
	on_machine "$(step 2 'key new')" >new
	on_machine "$(step 2 'key id')" >id
	grep -qF "$(cut -d ' ' -f 1 id)" new
	sed -n 's/^ *\(mail-[a-z]* *\(enc\|dec\) \)/\1/p' "$TESTS/../README.md" >"$ROOT/spipetab"
	[ "$(wc -l <"$ROOT/spipetab")" -eq 2 ]
	on_machine "$(step 4 apply)"
	[ "$(on_machine "$(step 5 /dev/tcp)")" = '220 server.example ESMTP' ]
	eventually 10 eval 'on_machine "$(step after journalctl)" | grep -q "key mail.key: .*: ended cleanly"'
	on_machine "$(step after status)" | grep -q '^mail-in '
}
