#!/usr/bin/python3
"""What the two programs do with one connection, with a socket of ours at each end of it.

    app --- spipe-enc === spipe-dec --- service

`app` and `service` are our sockets; the programs have their far sides as descriptors 6 and 7.
"""

import errno
import fcntl
import hashlib
import os
import pty
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import tty

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../helpers"))
import start
from peer import LIMIT, PROMPT, SHARED, SLOW, Peer, drain, read_all, reset, tcp_pair
from start import Listener, Started, connected, each_way, listening, no_delay, place, said, serving
from suite import Skip, Wrong, case, expect, far_side, main

MEMORY = 16384 if SLOW == 1 else 1 << 20  # KiB that a program may have; instrumented ones take what they need


def spawn(role, near, far=None, command=(), options=(), stderr=None, wrap=(), pass_fds=(), **more):
    """
    Start a program. near: its stdin and stdout, one object for both or a pair; far: descriptors 6 and 7, alike;
    wrap: a command that is to start it.
    """
    arguments = [*wrap, os.environ[role.upper()], "-k", "secret", *options]
    if command:
        arguments += ["--", *command]
    stdin, stdout = near if isinstance(near, tuple) else (near, near)
    with far_side(far, unless=far is None) as passed:
        process = subprocess.Popen(
            arguments, stdin=stdin, stdout=stdout, stderr=stderr or subprocess.PIPE, pass_fds=(*pass_fds, *passed), **more
        )
    process.role = role
    return process


def finish(process, *wanted, seconds=LIMIT, says=None):
    """Wait for a program's end: one of these statuses, within that time, with what it said."""
    try:
        status = process.wait(seconds * SLOW)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Wrong("spipe-%s did not end within %g s" % (process.role, seconds)) from None
    message = said(process) if process.stderr else ""
    if status not in wanted:
        raise Wrong("spipe-%s: status %s, not %s; %r" % (process.role, status, wanted, message))
    if status == 0 and message:
        raise Wrong("spipe-%s was clean, but said %r" % (process.role, message))
    if status > 0 and process.stderr:
        if message.count("\n") != 1 or not message.startswith("spipe-%s: " % process.role):
            raise Wrong("spipe-%s: status %s with %r" % (process.role, status, message))
    if says and says not in message:
        raise Wrong("spipe-%s: nothing of %r in %r" % (process.role, says, message))
    return message


def listener(role, near, far, options):
    """Start a program that listens at `near` and connects to `far`, which are sockets that listen."""
    process = Listener([os.environ[role.upper()], "-k", "secret", *options, "-t", place(far)], near)
    process.role = role
    return process


class Tunnel:
    """Both programs, joined. `make` makes each pair of sockets."""

    def __init__(self, make=tcp_pair, options=()):
        if start.listens:
            service, wire, app = listening(make), listening(), listening(make)
            self.dec = listener("dec", wire, service, options)
            self.enc = listener("enc", app, wire, options)
            self.app = connected(app)
            self.service = service.accept()[0]
            no_delay(self.service)
            service.close()
        else:
            self.app, near = make()
            enc_wire, dec_wire = tcp_pair()
            self.service, far = make()
            self.dec = spawn("dec", dec_wire, far, options=options)
            self.enc = spawn("enc", near, enc_wire, options=options)
            for sock in near, enc_wire, dec_wire, far:
                sock.close()
        for sock in self.app, self.service:
            sock.settimeout(LIMIT * SLOW)

    def finish(self, enc, dec, seconds=2.0):
        """Both end with these statuses (a number, or several), soon."""
        begin = time.monotonic()
        for process, wanted in (self.enc, enc), (self.dec, dec):
            finish(process, *(wanted if isinstance(wanted, tuple) else (wanted,)),
                   seconds=max(0.1, begin + seconds - time.monotonic()))


def get(sock, size):
    """Exactly so many bytes."""
    data = bytearray()
    while len(data) < size:
        more = sock.recv(min(1 << 18, size - len(data)))
        if not more:
            raise Wrong("an end after %d of %d bytes" % (len(data), size))
        data += more
    return bytes(data)


def put(sock, data):
    """Send in the background, so that the test can go on reading."""
    thread = threading.Thread(target=sock.sendall, args=(data,), daemon=True)
    thread.start()
    return thread


def ended(sock):
    """The other side's clean end, at once."""
    data, how = drain(sock)
    expect("the end", (data, how), (b"", "end"))


def nothing(sock, seconds=0.3):
    """Nothing comes, not even an end, for that time."""
    if select.select([sock], [], [], seconds)[0]:
        raise Wrong("not silent: %r" % (drain(sock),))


def memory(process):
    """Resident memory, KiB."""
    with open("/proc/%d/status" % serving(process)) as lines:
        for line in lines:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    raise Wrong("no VmRSS")


def ends(tunnel):
    return (tunnel.app, tunnel.service), (tunnel.service, tunnel.app)


# --- ends -----------------------------------------------------------------------------------------------


def half_close(which):
    """One side ends first; the other goes on, falls silent, goes on, and ends."""
    for make in tcp_pair, socket.socketpair:
        tunnel = Tunnel(make)
        first, second = ends(tunnel)[which]
        first.sendall(b"question")
        first.shutdown(socket.SHUT_WR)
        expect("the question", get(second, 8), b"question")
        ended(second)
        nothing(first)
        second.sendall(b"late answer")
        expect("the answer", get(first, 11), b"late answer")
        nothing(first)
        data = os.urandom(3000000)
        sender = put(second, data)
        if get(first, len(data)) != data:
            raise Wrong("data differs")
        sender.join()
        second.shutdown(socket.SHUT_WR)
        ended(first)
        tunnel.finish(0, 0, seconds=PROMPT)


@each_way(case)
def half_close_app_first():
    """The client ends first, and a late reply comes."""
    half_close(0)


@each_way(case)
def half_close_service_first():
    """The service ends first, and the client goes on."""
    half_close(1)


