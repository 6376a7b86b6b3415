#!/usr/bin/python3
"""A second implementation of spiped's protocol, written from its description alone, that can lie.

peer.py vectors FILE            check this implementation against known answers
peer.py upstream                check it against the installed spiped and spipe, in both roles
peer.py list                    the names of the cases
peer.py case NAME...            run our programs ($ENC, $DEC) against a peer that misbehaves as the case says

A case starts our program many times, and prints a line for each time that it did anything but what is
expected. Runs in the current directory, which should be empty.
"""

import fcntl
import hashlib
import hmac
import os
import select
import socket
import struct
import subprocess
import sys
import time

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

P = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F"
    "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510"
    "15728E5A8AACAA68FFFFFFFFFFFFFFFF",
    16,
)
NONCE, Y, MAC, DATA, PACKET = 32, 256, 32, 1024, 1060
HELLO = Y + MAC

# sysexits.h, as our programs promise
OK, USAGE, COMMAND, SYSTEM, LOST, TIMEOUT, TAMPERED, REFUSED, KEY = 0, 64, 69, 71, 74, 75, 76, 77, 78


# --- the protocol ---------------------------------------------------------------------------------------


def pbkdf2(key, salt, size):
    return hashlib.pbkdf2_hmac("sha256", key, salt, 1, size)


def mac(key, data):
    return hmac.digest(key, data, "sha256")


def big(number):
    return number.to_bytes(Y, "big")


class Direction:
    """Keys of one direction, and the number of its next packet."""

    def __init__(self, cipher_key, mac_key):
        self.cipher_key, self.mac_key, self.number = cipher_key, mac_key, 0

    def keystream(self, data, number):
        counter = struct.pack(">QQ", number, 0)
        encryptor = Cipher(algorithms.AES(self.cipher_key), modes.CTR(counter)).encryptor()
        return encryptor.update(data)

    def seal_raw(self, block, number):
        """A packet around 1028 bytes that need not make sense."""
        c = self.keystream(block, number)
        return c + mac(self.mac_key, c + struct.pack(">Q", number))

    def seal(self, data):
        packet = self.seal_raw(data.ljust(DATA, b"\0") + struct.pack(">I", len(data)), self.number)
        self.number += 1
        return packet

    def seal_all(self, data):
        return b"".join(self.seal(data[i : i + DATA]) for i in range(0, len(data), DATA))

    def open(self, packet):
        c, tag = packet[:-MAC], packet[-MAC:]
        if mac(self.mac_key, c + struct.pack(">Q", self.number)) != tag:
            raise ValueError("packet %d: wrong MAC" % self.number)
        block = self.keystream(c, self.number)
        (length,) = struct.unpack(">I", block[DATA:])
        if not 1 <= length <= DATA:
            raise ValueError("packet %d: length %d" % (self.number, length))
        self.number += 1
        return block[:length]


def first_keys(key, nonce_c, nonce_s):
    both = pbkdf2(key, nonce_c + nonce_s, 64)
    return both[:32], both[32:]


def directions(key, nonce_c, nonce_s, shared):
    keys = pbkdf2(key, nonce_c + nonce_s + shared, 128)
    return Direction(keys[:32], keys[32:64]), Direction(keys[64:96], keys[96:])


class Closed(Exception):
    """The other side ended where more was to come."""


