#!/usr/bin/env bats
# shellcheck shell=bash
# Limits in time and what signals do. What each case does is said in limits.py.
load ../helpers/lib

@test "every case of limits.py is run here" {
	diff <("$TESTS/suites/limits.py" list) <(sed -n 's/.*limits.py" case //p' "$BATS_TEST_FILENAME" | grep -v '"')
}

@test "limits that are no time: usage errors" {
	local value
	for value in '' 0 0.0 -1 1s 1,5 1.2.3 . nan inf 1e3 0x10 ' 1' 99999999999999999999; do
		run -64 "$DEC" -k key -i "$value" -- cat </dev/null
		run -64 "$ENC" -k key --linger "$value" -- cat </dev/null
	done
	run -64 "$DEC" -k key -i 1 -i 1 -- cat </dev/null
	run -64 "$ENC" -k key --linger 1 --linger 2 -- cat </dev/null
}

@test "idle" {
	"$TESTS/suites/limits.py" case idle
}

@test "idle kept alive" {
	"$TESTS/suites/limits.py" case idle-kept-alive
}

@test "idle and half closed" {
	"$TESTS/suites/limits.py" case idle-and-half-closed
}

@test "no limits" {
	"$TESTS/suites/limits.py" case no-limits
}

@test "memory comes back" {
	"$TESTS/suites/limits.py" case memory-comes-back
}

@test "linger" {
	"$TESTS/suites/limits.py" case linger
}

@test "linger kept alive" {
	"$TESTS/suites/limits.py" case linger-kept-alive
}

@test "linger not before an end" {
	"$TESTS/suites/limits.py" case linger-not-before-an-end
}

@test "term at rest" {
	"$TESTS/suites/limits.py" case term-at-rest
}

@test "hangup gives time" {
	"$TESTS/suites/limits.py" case hangup-gives-time
}

@test "term delivers" {
	"$TESTS/suites/limits.py" case term-delivers
}

@test "term does not wait for ever" {
	"$TESTS/suites/limits.py" case term-does-not-wait-for-ever
}

@test "progress" {
	"$TESTS/suites/limits.py" case progress
}

@test "progress while stuck" {
	"$TESTS/suites/limits.py" case progress-while-stuck
}

@test "usr1 does not count as traffic" {
	"$TESTS/suites/limits.py" case usr1-does-not-count-as-traffic
}