@each_way(case)
def end_follows_data():
    """An end right behind much data: everything is delivered before it, in both directions."""
    for size in 0, 1, 1024, 65536, 5000000:
        tunnel = Tunnel()
        data = os.urandom(size), os.urandom(size)
        results = [None, None]

        def receive(i, sock):
            results[i] = drain(sock)

        threads = []
        for i, (sock, block) in enumerate(((tunnel.app, data[0]), (tunnel.service, data[1]))):
            def send(sock=sock, block=block):
                sock.sendall(block)
                sock.shutdown(socket.SHUT_WR)
            threads += [threading.Thread(target=send), threading.Thread(target=receive, args=(i, sock))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if results != [(data[1], "end"), (data[0], "end")]:
            raise Wrong("%d bytes: got %s" % (size, [(len(r[0]), r[1]) for r in results]))
        tunnel.finish(0, 0, seconds=PROMPT)


@each_way(case)
def close_at_once():
    """A client that connects and closes at once."""
    for which in 0, 1:
        tunnel = Tunnel()
        first, second = ends(tunnel)[which]
        first.close()
        ended(second)
        second.close()
        tunnel.finish(0, 0, seconds=PROMPT)


@each_way(case)
def no_delay_at_the_end():
    """After the last byte both programs are gone at once."""
    for _ in range(5):
        tunnel = Tunnel()
        tunnel.app.sendall(b"ping")
        get(tunnel.service, 4)
        tunnel.app.shutdown(socket.SHUT_WR)
        ended(tunnel.service)
        tunnel.service.shutdown(socket.SHUT_WR)
        ended(tunnel.app)
        tunnel.finish(0, 0, seconds=PROMPT)


# --- flow -----------------------------------------------------------------------------------------------


@each_way(case)
def only_writing():
    """Both sides write as much as they can and read nothing; then both read, and all is there."""
    tunnel = Tunnel()
    data = os.urandom(16 << 20), os.urandom(16 << 20)
    senders = [put(tunnel.app, data[0]), put(tunnel.service, data[1])]
    for process in tunnel.enc, tunnel.dec:
        stable(lambda process=process: open("/proc/%d/io" % serving(process)).read())
    for process in tunnel.enc, tunnel.dec:
        if memory(process) > MEMORY:
            raise Wrong("spipe-%s: %d KiB of memory" % (process.role, memory(process)))
    results = [None, None]

    def receive(i, sock):
        results[i] = get(sock, 16 << 20)

    receivers = [
        threading.Thread(target=receive, args=(0, tunnel.service)),
        threading.Thread(target=receive, args=(1, tunnel.app)),
    ]
    for thread in receivers:
        thread.start()
    for thread in receivers + senders:
        thread.join()
    if results != list(data):
        raise Wrong("data differs")
    tunnel.app.shutdown(socket.SHUT_WR)
    tunnel.service.shutdown(socket.SHUT_WR)
    tunnel.finish(0, 0)


def stable(read, seconds=0.3):
    """Wait until what read() returns has not changed for that long."""
    last, since, start = read(), time.monotonic(), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.02)
        now = read()
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - start > LIMIT * SLOW:
            raise Wrong("it never comes to rest")


