#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# A thousand tunnels at once under tcpserver, through both programs; LOAD_TUNNELS says how many.
load ../helpers/lib

@test "1,000 tunnels at once with passed descriptors: data both ways, all hashes equal" {
	run -0 "$TESTS/helpers/load.py" tunnels "${LOAD_TUNNELS:-1000}" pass
	printf '# %s\n' "${lines[@]}" >&3
}

@test "200 tunnels at once with commands that stay: the same" {
	run -0 "$TESTS/helpers/load.py" tunnels "$((${LOAD_TUNNELS:-1000} / 5))"
	printf '# %s\n' "${lines[@]}" >&3
}
