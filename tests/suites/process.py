#!/usr/bin/python3
"""What a process of ours has and does, as seen from outside: random numbers, locked memory, descriptors, terminals, defaults."""

import ctypes
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
import tty

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../helpers"))
import held
from peer import LIMIT, SHARED, SLOW, Peer, drain, tcp_pair
from suite import SECRET, Skip, Wrong, both, case, expect, far_side, main, needs

PIDFD_GETFD, SO_OOBINLINE = 438, 10


def descriptors(pid):
    """What a process has open, by number."""
    where = "/proc/%d/fd/" % pid
    return {int(fd): os.readlink(where + fd) for fd in os.listdir(where)}


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
        return file.read().split()


def status(pid, name):
    with open("/proc/%d/status" % pid) as file:
        return re.search(r"(?m)^%s:\s*(.*)$" % name, file.read())[1]


def eventually(what, condition):
    end = time.monotonic() + LIMIT * SLOW
    while not condition():
        if time.monotonic() > end:
            raise Wrong("never: " + what)
        time.sleep(0.01)


# --- random numbers -------------------------------------------------------------------------------------


@both
def nonces_differ(role):
    """Each part of each nonce, however small, is another in each connection."""
    seen = {}

    def look(run):
        nonce = run.peer.look_at_nonce()
        for at in range(0, len(nonce), 4):
            expect("connections with the same bytes of a nonce", seen.get((at, nonce[at : at + 4])), None)
            seen[at, nonce[at : at + 4]] = run

    for _ in range(4):
        run = held.Run(role, "ucspi")
        look(run)
        run.stop()
    listener = held.Listener(role)
    for _ in range(4):
        run = held.Served(listener)
        run.wire.sendall(os.urandom(32))  # enough for a process
        look(run)
        run.close()
    listener.stop()


@both
def kernel_is_asked_for_all(role):
    """All 32 bytes of the nonce and all 32 of the exponent are the kernel's random numbers."""
    needs("strace")
    run = held.Run(role, "ucspi", prefix=["strace", "-f", "-o", "calls", "-e", "trace=getrandom"])
    try:
        run.authenticate()
    except (OSError, held.peer.Closed):
        pass
    run.stop()
    with open("calls") as file:
        calls = file.read()
    if "getrandom" not in calls:
        raise Skip("strace cannot trace here")
    expect("calls for 32 bytes", len(re.findall(r", 32, 0\) += 32", calls)), 2)


# --- memory ---------------------------------------------------------------------------------------------


@both
def secrets_are_locked(role):
    """What holds secrets is never swapped out: the keys before the handshake, the connection's own to its end."""
    for shape in "ucspi", "listening":
        run = held.Run(role, shape, ["-o", "30"])
        run.peer.look_at_nonce()
        page = os.sysconf("SC_PAGESIZE") // 1024
        before = int(status(run.pid, "VmLck").split()[0])
        if before < 3 * page:
            raise Wrong("%s: locked before the handshake: %d kB" % (shape, before))
        run.authenticate()
        run.wire.sendall(run.peer.out.seal(b"x"))
        expect("what came", run.plain.recv(1), b"x")
        after = int(status(run.pid, "VmLck").split()[0])
        if not page <= after < before:
            raise Wrong("%s: locked while it relays: %d kB, %d kB before" % (shape, after, before))
        run.stop()


# --- descriptors ----------------------------------------------------------------------------------------


