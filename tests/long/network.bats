#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# Networks that misbehave. The link is in network namespaces of the test's own: a pair of veth with tc's netem
# where the kernel has it, else badlink.py does the same to a pair of TUN devices. NETWORK_MIB (default 16) is what
# goes each way over a link that is only odd; over one that loses packets it is a quarter of that. NETWORK_CONNECTIONS
# (300) go through a bad proxy, each with up to NETWORK_BYTES (2000000) each way.
load ../helpers/lib

setup() {
	setup_test
	here=spipe$$a there=spipe$$b
	mib=${NETWORK_MIB:-16}
}

teardown() {
	teardown_test
	ip netns del "$here" 2>/dev/null || true
	ip netns del "$there" 2>/dev/null || true
}

# link NETEM-WORDS BADLINK-WORDS: the link between the namespaces $here (10.99.0.1) and $there (10.99.0.2), bad in
# both directions, in netem's words and in badlink.py's. Skips where neither can be.
link() {
	local netem badlink
	read -r -a netem <<<"$1"
	read -r -a badlink <<<"$2"
	[ "$(id -u)" -eq 0 ] || skip "only root can make network namespaces"
	ip netns add "$here" 2>netns.err || skip "no network namespaces here: $(<netns.err)"
	ip netns add "$there"
	ip -n "$here" link set lo up
	ip -n "$there" link set lo up
	if ip netns exec "$here" tc qdisc add dev lo root netem delay 1ms 2>/dev/null; then
		ip netns exec "$here" tc qdisc del dev lo root
		ip -n "$here" link add here type veth peer name there netns "$there"
		ip -n "$here" addr add 10.99.0.1/30 dev here
		ip -n "$there" addr add 10.99.0.2/30 dev there
		ip -n "$here" link set here up
		ip -n "$there" link set there up
		ip netns exec "$here" tc qdisc add dev here root netem "${netem[@]}"
		ip netns exec "$there" tc qdisc add dev there root netem "${netem[@]}"
		return
	fi
	[ -c /dev/net/tun ] || skip "this kernel has neither netem nor TUN devices"
	background ip netns exec "$here" "$TESTS/helpers/badlink.py" "$there" "${badlink[@]}" >badlink.out 2>badlink.err
	badlink_pid=$!
	eventually 10 grep -q ready badlink.out
}

# bulk MIB [OPTION...]: MIB each way at once over the link. All arrives, and both programs end well.
bulk() {
	local size=$(($1 * 1048576))
	shift
	random "$size" in
	random "$size" back
	background ip netns exec "$here" tcpserver -vHRDl0 10.99.0.1 8022 \
		"$DEC" -o 60 -k key -- "$NET" exchange back got 2>server.err
	eventually 10 grep -q 'status: 0/' server.err
	ip netns exec "$there" "$NET" exchange in out "$ENC" -o 60 "$@" -k key -- \
		nc "$([ "${1:-}" = -p ] && echo -F || echo -N)" 10.99.0.1 8022 2>client.err
	eventually 60 grep -q ' end ' server.err
	grep -q ' end .* status 0$' server.err
	cmp in got
	cmp back out
	echo "# $((2 * size)) bytes over it" >&3
	[ -z "${badlink_pid:-}" ] || {
		kill "$badlink_pid"
		eventually 5 grep -q passed badlink.out
		echo "# packets: $(tail -n 1 badlink.out)" >&3
	}
}

@test "a link that loses 5 % of the packets" {
	link "loss 5%" "loss=5"
	bulk $((mib / 4)) -p
}

@test "a link with 30 ms of delay and 20 ms of jitter, which reorders" {
	link "delay 30ms 20ms" "delay=30 jitter=20"
	bulk "$mib" -p
}

@test "a link that duplicates 5 % and reorders 5 %" {
	link "delay 2ms duplicate 5% reorder 95%" "delay=2 duplicate=5 reorder=5"
	bulk "$mib" -p
}

@test "a link of 1 MB/s that drops what does not fit" {
	link "rate 8mbit limit 50" "rate=1000 queue=50"
	bulk $((mib / 4)) -p
}

@test "all of it at once: 2 % lost, delayed, reordered, duplicated" {
	link "delay 5ms 5ms loss 2% duplicate 2%" "delay=5 jitter=5 loss=2 duplicate=2"
	bulk $((mib / 4)) -p
}

@test "a link that goes down for good: both ends say so" {
	[ "$(id -u)" -eq 0 ] || skip "only root can make network namespaces"
	link "delay 1ms" "delay=1"
	random 100000 in
	random 100 back
	background ip netns exec "$here" tcpserver -vHRDl0 10.99.0.1 8022 \
		"$DEC" -i 3 -k key -- "$NET" exchange back got 2>server.err
	eventually 10 grep -q 'status: 0/' server.err
	mkfifo never
	exec 9<>never
	background ip netns exec "$there" "$NET" exchange never out "$ENC" -i 3 -p -k key -- \
		nc -F 10.99.0.1 8022 2>client.err
	client=$!
	eventually 10 cmp -s back out || true
	ip -n "$there" link set there down
	ended 20 "$client"
	[ "$status" -eq 75 ] || [ "$status" -eq 74 ]
	eventually 20 grep -q ' end ' server.err
	grep -qE ' end .* status (19200|18944)$' server.err
	exec 9>&-
}

@test "a proxy that flips, cuts, repeats, drops or swaps: no difference goes unnoticed" {
	run -0 "$TESTS/helpers/badproxy.py" "${NETWORK_CONNECTIONS:-300}" "${NETWORK_BYTES:-2000000}" "${SEED:-$RANDOM}"
	printf '# %s\n' "${lines[@]}" >&3
}
