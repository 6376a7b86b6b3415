#!/usr/bin/python3
"""A proxy that damages what passes between our programs: badproxy.py COUNT MOST-BYTES [SEED]

Carries COUNT connections, one after another, each way up to MOST-BYTES of data, from $ENC to $DEC. In
each, the proxy between the two does one bad thing to one direction at a random byte: flips a bit,
leaves out, repeats or inserts bytes, swaps two packets, ends or resets the connection; or does nothing
bad, and only passes the bytes in odd pieces. Then:

- what arrived is what was sent, or its beginning: never anything else;
- where it is less, the program that delivered it did not end with status 0. Where the connection is that
  of a command (nc, which takes a reset for an end), one of the two did not, but for resets;
- where nothing bad was done, all arrived, and both ended with status 0.

A cut between two packets cannot be told from an end (see SECURITY.md), so cuts are made elsewhere.
Needs ./key. Prints what came of each kind. Exit status 1 on a broken promise.
"""

import collections
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading

NET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "net.py")
START, PACKET = 320, 1060  # of a direction: nonce and proof; and what follows
KINDS = ("nothing", "pieces", "flip", "leave-out", "repeat", "insert", "swap", "end", "reset")


def tcp_pair(listener):
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    return near, far


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Direction:
    """Bytes from `source` to `sink`, with the damage done at `at` if this is the direction of it."""

    def __init__(self, source, sink, kind, at):
        self.source, self.sink, self.kind, self.at = source, sink, kind, at
        self.seen, self.ended, self.held = 0, False, b""
        self.out = bytearray()
        self.done = False  # the damage

    def damage(self, data):
        """What to send in place of `data`; None: end, False: reset."""
        start, self.seen = self.seen, self.seen + len(data)
        if self.kind in ("nothing", "pieces") or self.done:
            return data
        if self.kind == "swap":
            return self.swap(data)
        if not start <= self.at < self.seen:
            return data
        self.done = True
        offset = self.at - start
        before, after = data[:offset], data[offset:]
        if self.kind == "flip":
            return before + bytes([after[0] ^ (1 << (self.at % 8))]) + after[1:]
        if self.kind == "leave-out":
            return before + after[1 + self.at % 7 :]
        if self.kind == "repeat":
            return before + after[:1] + after
        if self.kind == "insert":
            return before + b"\x5a" + after
        self.out += before
        return None if self.kind == "end" else False

    def swap(self, data):
        """Hold two packets back from the damaged one's start on, then exchange them."""
        first = START + max(0, self.at - START) // PACKET * PACKET
        start = self.seen - len(data)
        before = data[: max(0, first - start)]
        self.held += data[len(before) :]
        if len(self.held) < 2 * PACKET:
            return before
        self.done = True
        data = self.held[PACKET : 2 * PACKET] + self.held[:PACKET] + self.held[2 * PACKET :]
        self.held = b""
        return before + data


def carry(client, server, directions, rng):
    """Until both directions have ended, or it is broken."""
    for sock in (client, server):
        sock.setblocking(False)
    try:
        while not all(d.ended and not d.out for d in directions):
            readers = [d.source for d in directions if not d.ended and len(d.out) < 1 << 18]
            writers = [d.sink for d in directions if d.out]
            if not readers and not writers:
                break
            readable, writable, _ = select.select(readers, writers, [])
            for d in directions:
                if d.source in readable:
                    odd = d.kind == "pieces"
                    data = d.source.recv(rng.randrange(1, 2200) if odd else 1 << 16)
                    if not data:
                        d.ended = True
                        d.out += d.held
                        if not d.out:
                            d.sink.shutdown(socket.SHUT_WR)
                        continue
                    changed = d.damage(data)
                    if changed is False:
                        while d.out:
                            select.select([], [d.sink], [])
                            del d.out[: d.sink.send(d.out)]
                        raise ConnectionResetError
                    if changed is None:
                        d.ended = True
                        if not d.out:
                            d.sink.shutdown(socket.SHUT_WR)
                    else:
                        d.out += changed
                if d.sink in writable and d.out:
                    del d.out[: d.sink.send(d.out)]
                    if d.ended and not d.out:
                        d.sink.shutdown(socket.SHUT_WR)
    except OSError:
        reset(client)
        reset(server)
        return
    client.close()
    server.close()


