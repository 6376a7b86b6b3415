"""One run of our program with both of its neighbours in our hands, for the tests that look into it while it runs.

A Run has one of several shapes: its far side is a "command", "pass" (a command with -p), "ucspi" (descriptors 6 and 7)
or a "target" (-t), and in all of these it is handed its connection; in "listening" it is handed a listening socket, and
connects to a target. `wire` is its encrypted connection, `plain` the other. For spipe-dec with a command, the command
is a shell's: it saves what it gets in ./got, then sends ./reply, then makes ./finished. A Listener has any number of
connections.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import peer  # noqa: E402 (the other implementation of the protocol)
import start  # noqa: E402

SHAPES = "command", "pass", "ucspi", "listening"  # those in which different code of ours runs; "target" is like "pass"
ROLES = "enc", "dec"
WAIT = 10  # seconds for anything
COMMAND = ["/bin/sh", "-c", "cat >got && cat reply && : >finished"]


def listening(backlog=1):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(backlog)
    listener.settimeout(WAIT)
    return listener


class Peer(peer.Peer):
    """A peer that can look at the program's nonce before it goes on."""

    ahead = b""

    def receive(self, size):
        data, self.ahead = self.ahead[:size], self.ahead[size:]
        return data + super().receive(size - len(data))

    def look_at_nonce(self):
        self.ahead = self.receive(peer.NONCE)
        return self.ahead


def key_file():
    """What is in the file `secret`, which is made when missing."""
    if not os.path.exists("secret"):
        with open("secret", "wb") as f:
            f.write(os.urandom(32))
    with open("secret", "rb") as f:
        return f.read()


