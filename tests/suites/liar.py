#!/usr/bin/python3
"""A peer that lies: helpers/peer.py plays spiped's part, wrongly, with one of our programs at a time.

Each case starts the program many times. Before that the peer shows that it knows the protocol.
"""

import hashlib
import os
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../helpers"))
import start
from peer import (
    DATA, HELLO, LIMIT, NONCE, PACKET, PROMPT, SHARED, SLOW, Closed, P, Peer, Y, big, directions, drain,
    first_keys, mac, reset,
)
from start import Started, each_way, said
from suite import Wrong, both, case, main

# sysexits.h, as our programs promise
OK, UNCONNECTED, LOST, TIMEOUT, TAMPERED, REFUSED = 0, 69, 74, 75, 76, 77


# --- self-tests -----------------------------------------------------------------------------------------


@case
def known_answers():
    """Every value of the file of known answers, computed by the peer."""
    cases, count = [], 0
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "vectors.txt")) as lines:
        for line in lines:
            name, equals, value = line.strip().partition(" = ")
            if not equals or line.startswith("#"):
                continue
            if name == "case":
                cases.append({"case": value, "packets": []})
            elif name == "packet":
                cases[-1]["packets"].append(value.split(" "))
            else:
                cases[-1][name] = value
    for known in cases:
        get = lambda name: bytes.fromhex(known[name])
        key = hashlib.sha256(get("keyfile")).digest()
        nonces = get("nonce_C"), get("nonce_S")
        mac_keys = first_keys(key, *nonces)
        exponents = [int(known[x], 16) if known[x] != "-" else None for x in ("x_C", "x_S")]
        ys = [pow(2, x, P) if x is not None else 1 for x in exponents]
        shared = 1
        if None not in exponents:
            shared = pow(ys[1], exponents[0], P)
        hellos = [big(y) + mac(k, big(y)) for y, k in zip(ys, mac_keys)]
        client, server = directions(key, *nonces, big(shared))
        computed = {
            "K": key, "dhmac_C": mac_keys[0], "dhmac_S": mac_keys[1], "yh_C": hellos[0], "yh_S": hellos[1],
            "y_SC": big(shared), "E_C": client.cipher_key, "H_C": client.mac_key,
            "E_S": server.cipher_key, "H_S": server.mac_key,
        }
        for name, value in computed.items():
            if value != get(name):
                raise Wrong("%s: %s differs" % (known["case"], name))
            count += 1
        for sender, number, data, wire in known["packets"]:
            direction = client if sender == "C" else server
            direction.number = int(number)
            if direction.seal(bytes.fromhex(data)).hex() != wire:
                raise Wrong("%s: packet %s %s differs" % (known["case"], sender, number))
            direction.number = int(number)
            if direction.open(bytes.fromhex(wire)).hex() != data:
                raise Wrong("%s: packet %s %s opens to something else" % (known["case"], sender, number))
            count += 1
    if not cases or not count:
        raise Wrong("no known answers")


def until(condition, what, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.01)