@each_way(case)
def both_ways_randomly():
    """Writes and reads of random sizes, both ways at once."""
    import random

    dice = random.Random(1)
    tunnel = Tunnel()
    sums = [hashlib.sha256() for _ in range(4)]

    def send(sock, digest, total):
        while total:
            block = os.urandom(min(total, dice.choice((1, 10, 1023, 1024, 1025, 4000, 70000, 300000))))
            digest.update(block)
            sock.sendall(block)
            total -= len(block)
        sock.shutdown(socket.SHUT_WR)

    def receive(sock, digest):
        while True:
            block = sock.recv(dice.choice((1, 100, 5000, 100000)))
            if not block:
                return
            digest.update(block)

    threads = [
        threading.Thread(target=send, args=(tunnel.app, sums[0], 8 << 20)),
        threading.Thread(target=receive, args=(tunnel.service, sums[1])),
        threading.Thread(target=send, args=(tunnel.service, sums[2], 8 << 20)),
        threading.Thread(target=receive, args=(tunnel.app, sums[3])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    digests = [s.digest() for s in sums]
    if digests[0] != digests[1] or digests[2] != digests[3]:
        raise Wrong("data differs")
    tunnel.finish(0, 0)


def stalled(which):
    """A reader that stalls for seconds: memory is bounded, the writer waits, and nothing is lost."""
    tunnel = Tunnel()
    writer, reader = ends(tunnel)[which]
    writer.setblocking(False)
    digest, block, sent = hashlib.sha256(), os.urandom(65536), 0
    end = time.monotonic() + 3  # the stall: time is what is tested
    while time.monotonic() < end:
        if select.select([], [writer], [], 0.1)[1]:
            try:
                n = writer.send(block)
            except BlockingIOError:
                continue
            digest.update(block[:n])
            sent += n
            if sent > 256 << 20:
                raise Wrong("more than 256 MiB were taken while nobody read")
    for process in tunnel.enc, tunnel.dec:
        if memory(process) > MEMORY:
            raise Wrong("spipe-%s: %d KiB of memory" % (process.role, memory(process)))
    # The other direction is not held up by this one.
    reader.sendall(b"still here")
    writer.setblocking(True)
    writer.settimeout(LIMIT)
    expect("the other direction", get(writer, 10), b"still here")
    writer.shutdown(socket.SHUT_WR)
    got = hashlib.sha256()
    while True:
        data = reader.recv(1 << 18)
        if not data:
            break
        got.update(data)
    if got.digest() != digest.digest():
        raise Wrong("data differs")
    reader.close()
    ended(writer)
    tunnel.finish(0, 0)


@each_way(case)
def stalled_service():
    stalled(0)


@each_way(case)
def stalled_app():
    stalled(1)


@each_way(case)
def tiny_writes():
    """1-byte writes, and answers to each."""
    tunnel = Tunnel()
    for sock in tunnel.app, tunnel.service:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(1000):
        tunnel.app.sendall(bytes([i % 256]))
        expect("byte", tunnel.service.recv(10), bytes([i % 256]))
        tunnel.service.sendall(bytes([i % 251]))
        expect("answer", tunnel.app.recv(10), bytes([i % 251]))
    data = os.urandom(5000)
    for byte in data:
        tunnel.app.sendall(bytes([byte]))
    if get(tunnel.service, len(data)) != data:
        raise Wrong("data differs")
    tunnel.app.close()
    tunnel.service.close()
    tunnel.finish(0, 0)


@each_way(case)
def promptness():
    """A small message is passed on at once: nothing waits for more to come."""
    tunnel = Tunnel()
    tunnel.app.sendall(b"x")
    get(tunnel.service, 1)
    times = []
    for _ in range(50):
        start = time.monotonic()
        tunnel.app.sendall(b"x")
        get(tunnel.service, 1)
        tunnel.service.sendall(b"x")
        get(tunnel.app, 1)
        times.append(time.monotonic() - start)
    if sorted(times)[25] > 0.02 * SLOW:
        raise Wrong("a round trip took %.1f ms" % (sorted(times)[25] * 1000))
    tunnel.app.close()
    tunnel.service.close()
    tunnel.finish(0, 0)


# --- losses ---------------------------------------------------------------------------------------------


def lost(which, how):
    """One side is reset: the other is reset too, unless it has ended cleanly before, and both programs end at once."""
    tunnel = Tunnel()
    first, second = ends(tunnel)[which]
    first.sendall(b"hello")
    get(second, 5)
    had_end = False
    if how == "after its end":
        first.shutdown(socket.SHUT_WR)
        ended(second)
        had_end = True
    elif how == "after the other's end":
        second.shutdown(socket.SHUT_WR)
        ended(first)
    elif how == "in a flood":
        second.setblocking(False)
        try:
            while True:
                second.send(bytes(65536))
        except BlockingIOError:
            second.settimeout(LIMIT * SLOW)
    reset(first)
    if not had_end:
        _, end = drain(second)
        expect("the other side saw", end, "reset")
    tunnel.finish(74, (74, 76), seconds=PROMPT) if which == 0 else tunnel.finish((74, 76), 74, seconds=PROMPT)


for _which, _name in (0, "app"), (1, "service"):
    for _how in "while all is silent", "after its end", "after the other's end", "in a flood":
        each_way(case)(lost, "%s-reset-%s" % (_name, _how.replace(" ", "-").replace("'", "")), _which, _how)


@each_way(case)
def close_with_unread():
    """A side that closes with unread data resets its connection; the other side must be reset, too."""
    for which in 0, 1:
        tunnel = Tunnel()
        first, second = ends(tunnel)[which]
        second.sendall(b"never read")
        first.recv(1)
        first.close()
        _, end = drain(second)
        expect("the other side saw", end, "reset")
        for process in tunnel.enc, tunnel.dec:
            finish(process, 74, 76, seconds=PROMPT)


def signalled(number):
    """A signal ends the program, by that signal, and neither side sees a clean end."""
    for victim in "enc", "dec":
        tunnel = Tunnel()
        tunnel.app.sendall(b"x")
        get(tunnel.service, 1)
        process, other = (tunnel.enc, tunnel.dec) if victim == "enc" else (tunnel.dec, tunnel.enc)
        process.send_signal(number)
        own, away = (tunnel.app, tunnel.service) if victim == "enc" else (tunnel.service, tunnel.app)
        expect("its plaintext side saw", drain(own), (b"", "reset"))
        expect("the far plaintext side saw", drain(away), (b"", "reset"))
        expect("its status", process.wait(3 * SLOW), -number)
        message = said(process)
        if message and (message.count("\n") != 1 or not message.startswith("spipe-%s: " % victim)):
            raise Wrong("stderr was %r" % message)
        finish(other, 74, seconds=PROMPT)


for _signal in "TERM", "INT", "HUP":
    each_way(case)(signalled, "signal-" + _signal, getattr(signal, "SIG" + _signal))


@each_way(case)
def every_death_is_a_break():
    """The same for every other signal that ends a process, even those that cannot be caught."""
    # AddressSanitizer would handle some of them.
    os.environ["ASAN_OPTIONS"] += ":" + ":".join("handle_%s=0" % name for name in (
        "segv", "sigbus", "sigfpe", "sigill", "sigtrap", "abort"))
    for name in "KILL SEGV BUS FPE ILL TRAP ABRT SYS ALRM USR2 XCPU XFSZ VTALRM PROF IO PWR STKFLT".split():
        if name != "USR2" or not start.listens:  # with that, listeners have strangers make room
            signalled(getattr(signal, "SIG" + name))
    signalled(signal.SIGRTMIN)
    signalled(signal.SIGRTMIN + 7)


@case
def file_size_limit():
    """A near side that is a file at its size limit: a break, not an end."""
    with open(os.environ["ENC"], "rb") as program:
        if b"__gcov_dump" in program.read():
            raise Skip("this build writes counts of lines, to larger files")
    wire, far = tcp_pair()
    wire.settimeout(LIMIT * SLOW)
    silent, _open = os.pipe()
    with open("output", "wb") as output:
        enc = spawn("enc", (silent, output), far,
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))
    far.close()
    server = Peer(wire, False, SHARED)
    server.shake()
    wire.sendall(server.out.seal_all(bytes(3000)))
    expect("the server saw", drain(wire)[1], "reset")
    finish(enc, 74, says="File too large")


@each_way(case)
def urgent_data():
    """An urgent byte comes in its place in the stream, both ways, over TCP and, where it exists, UNIX sockets."""
    for make in tcp_pair, socket.socketpair:
        tunnel = Tunnel(make)
        try:
            for one, two in ends(tunnel):
                one.sendall(b"before")
                one.send(b"!", socket.MSG_OOB)
                one.sendall(b"after")
                expect("the stream", get(two, 12), b"before!after")
        except OSError as error:
            if make == tcp_pair or error.errno != errno.EOPNOTSUPP:
                raise
        for sock in tunnel.app, tunnel.service:
            sock.shutdown(socket.SHUT_WR)
        tunnel.finish(0, 0)


def linger(sock):
    return struct.unpack("ii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))


@case
def socket_options():
    """Network sockets on both sides have no delay, keep-alives unless refused, and are reset unless the end is clean."""
    for role in "enc", "dec":
        for options, keepalive in ((), True), (("-j",), False):
            outer, near = tcp_pair()
            far, away = tcp_pair()
            for sock in near, far:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            process = spawn(role, near, far, options=options)
            wire, plain = (away, outer) if role == "enc" else (outer, away)
            wire.settimeout(LIMIT * SLOW)
            peer = Peer(wire, role == "dec", SHARED)
            peer.shake()
            plain.shutdown(socket.SHUT_WR)
            ended(wire)
            for sock in near, far:
                expect("TCP_NODELAY", bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)), True)
                expect("SO_KEEPALIVE", bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)), keepalive)
                expect("SO_LINGER", linger(sock), (1, 0))
            wire.shutdown(socket.SHUT_WR)
            finish(process, 0)
            for sock in near, far:
                expect("SO_LINGER after the end", linger(sock)[0], 0)


