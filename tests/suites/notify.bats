#!/usr/bin/env bats
# shellcheck shell=bash
# What the service manager is told, over a socket of ours in its place.
load ../helpers/lib

@test "READY=1 is not lost to a manager that is too busy to read, and comes before any data" {
	[ -x "$BUILD/spipe-generator" ] || skip "built without systemd"
	/usr/bin/python3 - <<-'PYTHON'
		import os, select, socket, subprocess
		manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		manager.bind("notify")
		other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		other.connect("notify")
		other.setblocking(False)
		waiting = 0
		try:
		    while True:
		        other.send(b"STATUS=another service\n")
		        waiting += 1
		except BlockingIOError:
		    pass
		enc = subprocess.Popen([os.environ["ENC"], "-k", "key", "--", os.environ["DEC"], "-k", "key", "--", "cat"],
		                       stdin=subprocess.PIPE, stdout=subprocess.PIPE,
		                       env={**os.environ, "NOTIFY_SOCKET": os.path.abspath("notify")})
		enc.stdin.write(b"hello\n")
		enc.stdin.flush()
		early = select.select([enc.stdout], [], [], 0.5)[0]
		assert not early, "data before READY=1"
		manager.settimeout(20)
		for _ in range(waiting):
		    assert manager.recv(4096).startswith(b"STATUS=another")
		ready = manager.recv(4096)
		assert ready.startswith(b"READY=1\nSTATUS=") and b" key key: 0 bytes in, 0 bytes out" in ready, ready
		assert enc.stdout.readline() == b"hello\n"
		enc.stdin.close()
		assert enc.wait(20) == 0
	PYTHON
}
