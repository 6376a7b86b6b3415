#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# The walls: tried from inside by a program of our own, looked at and tried in the real ones while they run.
load ../helpers/lib

setup() {
	setup_test
	if "$DEC" --version | grep -q 'sandbox: no'; then
		skip "this build has no sandbox"
	fi
}

# build FILE.c...: the tool that they make, as ./tool. The tools are what they are, whatever the build under test.
build() {
	"${CC:-cc}" -std=gnu11 -O1 -Wall -Wextra -D_GNU_SOURCE -I"$TESTS/../common" -o tool "$@"
}

# as_nobody: let a process that is not root's work in this directory, with programs that it can reach.
as_nobody() {
	[ "$(id -u)" -eq 0 ] || skip "not root: all that this file does is done as a user who is not"
	cp "$ENC" "$DEC" .
	chmod 755 spipe-enc spipe-dec
	head -c 32 /dev/urandom >secret
	chown 65534 . secret
	ENC=./spipe-enc DEC=./spipe-dec
}

@test "sandbox: what it forbids works without it, and fails behind it" {
	build "$TESTS/unit/walls.c" "$TESTS/../common/sandbox.c"
	./tool try >tried
	cat tried
	[ "$(wc -l <tried)" -ge 60 ]
	run ! grep -vE ' (EPERM|killed)$' tried
	# The attempts are good ones: root can do (nearly) all of it.
	[ "$(id -u)" -ne 0 ] || [ "$(grep -c ' works ' tried)" -ge 45 ]
}

@test "sandbox: no system call gets through but those that were meant to" {
	build "$TESTS/unit/walls.c" "$TESTS/../common/sandbox.c"
	./tool list
}

@test "sandbox: what a relay needs works behind it" {
	build "$TESTS/unit/walls.c" "$TESTS/../common/sandbox.c"
	./tool use
}

@test "sandbox: seccomp, no_new_privs, no core, not dumpable, before and after authentication" {
	"$TESTS/helpers/walls.py" status
}

@test "sandbox: the same for a user who is not root" {
	as_nobody
	"$TESTS/helpers/walls.py" -u 65534 status
}

@test "sandbox: code that runs in the live process can't get out, before and after authentication" {
	[ "$(uname -m)" = x86_64 ] || skip "the tool that injects calls is for x86-64"
	[ "$(id -u)" -eq 0 ] || skip "needs root, to trace"
	build "$TESTS/helpers/inject.c"
	"$TESTS/helpers/walls.py" inject ./tool
}

@test "sandbox: code that runs in a live process that is not root's can't either" {
	[ "$(uname -m)" = x86_64 ] || skip "the tool that injects calls is for x86-64"
	as_nobody
	build "$TESTS/helpers/inject.c"
	"$TESTS/helpers/walls.py" -u 65534 inject ./tool
}

@test "sandbox: --sandbox=require is content with these walls" {
	listen dec "$DEC" --sandbox=require -k key -- cat
	printf hello | "$ENC" --sandbox=require -k key -- nc -N 127.0.0.1 "$port" >out
	[ "$(cat out)" = hello ]
	statuses dec 5 0
}
