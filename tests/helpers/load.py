#!/usr/bin/python3
"""Many connections through both programs, each moving data both ways.

load.py tunnels COUNT [pass]   COUNT at once; prints the memory of idle ones. pass: with -p and nc -F
load.py soak SECONDS           connections that come and go for SECONDS at full rate; nothing may grow
load.py through NEAR FAR COUNT PID
load.py come-and-go NEAR WIRE FAR SECONDS
                               the same two through tunnels that are there: from the port or UNIX socket NEAR, on
                               the wire at WIRE, to the echo server at FAR. The programs descend from the process PID

client -> tcpserver -> spipe-enc -> tcpserver -> spipe-dec -> this script's own echo server, which
answers each byte with its complement. $ENC, $DEC are the programs; ./key is needed. Exit status 1
when anything is not as it should be.
"""

import collections
import hashlib
import os
import random
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

COMPLEMENT = bytes(255 - i for i in range(256))


def place(text):
    """The address that `text` means: a path, or a port."""
    return text if text.startswith("/") else ("127.0.0.1", int(text))


def connected(address):
    if isinstance(address, tuple):
        return socket.create_connection(address)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(address)
    return sock


def echo_server(address=("127.0.0.1", 0)):
    """Serves until the end of the process. Returns its port."""
    if isinstance(address, tuple):
        listener = socket.create_server(address, backlog=1024)
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        os.chmod(address, 0o666)
        listener.listen(1024)

    def serve():
        poll = selectors.EpollSelector()
        listener.setblocking(False)
        poll.register(listener, selectors.EVENT_READ)
        waiting, ended = {}, set()
        while True:
            for key, events in poll.select():
                sock = key.fileobj
                if sock is listener:
                    try:
                        sock, _ = listener.accept()
                    except OSError:
                        continue
                    sock.setblocking(False)
                    waiting[sock] = bytearray()
                    poll.register(sock, selectors.EVENT_READ)
                    continue
                out = waiting[sock]
                try:
                    if events & selectors.EVENT_READ:
                        data = sock.recv(65536)
                        out += data.translate(COMPLEMENT)
                        if not data:
                            ended.add(sock)
                    if out:
                        del out[: sock.send(out)]
                except BlockingIOError:
                    pass
                except OSError:
                    out.clear()
                    ended.add(sock)
                if not out and sock in ended:
                    poll.unregister(sock)
                    sock.close()
                    del waiting[sock]
                    ended.discard(sock)
                    continue
                want = selectors.EVENT_WRITE if out else 0
                if sock not in ended and len(out) < 1 << 18:
                    want |= selectors.EVENT_READ
                poll.modify(sock, want)

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


class Server:
    """A tcpserver on a free port, its stderr in NAME.err."""

    def __init__(self, name, most, *command):
        for _ in range(50):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                self.port = probe.getsockname()[1]
            self.log = open(name + ".err", "wb")
            self.process = subprocess.Popen(
                ["tcpserver", "-vHRDl0", "-c", str(most), "-b", "1000", "127.0.0.1", str(self.port), *command],
                stderr=self.log, stdin=subprocess.DEVNULL,
            )
            while self.process.poll() is None:
                with open(name + ".err", "rb") as log:
                    if b"status: 0/" in log.read():
                        return
                time.sleep(0.01)
        sys.exit("tcpserver does not start")

    def statuses(self):
        """Counts of wait statuses that it has seen."""
        self.log.flush()
        counts = collections.Counter()
        with open(self.log.name) as log:
            for line in log:
                words = line.split()
                if len(words) == 5 and words[1] == "end":
                    status = int(words[4])
                    counts["signal %d" % (status & 127) if status & 127 else status >> 8] += 1
        return counts

    def stop(self):
        self.process.terminate()
        self.process.wait()


def children(pid):
    found = []
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/children" % (pid, task)) as file:
            found += [int(word) for word in file.read().split()]
    return found


def descendants(pid):
    found = []
    try:
        for child in children(pid):
            found.append(child)
            found += descendants(child)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def name_of(pid):
    with open("/proc/%d/comm" % pid) as file:
        return file.read().strip()