def same_start(got, sent):
    """None if `got` is not a beginning of `sent`, else whether it is all of it."""
    with open(got, "rb") as one, open(sent, "rb") as two:
        while True:
            a = one.read(1 << 20)
            b = two.read(1 << 20)
            if a == b and not a:
                return True
            if a != b[: len(a)]:
                return None
            if len(a) < len(b):
                return False if not one.read(1) else None


def main():
    count, most = int(sys.argv[1]), int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int.from_bytes(os.urandom(4), "big")
    print("seed %d" % seed)
    rng = random.Random(seed)
    enc, dec = os.environ["ENC"], os.environ["DEC"]
    listener = socket.create_server(("127.0.0.1", 0))
    outcomes, moved, failures = collections.Counter(), 0, 0

    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        way = rng.randrange(2)  # 0: client to server
        passing = rng.random() < 0.5
        sizes = [rng.randrange(1, most) if rng.random() < 0.8 else rng.randrange(3000) for _ in (0, 1)]
        for name, size in zip(("in", "back"), sizes):
            with open(name, "wb") as file:
                for start in range(0, size, 1 << 24):
                    file.write(rng.randbytes(min(1 << 24, size - start)))
        for name in ("got", "out"):
            open(name, "wb").close()
        total = START + -(-sizes[way] // 1024) * PACKET
        at = rng.randrange(total if rng.random() < 0.9 else START)
        if kind == "end" and at >= START and (at - START) % PACKET == 0:
            at += 1

        proxy = socket.create_server(("127.0.0.1", 0))
        port = str(proxy.getsockname()[1])
        far = ["nc", "-F"] if passing else ["nc", "-N"]
        client = subprocess.Popen(
            [NET, "exchange", "in", "out", enc, "-o3", "-k", "key"]
            + (["-p"] if passing else [])
            + ["--", *far, "127.0.0.1", port],
            stderr=subprocess.DEVNULL,
        )
        left, _ = proxy.accept()
        proxy.close()
        right, theirs = tcp_pair(listener)
        server = subprocess.Popen(
            [dec, "-o3", "-k", "key", "--", NET, "exchange", "back", "got"],
            stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
        )
        theirs.close()
        directions = [
            Direction(left, right, kind if way == 0 or kind == "pieces" else "nothing", at),
            Direction(right, left, kind if way == 1 or kind == "pieces" else "nothing", at),
        ]
        carrier = threading.Thread(target=carry, args=(left, right, directions, random.Random(number)))
        carrier.start()
        try:
            patience = 120 + sum(sizes) / 2000000
            statuses = client.wait(patience), server.wait(patience)
        except subprocess.TimeoutExpired:
            print("connection %d, %s at %d: hangs" % (number, kind, at))
            client.kill()
            server.kill()
            return 1
        carrier.join()

        arrived = same_start("got", "in"), same_start("out", "back")
        moved += os.path.getsize("got") + os.path.getsize("out")
        wrong = []
        if None in arrived:
            wrong.append("other data arrived than was sent")
        # After a reset nc throws away what it holds: what is left may well end between two packets.
        if not all(arrived) and statuses == (0, 0) and (passing or kind != "reset"):
            wrong.append("less arrived, and both ended well")
        if passing and not arrived[0] and statuses[1] == 0:
            wrong.append("less arrived at the server, and spipe-dec ended well")
        if passing and not arrived[1] and statuses[0] == 0:
            wrong.append("less arrived at the client, and spipe-enc ended well")
        harmless = kind in ("nothing", "pieces") or not directions[way].done
        if harmless and (statuses != (0, 0) or arrived != (True, True)):
            wrong.append("nothing was done to it, and it failed")
        outcomes[kind, "enc %d, dec %d" % statuses] += 1
        if wrong:
            failures += 1
            print("connection %d: %s at byte %d of %s, %s: statuses %s, %s: %s"
                  % (number, kind, at, total, "to the server" if way == 0 else "to the client",
                     statuses, "passed descriptor" if passing else "command", "; ".join(wrong)))
    for (kind, what), times in sorted(outcomes.items()):
        print("%-10s %-16s %d" % (kind, what, times))
    print("%d connections, %d bytes delivered, %d broken promises" % (count, moved, failures))
    return 1 if failures else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main())
