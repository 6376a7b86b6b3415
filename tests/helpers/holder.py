#!/usr/bin/python3
"""Run a spipe-dec with one connection from the holder of a key, and say exactly what the holder gets.

holder.py [-4|-6|-u|-s] [-f] KEYFILE COMMAND...

The connection is COMMAND's stdin and stdout: from 127.0.0.2 to 127.0.0.3 (-4, the default), over ::1 (-6), to
the UNIX socket near.sock (-u) or a socketpair (-s). The holder sends no data, and with -f offers no forward secrecy.
Lines on stdout: `client ADDRESS PORT` and `server ADDRESS PORT` as the kernel has them; `got N` bytes before the
connection ended, if it did so before the handshake was over, or else what the command said. Exit status: COMMAND's.
"""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys

from peer import LIMIT, SLOW, Closed, Peer, drain


class Counted:
    """A socket that counts what it receives."""

    def __init__(self, sock):
        self.sock, self.count = sock, 0

    def recv(self, size):
        data = self.sock.recv(size)
        self.count += len(data)
        return data

    def __getattr__(self, name):
        return getattr(self.sock, name)


def connection(kind):
    if kind == "-s":
        return socket.socketpair()
    family = {"-4": socket.AF_INET, "-6": socket.AF_INET6, "-u": socket.AF_UNIX}[kind]
    listener = socket.socket(family)
    if kind == "-u":
        with contextlib.suppress(FileNotFoundError):
            os.unlink("near.sock")
    listener.bind({"-4": ("127.0.0.3", 0), "-6": ("::1", 0), "-u": os.path.abspath("near.sock")}[kind])
    listener.listen()
    client = socket.socket(family)
    if kind == "-4":
        client.bind(("127.0.0.2", 0))
    client.connect(listener.getsockname())
    return client, listener.accept()[0]


def main():
    arguments = sys.argv[1:]
    kind, pfs = "-4", True
    while arguments and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option == "-f":
            pfs = False
        else:
            kind = option
    if len(arguments) < 2:
        sys.exit(__doc__)
    with open(arguments[0], "rb") as f:
        key = hashlib.sha256(f.read()).digest()
    ours, theirs = connection(kind)
    if kind in ("-4", "-6"):
        print("client", *ours.getsockname()[:2])
        print("server", *ours.getpeername()[:2])
    process = subprocess.Popen(arguments[1:], stdin=theirs, stdout=theirs)
    theirs.close()
    ours.settimeout(LIMIT * SLOW)
    sock = Counted(ours)
    peer = Peer(sock, True, key, pfs)
    try:
        peer.shake()
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_WR)
        with contextlib.suppress(Closed):
            while True:
                sys.stdout.write(peer.take_packet().decode("latin-1"))
    except (Closed, ConnectionError):
        rest, _ = drain(ours)
        print("got", sock.count + len(rest))
    sys.stdout.flush()
    status = process.wait(LIMIT * SLOW)
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
