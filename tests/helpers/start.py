"""Start one of our programs for one connection, with sockets of ours at both of its sides.

It is handed the connection, with a far side as descriptors 6 and 7. In the cases that each_way registers a second time
it is handed a listening socket instead, and connects to its target (-t) by itself; a case does not see the difference.
"""

import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import time

import suite
from peer import LIMIT, SLOW, read_all, tcp_pair
from suite import Wrong, far_side

listens = False  # whether programs listen in this case


def each_way(register):
    """Make of `case` or `both` one that registers a case twice, the second time as NAME-listening."""
    def twice(function, name=None, *arguments):
        def again():
            global listens
            listens = True
            function(*arguments)

        again.__module__ = function.__module__
        name = name or function.__name__.replace("_", "-")
        suite.case(function, name, *arguments)
        suite.case(again, name + "-listening")
        return function

    def for_both(function):
        for role in "dec", "enc":
            twice(function, "%s-%s" % (function.__name__.replace("_", "-"), role), role)
        return function

    return twice if register == suite.case else for_both


def listening(make=tcp_pair):
    """A socket that listens, of the kind of those that `make` makes."""
    if make == tcp_pair:
        return socket.create_server(("127.0.0.1", 0), backlog=1)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(tempfile.mkdtemp(dir=os.getcwd()), "socket"))
    listener.listen(1)
    return listener


def place(listener):
    """Its address, as -t has it."""
    name = listener.getsockname()
    return name if isinstance(name, str) else "%s:%d" % name[:2]


def connected(listener):
    """A connection to it."""
    sock = socket.socket(listener.family)
    sock.settimeout(LIMIT * SLOW)
    sock.connect(listener.getsockname())
    no_delay(sock)
    return sock


def no_delay(sock):
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Listener(subprocess.Popen):
    """
    A program that is handed a listening socket, for one connection. To be used like the Popen of one that was handed
    the connection: signals and status are those of the process that serves it.
    """

    def __init__(self, arguments, listener, **more):
        super().__init__(arguments, stdin=listener, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)
        self.parent, self.listener, self.status = self.pid, listener, None

    def serving(self):
        """The process that serves the connection, or None when it has ended."""
        until = time.monotonic() + LIMIT * SLOW
        while select.select([self.listener], [], [], 0)[0]:
            if time.monotonic() > until:
                raise Wrong("no connection was accepted")
            time.sleep(0.002)
        with open("/proc/%d/task/%d/children" % (self.parent, self.parent)) as children:
            pids = children.read().split()
        return int(pids[0]) if pids else None

    def send_signal(self, number):
        if pid := self.serving():
            os.kill(pid, number)

    def poll(self):
        return None if self.status is None and self.serving() else self.wait()

    def wait(self, timeout=None):
        if self.status is None:
            self.serving()
            os.kill(self.parent, signal.SIGUSR2)  # accept no more, and end with the connection
            if super().wait(timeout) != 0:
                raise Wrong("the listener's status is %d" % self.returncode)
            self.message = read_all(self.stderr.fileno())
            self.listener.close()
            said = re.search(r"\(status (\d+)\)|(?:ended|process .* killed) by signal (\d+)", self.message)
            self.status = 0 if not said else int(said[1]) if said[1] else -int(said[2])
        return self.status


def serving(process):
    """The pid of the process that serves the connection."""
    return process.serving() if isinstance(process, Listener) else process.pid


def said(process):
    """All that a program that has ended wrote to its stderr."""
    return process.message if isinstance(process, Listener) else read_all(process.stderr.fileno())


class Started:
    """A program, and our sockets at its near and far side; `far` is None with a command."""

    def __init__(self, role, options=(), command=(), make=tcp_pair, make_far=None):
        arguments = [os.environ[role.upper()], "-k", "secret", *options]
        if command:
            arguments += ["--", *command]
        self.target = self.connection = None
        if listens:
            listener = listening(make)
            if not command:
                self.target = listening(make_far or make)
                arguments[3:3] = ["-t", place(self.target)]
            self.near = connected(listener)
            self.process = Listener(arguments, listener)
            return
        self.near, near = make()
        far = None
        if not command:
            self.connection, far = (make_far or make)()
        with far_side(far, unless=command) as passed:
            self.process = subprocess.Popen(
                arguments, stdin=near, stdout=near, stderr=subprocess.PIPE, pass_fds=passed
            )
        for sock in near, far:
            if sock:
                sock.close()
        for sock in self.near, self.connection:
            if sock:
                sock.settimeout(LIMIT * SLOW)

    @property
    def far(self):
        """Where the program connects to it: as soon as it has, or None when it has ended before."""
        if self.connection is None and self.target:
            if self.target in select.select([self.target, self.process.stderr], [], [], LIMIT * SLOW)[0]:
                self.connection, _ = self.target.accept()
                self.connection.settimeout(LIMIT * SLOW)
                no_delay(self.connection)
            self.target.close()
            self.target = None
        return self.connection

    def close(self):
        for sock in self.near, self.connection, self.target:
            if sock:
                sock.close()
