# make demo: shows what it promises, in seconds, and leaves nothing behind.

load ../helpers/lib

# left_behind DIRECTORY: true when there is something in it, or a process is at work in it.
left_behind() {
	local cwd
	[ -z "$(ls -A "$1")" ] || return 0
	for cwd in /proc/[0-9]*/cwd; do
		[[ $(readlink "$cwd") != "$PWD/$1/"* ]] || return 0
	done 2>/dev/null
	return 1
}

nothing_left() {
	not left_behind "$1"
}

@test "make demo tunnels, hides, refuses a stranger, and cleans up" {
	mkdir here
	SECONDS=0
	TMPDIR=$PWD/here run "$TESTS/tools/demo"
	[ "$status" -eq 0 ]
	[ "$SECONDS" -lt 20 ]
	[[ $output == *'Alice owes Bob 100 gold coins'* ]]
	[[ $output == *'lines that contain our words: 0'* ]]
	[[ $output == *'exit status 77, bytes received: 0'* ]]
	[[ $output == *'connections to redis meanwhile: 0'* ]]
	not left_behind here
}

@test "make demo cleans up when it is interrupted" {
	mkdir here
	TMPDIR=$PWD/here background "$TESTS/tools/demo" >demo.out 2>demo.err
	eventually 20 grep -q 'Through the tunnel' demo.out
	left_behind here
	kill -TERM "$!"
	ended 10 "$!"
	[ "$status" -eq 143 ]
	eventually 5 nothing_left here # what was told to go is on its way
}

@test "make demo fails when a program does, and cleans up" {
	mkdir here broken
	printf '#!/bin/sh\nexit 71\n' >broken/spipe-dec
	cp broken/spipe-dec broken/spipe-enc
	chmod +x broken/*
	BUILD=$PWD/broken TMPDIR=$PWD/here run "$TESTS/tools/demo"
	[ "$status" -ne 0 ]
	not left_behind here
}