# --- the command ----------------------------------------------------------------------------------------


def with_command(command, options=()):
    """spipe-dec with a command, and the client's side of it: (client socket, spipe-enc, spipe-dec)."""
    app, near = tcp_pair()
    dec = Started("dec", options, command)
    dec.near.settimeout(None)
    enc = spawn("enc", near, dec.near)
    near.close()
    dec.near.close()
    app.settimeout(LIMIT * SLOW)
    dec.process.role = "dec"
    return app, enc, dec.process


@each_way(case)
def every_signal_is_a_break():
    """Whatever signal ends us, the command is killed before its input ends: it never finishes its work."""
    for number in signal.SIGTERM, signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR2, signal.SIGXCPU:
        if number == signal.SIGUSR2 and start.listens:
            continue
        signal.signal(number, signal.SIG_DFL)  # a shell's background job ignores some, and so would ours
        app, enc, dec = with_command(["sh", "-c", "head -c 1; cat >/dev/null; touch finished"])
        app.sendall(b"x")
        expect("echo", get(app, 1), b"x")
        dec.send_signal(number)
        finish(dec, -number)
        finish(enc, 74, 76)
        if os.path.exists("finished"):
            raise Wrong("signal %d showed the command a clean end" % number)
        app.close()


PASSES_AND_STAYS = """
import array, fcntl, socket, struct, sys, time
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as far, socket.socket(fileno=1) as out:
    socket.send_fds(out, [b"x"], [far.fileno()])
    while struct.unpack("i", fcntl.ioctl(out, 0x5411, b"    "))[0] > 0:  # SIOCOUTQ: not received yet
        time.sleep(0.001)
open("passed", "w").close()
time.sleep(100)
"""


@case
def killed_before_a_passed_socket_is_used():
    """With -p: killed while the command that passed back the socket has not ended yet, we still break the far side."""
    with listening() as sock, tempfile.TemporaryDirectory() as place:
        app, near = tcp_pair()
        with open("secret", "rb") as key, open(place + "/secret", "wb") as copy:
            copy.write(key.read())
        enc = spawn("enc", near, command=["/usr/bin/python3", "-c", PASSES_AND_STAYS, str(sock.getsockname()[1])],
                    options=["-p", "-o", "60"], cwd=place)
        far = sock.accept()[0]
        far.settimeout(LIMIT * SLOW)
        while not os.path.exists(place + "/passed"):
            time.sleep(0.01)
        enc.kill()
        expect("the far side", drain(far), (b"", "reset"))
        finish(enc, -signal.SIGKILL)
        app.close()


@case
def signal_in_a_flood():
    """A signal is noticed although there is always something to read, and the flood takes most of the CPU."""
    client, wire = tcp_pair()
    cpu = {min(os.sched_getaffinity(0))}
    zero, null = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_RDWR)
    enc = spawn("enc", (zero, null), client,
                preexec_fn=lambda: os.sched_setaffinity(0, cpu))
    dec = spawn("dec", wire, null,
                preexec_fn=lambda: (os.sched_setaffinity(0, cpu), os.nice(19)))
    client.close()
    wire.close()
    while int(open("/proc/%d/stat" % dec.pid).read().rsplit(")", 1)[1].split()[11]) < 30:
        time.sleep(0.01)  # until 0.3 s of CPU are spent on it
    dec.send_signal(signal.SIGTERM)
    finish(dec, -signal.SIGTERM, seconds=PROMPT)
    finish(enc, 74)


@each_way(case)
def nobody_left_to_read():
    """A command writes much and exits while a slow client still sends: if not all of it arrives, the end is not clean."""
    size = 300000
    client, _, dec = dec_alone(["head", "-c", str(size), "/dev/zero"])
    wire = client.sock
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    begin, talked, got = time.monotonic(), False, 0
    try:
        while got < size:
            got += len(client.take_packet())
            if time.monotonic() - begin > 2.6 and not talked:
                wire.sendall(client.out.seal(b"still here"))
                talked = True
            time.sleep(0 if talked else 0.02)
    except ConnectionResetError:
        finish(dec, 74, seconds=5)
        return
    wire.close()
    finish(dec, 0, 74, seconds=5)


@each_way(case)
def command_fails_at_the_end():
    """A command's failure is reported, after everything it said was delivered."""
    for script, words in (
        ("cat; exit 3", "3"),
        ("cat; kill -9 $$", "kill"),
        ("exit 7", "7"),
        ("cat >/dev/null; printf bye; exit 255", "255"),
    ):
        app, enc, dec = with_command(["sh", "-c", script])
        app.shutdown(socket.SHUT_WR)
        # Whether a failure after the last byte is a break for the client is not promised: the bytes are.
        data, _ = drain(app)
        expect("what it said", data, b"bye" if "bye" in script else b"")
        finish(dec, 69, seconds=PROMPT, says=words)
        finish(enc, 0, 74, 76, seconds=PROMPT)


@each_way(case)
def command_ends_with_unread_input():
    """A command that exits while the client still sends: the client is not left hanging."""
    app, enc, dec = with_command(["sh", "-c", "head -c 10 >/dev/null; printf enough"])
    app.settimeout(5 * SLOW)
    try:
        for _ in range(2000):
            app.sendall(bytes(65536))
        raise Wrong("the client could send 128 MB to nobody")
    except ConnectionError:
        pass
    except socket.timeout:
        raise Wrong("the client was left hanging") from None
    finish(dec, 74, seconds=2.0)
    finish(enc, 74, 76, seconds=2.0)


@each_way(case)
def command_ends_but_not_its_input():
    """A command that has said everything and exits ends the connection, with the client silent but open."""
    app, enc, dec = with_command(["sh", "-c", "printf done"])
    data, how = drain(app)
    expect("the client got", (data, how), (b"done", "end"))
    app.close()
    finish(dec, 0, seconds=2.0)
    finish(enc, 0, seconds=2.0)