def memory(parents, only=""):
    """Private and proportional kilobytes, averages of each program whose name begins with `only`."""
    sums = collections.defaultdict(lambda: [0, 0, 0, 0])
    for parent in parents:
        for pid in descendants(parent):
            name = name_of(pid)
            if not name.startswith(only):
                continue
            sizes = collections.Counter()
            with open("/proc/%d/smaps_rollup" % pid) as file:
                for line in file:
                    words = line.split()
                    if words[0].endswith(":") and words[-1] == "kB":
                        sizes[words[0]] += int(words[1])
            entry = sums[name]
            entry[0] += 1
            entry[1] += sizes["Private_Clean:"] + sizes["Private_Dirty:"]
            entry[2] += sizes["Pss:"]
            entry[3] += sizes["Rss:"]
    for name, (count, private, proportional, resident) in sorted(sums.items()):
        print("memory of an idle %s: %.0f kB private, %.0f kB proportional, %.0f kB resident (%d processes)"
              % (name, private / count, proportional / count, resident / count, count), flush=True)


def chain(most, passing):
    """The two servers of a chain to the echo server."""
    far = ["nc", "-F"] if passing else ["nc", "-N"]
    option = ["-p"] if passing else []
    target = echo_server()
    dec = Server("dec", most, os.environ["DEC"], "-o120", *option, "-k", "key", "--", *far, "127.0.0.1", str(target))
    enc = Server("enc", most, os.environ["ENC"], "-o120", *option, "-k", "key", "--", *far, "127.0.0.1", str(dec.port))
    return enc, dec


def all_gone(servers, seconds):
    end = time.monotonic() + seconds
    while any(children(server.process.pid) for server in servers):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def come_up(count, address):
    """`count` connections to `address`, each with a byte gone through and back, or None."""
    socks = []
    started = time.monotonic()
    for _ in range(count):
        sock = connected(address)
        sock.settimeout(240)
        sock.send(b"x")
        socks.append(sock)
    for sock in socks:
        if sock.recv(1) != bytes([255 - ord("x")]):
            print("a tunnel did not come up")
            return None
    print("%d tunnels up in %.1f s" % (count, time.monotonic() - started), flush=True)
    return socks


def move(socks, size):
    """Random data through all of them at once, both ways. How many returned what they should."""
    poll = selectors.EpollSelector()
    states = {}
    for sock in socks:
        data = random.randbytes(size)
        # in hand, hash of what comes, what it should be, bytes so far
        states[sock] = [memoryview(data), hashlib.sha256(), hashlib.sha256(data.translate(COMPLEMENT)).digest(), 0]
        sock.setblocking(False)
        poll.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
    equal, deadline = 0, time.monotonic() + 300
    while states and time.monotonic() < deadline:
        for key, events in poll.select(1):
            sock = key.fileobj
            state = states[sock]
            if events & selectors.EVENT_WRITE:
                state[0] = state[0][sock.send(state[0][:16384]) :]
                if not state[0]:
                    sock.shutdown(socket.SHUT_WR)
                    poll.modify(sock, selectors.EVENT_READ)
            if events & selectors.EVENT_READ:
                data = sock.recv(65536)
                state[1].update(data)
                state[3] += len(data)
                if not data:
                    equal += state[3] == size and state[1].digest() == state[2]
                    poll.unregister(sock)
                    sock.close()
                    del states[sock]
    print("%d tunnels at once, %d bytes each way in each, %d hashes equal" % (len(socks), size, equal))
    return equal


SIZE = 65536


def tunnels(count, passing):
    servers = enc, dec = chain(count + 10, passing)
    try:
        socks = come_up(count, ("127.0.0.1", enc.port))
        if socks is None:
            return 1
        memory([server.process.pid for server in servers])
        equal = move(socks, SIZE)
        gone = all_gone(servers, 20)
        print("statuses: enc %s, dec %s" % (dict(enc.statuses()), dict(dec.statuses())))
        if not gone:
            print("processes were left")
        right = {0: count}
        return 0 if equal == count and gone and enc.statuses() == right and dec.statuses() == right else 1
    finally:
        for server in servers:
            server.stop()


def through(near, far, count, pid):
    echo_server(far)
    socks = come_up(count, near)
    if socks is None:
        return 1
    memory([pid], "spipe-")
    return 0 if move(socks, SIZE) == count else 1


def orphan_sockets():
    """TCP sockets of the system that no process has open."""
    with open("/proc/net/sockstat") as file:
        for line in file:
            words = line.split()
            if words[0] == "TCP:":
                return int(words[4])
    return 0


def count_zombies():
    zombies = 0
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                with open("/proc/%s/stat" % pid) as file:
                    stat = file.read()
            except (FileNotFoundError, ProcessLookupError):
                continue
            zombies += "(spipe-" in stat and stat.rpartition(")")[2].split()[0] == "Z"
    return zombies


def resident(pid):
    with open("/proc/%d/statm" % pid) as file:
        return int(file.read().split()[1]) * 4


