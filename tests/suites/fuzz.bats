#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# What fuzzing has ever fed the code, once more: the seed corpora and every input that once broke something, under
# ASan and UBSan. `make fuzz` looks for new ones.
load ../helpers/lib

# One build for all tests of this file.
setup_file() {
	local tests=$BATS_TEST_DIRNAME/..
	export REPLAY=$BATS_FILE_TMPDIR/replay
	cd "$tests/.." || return
	replay --wrap=recv,--wrap=getentropy handshake-client handshake-server
	replay --wrap=recv,--wrap=getentropy relay
	replay -O1 address children options packet proxy rules spipetab
}

# replay LINKER-OPTION HARNESS...: build them
replay() {
	local option=$1
	shift
	env -u MAKEFLAGS -u MFLAGS -u MAKEOVERRIDES make -s -j2 BUILD="$REPLAY" SANDBOX=no SANITIZE=yes \
		WITH_IPSEC_MB=no CPPFLAGS=-DREPLAY CFLAGS='-O1 -g' LDFLAGS="-Wl,$option" \
		"${@/#/$REPLAY/tests/fuzz/}"
}

# replays NAME: its corpus and its crashers pass, and there are some.
replays() {
	local inputs=()
	for input in "$TESTS/fuzz/corpus/$1"/* "$TESTS/fuzz/crashers/$1"-*; do
		[ ! -f "$input" ] || inputs+=("$input")
	done
	[ ${#inputs[@]} -ge 3 ]
	run -0 "$REPLAY/tests/fuzz/$1" "${inputs[@]}"
	[ "$output" = "${#inputs[@]} inputs" ]
}

@test "addresses and what supervisors put in the environment" { replays address; }
@test "the client's handshake" { replays handshake-client; }
@test "the server's handshake" { replays handshake-server; }
@test "children of a listener" { replays children; }
@test "command lines" { replays options; }
@test "packets" { replays packet; }
@test "PROXY headers" { replays proxy; }
@test "relayed streams" { replays relay; }
@test "rules of keys" { replays rules; }
@test "tables of tunnels" { replays spipetab; }

@test "a harness fails when an invariant is broken" {
	printf 'expires 2031-12-31\n' >good
	run -0 "$REPLAY/tests/fuzz/rules" good
	run -134 env ASAN_OPTIONS=handle_abort=0 "$REPLAY/tests/fuzz/rules" does-not-exist
	[[ $output = *broken:* ]]
}

@test "every harness has a corpus and is in this file" {
	for harness in "$TESTS"/fuzz/*.c; do
		harness=${harness##*/}
		grep -q "replays ${harness%.c};" "$BATS_TEST_FILENAME"
	done
}