@each_way(case)
def command_half_closes():
    """A command that ends its output and goes on reading."""
    code = (
        "import os,socket; s=socket.socket(fileno=0); s.sendall(b'bye'); s.shutdown(socket.SHUT_WR)\n"
        "open('got','wb').write(b''.join(iter(lambda: s.recv(65536), b'')))"
    )
    app, enc, dec = with_command([sys.executable, "-c", code])
    expect("the client got", drain(app), (b"bye", "end"))
    data = os.urandom(300000)
    app.sendall(data)
    app.shutdown(socket.SHUT_WR)
    finish(dec, 0)
    finish(enc, 0)
    with open("got", "rb") as f:
        if f.read() != data:
            raise Wrong("data differs")


@each_way(case)
def command_outlives_its_ends():
    """Both directions have ended but the command stays: it is given two seconds, then killed, and named."""
    code = "import socket,time; s=socket.socket(fileno=0); s.recv(1); s.shutdown(2); time.sleep(60)"
    app, enc, dec = with_command([sys.executable, "-c", code])
    app.shutdown(socket.SHUT_WR)
    start = time.monotonic()
    expect("the client got", drain(app)[0], b"")
    finish(dec, 69, seconds=4.0)
    if time.monotonic() - start < 1:
        raise Wrong("it was given %.1f s" % (time.monotonic() - start))
    finish(enc, 0, 74)


# What is not ours to handle.
OTHERS = {getattr(signal, "SIG" + name) for name in
          "SEGV BUS FPE ILL TRAP ABRT SYS PIPE TSTP TTIN TTOU CONT URG WINCH".split()}


@case
def blocked_signals_are_let_in():
    """Started with signals blocked, we hear them, and a command has none of them blocked."""
    def block():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - OTHERS)

    for role in "dec", "enc":
        near, theirs = tcp_pair()
        far, ours = tcp_pair()
        process = spawn(role, theirs, far, preexec_fn=block)
        wire, plain = (near, ours) if role == "dec" else (ours, near)
        wire.settimeout(LIMIT * SLOW)
        Peer(wire, role == "dec", SHARED).shake()
        plain.sendall(b"x")
        get(wire, 1060)
        process.terminate()
        finish(process, -signal.SIGTERM)
    wire, theirs = tcp_pair()
    wire.settimeout(LIMIT * SLOW)
    dec = spawn("dec", theirs, command=["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"], preexec_fn=block)
    theirs.close()
    peer = Peer(wire, True, SHARED)
    peer.shake()
    internal = 3 << 31  # signals 32 and 33 are libc's own: nobody can change what became of them
    masks = [int(mask, 16) & ~internal for mask in peer.take_packet().split()[1::2]]
    expect("the command's signals", masks, [0, 0])
    wire.shutdown(socket.SHUT_WR)
    finish(dec, 0)


def dec_alone(command=(), make=tcp_pair, make_far=None):
    """spipe-dec with a client of ours, and our side of its target if it has one: (client, target, spipe-dec)."""
    dec = Started("dec", (), command, make, make_far)
    client = Peer(dec.near, True, SHARED)
    client.shake()
    dec.process.role = "dec"
    return client, dec.far, dec.process


@each_way(case)
def command_fails_after_slow_output():
    """A failed command's output arrives whole, however slow its reader, and then a reset, not an end."""
    size = 1 << 20
    client, _, dec = dec_alone(["sh", "-c", "head -c %d /dev/zero; exit 3" % size])
    time.sleep(0.5)  # a slow reader: more than enough for a program that does not wait for it
    got = 0
    while got < size:
        got += len(client.take_packet())
    expect("then", drain(client.sock), (b"", "reset"))
    finish(dec, 69, says="status 3")


@each_way(case)
def command_leaves_input_after_slow_output():
    """The same for one that exits well but has not read all: its output arrives whole, then comes the break."""
    size = 1 << 20
    client, _, dec = dec_alone(["sh", "-c", "head -c 1 >/dev/null; head -c %d /dev/zero" % size])
    client.sock.sendall(client.out.seal(b"1 is read, these are not"))
    time.sleep(0.5)
    got = 0
    while got < size:
        got += len(client.take_packet())
    expect("then", drain(client.sock), (b"", "reset"))
    finish(dec, 74, says="without reading all its input")


@each_way(case)
def command_closes_its_input():
    """A command that reads no more but goes on writing: what it is sent then is lost, and that is a break at once."""
    code = "import socket,time; s=socket.socket(fileno=0); s.shutdown(socket.SHUT_RD); s.sendall(b'x'); time.sleep(60)"
    client, _, dec = dec_alone([sys.executable, "-c", code])
    expect("the command said", client.take_packet(), b"x")
    client.sock.sendall(client.out.seal(b"lost"))
    expect("the client saw", drain(client.sock), (b"", "reset"))
    finish(dec, 74, seconds=2, says="the far side was lost: Broken pipe")


@each_way(case)
def command_ends_output_then_leaves_input():
    """A command that ends its output, and then exits without reading its input: not a clean end."""
    code = "import socket; s=socket.socket(fileno=0); s.shutdown(socket.SHUT_WR); s.recv(1); s.recv(1, socket.MSG_PEEK)"
    client, _, dec = dec_alone([sys.executable, "-c", code])
    ended(client.sock)
    client.sock.sendall(client.out.seal(b"1 is read, these are not"))
    finish(dec, 74, says="without reading all its input")


@case
def command_of_enc_is_reset():
    """spipe-enc's command carries the encrypted stream: one that exits with unread input is a lost far side."""
    hand = socket.socket(socket.AF_UNIX)
    hand.bind("hand")
    hand.listen()
    hand.settimeout(LIMIT * SLOW)
    code = (
        "import socket; u=socket.socket(socket.AF_UNIX); u.connect('hand'); socket.send_fds(u, [b'x'], [0]); u.recv(1)"
    )
    app, near = tcp_pair()
    app.settimeout(LIMIT * SLOW)
    enc = spawn("enc", near, command=[sys.executable, "-c", code])
    near.close()
    line, _ = hand.accept()
    fd = socket.recv_fds(line, 1, 1)[1][0]
    wire = socket.socket(fileno=fd)
    server = Peer(wire, False, SHARED)
    server.shake()
    app.sendall(b"never read")
    until_readable(wire)
    wire.close()
    line.close()
    expect("the client saw", drain(app), (b"", "reset"))
    finish(enc, 74, says="the far side was lost: Connection reset by peer")


