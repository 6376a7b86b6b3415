#!/usr/bin/python3
"""Limits in time and what signals do: idle, linger, SIGTERM, SIGUSR1.

Each case plays both ends of one of our programs: the wire's (as upstream's client or server) and the plaintext's.
SLOW=N (valgrind and the like) makes all that is not measured against a limit N times as patient.
"""

import os
import re
import select
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../helpers"))
from peer import LIMIT, SHARED, SLOW, Peer, drain
from start import Started, each_way, said, serving
from suite import Wrong, both, expect, main

SPAN = 1.0  # a limit in the cases below, seconds
LATE = 0.9 * SLOW  # how much later than a limit is too late: less than SPAN, or a doubled limit went unseen


class End:
    """One side as the other end sees it: plaintext, or packets."""

    def __init__(self, sock, peer=None):
        self.sock, self.peer = sock, peer

    def put(self, data):
        self.sock.sendall(self.peer.out.seal_all(data) if self.peer else data)

    def get(self, size):
        data = bytearray()  # with bytes, megabytes would be copied for each packet
        while len(data) < size:
            more = self.peer.take_packet() if self.peer else self.sock.recv(65536)
            if not more:
                raise Wrong("an end after %d of %d bytes" % (len(data), size))
            data += more
        return bytes(data)

    def end(self):
        self.sock.shutdown(socket.SHUT_WR)

    def drain(self):
        """All whole data that is still to come, and how it ends."""
        data, how = drain(self.sock)
        if self.peer:
            packets = [data[i : i + 1060] for i in range(0, len(data) // 1060 * 1060, 1060)]
            data = b"".join(map(self.peer.into.open, packets))
        return data, how


class Run:
    """A program with a connection through it. `near` and `far` are its sides, `plain` is the one of them in the clear."""

    def __init__(self, role, *options):
        started = Started(role, ["--verbose", *options])
        near = started.near
        peer = Peer(near, True, SHARED) if role == "dec" else Peer(started.far, False, SHARED)
        peer.shake()
        far = started.far
        self.program, self.process = "spipe-" + role, started.process
        self.near = End(near, peer if role == "dec" else None)
        self.far = End(far, peer if role == "enc" else None)
        self.plain, self.wire = (self.far, self.near) if role == "dec" else (self.near, self.far)
        self.peer_name = "%s:%d" % near.getsockname()

    def pass_on(self, data=b"x"):
        """Data both ways: the connection works."""
        for one, two in (self.near, self.far), (self.far, self.near):
            one.put(data)
            expect("what arrived", two.get(len(data)), data)

    def finish(self, status, why):
        """The end: status, and on stderr the error and the record."""
        expect("status", self.process.wait(LIMIT * SLOW), status)
        lines = said(self.process).splitlines()
        expect("lines on stderr: %r" % lines, len(lines), 1 if status == 0 else 2)
        if not re.search(why, lines[-1]) or not lines[-1].startswith("%s: %s key secret: " % (self.program, self.peer_name)):
            raise Wrong("the record is %r" % lines[-1])
        return [int(n) for n in re.search(r"(\d+) bytes in, (\d+) bytes out", lines[-1]).groups()]

    def broken(self, status, why):
        """The end with a break for both sides. Returns the numbers of bytes in the record."""
        counts = self.finish(status, why)
        expect("the plaintext side", self.plain.drain(), (b"", "reset"))
        expect("the wire", self.wire.drain()[1], "reset")
        return counts


def one_for_each_side(role, *options):
    """Two runs at the same time, each with the side that a case is about and the other one: (run, one, two)."""
    runs = Run(role, *options), Run(role, *options)
    return (runs[0], runs[0].near, runs[0].far), (runs[1], runs[1].far, runs[1].near)


def ended_after(run, start, span):
    """Wait for the program's end: not before `span` seconds after `start`, nor much later."""
    run.process.wait(LIMIT * SLOW)
    took = time.monotonic() - start
    if not span <= took < span + LATE:
        raise Wrong("ended after %.3f s, the limit was %.3f s" % (took, span))


# --- idle -----------------------------------------------------------------------------------------------


@each_way(both)
def idle(role):
    """Silence in both directions from the start, and after some traffic."""
    started = []
    for option in ["-i", str(SPAN)], ["--idle=%s" % SPAN], ["-i0%s" % SPAN]:
        started.append((time.monotonic(), Run(role, *option)))
    for start, run in started:
        ended_after(run, start, SPAN)
        run.broken(75, "idle limit.*status 75")
    run = Run(role, "-i", str(2 * SPAN))
    time.sleep(SPAN / 2)
    start = time.monotonic()
    run.pass_on(b"y" * 3000)
    ended_after(run, start, 2 * SPAN)
    expect("bytes", run.broken(75, "idle limit.*status 75"), [3000, 3000])


@each_way(both)
def idle_kept_alive(role):
    """Traffic in either direction alone keeps it going, in steps that are shorter than the limit."""
    runs = one_for_each_side(role, "-i", str(1.5 * SPAN))
    for _ in range(8):
        time.sleep(SPAN / 4)
        start = time.monotonic()
        for _, one, two in runs:
            one.put(b"x")
            expect("what arrived", two.get(1), b"x")
    for run, _, _ in runs:
        ended_after(run, start, 1.5 * SPAN)
        run.broken(75, "idle limit")


@each_way(both)
def idle_and_half_closed(role):
    """It holds after one direction's end too."""
    run = Run(role, "-i", str(SPAN))
    start = time.monotonic()
    run.near.end()
    expect("the end", run.far.sock.recv(1), b"")
    ended_after(run, start, SPAN)
    run.finish(75, "idle limit")
    expect("the other direction", run.near.drain(), (b"", "reset"))


@each_way(both)
def no_limits(role):
    """Silence does not end a connection by default, nor before a limit has passed."""
    runs = Run(role), Run(role, "-i", "60", "--linger", "60")
    if select.select([side.sock for run in runs for side in (run.near, run.far)], [], [], 2 * SPAN)[0]:
        raise Wrong("not silent")
    for run in runs:
        run.pass_on()
        run.near.end()
        expect("the end", run.far.sock.recv(1), b"")
    if select.select([run.near.sock for run in runs], [], [], 2 * SPAN)[0]:
        raise Wrong("not silent")
    for run in runs:
        run.far.put(b"late")
        expect("what arrived", run.near.get(4), b"late")
        run.far.end()
        expect("the end", run.near.sock.recv(1), b"")
        run.finish(0, "ended cleanly")


@each_way(both)
def memory_comes_back(role):
    """What bulk has used is given back after some seconds of silence, and the connection goes on."""
    run = Run(role)
    run.pass_on()
    small = resident(run)
    data = os.urandom(8 << 20)
    sender = threading.Thread(target=run.near.put, args=(data,))
    sender.start()
    got = run.far.get(1 << 20)
    limit = time.monotonic() + LIMIT * SLOW
    while (large := resident(run)) < small + 100:  # it has much in hand that nobody reads
        if time.monotonic() > limit:
            raise Wrong("bulk took no memory: %d kB, then %d kB" % (small, large))
        time.sleep(0.01)
    got += run.far.get(len(data) - len(got))
    expect("whether all arrived", got == data, True)
    sender.join()
    limit = time.monotonic() + LIMIT * SLOW
    while (now := resident(run)) > large - (large - small) // 2:
        if time.monotonic() > limit:
            raise Wrong("%d kB, with bulk %d kB, in silence still %d kB" % (small, large, now))
        time.sleep(0.1)
    run.pass_on(b"after " * 1000)
    run.near.end()
    run.far.end()
    run.finish(0, "ended cleanly")


def resident(run):
    """Its own memory in kB, and not what it has mapped of files."""
    with open("/proc/%d/status" % serving(run.process)) as file:
        return int(re.search(r"RssAnon:\s*(\d+) kB", file.read())[1])


# --- linger ---------------------------------------------------------------------------------------------


@each_way(both)
def linger(role):
    """One direction's end starts it, whichever."""
    runs = one_for_each_side(role, "--linger", str(SPAN))
    for run, one, two in runs:
        run.pass_on()
    start = time.monotonic()
    for run, one, two in runs:
        one.end()
        expect("the end", two.sock.recv(1), b"")
    for run, one, two in runs:
        ended_after(run, start, SPAN)
        run.finish(75, "linger limit.*status 75")
        expect("the direction that had not ended", one.drain(), (b"", "reset"))


@each_way(both)
def linger_kept_alive(role):
    """What the other direction still says keeps it going."""
    runs = one_for_each_side(role, "--linger", str(1.5 * SPAN))
    for _, one, _ in runs:
        one.end()
    for _ in range(8):
        time.sleep(SPAN / 4)
        start = time.monotonic()
        for _, one, two in runs:
            two.put(b"x")
            expect("what arrived", one.get(1), b"x")
    for run, _, _ in runs:
        ended_after(run, start, 1.5 * SPAN)
        run.finish(75, "linger limit")


@each_way(both)
def linger_not_before_an_end(role):
    """It does not apply while both directions are open, nor after both have ended."""
    run = Run(role, "--linger", str(SPAN / 2))
    if select.select([run.near.sock, run.far.sock], [], [], 2 * SPAN)[0]:
        raise Wrong("not silent")
    run.pass_on()
    for one, two in (run.near, run.far), (run.far, run.near):
        one.end()
        expect("the end", two.sock.recv(1), b"")
    run.finish(0, "ended cleanly")


# --- signals --------------------------------------------------------------------------------------------


def fill(end):
    """Send until nothing more is taken for a while. Returns what was sent (the last of it perhaps in part)."""
    sent, chunk = [], bytes(range(256)) * 8
    end.sock.settimeout(0.3)
    try:
        while True:
            piece = end.peer.out.seal_all(chunk) if end.peer else chunk
            while piece:
                piece = piece[end.sock.send(piece) :]
            sent.append(chunk)
    except socket.timeout:
        end.sock.settimeout(LIMIT * SLOW)
    return b"".join(sent) + chunk


@each_way(both)
def term_at_rest(role):
    """Nothing in hand: the end comes at once, as a break, and by that signal."""
    for number in signal.SIGTERM, signal.SIGINT:
        run = Run(role)
        run.pass_on()
        start = time.monotonic()
        run.process.send_signal(number)
        run.process.wait(LIMIT * SLOW)
        if time.monotonic() - start > 0.5 * SLOW:
            raise Wrong("took %.3f s" % (time.monotonic() - start))
        expect("bytes", run.broken(-number, "signal %d" % number), [1, 1])


@each_way(both)
def hangup_gives_time(role):
    """SIGHUP lets the connection end by itself for 2 s: cleanly if it does, else as the other signals."""
    run = Run(role)
    run.pass_on()
    run.process.send_signal(signal.SIGHUP)
    run.pass_on()
    start = time.monotonic()
    run.process.wait(LIMIT * SLOW)
    if time.monotonic() - start < 1:
        raise Wrong("took only %.3f s" % (time.monotonic() - start))
    expect("bytes", run.broken(-signal.SIGHUP, "signal 1"), [2, 2])
    run = Run(role)
    run.pass_on()
    run.process.send_signal(signal.SIGHUP)
    for side in run.near, run.far:
        side.end()
    expect("bytes", run.finish(0, "ended cleanly"), [1, 1])


@each_way(both)
def term_delivers(role):
    """Towards each side in turn: what was in hand arrives, whole, when the reader goes on reading."""
    for which in 0, 1:
        run = Run(role)
        one, two = (run.near, run.far) if which == 0 else (run.far, run.near)
        sent = fill(one)
        run.process.send_signal(signal.SIGTERM)
        data, how = two.drain()
        run.process.wait(LIMIT * SLOW)
        counts = run.finish(-signal.SIGTERM, "signal 15")
        expect("the end", how, "reset")
        if len(data) < 1000 or not sent.startswith(data):
            raise Wrong("%d bytes came, not a beginning of what was sent" % len(data))
        # What was still in the kernel on the other side is no longer taken, though the reader made room.
        if len(data) == len(sent):
            raise Wrong("all %d bytes were taken" % len(sent))
        expect("bytes in the record", counts[which], len(data))


@each_way(both)
def term_does_not_wait_for_ever(role):
    """A reader that takes nothing has two seconds; more signals change neither that nor the status."""
    runs, ends, sent, starts = [], [], [], []
    for which in 0, 1:
        run = Run(role)
        one, two = (run.near, run.far) if which == 0 else (run.far, run.near)
        runs.append(run)
        ends.append(two)
        sent.append(fill(one))
    for run in runs:
        starts.append(time.monotonic())
        run.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    for run in runs:
        run.process.send_signal(signal.SIGINT)
    for run, start in zip(runs, starts):
        ended_after(run, start, 1.9)
    for run, end, what in zip(runs, ends, sent):
        run.finish(-signal.SIGTERM, "signal 15")
        data, how = end.drain()
        expect("the end", how, "reset")
        if not what.startswith(data):
            raise Wrong("what came is not a beginning of what was sent")


@each_way(both)
def progress(role):
    """SIGUSR1: one line each time, and nothing else happens."""
    run = Run(role)
    run.near.put(b"a" * 1500)
    run.far.get(1500)
    run.far.put(b"b" * 70)
    run.near.get(70)
    for _ in range(3):
        run.process.send_signal(signal.SIGUSR1)
        if not select.select([run.process.stderr], [], [], LIMIT * SLOW)[0]:
            raise Wrong("no line")
        line = os.read(run.process.stderr.fileno(), 65536).decode()
        wanted = r"%s: %s key secret: 1500 bytes in, 70 bytes out, \d+\.\d{3} s: in progress\n" % (
            run.program, re.escape(run.peer_name))
        if not re.fullmatch(wanted, line):
            raise Wrong("said %r" % line)
    run.pass_on(b"more")
    for one, two in (run.near, run.far), (run.far, run.near):
        one.end()
        expect("the end", two.sock.recv(1), b"")
    expect("bytes", run.finish(0, "ended cleanly"), [1504, 74])


@each_way(both)
def progress_while_stuck(role):
    """With readers that take nothing, the line comes all the same."""
    run = Run(role)
    fill(run.near)
    run.process.send_signal(signal.SIGUSR1)
    if not select.select([run.process.stderr], [], [], 1 * SLOW)[0]:
        raise Wrong("no line")
    line = os.read(run.process.stderr.fileno(), 65536).decode()
    expect("lines in %r" % line, line.count("\n"), 1)
    run.process.kill()
    run.process.wait()


@each_way(both)
def usr1_does_not_count_as_traffic(role):
    """A connection that is asked for its progress is still idle."""
    run = Run(role, "-i", str(1.5 * SPAN))
    start = time.monotonic()
    run.pass_on()
    while run.process.poll() is None:
        run.process.send_signal(signal.SIGUSR1)
        time.sleep(SPAN / 8)
    ended_after(run, start, 1.5 * SPAN)
    lines = said(run.process).splitlines()
    if len(lines) < 3 or "idle limit" not in lines[-1] or "in progress" not in lines[0]:
        raise Wrong("said %r" % lines)


if __name__ == "__main__":
    main()