class Peer:
    """Our end of a handshake and of what follows. client: we are spiped's client, so the subject is spipe-dec."""

    exponent = int.from_bytes(os.urandom(32), "big")
    own_y = pow(2, exponent, P)  # the same for all cases: only the speed depends on it

    def __init__(self, sock, client, key, pfs=False):
        self.sock, self.client, self.key, self.pfs = sock, client, key, pfs
        self.nonce = os.urandom(NONCE)
        self.y = self.own_y if pfs else 1

    def receive(self, size):
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise Closed("closed after %d of %d bytes" % (len(data), size))
            data += more
        return data

    def take_nonce(self):
        self.their_nonce = self.receive(NONCE)
        self.nonces = (self.nonce, self.their_nonce) if self.client else (self.their_nonce, self.nonce)
        keys = first_keys(self.key, *self.nonces)
        self.mac_key, self.their_mac_key = keys if self.client else keys[::-1]

    def hello(self, y=None):
        y = big(self.y if y is None else y)
        return y + mac(self.mac_key, y)

    def take_hello(self):
        message = self.receive(HELLO)
        if mac(self.their_mac_key, message[:Y]) != message[Y:]:
            raise ValueError("the handshake's MAC is wrong")
        self.their_y = int.from_bytes(message[:Y], "big")
        if self.their_y >= P:
            raise ValueError("y is too large")

    def derive(self):
        shared = pow(self.their_y, self.exponent, P) if self.pfs else 1
        pair = directions(self.key, *self.nonces, big(shared))
        self.out, self.into = pair if self.client else pair[::-1]

    def shake(self, nonce=None, hello=None):
        """The whole handshake; `nonce` and `hello` change those messages on their way out."""
        self.sock.sendall(nonce(self.nonce) if nonce else self.nonce)
        self.take_nonce()
        if not self.client:
            self.take_hello()
        message = self.hello()
        self.sock.sendall(hello(message) if hello else message)
        if self.client:
            self.take_hello()
        self.derive()

    def take_packet(self):
        return self.into.open(self.receive(PACKET))


# --- self-tests -----------------------------------------------------------------------------------------


def vectors(path):
    """Recompute every value of the file of known answers."""
    cases, count = [], 0
    with open(path) as lines:
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
    for case in cases:
        get = lambda name: bytes.fromhex(case[name])
        key = hashlib.sha256(get("keyfile")).digest()
        nonces = get("nonce_C"), get("nonce_S")
        mac_keys = first_keys(key, *nonces)
        exponents = [int(case[x], 16) if case[x] != "-" else None for x in ("x_C", "x_S")]
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
                sys.exit("%s: %s differs" % (case["case"], name))
            count += 1
        for sender, number, data, wire in case["packets"]:
            direction = client if sender == "C" else server
            direction.number = int(number)
            if direction.seal(bytes.fromhex(data)).hex() != wire:
                sys.exit("%s: packet %s %s differs" % (case["case"], sender, number))
            direction.number = int(number)
            if direction.open(bytes.fromhex(wire)).hex() != data:
                sys.exit("%s: packet %s %s opens to something else" % (case["case"], sender, number))
            count += 1
    if not cases or not count:
        sys.exit("no cases in " + path)
    print("%d cases, %d values" % (len(cases), count))


def until(condition, what, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.01)


def upstream():
    """Talk to the installed spiped (we are the client) and spipe (we are the server)."""
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
                sys.exit("spiped %s: wrong data" % flags)
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
            sys.exit("spipe %s: wrong data" % flags)
        client.wait()
        os.unlink("server.sock")
    print("spiped and spipe understand us, and we them")


# --- running our programs -------------------------------------------------------------------------------

LIMIT = 10  # seconds that anything may take; SLOW=n (valgrind and the like) multiplies it
SLOW = float(os.environ.get("SLOW", "1"))
SECRET = b"a key file that is no secret at all, for it is in the tests"
SHARED = hashlib.sha256(SECRET).digest()
# A command that shows whether it ran, what it got, and whether it took the end for a good one.
RECORDER = ["sh", "-c", "echo >ran; cat >got; echo >finished"]