def open_files(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def busy(seconds, near, wire, counts, problems):
    """Four at a time, connections of all kinds: good ones, resets, strangers at the address `wire`."""
    end = time.monotonic() + seconds

    def work(number):
        rng = random.Random(number)
        while time.monotonic() < end and not problems:
            kind = rng.choices(("whole", "reset", "stranger", "nothing"), (85, 5, 5, 5))[0]
            with connected(wire if kind in ("stranger", "nothing") else near) as sock:
                sock.settimeout(60)
                try:
                    if kind == "nothing":
                        pass
                    elif kind == "stranger":
                        sock.sendall(rng.randbytes(rng.randrange(1, 700)))
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(4096):
                            pass
                    else:
                        data = rng.randbytes(rng.randrange(1, 20000))
                        sock.sendall(data)
                        if kind == "reset":
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        else:
                            sock.shutdown(socket.SHUT_WR)
                            got = b""
                            while part := sock.recv(65536):
                                got += part
                            if got != data.translate(COMPLEMENT):
                                problems.append("a connection returned other data than it should")
                except ConnectionResetError:
                    if kind == "whole":
                        problems.append("a good connection was reset")
                except TimeoutError:
                    problems.append("a connection hung (%s)" % kind)
            counts[kind] += 1

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def come_and_go(near, wire, far, seconds):
    counts, problems = collections.Counter(), []
    echo_server(far)
    busy(seconds, near, wire, counts, problems)
    print("%d connections (%s), %.0f a second" % (sum(counts.values()), dict(counts), sum(counts.values()) / seconds))
    if not counts["whole"]:
        problems.append("no connection was made")
    for problem in problems:
        print("PROBLEM: " + problem)
    return 1 if problems else 0


def soak(seconds):
    servers = enc, dec = chain(100, True)
    counts = collections.Counter()
    problems = []

    def measure():
        left = 0 if all_gone(servers, 30) else sum(len(descendants(s.process.pid)) for s in servers)
        # Looked for everywhere, since one may have lost its parent; other users' are soon reaped.
        patience = time.monotonic() + 10
        while (zombies := count_zombies()) and time.monotonic() < patience:
            time.sleep(0.1)
        return dict(
            processes=left, zombies=zombies,
            tcpserver_kB=sum(resident(s.process.pid) for s in servers),
            tcpserver_fds=sum(open_files(s.process.pid) for s in servers),
            orphan_sockets=orphan_sockets(),
        )

    try:
        first = None
        beginning = min(seconds, max(2, seconds / 10))
        for part, long in ("first tenth", beginning), ("rest", seconds - beginning):
            busy(long, ("127.0.0.1", enc.port), ("127.0.0.1", dec.port), counts, problems)
            now = measure()
            print("after the %s: %d connections, %s" % (part, sum(counts.values()), now), flush=True)
            first = first or now
        rate = sum(counts.values()) / seconds
        print("%d connections (%s), %.0f a second" % (sum(counts.values()), dict(counts), rate))
        print("statuses: enc %s, dec %s" % (dict(enc.statuses()), dict(dec.statuses())))
        if now["processes"] or now["zombies"]:
            problems.append("processes were left")
        if now["tcpserver_fds"] > first["tcpserver_fds"] or now["tcpserver_kB"] > first["tcpserver_kB"] + 1024:
            problems.append("a supervisor grew")
        if now["orphan_sockets"] > first["orphan_sockets"] + 20:
            problems.append("sockets without an owner piled up")
        bad = set(enc.statuses()) | set(dec.statuses())
        if bad - {0, 74, 76, 77}:
            problems.append("statuses that should not be: %s" % (bad - {0, 74, 76, 77}))
        if not counts["whole"]:
            problems.append("no connection was made")
        for problem in problems:
            print("PROBLEM: " + problem)
        return 1 if problems else 0
    finally:
        for server in servers:
            server.stop()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if len(sys.argv) >= 3 and sys.argv[1] == "tunnels":
        return tunnels(int(sys.argv[2]), sys.argv[3:] == ["pass"])
    if len(sys.argv) == 3 and sys.argv[1] == "soak":
        return soak(float(sys.argv[2]))
    if len(sys.argv) == 6 and sys.argv[1] == "through":
        return through(place(sys.argv[2]), place(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    if len(sys.argv) == 6 and sys.argv[1] == "come-and-go":
        return come_and_go(*map(place, sys.argv[2:5]), float(sys.argv[5]))
    print(__doc__)
    return 64


if __name__ == "__main__":
    sys.exit(main())
