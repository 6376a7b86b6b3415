#!/usr/bin/python3
"""Strangers at a listening address, all at once.

flood.py connect ADDRESS PORT FROM COUNT SECONDS   COUNT connects spread over SECONDS, each closed at once
flood.py silent ADDRESS PORT FROM COUNT            COUNT connections held without a word until stdin ends
flood.py wrong ADDRESS PORT FROM COUNT             COUNT handshakes with a key of their own

FROM is the local address to come from. A line `ready` on stdout says that all are open; `wrong` ends when the other
side has closed each, and prints how many it has closed, and how many of those never got a byte.
"""

import os
import selectors
import socket
import sys
import time

NONCE, PROOF = 32, 288


def connect(address, source):
    connection = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    connection.bind((source, 0))
    connection.setblocking(False)
    connection.connect_ex(address)
    return connection


def flood(address, source, count, seconds):
    start = time.monotonic()
    for i in range(count):
        connection = connect(address, source)
        if i % 2:
            # half of them say something
            try:
                connection.send(b"GET / HTTP/1.0\r\n\r\n")
            except OSError:
                pass
        connection.close()
        time.sleep(max(0.0, start + (i + 1) * seconds / count - time.monotonic()))
    print("ready %.1f" % (time.monotonic() - start), flush=True)


def silent(address, source, count):
    held = [connect(address, source) for _ in range(count)]
    print("ready", flush=True)
    sys.stdin.read()
    print(len(held), "held", flush=True)


def wrong(address, source, count):
    poll = selectors.DefaultSelector()
    for _ in range(count):
        poll.register(connect(address, source), selectors.EVENT_WRITE, b"")
    closed = mute = 0
    while poll.get_map():
        for key, events in poll.select():
            connection, received = key.fileobj, key.data
            try:
                if events & selectors.EVENT_WRITE:
                    connection.send(os.urandom(NONCE))
                    poll.modify(connection, selectors.EVENT_READ, b"")
                    continue
                got = connection.recv(4096)
            except OSError:
                got = b""
            if not got:
                poll.unregister(connection)
                connection.close()
                closed += 1
                mute += not received
                continue
            received += got
            if len(received) > NONCE:
                sys.exit("a stranger got %d bytes" % len(received))
            if len(received) == NONCE:
                try:
                    connection.send(os.urandom(PROOF))
                except OSError:
                    pass
            poll.modify(connection, selectors.EVENT_READ, received)
    print(closed, mute, flush=True)


def main():
    kind, host, port, source, count = sys.argv[1:6]
    address = (host, int(port))
    if kind == "connect":
        flood(address, source, int(count), float(sys.argv[6]))
    elif kind == "silent":
        silent(address, source, int(count))
    else:
        wrong(address, source, int(count))


main()