@both
def nothing_else_is_open(role):
    """No key file, no key directory, nothing that we inherited stays open."""
    os.mkdir("keys")
    for name in "one", "two":
        with open("keys/" + name, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(SECRET + name.encode())
    with open("keys/one.conf", "w") as file:
        file.write("expires 2999-12-31\n")
    prefix = ["bash", "-c", 'exec "$@" 5>inherited 30>inherited', "bash"]
    run = held.Run(role, "ucspi", ["-o", "30", *(["-K", "keys"] if role == "dec" else [])], prefix=prefix)
    run.peer.look_at_nonce()
    run.asleep()
    for fd, what in descriptors(run.pid).items():
        if what.startswith("/") and what != "/dev/null":
            raise Wrong("descriptor %d is %s" % (fd, what))
    run.stop()


@case
def launcher_goes_when_not_needed():
    """The launcher that other keys' commands need ends when a key comes whose far side is descriptors 6 and 7."""
    for name, data in ("mine", SECRET), ("other", SECRET + b"!"):
        with open(name, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
    with open("other.conf", "w") as file:
        file.write("command cat\n")
    wire, near = tcp_pair()
    plain, far = tcp_pair()
    with far_side(far) as passed:
        process = subprocess.Popen([os.environ["DEC"], "-k", "mine", "-k", "other"], stdin=near, stdout=near, pass_fds=passed)
    near.close()
    far.close()
    peer = Peer(wire, True, SHARED)
    peer.take_nonce()
    expect("processes before the handshake", len(children(process.pid)), 1)
    peer.sock.sendall(peer.nonce)
    peer.sock.sendall(peer.hello())
    peer.take_hello()
    peer.derive()
    wire.sendall(peer.out.seal(b"x"))
    expect("what came", plain.recv(1), b"x")
    eventually("the launcher is gone", lambda: not children(process.pid))
    for sock in wire, plain:
        sock.shutdown(socket.SHUT_WR)
    expect("status", process.wait(LIMIT * SLOW), 0)


@both
def options_of_a_passed_socket(role):
    """A socket that comes after the sandbox is set up as one that came before: nothing delays, keep-alives, a reset by default."""
    run = held.Run(role, "pass", ["-o", "30"])
    run.authenticate()
    all_options(run, [run.far_socket])


@both
def options_of_a_listeners_sockets(role):
    """The same for those that a listener accepts and connects."""
    run = held.Run(role, "listening", ["-o", "30"])
    run.authenticate()
    all_options(run, [run.near, run.far_socket])


def all_options(run, ours):
    """It relays, and the sockets whose other ends these are have all options."""
    if os.getuid() != 0:
        raise Skip("needs root, to take another process's socket")
    run.wire.sendall(run.peer.out.seal(b"x"))
    expect("what came", run.plain.recv(1), b"x")
    process, found = os.pidfd_open(run.pid), {}
    for fd, what in descriptors(run.pid).items():
        copy = ctypes.CDLL(None).syscall(PIDFD_GETFD, process, fd, 0) if what.startswith("socket:") else -1
        if copy == -1:
            continue
        with socket.socket(fileno=copy) as sock:
            if sock.family == socket.AF_INET:
                found[sock.getsockname()] = [bool(sock.getsockopt(level, option)) for level, option in (
                    (socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    (socket.SOL_SOCKET, socket.SO_LINGER), (socket.SOL_SOCKET, SO_OOBINLINE))]
    os.close(process)
    for sock in ours:
        expect("TCP_NODELAY, SO_KEEPALIVE, SO_LINGER, SO_OOBINLINE", found[sock.getpeername()], [True] * 4)
    run.stop()


# --- order ----------------------------------------------------------------------------------------------


@case
def no_command_before_the_rules():
    """A command that the rules forbid does not even start. Its end is held up, so that it would show."""
    needs("strace")
    with open("secret.conf", "w") as file:
        file.write("expires 2000-01-01\ncommand touch ran\n")
    run = held.Run("dec", "command", ["-o", "30"], prefix=[
        "strace", "-o", "calls", "-e", "trace=kill", "-e", "inject=kill:delay_enter=500000"])
    try:
        run.authenticate()
    except (OSError, held.peer.Closed):
        pass
    run.end()
    with open("calls") as file:
        if "SIGKILL" not in file.read():
            raise Skip("strace cannot trace here")
    expect("status", run.status, 77)
    expect("whether it ran", os.path.exists("ran"), False)


# --- a listener -----------------------------------------------------------------------------------------


class Listening:
    """A program that is handed a listening socket as inetd's wait does, as all of its first three descriptors but stderr."""

    def __init__(self, role, *options, command=("cat",), prefix=()):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.process = subprocess.Popen([*prefix, os.environ[role.upper()], "-o", "30", "-k", "secret", *options, "--", *command],
                                        stdin=self.socket, stdout=self.socket)

    def connect(self, source="127.0.0.1"):
        return socket.create_connection(self.socket.getsockname(), LIMIT * SLOW, source_address=(source, 0))

    def end(self):
        self.process.terminate()
        expect("the listener's status", self.process.wait(LIMIT * SLOW), 0)

    def holder(self):
        peer = Peer(self.connect(), True, SHARED)
        peer.shake()
        return peer


def stranger(listener, source="127.0.0.1"):
    """A connection that sends a nonce and no more, once it is served."""
    sock = listener.connect(source)
    sock.send(os.urandom(32))
    expect("the size of a nonce", len(sock.recv(32, socket.MSG_WAITALL)), 32)
    return sock


def is_open(sock):
    return not select.select([sock], [], [], 0)[0]


@case
def oldest_stranger_gives_way():
    listener = Listening("dec", "--max-strangers", "3")
    strangers = [stranger(listener) for _ in range(5)]
    for sock in strangers[:2]:
        eventually("an old stranger is gone", lambda: not is_open(sock))
    expect("who is left", [is_open(sock) for sock in strangers], [False, False, True, True, True])
    listener.end()


@case
def holders_are_counted_as_connections():
    """Who has proved a key is a stranger no more."""
    listener = Listening("dec", prefix=["bash", "-c", 'exec "$@" 2>err', "bash"])
    peer, other = listener.holder(), stranger(listener)

    def counted():
        listener.process.send_signal(signal.SIGUSR1)
        with open("err") as file:
            return "1 connections, 1 strangers;" in file.read()

    eventually("one of each is counted", counted)
    for sock in peer.sock, other:
        sock.close()
    listener.end()


@case
def oldest_stranger_gives_way_after_a_reload():
    listener = Listening("dec", "--max-strangers", "3")
    pid = listener.process.pid
    gone, old, middle = (stranger(listener) for _ in range(3))
    gone.close()
    eventually("the first is gone", lambda: len(children(pid)) == 2)
    new = stranger(listener)  # in the place of the first
    listener.process.send_signal(signal.SIGHUP)
    eventually("SIGHUP is received", lambda: int(status(pid, "ShdPnd"), 16) == 0)
    newest = stranger(listener)
    eventually("an old stranger is gone", lambda: not all(map(is_open, (old, middle, new))))
    expect("who is left", [is_open(sock) for sock in (old, middle, new, newest)], [False, True, True, True])
    listener.end()


@case
def silent_stranger_has_no_process():
    """It gets one when its nonce is complete, or after two seconds."""
    listener = Listening("dec", "--max-strangers", "1")
    pid = listener.process.pid
    start = time.monotonic()
    silent = listener.connect()
    silent.send(bytes(31))
    eventually("it is accepted", lambda: is_open(listener.socket))
    early = children(pid)
    if time.monotonic() < start + 1.9:
        expect("processes", early, [])
    silent.send(bytes(1))
    expect("the size of a nonce", len(silent.recv(32, socket.MSG_WAITALL)), 32)
    start = time.monotonic()
    mute = listener.connect()
    expect("the size of a nonce", len(mute.recv(32, socket.MSG_WAITALL)), 32)
    if time.monotonic() < start + 1.9:
        raise Wrong("it got its nonce after %.1f s" % (time.monotonic() - start))
    listener.end()


def forks_paid(pid):
    """Minor faults of the children that a process has waited for: a measure of how many there were."""
    with open("/proc/%d/stat" % pid) as file:
        return int(file.read().rpartition(")")[2].split()[8])


@case
def stranger_that_leaves_no_record_has_no_process():
    listener = Listening("dec", "--max-strangers", "1")
    pid = listener.process.pid
    for _ in range(10):
        listener.connect().close()
        eventually("it is accepted", lambda: is_open(listener.socket))
    eventually("all are gone", lambda: not children(pid))
    before = forks_paid(pid)
    for _ in range(10):
        listener.connect().close()
    held_open = [listener.connect() for _ in range(10)]
    for sock in held_open[:-1]:
        expect("how it ends", drain(sock), (b"", "reset"))
    expect("faults of children", forks_paid(pid) - before, 0)
    listener.end()


@case
def strangers_start_a_few_at_a_time():
    """Four; one of those from sources that have no record left, and these come last."""
    listener = Listening("dec")
    pid = listener.process.pid
    for _ in range(10):
        listener.connect("127.0.0.8").close()
        eventually("it is accepted", lambda: is_open(listener.socket))
    eventually("all are gone", lambda: not children(pid))
    os.unlink("secret")
    os.mkfifo("secret", 0o600)  # a process that starts waits for its key
    fifo = os.open("secret", os.O_RDWR)
    socks = []

    def come(source, count, processes):
        for _ in range(count):
            socks.append(listener.connect(source))
            socks[-1].send(bytes(32))
        eventually("they are accepted", lambda: is_open(listener.socket))
        eventually("they have processes", lambda: len(children(pid)) == processes)
        eventually("it sleeps", lambda: status(pid, "State")[0] == "S")
        for _ in range(20):  # nothing is to happen
            time.sleep(0.01)
            expect("the listener's state", status(pid, "State")[0], "S")
        expect("processes", len(children(pid)), processes)

    come("127.0.0.8", 8, 1)
    come("127.0.0.9", 8, 4)
    first = children(pid)
    os.kill(int(first[0]), signal.SIGKILL)
    eventually("another has a process", lambda: set(children(pid)) - set(first))
    (other,) = set(children(pid)) - set(first)
    eventually("it says whom it serves", lambda: title(other).startswith("spipe-dec: 127"))
    expect("whom it serves", title(other).split(":")[1], " 127.0.0.9")
    os.close(fifo)
    listener.end()


def title(pid):
    with open("/proc/%s/cmdline" % pid) as file:
        return file.read().rstrip("\0")


@case
def told_to_give_way_too_late():
    """A peer that proves its key in the same moment stays."""
    listener = Listening("dec")
    peer = listener.holder()
    os.kill(int(children(listener.process.pid)[0]), signal.SIGUSR2)
    peer.sock.sendall(peer.out.seal(b"still here"))
    expect("the echo", peer.take_packet(), b"still here")
    listener.end()


@case
def idle_listener_ends():
    start = time.monotonic()
    listener = Listening("dec", "--exit-idle", "1")
    expect("status", listener.process.wait(LIMIT * SLOW), 0)
    if not 1 <= time.monotonic() - start < 1 + SLOW:
        raise Wrong("it took %.1f s" % (time.monotonic() - start))


@case
def descriptors_of_a_listener():
    """It keeps nothing that it has inherited, its children nothing that listens, and nobody waits in accept(2)."""
    listener = Listening("dec", prefix=["bash", "-c", 'exec "$@" 6</etc/passwd 7</etc/passwd 30</etc/passwd', "bash"])
    peer = listener.holder()
    expect("whether accept may block", os.get_blocking(listener.socket.fileno()), False)
    child = int(children(listener.process.pid)[0])
    name = os.readlink("/proc/self/fd/%d" % listener.socket.fileno())
    expect("descriptors of the child that listen", [fd for fd, what in descriptors(child).items() if what == name], [])
    kept = [fd for fd, what in descriptors(listener.process.pid).items() if what == "/etc/passwd"]
    expect("inherited descriptors of the listener", kept, [])
    with_one = len(descriptors(listener.process.pid))
    for _ in range(3):
        peer.sock.close()
        eventually("no connection is left", lambda: not children(listener.process.pid))
        peer = listener.holder()
        expect("descriptors with one connection", len(descriptors(listener.process.pid)), with_one)
    peer.sock.close()
    listener.end()


@case
def foreign_state_of_a_listener():
    """SPIPE_LISTENER, which SIGHUP leaves to the next program, is of no use to another process."""
    with open("state", "w") as state:
        state.write("0 77 0 0 0\n")  # no process is left, 77 have been served
    for value in "1:30", "30", "", "one":
        prefix = ["bash", "-c", 'SPIPE_LISTENER=%s exec "$@" 30<state 2>err' % value, "bash"]
        listener = Listening("dec", prefix=prefix)
        peer = listener.holder()
        kept = [fd for fd, what in descriptors(listener.process.pid).items() if what == os.path.abspath("state")]
        expect("inherited descriptors of the listener", kept, [])
        listener.process.send_signal(signal.SIGUSR1)
        eventually("the listener's counts", lambda: " served" in open("err").read())
        expect("an unknown count", " 77 served" in open("err").read(), False)
        peer.sock.close()
        listener.end()


@case
def child_that_gets_no_answer():
    """If the listener cannot pass on the target's socket, its child ends at once."""
    needs("strace")
    with socket.create_server(("127.0.0.1", 0)) as target, socket.create_server(("127.0.0.1", 0)) as server:
        process = subprocess.Popen(["strace", "-D", "-o", "calls", "-e", "trace=sendmsg", "-e", "inject=sendmsg:error=ETOOMANYREFS",
                                    os.environ["DEC"], "-o", "30", "-k", "secret", "-t", "127.0.0.1:%d" % target.getsockname()[1]],
                                   stdin=server, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        peer = Peer(socket.create_connection(server.getsockname(), LIMIT * SLOW), True, SHARED)
        peer.shake()
        drain(peer.sock)
        process.terminate()
        message = process.communicate()[1]
    with open("calls") as file:
        if "INJECTED" not in file.read():
            raise Skip("strace cannot trace here")
    expect("its message", b"no socket came from the" in message, True)


@case
def output_of_a_listener_is_stderr():
    """What a listener has as standard output is not the wire, even if it is a socket and stderr as well."""
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server, ours, theirs:
        process = subprocess.Popen([os.environ["DEC"], "-k", "secret", "cat"], stdin=server, stdout=theirs, stderr=theirs)
        socket.create_connection(server.getsockname()).close()
        ours.settimeout(LIMIT * SLOW)
        expect("a message", ours.recv(4096)[:11], b"spipe-dec: ")
        process.terminate()
        expect("the listener's status", process.wait(LIMIT * SLOW), 0)


@case
def absurd_numbers_of_descriptors():
    for number in "300", "2147483647", "99999999999":
        with socket.create_server(("127.0.0.1", 0)) as server:
            script = 'exec 3<&0; LISTEN_PID=$$ LISTEN_FDS=%s exec "$DEC" -k secret cat' % number
            run = subprocess.run(["bash", "-c", script], stdin=server, stderr=subprocess.PIPE, timeout=LIMIT * SLOW, check=False)
            expect("status with LISTEN_FDS=" + number, run.returncode, 64)
            expect("its message", b"LISTEN_FDS is not a number from 0 to 256: " in run.stderr, True)


@both
def closed_stderr(role):
    """No file or socket that is opened takes the place of stderr."""
    run = held.Run(role, "ucspi", ["-o", "30"], prefix=["sh", "-c", 'exec "$@" 2>&-', "sh"])
    run.peer.look_at_nonce()
    expect("descriptor 2", descriptors(run.pid)[2], "/dev/null")
    run.stop()


# --- terminals ------------------------------------------------------------------------------------------


def terminal_of(pid):
    with open("/proc/%d/stat" % pid) as file:
        return int(file.read().rpartition(")")[2].split()[4])


@case
def takes_no_terminal():
    """A terminal that it is given as output, or as a key file, does not become its own."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    source, theirs = os.pipe()
    wire, far = tcp_pair()
    wire.settimeout(LIMIT * SLOW)
    with far_side(far) as passed:
        enc = subprocess.Popen([os.environ["ENC"], "-k", "secret"], stdin=source, stdout=slave, pass_fds=passed,
                               start_new_session=True)
    Peer(wire, False, SHARED).shake()
    expect("its terminal", terminal_of(enc.pid), 0)
    enc.terminate()
    enc.wait()
    os.close(theirs)
    needs("strace")
    name = os.ttyname(slave)
    subprocess.run(["strace", "-f", "-o", "calls", "-e", "trace=openat", os.environ["ENC"], "-k", name, "--", "true"],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open("calls") as file:
        opened = [line for line in file if name in line]
    expect("how it was opened", ["O_NOCTTY" in line for line in opened], [True])


# --- defaults -------------------------------------------------------------------------------------------


@both
def default_timeout(role):
    """The handshake has 5 s."""
    run = held.Run(role, "ucspi")
    run.end(LIMIT * SLOW)
    expect("status", run.status, 75)
    if not 4.9 < run.seconds < 5 + 2.5 * SLOW:
        raise Wrong("it took %.1f s" % run.seconds)


@case
def default_connections():
    """A listener serves 200 connections at once."""
    target = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    process = subprocess.Popen([os.environ["ENC"], "-o", "100", "-k", "secret", "-t", "127.0.0.1:%d" % target.getsockname()[1]],
                               stdin=listener, stdout=subprocess.DEVNULL)
    held_open = [socket.create_connection(listener.getsockname()) for _ in range(202)]
    eventually("200 are served", lambda: len(children(process.pid)) >= 200)
    eventually("the rest wait", lambda: bool(select.select([listener], [], [], 0)[0]))
    time.sleep(0.2)  # nothing is to happen
    expect("served", len(children(process.pid)), 200)
    held_open.pop(0).close()
    process.terminate()
    expect("status", process.wait(LIMIT * SLOW), 0)


if __name__ == "__main__":
    main()