def until_readable(sock):
    if not select.select([sock], [], [], LIMIT * SLOW)[0]:
        raise Wrong("nothing came")


@each_way(case)
def good_data_before_a_reset():
    """Data that arrived before a reset is delivered, although both are there when we look."""
    for plain_first in True, False:
        client, ours, dec = dec_alone()
        ours.sendall(b"x")
        expect("what came while it relays", client.take_packet(), b"x")
        dec.send_signal(signal.SIGSTOP)
        eventually_stopped(dec)
        if plain_first:
            ours.sendall(b"data")
            reset(ours)
        else:
            client.sock.sendall(client.out.seal(b"data"))
            reset(client.sock)
        dec.send_signal(signal.SIGCONT)
        expect("delivered", client.take_packet() if plain_first else get(ours, 4), b"data")
        expect("then", drain(client.sock if plain_first else ours), (b"", "reset"))
        finish(dec, 74)


def eventually_stopped(process):
    end = time.monotonic() + LIMIT * SLOW
    while open("/proc/%d/stat" % serving(process)).read().rsplit(")", 1)[1].split()[0] != "T":
        if time.monotonic() > end:
            raise Wrong("it does not stop")
        time.sleep(0.01)


@case
def ignored_signals_stay_ignored():
    """As under nohup and in a shell's background jobs: SIGHUP, SIGINT and SIGQUIT then do nothing; SIGTERM ends us."""
    numbers = signal.SIGHUP, signal.SIGINT, signal.SIGQUIT

    def ignore():
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    ours, far = tcp_pair()
    wire, theirs = tcp_pair()
    wire.settimeout(LIMIT * SLOW)
    dec = spawn("dec", theirs, far, preexec_fn=ignore)
    client = Peer(wire, True, SHARED)
    client.shake()
    for number in numbers:
        dec.send_signal(number)
        time.sleep(0.05)  # one that counts would forbid reading from now on, or in 2 s
        ours.sendall(b"x")
        expect("what came", client.take_packet(), b"x")
    dec.terminate()
    finish(dec, -signal.SIGTERM)


@each_way(case)
def good_packets_before_a_bad_one():
    """Packets that arrive together with a bad one behind them are all delivered, then comes the break."""
    for make in tcp_pair, socket.socketpair:
        for count in 1, 2, 15:
            client, ours, dec = dec_alone(make_far=make)
            data = os.urandom(1024 * count)
            bad = bytearray(client.out.seal(b"bad"))
            bad[5] ^= 1
            client.out.number = 0
            client.sock.sendall(client.out.seal_all(data) + bytes(bad))
            got, how = drain(ours)
            expect("%d packets delivered" % count, got == data, True)
            if make == tcp_pair:
                expect("the end", how, "reset")
            finish(dec, 76)


def cpu_time(process):
    """Seconds of CPU that it has used."""
    with open("/proc/%d/stat" % serving(process)) as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def times_slept(process):
    with open("/proc/%d/status" % serving(process)) as file:
        return int(file.read().split("\nvoluntary_ctxt_switches:")[1].split()[0])


@each_way(case)
def gone_with_data_not_read():
    """
    One side is gone and the other does not read what it was sent. A UNIX socket keeps that, so we end; with TCP we
    stay, at rest, until it has been taken.
    """
    for make in socket.socketpair, tcp_pair:
        client, ours, dec = dec_alone(make=socket.socketpair, make_far=make)
        if make == tcp_pair:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        data = os.urandom(30 if make == socket.socketpair else 1 << 20)
        client.sock.sendall(client.out.seal_all(data))
        client.sock.close()
        if make == tcp_pair:
            time.sleep(3)  # past the time that a peer has to end
            cpu, slept = cpu_time(dec), times_slept(dec)
            time.sleep(1)
            expect("still there", dec.poll(), None)
            if cpu_time(dec) - cpu > 0.05 or times_slept(dec) - slept > 20:
                raise Wrong("woken %d times in a second, %.2f s of CPU" % (times_slept(dec) - slept, cpu_time(dec) - cpu))
        else:
            finish(dec, 0, seconds=4)
        expect("all data", get(ours, len(data)) == data, True)
        ended(ours)
        if make == tcp_pair:
            finish(dec, 0, seconds=4)


# --- the near side --------------------------------------------------------------------------------------


def echo_service(far):
    """Answer everything on a socket with itself, until its end."""
    def run():
        try:
            while True:
                data = far.recv(1 << 16)
                if not data:
                    break
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    threading.Thread(target=run, daemon=True).start()


def echo_through(near, read_end, write_end, finish_sending, size=3000000, **how):
    """spipe-enc with a given near side, an echo at the far end of a spipe-dec; returns the enc process."""
    enc_wire, dec_wire = tcp_pair()
    service, far = tcp_pair()
    echo_service(service)
    dec = spawn("dec", dec_wire, far)
    enc = spawn("enc", near, enc_wire, **how)
    for sock in enc_wire, dec_wire, far:
        sock.close()
    data = os.urandom(size)

    def send():
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(write_end, view[:65536]) :]
            except BlockingIOError:
                select.select([], [write_end], [])
        finish_sending()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    got = bytearray()
    while len(got) < size:
        try:
            more = os.read(read_end, 65536)
        except BlockingIOError:
            select.select([read_end], [], [])
            continue
        if not more:
            raise Wrong("an end after %d bytes" % len(got))
        got += more
    if bytes(got) != data:
        raise Wrong("data differs")
    sender.join()
    return enc, dec


@case
def near_pipes():
    """The near side as two pipes."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    enc, dec = echo_through((in_read, out_write), out_read, in_write, lambda: os.close(in_write))
    os.close(out_write)
    expect("the end", os.read(out_read, 1), b"")
    finish(enc, 0, seconds=PROMPT)
    finish(dec, 0, seconds=PROMPT)


@case
def near_pipe_reader_goes():
    """The reader of our output closes its pipe: the next byte that can't be delivered ends us, and not before."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    enc, dec = echo_through((in_read, out_write), out_read, in_write, lambda: None, size=1000)
    os.close(out_write)
    os.close(out_read)
    try:
        enc.wait(0.3)
        raise Wrong("it ended while nothing was lost yet")
    except subprocess.TimeoutExpired:
        pass
    os.write(in_write, b"comes back")
    finish(enc, 74, seconds=PROMPT)
    finish(dec, 74, 76, seconds=PROMPT)