class Run:
    """Starts it. Files of the current directory: `secret`, got, reply, finished. `make` makes its near side."""

    def __init__(self, role, shape, options=(), environment=None, program=None, prefix=(), make=peer.tcp_pair):
        self.role, self.shape = role, shape
        self.key_file = key_file()
        self.key = peer.hashlib.sha256(self.key_file).digest()
        for name in "got", "finished":
            if os.path.exists(name):
                os.unlink(name)
        self.listener = self.far_socket = far_theirs = None
        command, keep = [], ()
        if shape == "ucspi":
            self.far_socket, far_theirs = peer.tcp_pair()
            keep = (6, 7)
        elif shape == "command" and role == "dec":
            command = ["--", *COMMAND]
        else:
            self.listener = listening()
            host, port = self.listener.getsockname()
            nc = ["nc", "-F"] if shape == "pass" else ["nc", "-N"]
            command = ["-p"] * (shape == "pass") + ["--", *nc, host, str(port)]
            if shape in ("target", "listening"):
                command = ["-t", "%s:%d" % (host, port)]

        def between():
            os.dup2(far_theirs.fileno(), 6)
            os.dup2(far_theirs.fileno(), 7)

        self.started = time.monotonic()
        arguments = [*prefix, program or os.environ[role.upper()], "-k", "secret", *options, *command]
        if shape == "listening":
            near = start.listening(make)
            self.near = start.connected(near)
            self.process = start.Listener(arguments, near, env=environment)
        else:
            self.near, near = make()
            self.process = subprocess.Popen(
                arguments, stdin=near, stdout=near, stderr=subprocess.PIPE, pass_fds=keep, env=environment,
                preexec_fn=between if far_theirs else None,
            )
            near.close()
        self.stderr = self.process.stderr.fileno()
        if far_theirs:
            far_theirs.close()
        if role == "enc":
            self.plain = self.near
            self.wire = self.far_side()
        else:
            self.wire, self.plain = self.near, None
            if shape == "ucspi":
                self.plain = self.far_socket
        self.peer = Peer(self.wire, role == "dec", self.key, pfs=True) if self.wire else None
        for sock in self.near, self.far_socket:
            if sock:
                sock.settimeout(WAIT)

    @property
    def pid(self):
        """Of the process that serves the connection."""
        return start.serving(self.process)

    def far_side(self):
        """The far side's socket, as soon as it is connected; None when the connection ended first."""
        if self.listener:
            if self.listener not in select.select([self.listener, self.near], [], [], WAIT)[0]:
                return None
            self.far_socket, _ = self.listener.accept()
            self.far_socket.settimeout(WAIT)
            self.listener.close()
            self.listener = None
        return self.far_socket

    def authenticate(self):
        """The whole handshake, and for spipe-dec the connection of its far side."""
        self.peer.shake()
        if self.role == "dec" and self.plain is None and self.listener:
            self.plain = self.far_side()

    def end(self, seconds=WAIT):
        """Wait for its end: self.status (negative: by that signal) or None when it hangs; self.message its stderr,
        up to the end of the last process that had it."""
        try:
            self.status = self.process.wait(max(0.1, seconds))
        except subprocess.TimeoutExpired:
            self.status = None
            self.process.kill()
            self.process.wait()
        self.seconds = time.monotonic() - self.started
        self.message = start.said(self.process)
        self.leaked = self.message.endswith(peer.OUTLIVED)
        self.process.stderr.close()

    def close(self):
        for sock in self.near, self.far_socket, self.listener:
            if sock:
                sock.close()

    def stop(self):
        """End it however far it has come."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.close()
        self.end()

    def asleep(self):
        """Wait until it sleeps with nothing left to do. True when it does."""
        limit = time.monotonic() + WAIT
        while time.monotonic() < limit:
            with open("/proc/%d/stat" % self.pid) as f:
                state = f.read().rpartition(")")[2].split()[0]
            if state == "Z":
                return False
            if state == "S":
                # The spin before a sleep is over when it is seen asleep twice with the same count of switches.
                with open("/proc/%d/status" % self.pid) as f:
                    switches = [line for line in f if "voluntary" in line]
                if switches == getattr(self, "switches", None):
                    del self.switches
                    return True
                self.switches = switches
            time.sleep(0.01)
        return False


class Listener(Run):
    """A program that is handed a listening socket, and connects to a target of ours."""

    def __init__(self, role, options=(), environment=None):
        self.role, self.near, self.far_socket = role, None, None
        self.key = peer.hashlib.sha256(key_file()).digest()
        self.target = self.listener = listening(8)
        near = listening(8)
        self.address = near.getsockname()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [os.environ[role.upper()], "-k", "secret", "-t", "%s:%d" % self.target.getsockname(), *options],
            stdin=near, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
        )
        near.close()

    def children(self):
        with open("/proc/%d/task/%d/children" % (self.pid, self.pid)) as f:
            return f.read().split()

    def forget_connected(self):
        """The listener may have connected to the target for a child that had already failed."""
        limit = time.monotonic() + WAIT
        while self.children() and time.monotonic() < limit:
            time.sleep(0.002)
        while select.select([self.target], [], [], 0)[0]:
            self.target.accept()[0].close()


class Served:
    """One of a Listener's connections, to be used like a Run."""

    def __init__(self, listener):
        self.role, self.target, self.plain, self.wire, self.peer = listener.role, listener.target, None, None, None
        listener.forget_connected()
        self.near = socket.socket()
        self.near.settimeout(WAIT)
        self.near.bind(("127.0.0.1", 0))
        self.name = "%s:%d" % self.near.getsockname()
        try:
            self.near.connect(listener.address)
        except ConnectionResetError:
            return  # already
        if self.role == "enc":
            self.plain, self.wire = self.near, self.far_side()
        else:
            self.wire = self.near
        if self.wire:
            self.peer = Peer(self.wire, self.role == "dec", listener.key, pfs=True)

    def far_side(self):
        """The far side's socket, as soon as the program has connected it; None when it has not."""
        if self.target not in select.select([self.target, self.near], [], [], WAIT)[0]:
            return None
        far, _ = self.target.accept()
        far.settimeout(WAIT)
        return far

    def authenticate(self):
        self.peer.shake()
        if self.role == "dec":
            self.plain = self.far_side()

    def close(self):
        for sock in self.near, self.wire, self.plain:
            if sock:
                sock.close()