def tcp_pair():
    """Two ends of a TCP connection on loopback."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    one = socket.create_connection(listener.getsockname())
    two, _ = listener.accept()
    listener.close()
    for sock in one, two:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, two


def read_all(stderr):
    """
    What a program that has ended wrote to the pipe `stderr`. Its command has the same stderr: an end of file there
    means that all of them are gone, and that is waited for.
    """
    message, end = b"", time.monotonic() + 2 * SLOW
    while True:
        if not select.select([stderr], [], [], max(0, end - time.monotonic()))[0]:
            message += b"(a process outlived it)"
            break
        more = os.read(stderr, 65536)
        if not more:
            break
        message += more
    return message.decode(errors="replace")


class Subject:
    """One run of our program, with `wire` its encrypted connection and, without a command, `plain` its other."""

    def __init__(self, role, options=(), command=None, pair=tcp_pair, stderr=None):
        self.role = role
        self.wire, wire = pair()
        self.plain = plain = None
        if not (role == "dec" and command):
            self.plain, plain = pair()
        near, far = (wire, plain) if role == "dec" else (plain, wire)
        arguments = [os.environ[role.upper()], "-k", "secret", *options]
        if command:
            arguments += ["--", *command]
        else:
            os.dup2(far.fileno(), 6)
            os.dup2(far.fileno(), 7)
        read_error, write_error = os.pipe()
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            arguments, stdin=near, stdout=near, stderr=write_error, pass_fds=() if command else (6, 7)
        )
        os.close(write_error)
        self.stderr = read_error
        for fd in 6, 7:
            os.dup2(NULL, fd)
        for sock in wire, plain:
            if sock:
                sock.close()
        for sock in self.wire, self.plain:
            if sock:
                sock.settimeout(LIMIT * SLOW)

    def finish(self):
        """Wait for its end. Sets status, message (all of stderr) and seconds."""
        try:
            self.status = self.process.wait(LIMIT * SLOW)
            self.seconds = time.monotonic() - self.start
        except subprocess.TimeoutExpired:
            self.status, self.seconds = "hang", LIMIT
            self.process.kill()
            self.process.wait()
        self.message = read_all(self.stderr)
        os.close(self.stderr)

    def close(self):
        for sock in self.wire, self.plain:
            if sock:
                sock.close()


def drain(sock):
    """All that is still to come from a socket, and how it ended: 'end', 'reset' or 'open'."""
    data = b""
    try:
        while True:
            more = sock.recv(65536)
            if not more:
                return data, "end"
            data += more
    except ConnectionResetError:
        return data, "reset"
    except socket.timeout:
        return data, "open"


class Failures:
    """Counts the runs of a case and tells of each that went wrong."""

    def __init__(self, case):
        self.case, self.runs, self.failed = case, 0, 0

    def check(self, label, *problems):
        self.runs += 1
        problems = [p for p in problems if p]
        if problems:
            self.failed += 1
            print("%s: %s: %s" % (self.case, label, "; ".join(problems)))
            if self.failed >= 10:
                sys.exit("%s: enough" % self.case)


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


def refused(failures, label, role, act, wanted, options=(), least=0.0, most=3.0):
    """
    Run a handshake that must fail: act(peer, subject) is the peer's part. The command must not have run,
    nothing may reach the plaintext side, which (where it is a socket) must end.
    """
    command = ["sh", "-c", "echo >ran"] if role == "dec" else None
    if command and os.path.exists("ran"):
        os.unlink("ran")
    subject = Subject(role, options, command)
    peer = Peer(subject.wire, role == "dec", SHARED)
    sent = b""
    try:
        act(peer, subject)
        sent, _ = drain(subject.wire)
    except (Closed, ConnectionError):
        pass
    except socket.timeout:
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
    failures.check(label, *problems)
    subject.close()


def broken(failures, label, role, act, good, wanted, pfs=False, most=3.0, command=True):
    """
    Run a stream that must break: after a good handshake, act(peer, subject) plays the peer. Of the plaintext at
    most `good` may be delivered, and it must end in a break: the command killed, the socket reset.
    """
    command = RECORDER if role == "dec" and command else None
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
        problems.append("%d bytes delivered that are no part of the good %d" % (len(data), len(good)))
    if role == "dec" and subject.wire.fileno() != -1:
        _, end = drain(subject.wire)
        if end == "open":
            problems.append("the connection stayed open")
    failures.check(label, *problems)
    subject.close()


def clean(failures, label, role, act, expect):
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
    failures.check(
        label,
        wrong_status(subject, OK),
        "the plaintext side saw %s" % end if end != "end" else "",
        "%d bytes delivered, not the %d expected" % (len(data), len(expect)) if data != expect else "",
    )
    subject.close()


# --- the cases ------------------------------------------------------------------------------------------

CASES = {}


def case(function):
    """Register a case for both roles, as NAME-dec and NAME-enc."""
    name = function.__name__.replace("_", "-")
    for role in "dec", "enc":
        CASES["%s-%s" % (name, role)] = (function, role)
    return function


def flip(message, offset, mask=None):
    """`message` with one bit changed in the byte at `offset` (which bit: depends on the offset)."""
    changed = bytearray(message)
    changed[offset] ^= mask or 1 << (offset * 5 + offset // 8) % 8
    return bytes(changed)


@case
def wrong_key(failures, role):
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
            refused(failures, "pfs %s, options %s" % (pfs, options), role, act(pfs), (REFUSED,), options)


@case
def flipped_nonce(failures, role):
    """Every byte of our nonce is changed on the way."""
    for offset in range(NONCE):

        def act(peer, _):
            peer.sock.sendall(flip(peer.nonce, offset))
            peer.take_nonce()
            peer.sock.sendall(peer.hello())

        refused(failures, "byte %d" % offset, role, act, (REFUSED,))


@case
def flipped_hello(failures, role):
    """Every byte of the 288 that prove the key is changed on the way."""
    for offset in range(HELLO):

        def act(peer, _):
            peer.sock.sendall(peer.nonce)
            peer.take_nonce()
            peer.sock.sendall(flip(peer.hello(), offset))

        refused(failures, "byte %d" % offset, role, act, (REFUSED,))


@case
def chosen_y(failures, role):
    """y at and around the limits of its range, with a right MAC."""
    for y, name in (0, "0"), (1, "1"), (P - 1, "p-1"), (P, "p"), (P + 1, "p+1"), (2**2048 - 1, "2^2048-1"):
        for options in (), ("-g",), ("-f",):
            if y < P and options != ("-g",):
                continue

            def act(peer, _):
                peer.sock.sendall(peer.nonce)
                peer.take_nonce()
                peer.sock.sendall(peer.hello(y))

            refused(failures, "y = %s, options %s" % (name, options), role, act, (REFUSED,), options)
    # Without -g these are no error, as for spiped; the shared value follows from y.
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
        failures.check(
            "y = %s without -g" % name, wrong_status(subject, OK), "" if accepted else "not the keys of that y"
        )
        subject.close()


@case
def no_pfs_refused(failures, role):
    """-g against a peer that is as -f makes it."""

    def act(peer, _):
        peer.shake()

    refused(failures, "-g", role, act, (REFUSED,), ("-g",))
    refused(failures, "long options", role, act, (REFUSED,), ("--require-pfs",))


@case
def in_pieces(failures, role):
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
        failures.check(
            "pieces of %d" % size,
            wrong_status(subject, OK),
            "plaintext side saw %s" % end if end != "end" else "",
            "wrong data" if got != data else "",
        )
        subject.close()


@case
def not_spiped(failures, role):
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

        refused(failures, "%d bytes, %r" % (len(data), data[:16]), role, act, (REFUSED, LOST))
    # The same from one that then resets the connection.
    for data in noise[:3]:

        def act_reset(peer, _):
            peer.sock.sendall(data)
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.sock.close()
            raise Closed

        refused(failures, "%d bytes and a reset" % len(data), role, act_reset, (REFUSED, LOST))


@case
def reflected_handshake(failures, role):
    """Everything that our program sends comes back to it."""

    def act(peer, _):
        while True:
            data = peer.sock.recv(65536)
            if not data:
                raise Closed
            peer.sock.sendall(data)

    # spipe-dec waits for 288 bytes that nobody has: it is the deadline that ends it.
    wanted, options = ((TIMEOUT,), ("-o", "0.3")) if role == "dec" else ((REFUSED,), ())
    refused(failures, "echo", role, act, wanted, options)


@case
def cut_handshake(failures, role):
    """The peer ends the connection after every offset of its part of the handshake."""
    for offset in range(NONCE + HELLO):

        def act(peer, _):
            peer.sock.sendall(peer.nonce[:offset])
            if offset > NONCE:
                peer.take_nonce()
                peer.sock.sendall(peer.hello()[: offset - NONCE])
            peer.sock.shutdown(socket.SHUT_WR)

        refused(failures, "after %d bytes" % offset, role, act, (REFUSED,))


@case
def silence(failures, role):
    """The peer falls silent, or sends a byte now and then: one deadline for all of it."""
    for offset in 0, 1, NONCE - 1, NONCE, NONCE + 1, NONCE + Y, NONCE + HELLO - 1:

        def act(peer, _):
            peer.sock.sendall(peer.nonce[:offset])
            if offset > NONCE:
                peer.take_nonce()
                peer.sock.sendall(peer.hello()[: offset - NONCE])

        refused(failures, "after %d bytes" % offset, role, act, (TIMEOUT,), ("-o", "0.3"), 0.3, 1.3)

    def trickle(peer, subject):
        peer.sock.settimeout(0.05)
        for byte in peer.nonce + bytes(HELLO):
            try:
                peer.sock.sendall(bytes([byte]))
                if not peer.sock.recv(65536):
                    raise Closed
            except socket.timeout:
                pass

    refused(failures, "a byte every 50 ms", role, trickle, (TIMEOUT,), ("-o", "0.5"), 0.5, 1.5)

    def deaf(peer, subject):
        """Nothing is read: our program must not wait for that either."""
        peer.sock.sendall(peer.nonce)
        subject.process.wait(LIMIT)

    refused(failures, "deaf", role, deaf, (TIMEOUT,), ("-o", "0.3"), 0.3, 1.3)


@case
def after_the_deadline(failures, role):
    """The deadline ends with the handshake: silence after it is no error."""
    subject = Subject(role, ("-o", "0.3"))
    peer = Peer(subject.wire, role == "dec", SHARED)
    peer.shake()
    time.sleep(0.6)  # longer than the deadline: the time itself is what is tested
    subject.wire.sendall(peer.out.seal(b"late"))
    got = subject.plain.recv(100)
    subject.wire.shutdown(socket.SHUT_WR)
    subject.plain.shutdown(socket.SHUT_WR)
    subject.finish()
    failures.check("late", wrong_status(subject, OK), "" if got == b"late" else "got %r" % got)
    subject.close()


def length_block(length, data=b"x" * DATA):
    return data + struct.pack(">I", length)


@case
def lengths(failures, role):
    """Lengths out of range with a right MAC; every one in range; and padding that is not zero."""
    for length in 0, 1025, 1028, 1060, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1024, 2**32 - 1:
        for before in 0, 3:

            def act(peer, _):
                good = peer.out.seal_all(b"g" * DATA * before)
                peer.sock.sendall(good + peer.out.seal_raw(length_block(length), before))

            broken(failures, "%d after %d" % (length, before), role, act, b"g" * DATA * before, (TAMPERED,))

    data = os.urandom(DATA)
    expect = b"".join(data[:n] for n in range(1, DATA + 1))

    def every(peer, _):
        wire = b"".join(peer.out.seal_raw(length_block(n, data), n - 1) for n in range(1, DATA + 1))
        peer.sock.sendall(wire)

    clean(failures, "every length, padding not zero", role, every, expect)


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


@case
def flipped_packet(failures, role):
    """One bit anywhere in a packet: the first or second of three sent at once, or one that comes alone."""
    good = os.urandom(2 * DATA)
    for offset in range(PACKET):
        which = offset % 3

        def act(peer, subject):
            wire = peer.out.seal_all(good) + peer.out.seal(b"evil")
            if which == 2:
                peer.sock.sendall(wire[: 2 * PACKET])
                delivered(subject, good)
                peer.sock.sendall(flip(wire[2 * PACKET :], offset))
            else:
                peer.sock.sendall(flip(wire, which * PACKET + offset))

        broken(failures, "byte %d of packet %d" % (offset, which), role, act, good[: which * DATA], (TAMPERED,))


@case
def order(failures, role):
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

            broken(failures, "%s, at once: %s" % (name, at_once), role, act, data[: count * DATA], (TAMPERED,))

    def other(peer, _):
        stranger = directions(peer.key, os.urandom(NONCE), os.urandom(NONCE), big(1))[0]
        peer.sock.sendall(stranger.seal(b"from another connection"))

    broken(failures, "another connection's", role, other, b"", (TAMPERED,))


@case
def reflected_packet(failures, role):
    """What our program sends comes back to it."""
    for count in 1, 3:

        def act(peer, subject):
            subject.plain.sendall(b"r" * DATA * count)
            packets = peer.receive(PACKET * count)
            peer.sock.sendall(packets)

        broken(failures, "%d packets" % count, role, act, b"", (TAMPERED,), command=False)


@case
def cut_packet(failures, role):
    """The peer's stream ends after every offset of a packet."""
    good = os.urandom(DATA + 100)
    for offset in range(1, PACKET):
        before = offset % 3

        def act(peer, _):
            wire = peer.out.seal_all(good) + peer.out.seal(b"never whole")
            peer.sock.sendall(wire[: before * PACKET + offset])
            peer.sock.shutdown(socket.SHUT_WR)

        expect = (b"", good[:DATA], good)[before]
        broken(failures, "%d bytes of packet %d" % (offset, before), role, act, expect, (TAMPERED,))