@case
def near_pipe_not_read():
    """A full pipe that nobody reads holds up neither the other direction nor a signal."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    wire, far = tcp_pair()
    wire.settimeout(LIMIT * SLOW)
    enc = spawn("enc", (in_read, out_write), far)
    server = Peer(wire, False, SHARED)
    server.shake()
    wire.sendall(server.out.seal_all(bytes(200000)))
    while select.select([], [out_write], [], 0.1)[1]:
        pass
    os.write(in_write, b"x")
    expect("the other direction", server.take_packet(), b"x")
    enc.terminate()
    finish(enc, -signal.SIGTERM, seconds=4)


@case
def near_two_sockets():
    """The near side as two sockets: what is read and what is written keep apart, and both end cleanly."""
    source, near_in = tcp_pair()
    sink, near_out = tcp_pair()
    sink.settimeout(LIMIT * SLOW)
    enc, dec = echo_through((near_in, near_out), sink.fileno(), source.fileno(),
                            lambda: source.shutdown(socket.SHUT_WR))
    finish(enc, 0)
    finish(dec, 0)
    for sock in near_in, near_out:
        expect("SO_LINGER after the end", linger(sock)[0], 0)


@case
def near_socketpair():
    """The near side as a UNIX socket."""
    app, near = socket.socketpair()
    enc, dec = echo_through(near, app.fileno(), app.fileno(), lambda: app.shutdown(socket.SHUT_WR))
    near.close()
    ended(app)
    finish(enc, 0, seconds=PROMPT)
    finish(dec, 0, seconds=PROMPT)


def non_blocking(fd):
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)


@case
def near_nonblock_is_left_as_found():
    """O_NONBLOCK on what others share is neither needed nor changed, on sockets and pipes, near and far."""
    for flag in True, False:
        app, near = tcp_pair()
        enc_wire, dec_wire = tcp_pair()
        service, far = tcp_pair()
        in_read, in_write = os.pipe()
        watched = near, enc_wire, dec_wire, far
        for sock in watched:
            os.set_blocking(sock.fileno(), not flag)
        echo_service(service)
        dec = spawn("dec", dec_wire, far)
        enc = spawn("enc", near, enc_wire)
        data = os.urandom(8 << 20)
        sender = put(app, data)
        for part in range(8):
            if get(app, 1 << 20) != data[part << 20 : (part + 1) << 20]:
                raise Wrong("data differs")
            for sock in watched:
                if non_blocking(sock.fileno()) != flag:
                    raise Wrong("O_NONBLOCK was changed to %s during the transfer" % (not flag))
        sender.join()
        app.shutdown(socket.SHUT_WR)
        finish(enc, 0)
        finish(dec, 0)
        for sock in watched:
            if non_blocking(sock.fileno()) != flag:
                raise Wrong("O_NONBLOCK was left as %s" % (not flag))


@case
def near_nonblock_pipes():
    """Pipes with O_NONBLOCK as the near side; the flag stays."""
    for flag in True, False:
        in_read, in_write = os.pipe()
        out_read, out_write = os.pipe()
        for fd in in_read, out_write:
            os.set_blocking(fd, not flag)
        enc, dec = echo_through((in_read, out_write), out_read, in_write, lambda: os.close(in_write))
        finish(enc, 0)
        finish(dec, 0)
        for fd in in_read, out_write:
            if non_blocking(fd) != flag:
                raise Wrong("O_NONBLOCK was changed")
            os.close(fd)
        os.close(out_read)


@case
def near_pty_master():
    """The near side as a terminal's master: what we write comes out of its slave."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    enc_wire, dec_wire = tcp_pair()
    service, far = tcp_pair()
    dec = spawn("dec", dec_wire, far)
    enc = spawn("enc", master, enc_wire)
    for sock in enc_wire, dec_wire, far:
        sock.close()
    service.sendall(b"answer")
    got = b""
    while len(got) < 6:
        if not select.select([slave], [], [], LIMIT * SLOW)[0]:
            raise Wrong("the slave got %r" % got)
        got += os.read(slave, 6 - len(got))
    expect("answer", got, b"answer")
    for process in enc, dec:
        process.terminate()
        process.wait(LIMIT * SLOW)


@case
def near_pty():
    """The near side as a terminal, raw and with line editing: ^D is an end."""
    for raw in True, False:
        master, slave = pty.openpty()
        if raw:
            tty.setraw(slave)
        else:
            attributes = termios.tcgetattr(slave)
            attributes[1] &= ~termios.OPOST
            attributes[3] &= ~termios.ECHO
            termios.tcsetattr(slave, termios.TCSANOW, attributes)
        enc_wire, dec_wire = tcp_pair()
        service, far = tcp_pair()
        service.settimeout(LIMIT * SLOW)
        dec = spawn("dec", dec_wire, far)
        enc = spawn("enc", slave, enc_wire)
        for sock in enc_wire, dec_wire, far:
            sock.close()
        os.write(master, b"typed\n")
        expect("typed", get(service, 6), b"typed\n")
        service.sendall(b"answer\n")
        got = b""
        while len(got) < 7:
            got += os.read(master, 100)
        expect("answer", got, b"answer\n")
        if raw:
            service.close()
            os.close(slave)
            # Only the terminal's hangup can end the input of a raw one.
            os.close(master)
            finish(enc, 0, 74, seconds=2)
            finish(dec, 0, 74, 76, seconds=2)
        else:
            os.write(master, b"\x04")
            ended(service)
            service.close()
            os.close(slave)
            finish(enc, 0, seconds=2)
            finish(dec, 0, seconds=2)
            os.close(master)