@case
def upstream():
    """The peer talks to the installed spiped (we are the client) and spipe (we are the server)."""
    secret = os.urandom(64)
    key = hashlib.sha256(secret).digest()
    with open("upstream-key", "wb") as f:
        f.write(secret)
    data = os.urandom(5000)
    for flags, pfs in ([], True), ([], False), (["-f"], True), (["-g"], True):
        target = socket.socket(socket.AF_UNIX)
        target.bind("target.sock")
        target.listen()
        daemon = subprocess.Popen(
            ["spiped", "-d", "-F", "-s", os.path.abspath("front.sock"), "-t", os.path.abspath("target.sock"),
             "-k", "upstream-key"] + flags
        )
        try:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(10)
            until(lambda: sock.connect_ex("front.sock") == 0, "spiped did not start")
            peer = Peer(sock, True, key, pfs)
            peer.shake()
            inner, _ = target.accept()
            inner.settimeout(10)
            sock.sendall(peer.out.seal_all(data))
            got = b""
            while len(got) < len(data):
                got += inner.recv(65536)
            inner.sendall(data[::-1])
            back = b""
            while len(back) < len(data):
                back += peer.take_packet()
            if got != data or back != data[::-1]:
                raise Wrong("spiped %s: wrong data" % flags)
        finally:
            daemon.kill()
            daemon.wait()
            os.unlink("front.sock")
            os.unlink("target.sock")
        # and the other way round
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("server.sock")
        listener.listen()
        client = subprocess.Popen(
            ["spipe", "-t", os.path.abspath("server.sock"), "-k", "upstream-key"] + flags,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        sock, _ = listener.accept()
        sock.settimeout(10)
        peer = Peer(sock, False, key, pfs)
        peer.shake()
        client.stdin.write(data)
        client.stdin.close()
        got = b""
        while len(got) < len(data):
            got += peer.take_packet()
        sock.sendall(peer.out.seal_all(data[::-1]))
        sock.shutdown(socket.SHUT_WR)
        back = client.stdout.read()
        if got != data or back != data[::-1]:
            raise Wrong("spipe %s: wrong data" % flags)
        client.wait()
        os.unlink("server.sock")


# --- running our programs -------------------------------------------------------------------------------

# A command that shows whether it ran, what it got, and whether it took the end for a good one.
RECORDER = ["sh", "-c", "echo >ran; cat >got; echo >finished"]


class Subject(Started):
    """One run of our program: `wire` is its encrypted connection and `plain` its other, unless that is a command's."""

    def __init__(self, role, options=(), command=()):
        self.role = role
        self.begin = time.monotonic()
        super().__init__(role, options, command)

    @property
    def wire(self):
        return self.near if self.role == "dec" else self.far

    @property
    def plain(self):
        return self.far if self.role == "dec" else self.near

    def finish(self):
        """Wait for its end. Sets status, message (all of stderr) and seconds."""
        try:
            self.status = self.process.wait(LIMIT * SLOW)
            self.seconds = time.monotonic() - self.begin
        except subprocess.TimeoutExpired:
            raise Wrong("it does not end") from None
        self.message = said(self.process)
        self.process.stderr.close()


def check(label, *problems):
    """One run of the program: what went wrong with it, if anything."""
    problems = [p for p in problems if p]
    if problems:
        raise Wrong("%s: %s" % (label, "; ".join(problems)))


def remove_traces():
    for name in "ran", "got", "finished":
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass


def wrong_status(subject, *wanted):
    """What is wrong with how the program ended: status, the single line on stderr, time."""
    problems = []
    if subject.status not in wanted:
        problems.append("status %s, not %s" % (subject.status, " or ".join(map(str, wanted))))
    lines = subject.message.splitlines()
    if subject.status == 0:
        if lines:
            problems.append("clean, but said %r" % subject.message)
    elif len(lines) != 1 or not lines[0].startswith("spipe-%s: " % subject.role):
        problems.append("stderr was %r" % subject.message)
    return "; ".join(problems)


def refused(label, role, act, wanted, options=(), least=0.0, most=3.0):
    """
    Run a handshake that must fail: act(peer, subject) is the peer's part. The command must not have run,
    nothing may reach the plaintext side, which (where it is a socket) must end.
    """
    command = ["sh", "-c", "echo >ran"] if role == "dec" else ()
    if command and os.path.exists("ran"):
        os.unlink("ran")
    subject = Subject(role, options, command)
    peer = Peer(subject.wire, role == "dec", SHARED)
    sent = b""
    try:
        act(peer, subject)
        sent, _ = drain(subject.wire)
    except (Closed, OSError):
        pass  # finish() finds out
    subject.finish()
    problems = [wrong_status(subject, *wanted)]
    if not least <= subject.seconds <= most * SLOW:
        problems.append("took %.2f s" % subject.seconds)
    if command and os.path.exists("ran"):
        problems.append("the command ran")
    if role == "dec" and len(sent) > NONCE:
        problems.append("%d bytes were sent to a stranger" % len(sent))
    if subject.plain:
        data, _ = drain(subject.plain)
        if data:
            problems.append("%r was delivered" % data)
    check(label, *problems)
    subject.close()


def broken(label, role, act, good, wanted, pfs=False, most=3.0, command=True):
    """
    Run a stream that must break: after a good handshake, act(peer, subject) plays the peer. Of the plaintext at
    most `good` may be delivered, and it must end in a break: the command killed, the socket reset.
    """
    command = RECORDER if role == "dec" and command else ()
    if command:
        remove_traces()
    subject = Subject(role, (), command)
    peer = Peer(subject.wire, role == "dec", SHARED, pfs)
    peer.shake()
    start = time.monotonic()
    try:
        act(peer, subject)
    except ConnectionError:
        pass
    problems = []
    if subject.plain:
        data, end = drain(subject.plain)
        if end != "reset":
            problems.append("the plaintext side saw %s, not a reset" % end)
    subject.finish()
    problems.append(wrong_status(subject, *wanted))
    if time.monotonic() - start > most * SLOW:
        problems.append("took %.2f s" % (time.monotonic() - start))
    if command:
        # The command's children are to be gone by now: what `cat` got is final.
        if os.path.exists("finished"):
            problems.append("the command took it for a good end")
        data = b""
        if os.path.exists("got"):
            with open("got", "rb") as f:
                data = f.read()
    if not good.startswith(data):
        problems.append("%d bytes delivered that do not belong to the good %d" % (len(data), len(good)))
    if role == "dec" and subject.wire.fileno() != -1:
        _, end = drain(subject.wire)
        if end == "open":
            problems.append("the connection stayed open")
    check(label, *problems)
    subject.close()


def clean(label, role, act, expect):
    """Run a stream that must end well, delivering exactly `expect`."""
    subject = Subject(role)
    peer = Peer(subject.wire, role == "dec", SHARED)
    peer.shake()
    act(peer, subject)
    subject.wire.shutdown(socket.SHUT_WR)
    data, end = drain(subject.plain)
    try:
        subject.plain.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    drain(subject.wire)
    subject.finish()
    check(
        label,
        wrong_status(subject, OK),
        "the plaintext side saw %s" % end if end != "end" else "",
        "%d bytes delivered, not the %d expected" % (len(data), len(expect)) if data != expect else "",
    )
    subject.close()


# --- the cases ------------------------------------------------------------------------------------------

def offsets(*limits):
    """Some offsets in that range, the last among them; every STEPth. The second way that a program is started, fewer."""
    step = 23 if start.listens else int(os.environ.get("STEP", 7))
    return [*range(*limits)[:-1:step], range(*limits)[-1]]


def flip(message, offset, mask=None):
    """`message` with one bit changed in the byte at `offset` (which bit: depends on the offset)."""
    changed = bytearray(message)
    changed[offset] ^= mask or 1 << (offset * 5 + offset // 8) % 8
    return bytes(changed)


@each_way(both)
def wrong_key(role):
    """The peer has another key, with and without forward secrecy, whatever we demand."""

    def act(pfs):
        def play(peer, _):
            peer.key, peer.pfs = hashlib.sha256(b"another").digest(), pfs
            peer.y = peer.own_y if pfs else 1
            peer.sock.sendall(peer.nonce)
            peer.take_nonce()
            peer.sock.sendall(peer.hello())

        return play

    for pfs in True, False:
        for options in (), ("-f",), ("-g",):
            refused("pfs %s, options %s" % (pfs, options), role, act(pfs), (REFUSED,), options)


@each_way(both)
def flipped_nonce(role):
    """Every byte of our nonce is changed on the way."""
    for offset in offsets(NONCE):

        def act(peer, _):
            peer.sock.sendall(flip(peer.nonce, offset))
            peer.take_nonce()
            peer.sock.sendall(peer.hello())

        refused("byte %d" % offset, role, act, (REFUSED,))


@each_way(both)
def flipped_hello(role):
    """Every byte of the 288 that prove the key is changed on the way."""
    for offset in offsets(HELLO):

        def act(peer, _):
            peer.sock.sendall(peer.nonce)
            peer.take_nonce()
            peer.sock.sendall(flip(peer.hello(), offset))

        refused("byte %d" % offset, role, act, (REFUSED,))


@each_way(both)
def chosen_y(role):
    """y at and around the limits of its range, with a right MAC."""
    for y, name in (0, "0"), (1, "1"), (P - 1, "p-1"), (P, "p"), (P + 1, "p+1"), (2**2048 - 1, "2^2048-1"):
        for options in (), ("-g",), ("-f",):
            if y < P and options != ("-g",):
                continue

            def act(peer, _):
                peer.sock.sendall(peer.nonce)
                peer.take_nonce()
                peer.sock.sendall(peer.hello(y))

            refused("y = %s, options %s" % (name, options), role, act, (REFUSED,), options)
    # Without -g these are accepted, as by spiped; the shared value follows from y.
    for y, name in (0, "0"), (1, "1"), (P - 1, "p-1"):
        subject = Subject(role)
        peer = Peer(subject.wire, role == "dec", SHARED)
        peer.y = y
        peer.shake()
        accepted = False
        # p-1 to an unknown power is 1 or p-1: one of the two must open what we are sent.
        subject.plain.sendall(b"hello")
        packet = peer.receive(PACKET)
        for shared in (0,) if y == 0 else (1, P - 1):
            pair = directions(peer.key, *peer.nonces, big(shared))
            try:
                accepted |= (pair[1] if peer.client else pair[0]).open(packet) == b"hello"
            except ValueError:
                pass
        subject.wire.shutdown(socket.SHUT_WR)
        subject.plain.shutdown(socket.SHUT_WR)
        subject.finish()
        check(
            "y = %s without -g" % name, wrong_status(subject, OK), "" if accepted else "not the keys of that y"
        )
        subject.close()


@each_way(both)
def no_pfs_refused(role):
    """-g against a peer that is as -f makes it."""

    def act(peer, _):
        peer.shake()

    refused("-g", role, act, (REFUSED,), ("-g",))
    refused("long options", role, act, (REFUSED,), ("--require-pfs",))


@each_way(both)
def in_pieces(role):
    """Hello and packets arrive in one go, or in crumbs."""
    data = os.urandom(3000)
    for size in 1, 7, 33, 287, 4096:
        subject = Subject(role)
        peer = Peer(subject.wire, role == "dec", SHARED)
        peer.take_nonce()
        message = peer.nonce
        if role == "enc":
            peer.sock.sendall(message)
            peer.take_hello()
            message = b""
        peer.derive()
        message += peer.hello() + peer.out.seal_all(data)
        for i in range(0, len(message), size):
            peer.sock.sendall(message[i : i + size])
        if role == "dec":
            peer.take_hello()
        peer.sock.shutdown(socket.SHUT_WR)
        got, end = drain(subject.plain)
        subject.plain.shutdown(socket.SHUT_WR)
        drain(subject.wire)
        subject.finish()
        check(
            "pieces of %d" % size,
            wrong_status(subject, OK),
            "plaintext side saw %s" % end if end != "end" else "",
            "wrong data" if got != data else "",
        )
        subject.close()


@each_way(both)
def not_spiped(role):
    """Strangers: a port scanner, HTTP, TLS, too much noise."""
    noise = [
        b"",
        b"GET / HTTP/1.1\r\nHost: example.net\r\nUser-Agent: scanner\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n" + os.urandom(1500),
        os.urandom(NONCE + HELLO),
        os.urandom(100000),
        bytes(NONCE + HELLO),
    ]
    for data in noise:

        def act(peer, _):
            peer.sock.sendall(data)
            peer.sock.shutdown(socket.SHUT_WR)

        refused("%d bytes, %r" % (len(data), data[:16]), role, act, (REFUSED, LOST))
    # The same from one that then resets the connection: -t may not see that it was there.
    for data in noise[:3]:

        def act_reset(peer, _):
            peer.sock.sendall(data)
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.sock.close()
            raise Closed

        refused("%d bytes and a reset" % len(data), role, act_reset, (REFUSED, LOST, UNCONNECTED))


@each_way(both)
def reflected_handshake(role):
    """Everything that our program sends comes back to it."""

    def act(peer, _):
        while True:
            data = peer.sock.recv(65536)
            if not data:
                raise Closed
            peer.sock.sendall(data)

    # spipe-dec waits for 288 bytes that nobody has: it is the deadline that ends it.
    wanted, options = ((TIMEOUT,), ("-o", "0.3")) if role == "dec" else ((REFUSED,), ())
    refused("echo", role, act, wanted, options)


@each_way(both)
def cut_handshake(role):
    """The peer ends the connection after every offset of its part of the handshake."""
    for offset in offsets(NONCE + HELLO):

        def act(peer, _):
            peer.sock.sendall(peer.nonce[:offset])
            if offset > NONCE:
                peer.take_nonce()
                peer.sock.sendall(peer.hello()[: offset - NONCE])
            peer.sock.shutdown(socket.SHUT_WR)

        refused("after %d bytes" % offset, role, act, (REFUSED,))


@each_way(both)
def silence(role):
    """The peer falls silent, or sends a byte now and then: one deadline for all of it."""
    for offset in 0, 1, NONCE - 1, NONCE, NONCE + 1, NONCE + Y, NONCE + HELLO - 1:

        def act(peer, _):
            peer.sock.sendall(peer.nonce[:offset])
            if offset > NONCE:
                peer.take_nonce()
                peer.sock.sendall(peer.hello()[: offset - NONCE])

        refused("after %d bytes" % offset, role, act, (TIMEOUT,), ("-o", "0.3"), 0.3, 1.3)

    def trickle(peer, subject):
        peer.sock.settimeout(0.05)
        for byte in peer.nonce + bytes(HELLO):
            try:
                peer.sock.sendall(bytes([byte]))
                if not peer.sock.recv(65536):
                    raise Closed
            except socket.timeout:
                pass

    refused("a byte every 50 ms", role, trickle, (TIMEOUT,), ("-o", "0.5"), 0.5, 1.5)

    def deaf(peer, subject):
        """Nothing is read: our program must not wait for that either."""
        peer.sock.sendall(peer.nonce)
        subject.process.wait(LIMIT)

    refused("deaf", role, deaf, (TIMEOUT,), ("-o", "0.3"), 0.3, 1.3)


@each_way(both)
def after_the_deadline(role):
    """The deadline ends with the handshake: silence after it does no harm."""
    subject = Subject(role, ("-o", "0.3"))
    peer = Peer(subject.wire, role == "dec", SHARED)
    peer.shake()
    time.sleep(0.6)  # longer than the deadline: the time itself is what is tested
    subject.wire.sendall(peer.out.seal(b"late"))
    got = subject.plain.recv(100)
    subject.wire.shutdown(socket.SHUT_WR)
    subject.plain.shutdown(socket.SHUT_WR)
    subject.finish()
    check("late", wrong_status(subject, OK), "" if got == b"late" else "got %r" % got)
    subject.close()


def length_block(length, data=b"x" * DATA):
    return data + struct.pack(">I", length)


@each_way(both)
def lengths(role):
    """Lengths out of range with a right MAC; every one in range; and padding that is not zero."""
    for length in 0, 1025, 1028, 1060, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1024, 2**32 - 1:
        for before in 0, 3:

            def act(peer, _):
                good = peer.out.seal_all(b"g" * DATA * before)
                peer.sock.sendall(good + peer.out.seal_raw(length_block(length), before))

            broken("%d after %d" % (length, before), role, act, b"g" * DATA * before, (TAMPERED,))

    data = os.urandom(DATA)
    expect = b"".join(data[:n] for n in range(1, DATA + 1))

    def every(peer, _):
        wire = b"".join(peer.out.seal_raw(length_block(n, data), n - 1) for n in range(1, DATA + 1))
        peer.sock.sendall(wire)

    clean("every length, padding not zero", role, every, expect)


def delivered(subject, good):
    """Wait until the plaintext side has all of `good`."""
    if subject.plain:
        got = b""
        while len(got) < len(good):
            more = subject.plain.recv(65536)
            if not more:
                break
            got += more
    else:
        until(lambda: os.path.exists("got") and os.path.getsize("got") >= len(good), "delivery")


@each_way(both)
def flipped_packet(role):
    """One bit anywhere in a packet: the first or second of three sent at once, or one that comes alone."""
    good = os.urandom(2 * DATA)
    for offset in offsets(PACKET):
        which = offset % 3

        def act(peer, subject):
            wire = peer.out.seal_all(good) + peer.out.seal(b"evil")
            if which == 2:
                peer.sock.sendall(wire[: 2 * PACKET])
                delivered(subject, good)
                peer.sock.sendall(flip(wire[2 * PACKET :], offset))
            else:
                peer.sock.sendall(flip(wire, which * PACKET + offset))

        broken("byte %d of packet %d" % (offset, which), role, act, good[: which * DATA], (TAMPERED,))


@each_way(both)
def order(role):
    """Packets repeated, swapped, dropped, late, from another connection; in one piece or one by one."""
    data = os.urandom(6 * DATA)
    for name, numbers, count in (
        ("first repeated", (0, 0, 1), 1),
        ("third repeated", (0, 1, 2, 2, 3), 3),
        ("first repeated late", (0, 1, 2, 0), 3),
        ("first two swapped", (1, 0, 2), 0),
        ("later ones swapped", (0, 1, 3, 2, 4), 2),
        ("first dropped", (1, 2, 3), 0),
        ("third dropped", (0, 1, 3, 4), 2),
    ):
        for at_once in True, False:

            def act(peer, subject):
                packets = [peer.out.seal(data[i : i + DATA]) for i in range(0, len(data), DATA)]
                if at_once:
                    peer.sock.sendall(b"".join(packets[n] for n in numbers))
                else:
                    peer.sock.sendall(b"".join(packets[n] for n in numbers[:count]))
                    delivered(subject, data[: count * DATA])
                    peer.sock.sendall(b"".join(packets[n] for n in numbers[count:]))

            broken("%s, at once: %s" % (name, at_once), role, act, data[: count * DATA], (TAMPERED,))

    def other(peer, _):
        stranger = directions(peer.key, os.urandom(NONCE), os.urandom(NONCE), big(1))[0]
        peer.sock.sendall(stranger.seal(b"from another connection"))

    broken("another connection's", role, other, b"", (TAMPERED,))


@each_way(both)
def reflected_packet(role):
    """What our program sends comes back to it."""
    for count in 1, 3:

        def act(peer, subject):
            subject.plain.sendall(b"r" * DATA * count)
            packets = peer.receive(PACKET * count)
            peer.sock.sendall(packets)

        broken("%d packets" % count, role, act, b"", (TAMPERED,), command=False)


@each_way(both)
def cut_packet(role):
    """The peer's stream ends after every offset of a packet."""
    good = os.urandom(DATA + 100)
    for offset in offsets(1, PACKET):
        before = offset % 3

        def act(peer, _):
            wire = peer.out.seal_all(good) + peer.out.seal(b"never whole")
            peer.sock.sendall(wire[: before * PACKET + offset])
            peer.sock.shutdown(socket.SHUT_WR)

        expect = (b"", good[:DATA], good)[before]
        broken("%d bytes of packet %d" % (offset, before), role, act, expect, (TAMPERED,))


@each_way(both)
def cut_between(role):
    """An end between packets is a good end, and everything before it is delivered."""
    data = os.urandom(70 * DATA)
    for count in 0, 1, 2, 3, 16, 17, 64, 65, 70:

        def act(peer, _):
            peer.sock.sendall(peer.out.seal_all(data[: count * DATA]))

        clean("%d packets" % count, role, act, data[: count * DATA])


@each_way(both)
def broken_after_end(role):
    """A bad packet, a cut one or a reset, when the other direction has already ended."""
    for name, wanted in ("flipped", (TAMPERED,)), ("cut", (TAMPERED,)), ("reset", (LOST,)):

        def act(peer, subject):
            peer.sock.sendall(peer.out.seal(b"good"))
            subject.plain.shutdown(socket.SHUT_WR)
            if drain(peer.sock) != (b"", "end"):
                raise ValueError("the end was not passed on")
            if name == "flipped":
                peer.sock.sendall(flip(peer.out.seal(b"evil"), 7))
            elif name == "cut":
                peer.sock.sendall(peer.out.seal(b"evil")[:1000])
                peer.sock.shutdown(socket.SHUT_WR)
            else:
                reset(peer.sock)

        broken(name, role, act, b"good", wanted, command=False)


@each_way(both)
def reset_wire(role):
    """The peer resets the connection: while all is silent, in the middle of a packet, after its own end."""
    for name in "silent", "data first", "inside a packet", "after its end":

        def act(peer, subject):
            if name == "data first":
                peer.sock.sendall(peer.out.seal_all(b"d" * 5000))
            elif name == "inside a packet":
                peer.sock.sendall(peer.out.seal(b"dddd")[:500])
            elif name == "after its end":
                peer.sock.sendall(peer.out.seal(b"dddd"))
                delivered(subject, b"dddd")
                peer.sock.shutdown(socket.SHUT_WR)
                if subject.plain:
                    if subject.plain.recv(100) != b"":
                        raise ValueError("the end was not passed on")
                else:
                    until(lambda: os.path.exists("finished"), "the end")
            reset(peer.sock)

        for command in (True, False) if role == "dec" and name != "after its end" else (False,):
            label = "%s, command: %s" % (name, command)
            if name == "inside a packet":
                # Which of the two our program meets first is a matter of timing.
                broken(label, role, act, b"", (LOST, TAMPERED), command=command, most=PROMPT)
            elif name == "after its end":
                reset_after_end(label, role, act)
            else:
                broken(label, role, act, b"d" * 5000, (LOST,), command=command, most=PROMPT)


def reset_after_end(label, role, act):
    """The plaintext side has had its good end, so nothing more can be told to it but that we are gone."""
    subject = Subject(role)
    peer = Peer(subject.wire, role == "dec", SHARED)
    peer.shake()
    act(peer, subject)
    start = time.monotonic()
    subject.finish()
    check(
        label,
        wrong_status(subject, LOST),
        "took %.2f s" % (time.monotonic() - start) if time.monotonic() - start > PROMPT * SLOW else "",
    )
    subject.close()


@each_way(both)
def reset_plain(role):
    """The plaintext side resets: the peer sees a reset, not a good end."""
    for name in "silent", "data first", "after its end", "unread data":
        subject = Subject(role)
        peer = Peer(subject.wire, role == "dec", SHARED)
        peer.shake()
        if name == "data first":
            subject.plain.sendall(b"d" * 5000)
        elif name == "after its end":
            subject.plain.shutdown(socket.SHUT_WR)
            if subject.wire.recv(100) != b"":
                raise ValueError("the end was not passed on")
        elif name == "unread data":
            subject.wire.sendall(peer.out.seal(b"unread"))
            subject.plain.recv(1)
        start = time.monotonic()
        if name == "unread data":
            subject.plain.close()
        else:
            reset(subject.plain)
        _, end = drain(subject.wire)
        subject.finish()
        check(
            name,
            wrong_status(subject, LOST),
            "took %.2f s" % (time.monotonic() - start) if time.monotonic() - start > PROMPT * SLOW else "",
            # A good end cannot be taken back.
            "the peer saw %s" % end if end != "reset" and name != "after its end" else "",
        )
        subject.close()


@each_way(both)
def broken_with_children(role):
    """A break kills the command's children too, in the background and in a pipe, before they see an end."""
    scripts = (
        "cat >got; echo >finished",
        "trap '' TERM HUP INT PIPE; cat >got; echo >finished",
        "cat | (cat >got; echo >finished)",
        "exec 3<&0; (cat <&3 >got; echo >finished) & exec 3<&-; wait; echo >finished",
    )
    for script in scripts:
        for how in "flip", "cut", "reset":
            remove_traces()
            if role == "dec":
                subject = Subject(role, (), ["sh", "-c", "echo >ran; " + script])
                sock = subject.wire
            else:
                # spipe-enc's command carries the encrypted side; its near side is what has to break. socat
                # without shut-down would pass on an end only after its -t.
                listener = socket.socket(socket.AF_UNIX)
                listener.bind("far.sock")
                listener.listen()
                subject = Subject(role, (), ["socat", "-t", "9", "-,shut-down", "UNIX-CONNECT:far.sock"])
                sock, _ = listener.accept()
                sock.settimeout(LIMIT * SLOW)
                os.unlink("far.sock")
            peer = Peer(sock, role == "dec", SHARED)
            peer.shake()
            sock.sendall(peer.out.seal(b"good"))
            delivered(subject, b"good")
            if how == "flip":
                sock.sendall(flip(peer.out.seal(b"evil"), 99))
            elif how == "cut" or role == "enc":
                sock.sendall(peer.out.seal(b"evil")[:99])
                sock.shutdown(socket.SHUT_WR)
            else:
                reset(sock)
            problems = []
            if subject.plain:
                _, end = drain(subject.plain)
                if end != "reset":
                    problems.append("the plaintext side saw %s, not a reset" % end)
            subject.finish()
            problems.append(wrong_status(subject, LOST if how == "reset" and role == "dec" else TAMPERED))
            if os.path.exists("finished"):
                problems.append("a child took it for a good end")
            check("%s, %s" % (how, script), *problems)
            sock.close()
            subject.close()
        if role == "enc":
            break



if __name__ == "__main__":
    main()