@case
def cut_between(failures, role):
    """An end between packets is a good end, and everything before it is delivered."""
    data = os.urandom(70 * DATA)
    for count in 0, 1, 2, 3, 16, 17, 64, 65, 70:

        def act(peer, _):
            peer.sock.sendall(peer.out.seal_all(data[: count * DATA]))

        clean(failures, "%d packets" % count, role, act, data[: count * DATA])


@case
def broken_after_end(failures, role):
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

        broken(failures, name, role, act, b"good", wanted, command=False)


def reset(sock):
    """End a TCP connection with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@case
def reset_wire(failures, role):
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
                broken(failures, label, role, act, b"", (LOST, TAMPERED), command=command, most=1.0)
            elif name == "after its end":
                reset_after_end(failures, label, role, act)
            else:
                broken(failures, label, role, act, b"d" * 5000, (LOST,), command=command, most=1.0)


def reset_after_end(failures, label, role, act):
    """The plaintext side has had its good end, so nothing more can be told to it but that we are gone."""
    subject = Subject(role)
    peer = Peer(subject.wire, role == "dec", SHARED)
    peer.shake()
    act(peer, subject)
    start = time.monotonic()
    subject.finish()
    failures.check(
        label,
        wrong_status(subject, LOST),
        "took %.2f s" % (time.monotonic() - start) if time.monotonic() - start > SLOW else "",
    )
    subject.close()


@case
def reset_plain(failures, role):
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
        failures.check(
            name,
            wrong_status(subject, LOST),
            "took %.2f s" % (time.monotonic() - start) if time.monotonic() - start > SLOW else "",
            # A good end cannot be taken back.
            "the peer saw %s" % end if end != "reset" and name != "after its end" else "",
        )
        subject.close()


@case
def broken_with_children(failures, role):
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
                subject.wire.close()
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
            failures.check("%s, %s" % (how, script), *problems)
            sock.close()
            subject.close()
        if role == "enc":
            break


# --- main -----------------------------------------------------------------------------------------------


def run_cases(names):
    global NULL
    # 6 and 7 are for our programs' UCSPI descriptors: nothing else may come to lie there.
    NULL = fcntl.fcntl(os.open("/dev/null", os.O_RDWR), fcntl.F_DUPFD_CLOEXEC, 10)
    for fd in 6, 7:
        os.dup2(NULL, fd)
    with open("secret", "wb") as f:
        os.fchmod(f.fileno(), 0o600)
        f.write(SECRET)
    failed = 0
    for name in names:
        function, role = CASES[name]
        failures = Failures(name)
        start = time.monotonic()
        function(failures, role)
        print("%s: %d runs, %d failed, %.1f s" % (name, failures.runs, failures.failed, time.monotonic() - start))
        failed += failures.failed or (failures.runs == 0)
    return 1 if failed else 0


def main():
    if sys.argv[1:2] == ["vectors"] and len(sys.argv) == 3:
        return vectors(sys.argv[2])
    if sys.argv[1:] == ["upstream"]:
        return upstream()
    if sys.argv[1:] == ["list"]:
        return print("\n".join(CASES))
    if sys.argv[1:2] == ["case"] and len(sys.argv) > 2:
        return run_cases(sys.argv[2:])
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