@case
def near_terminal_of_another():
    """The output is a terminal that we may not reopen: all of it arrives, the flags stay, and nobody is blocked."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    name, mode = os.ttyname(slave), 0
    os.chmod(name, mode)
    enc_wire, dec_wire = tcp_pair()
    service, far = tcp_pair()
    service.settimeout(LIMIT * SLOW)
    # Root may open anything, unless it is told otherwise.
    wrap = ["setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override"] if os.getuid() == 0 else []
    source, theirs = os.pipe()
    dec = spawn("dec", dec_wire, far)
    enc = spawn("enc", (source, slave), enc_wire, wrap=wrap)
    for sock in enc_wire, dec_wire, far:
        sock.close()
    data = os.urandom(30000)
    sender = threading.Thread(target=service.sendall, args=(data,))
    sender.start()
    got = b""
    while len(got) < len(data):
        if not select.select([master], [], [], LIMIT * SLOW)[0]:
            raise Wrong("%d bytes came of %d" % (len(got), len(data)))
        got += os.read(master, 1000)
    sender.join()
    expect("whether it is the same", got == data, True)
    expect("O_NONBLOCK", fcntl.fcntl(slave, fcntl.F_GETFL) & os.O_NONBLOCK, 0)
    # Nobody reads it any more, and it is full: a signal ends us all the same.
    service.sendall(data)
    while select.select([], [slave], [], 0.2)[1]:
        pass
    enc.terminate()
    finish(enc, -signal.SIGTERM, seconds=5)
    finish(dec, 74, 76, seconds=5)
    os.close(theirs)


def systemd_like(sock, fds, role="enc", pid="$$", **how):
    """Start a program as systemd does: fd 3, LISTEN_FDS and LISTEN_PID."""
    free = []
    while True:  # fd 3 and 4 must be ours to give
        fd = os.open("/dev/null", os.O_RDWR)
        if fd > 4:
            os.close(fd)
            break
        free.append(fd)
    kept = {fd: os.dup(fd) for fd in (3, 4)}
    for fd in 3, 4:
        os.dup2(sock.fileno(), fd)
    try:
        shell = ["sh", "-c", 'export LISTEN_FDS=%s LISTEN_PID=%s; exec "$@"' % (fds, pid), "sh"]
        return spawn(role, subprocess.DEVNULL, wrap=shell, pass_fds=(3, 4), **how)
    finally:
        for fd, copy in kept.items():
            os.dup2(copy, fd, inheritable=False)
            os.close(copy)
        for fd in free:
            os.close(fd)


@case
def near_listen_fds():
    """The connection as fd 3, as systemd passes it; how many there are and for whom."""
    app, near = tcp_pair()
    app.settimeout(LIMIT * SLOW)
    enc_wire, dec_wire = tcp_pair()
    service, far = tcp_pair()
    echo_service(service)
    dec = systemd_like(dec_wire, 1, "dec", far=far)
    enc = systemd_like(near, 1, far=enc_wire)
    for sock in near, enc_wire, dec_wire, far:
        sock.close()
    app.sendall(b"hello")
    expect("echo", get(app, 5), b"hello")
    app.shutdown(socket.SHUT_WR)
    ended(app)
    finish(enc, 0)
    finish(dec, 0)


@case
def near_listen_fds_wrong():
    """More than one socket, or no number, is an error; none, or somebody else's, leaves stdin and stdout as the near side."""
    app, near = tcp_pair()
    for fds, pid, enc_status, dec_status in (
        ("2", "$$", 64, 64),
        ("7", "$$", 64, 64),
        ("-1", "$$", 64, 64),
        ("one", "$$", 64, 64),
        # stdin is /dev/null, an end at once, where fd 3 would stay silent. spipe-enc's far side is silent.
        ("0", "$$", 75, 77),
        ("1", "1", 75, 77),
        ("2", "1", 75, 77),
    ):
        for role, status in ("enc", enc_status), ("dec", dec_status):
            _wire, far = tcp_pair()
            finish(systemd_like(near, fds, role, pid, far=far, options=("-o", "0.3")), status, seconds=2)
    nothing(app, 0)


@case
def near_stderr_is_the_wire():
    """inetd makes stderr the connection too: nothing but the protocol may appear on it."""
    talkative = ["sh", "-c", "echo diagnostics >&2; cat"]
    for name, status in (
        ("a stranger", 77), ("a close", 77), ("silence", 75), ("a bad packet", 76), ("a good end", 0)
    ):
        wire, near = tcp_pair()
        wire.settimeout(LIMIT * SLOW)
        process = spawn("dec", near, command=talkative, options=("-o", "0.4"), stderr=near)
        near.close()
        peer = Peer(wire, True, SHARED)
        if status in (76, 0):
            peer.shake()
            if status == 76:
                wire.sendall(bytes(2000))
            else:
                wire.shutdown(socket.SHUT_WR)
        else:
            peer.take_nonce()
            if name == "a stranger":
                wire.sendall(os.urandom(400))
            elif name == "a close":
                wire.shutdown(socket.SHUT_WR)
        expect("after " + name + " was sent", drain(wire)[0], b"")
        expect("status after " + name, process.wait(3 * SLOW), status)
    # Errors before the protocol begins.
    for role, options, command in (
        ("dec", ("-K", "no-such-directory"), ["true"]),
        ("dec", ("-Z",), ["true"]),
        ("enc", (), ["./no-such-command"]),
        ("enc", ("-o", "0"), ["true"]),
    ):
        wire, near = tcp_pair()
        wire.settimeout(LIMIT * SLOW)
        process = spawn(role, near, command=command, options=options, stderr=near)
        near.close()
        data, _ = drain(wire)
        expect("%s %s sent" % (options, command), data, b"")
        if process.wait(3 * SLOW) not in (64, 69, 78):
            raise Wrong("status %d after %s %s" % (process.returncode, options, command))
    # Two sockets as the near side, and stderr is one of them.
    for stderr in 0, 1:
        wires, nears = zip(tcp_pair(), tcp_pair())
        process = spawn("dec", nears, command=["true"], options=("-K", "no-such-directory"), stderr=nears[stderr])
        for near in nears:
            near.close()
        for wire in wires:
            wire.settimeout(LIMIT * SLOW)
            expect("sent to one of two sockets", drain(wire)[0], b"")
        expect("status", process.wait(3 * SLOW), 78)
    # spipe-enc's near side is the plaintext: there, too, no diagnostics, neither ours nor the command's.
    for command in None, ["sh", "-c", "echo diagnostics >&2; head -c 400 /dev/urandom; cat >/dev/null"]:
        app, near = tcp_pair()
        app.settimeout(LIMIT * SLOW)
        wire, far = tcp_pair()
        wire.sendall(os.urandom(400))
        process = spawn("enc", near, None if command else far, command=command or (), stderr=near)
        near.close()
        far.close()
        expect("what the client was sent", drain(app)[0], b"")
        expect("status", process.wait(3 * SLOW), 77)


if __name__ == "__main__":
    main()
