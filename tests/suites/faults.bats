#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# Calls that fail, one at a time. Here the first at each place, in one way; tests/faults/run does them all.
load ../helpers/lib

@test "faults: every call that the programs make fails once, and each connection ends as it should" {
	if grep -q __asan_init "$DEC"; then
		skip "AddressSanitizer wants to be the first library"
	fi
	[ "$(getconf LONG_BIT)" -eq 64 ] || skip "with 64-bit times, calls have other names on 32-bit systems"
	JOBS=2 "$TESTS/faults/run" quick
}
