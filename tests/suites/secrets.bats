#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# What was secret is gone from memory when its time is over. secrets.py explains what is looked for and when.
load ../helpers/lib

setup() {
	setup_test
	[ "$(id -u)" -eq 0 ] || skip "needs root, to read another process's memory"
	if grep -q __asan_init "$DEC"; then
		skip "AddressSanitizer keeps copies of what was freed"
	fi
}

@test "secrets: none is in memory when its phase is over, at exit not one, in the command never" {
	"${CC:-cc}" -O1 -Wall -Wextra -D_GNU_SOURCE -o hold "$TESTS/helpers/hold.c"
	"$TESTS/helpers/secrets.py" memory ./hold
}

@test "secrets: none is in a core" {
	command -v gcore >/dev/null || skip "gcore (gdb) is not installed"
	"$TESTS/helpers/secrets.py" core
}
