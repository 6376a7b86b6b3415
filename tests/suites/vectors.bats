# Known answers through the code that the programs use, and random batches against single packets.
# `make check` builds the programs in tests/unit.

load ../helpers/lib

@test "packets: every known answer, sealed and opened" {
	run -0 "$BUILD/tests/unit/packet-vectors" "$TESTS/suites/vectors.txt"
	[[ $output == "$(grep -c '^packet = ' "$TESTS/suites/vectors.txt") packets in "* ]]
}

@test "packets: a wrong known answer, or none, is a failure" {
	sed '0,/^\(packet = C .*\)[0-9a-f]$/s//\1-/' "$TESTS/suites/vectors.txt" >malformed
	run -1 "$BUILD/tests/unit/packet-vectors" malformed
	awk '/^packet = / && !done { done = 1; last = substr($0, length); sub(/.$/, last == "0" ? "1" : "0") } 1' \
		"$TESTS/suites/vectors.txt" >wrong
	run -1 "$BUILD/tests/unit/packet-vectors" wrong
	grep -v '^packet = ' "$TESTS/suites/vectors.txt" >none
	run -1 "$BUILD/tests/unit/packet-vectors" none
}

@test "packets: batches of any size give the bytes of single packets, and stop at a bad one" {
	run -0 "$BUILD/tests/unit/packet-batches" 300 "$RANDOM$((RANDOM % 9 + 1))"
	echo "$output"
	# With the bulk backend built in and usable here, it must have done its part.
	if "$ENC" --version | grep -q ipsec-mb; then
		[[ $output != *" 0 batches through the bulk backend"* ]]
	fi
}

@test "handshake: every known answer, for both ends" {
	run -0 "$BUILD/tests/unit/handshake-vectors" "$TESTS/suites/vectors.txt"
	[[ $output == "$(grep -c '^case = ' "$TESTS/suites/vectors.txt") cases, both ends, as known" ]]
}

@test "handshake: one wrong digit in any known answer is a failure" {
	local field
	for field in keyfile K nonce_C dhmac_S x_C yh_C yh_S y_SC E_C H_S; do
		awk -v field="$field" '$1 == field && !done { done = 1; last = substr($0, length)
			sub(/.$/, last == "0" ? "1" : "0") } 1' "$TESTS/suites/vectors.txt" >wrong
		run -1 "$BUILD/tests/unit/handshake-vectors" wrong
	done
}
