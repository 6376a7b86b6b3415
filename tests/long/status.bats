#!/usr/bin/env bats
# shellcheck disable=SC2154
# spipectl status of 50 tunnels with 500 connections, under a real systemd: in less than a second.

load ../helpers/lib
load ../helpers/systemd

setup_file() {
	systemd_prepare
	[ -z "${CANNOT:-}" ] || return 0
	cd "$ROOT" || return
	new_keys key
	for port in $(seq 8200 8249); do
		echo "tunnel-$port dec 127.0.0.1:$port 127.0.0.1:9000 key timeout=60"
	done >spipetab
	systemd_boot
}

teardown_file() { systemd_down; }

teardown() { systemd_teardown; }

# take: the milliseconds that a status takes, the fastest of five, and its output in status.json.
take() {
	local start best=1000000 took
	for _ in 1 2 3 4 5; do
		start=$(date +%s%N)
		inside spipectl status --json >status.json
		took=$((($(date +%s%N) - start) / 1000000))
		[ "$took" -ge "$best" ] || best=$took
	done
	echo "$best"
}

@test "status: 50 tunnels with 500 connections in less than a second" {
	near_background socat TCP-LISTEN:9000,bind=127.0.0.1,fork,reuseaddr,backlog=500 PIPE 2>server.err
	eventually 5 listens 9000
	near_background /usr/bin/python3 - "$TESTS/helpers" "$ROOT/etc-spipe/key" 2>clients.err <<-'END'
		import hashlib, socket, sys, time
		sys.path.insert(0, sys.argv[1])
		import peer
		key = hashlib.sha256(open(sys.argv[2], "rb").read()).digest()
		held = []
		for number in range(500):
		    sock = socket.create_connection(("127.0.0.1", 8200 + number % 50))
		    client = peer.Peer(sock, True, key)
		    client.shake()
		    sock.sendall(client.out.seal(b"hello"))
		    held.append(client)
		open("ready", "w").close()
		time.sleep(1000)
	END
	eventually 120 test -e ready
	took=$(take)
	echo "# $took ms" >&3
	/usr/bin/python3 - <<-'END'
		import json
		tunnels = json.load(open("status.json"))["tunnels"]
		assert len(tunnels) == 50
		assert {t["state"] for t in tunnels} == {"listening"}
		assert {len(t["connections"]) for t in tunnels} == {10}
	END
	[ "$took" -lt 1000 ]
}
