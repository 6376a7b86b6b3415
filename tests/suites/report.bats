#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# Where messages and records go: journal, syslog, service manager. What each case does is said in report.py.
load ../helpers/lib

# report NAME: the case, in a mount namespace of its own.
report() {
	local own=(unshare --mount)
	"${own[@]}" mount -t tmpfs none /run 2>/dev/null || own=(unshare --user --map-root-user --mount)
	"${own[@]}" mount -t tmpfs none /run 2>/dev/null || skip "no mount namespaces here"
	if [ "$1" = journal ] || [[ $1 = journal-* || $1 = ready || $1 = status ]]; then
		[ -x "$BUILD/spipe-generator" ] || skip "built without systemd"
	fi
	"${own[@]}" "$TESTS/suites/report.py" case "$1"
}

@test "every case of report.py is run here" {
	diff <("$TESTS/suites/report.py" list) <(sed -n 's/^@test .* { report \(.*\); }$/\1/p' "$BATS_TEST_FILENAME")
}

@test "report: one entry in the journal with all fields" { report journal; }
@test "report: the journal is told how each connection ended" { report journal-results; }
@test "report: errors before a connection go to the journal" { report journal-before-a-connection; }
@test "report: warnings and SIGUSR1 in the journal" { report journal-warnings-and-progress; }
@test "report: no journal, or stderr is not it" { report no-journal; }
@test "report: the record in syslog, from behind the sandbox" { report syslog; }
@test "report: failures in syslog and on stderr" { report syslog-of-failures; }
@test "report: a UNIX socket's connection leaves no record" { report syslog-only-for-networks; }
@test "report: no syslog" { report no-syslog; }
@test "report: nothing to a stderr that is the connection" { report stderr-is-the-connection; }
@test "report: SIGUSR1 where there is syslog, --verbose, neither" { report progress; }
@test "report: READY=1 only after authentication" { report ready; }
@test "report: STATUS= once in ten seconds" { report status; }
@test "report: a service manager that is not there" { report no-manager; }
