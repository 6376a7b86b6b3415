#!/usr/bin/env bats
# shellcheck shell=bash
# The runner itself: tests/check counts what passed, failed, was skipped, and passed only the second time.
load ../helpers/lib

setup() {
	setup_test
	# not as a here-document: bats takes each line that begins with @test for one of its own
	printf '%s\n' '@test "bats passes" { :; }' '@test "bats is skipped" { skip "for a reason"; }' >one.bats
	cat >two.py <<-'END'
		import os, sys
		from suite import Skip, Wrong, case, expect
		@case
		def passes(): expect("six", 6, 6)
		@case
		def is_skipped(): raise Skip("for another")
	END
	more=()
}

# check: what tests/check says of them and of "${more[@]}". After a test that failed, bats 1.13 keeps its output open for
# the rest of TIMEOUT.
check() {
	env -u JOBS TIMEOUT="${limit:-20}" "$TESTS/check" one.bats two.py "${more[@]}"
}

@test "check: the TAP of both kinds of suite as one, and the counts" {
	run -0 check
	[ "${lines[-1]}" = '2 passed, 0 failed, 2 skipped' ]
	[ "${lines[-2]}" = 1..4 ]
	[[ $output == *'ok 1 bats passes'*'ok 2 bats is skipped # skip for a reason'* ]]
	grep -qE '^ok [34] two: passes$' <<<"$output"
	grep -qE '^ok [34] two: is-skipped # skip for another$' <<<"$output"
}

@test "check: each way to fail counts as one failure, in either kind of suite" {
	more=(three.py three.bats)
	cat >three.py <<-'END'
		import os, time
		from suite import Wrong, case, expect
		@case
		def is_wrong(): expect("six", 7, 6)
		@case
		def raises(): {}["nothing"]
		@case
		def dies(): os.kill(os.getpid(), 9)
		@case
		def hangs(): time.sleep(60)
	END
	printf '@test "bats fails" { false; }\n' >three.bats
	limit=1 run -1 check
	[ "${lines[-1]}" = '2 passed, 5 failed, 2 skipped' ]
	grep -q '# .*six: 7, not 6' <<<"$output"
	grep -q '# KeyError' <<<"$output"
	grep -q '# .*not done in 1 s' <<<"$output"
	# the only test there is
	TIMEOUT=20 run -1 "$TESTS/check" three.bats
	[ "${lines[-1]}" = '0 passed, 1 failed' ]
}

@test "check: what passes only the second time is named, and what never passes is not" {
	more=(three.py three.bats)
	cat >three.py <<-END
		import os
		from suite import case
		@case
		def second_time():
		    if not os.path.exists("$PWD/twice"):
		        open("$PWD/twice", "w").close()
		        raise OSError("only the second time")
	END
	printf '%s\n' '@test "bats second time" {' "mkdir '$PWD/there' || return 0" false '}' >three.bats
	run -0 check
	[ "${lines[-1]}" = '4 passed, 0 failed, 2 skipped' ]
	grep -qx 'flaky: bats second time' <<<"$output"
	grep -qx 'flaky: three: second-time' <<<"$output"
	printf '@test "bats fails" { false; }\n' >three.bats
	run -1 check
	[ "${lines[-1]}" = '3 passed, 1 failed, 2 skipped' ]
	not grep -q flaky: <<<"$output"
}

@test "check: what a case leaves is killed with it, and its directory is gone" {
	more=(three.py)
	cat >three.py <<-END
		import os, subprocess
		from suite import case
		@case
		def leaves_a_process():
		    left = subprocess.Popen(["setsid", "sh", "-c", "sleep 60 & echo \$! >$PWD/left; wait"])
		    while not os.path.exists("$PWD/left") or not os.path.getsize("$PWD/left"): pass
		    open("$PWD/where", "w").write(os.getcwd())
	END
	run -0 check
	not alive "$(<left)"
	[ -s where ]
	[ ! -e "$(<where)" ]
}
