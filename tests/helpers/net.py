#!/usr/bin/python3
"""Network helpers for the tests, where a shell cannot see enough. See lib.bash for how they are used.

net.py listen [-u] NAME COMMAND...   a server that runs COMMAND for each connection
net.py serve [-i] [-u] NAME COMMAND...   become COMMAND, handed a listening socket
net.py refuse NAME              a port (in NAME.port) that refuses every connection
net.py exchange IN OUT [COMMAND...|ADDRESS]   send IN and collect OUT at the same time
"""

import os
import select
import signal
import socket
import subprocess
import sys
import threading


def bound(name, unix):
    """A socket that listens on a free port of 127.0.0.1, or on the UNIX socket NAME.sock."""
    listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    listener.bind(name + ".sock" if unix else ("127.0.0.1", 0))
    listener.listen(512)
    return listener


def say_where(name, listener):
    where = listener.getsockname()
    # Only complete files ever have the final name.
    with open(name + ".port.new", "w") as f:
        f.write("%s\n" % (where[1] if isinstance(where, tuple) else where))
    os.rename(name + ".port.new", name + ".port")


def serve(args):
    """As systemd does with Accept=no: the socket is descriptor 3. With -i as inetd's wait: 0, 1 and 2."""
    flags = [arg for arg in args[:2] if arg in ("-i", "-u")]
    name, command = args[len(flags)], args[len(flags) + 1:]
    listener = bound(name, "-u" in flags)
    say_where(name, listener)
    if "-i" in flags:
        for fd in 0, 1, 2:
            os.dup2(listener.fileno(), fd)
    else:
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)  # also where it was 3 before
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    os.execvp(command[0], command)


def listen(args):
    """Serve until killed; NAME.port tells where, NAME.status each child's exit status."""
    unix = args[0] == "-u"
    if unix:
        args = args[1:]
    name, command = args[0], args[1:]
    listener = bound(name, unix)
    listener.setblocking(False)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children = {}

    def end(*_):
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    say_where(name, listener)
    with open(name + ".status", "a", buffering=1) as log:
        while True:
            ready, _, _ = select.select([listener, wake_read], [], [])
            if wake_read in ready:
                os.read(wake_read, 512)
                for pid, child in list(children.items()):
                    status = child.poll()
                    if status is not None:
                        del children[pid]
                        log.write("%d\n" % (status if status >= 0 else 128 - status))
            if listener in ready:
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    continue
                connection.setblocking(True)
                child = subprocess.Popen(command, stdin=connection, stdout=connection)
                children[child.pid] = child
                connection.close()


def refuse(args):
    """Hold a port that nobody listens on, until killed."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    say_where(args[0], holder)
    signal.pause()


def send_all(source, descriptor, finish):
    """Copy the open file `source` to `descriptor`, then call finish(); a lost reader is no error here."""
    try:
        while True:
            data = source.read(1 << 18)
            if not data:
                break
            while data:
                data = data[os.write(descriptor, data):]
    except (BrokenPipeError, ConnectionResetError):
        pass
    try:
        finish()
    except OSError:
        pass


def connect(address):
    """Open a connection to HOST:PORT or to a UNIX socket's absolute path."""
    if address.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
    else:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host, int(port)))
    return connection


def exchange(args):
    """See lib.bash. Exit status: the command's, or 1 when the connection was reset."""
    source, sink, target = open(args[0], "rb"), open(args[1], "wb"), args[2:]
    child = connection = None
    if len(target) == 1 and (":" in target[0] or target[0].endswith(".sock")):
        connection = connect(target[0])
    elif target:
        connection, theirs = socket.socketpair()
        child = subprocess.Popen(target, stdin=theirs, stdout=theirs)
        theirs.close()
    if connection:
        read_fd = write_fd = connection.fileno()
        finish = lambda: connection.shutdown(socket.SHUT_WR)
    else:
        read_fd, write_fd = 0, 1
        try:
            mine = socket.socket(fileno=os.dup(1))
            finish = lambda: mine.shutdown(socket.SHUT_WR)
        except OSError:
            finish = lambda: os.close(1)
    sender = threading.Thread(target=send_all, args=(source, write_fd, finish), daemon=True)
    sender.start()
    status = 0
    try:
        while True:
            data = os.read(read_fd, 1 << 18)
            if not data:
                break
            sink.write(data)
    except ConnectionResetError:
        if not child:
            print("exchange: connection reset", file=sys.stderr)
        status = 1
    sink.close()
    if child:
        status = child.wait()
        status = status if status >= 0 else 128 - status
    else:
        sender.join()
    return status


def main():
    """Run the function that the first argument names."""
    actions = {"listen": listen, "serve": serve, "refuse": refuse, "exchange": exchange}
    if len(sys.argv) < 3 or sys.argv[1] not in actions:
        sys.exit(__doc__)
    sys.exit(actions[sys.argv[1]](sys.argv[2:]))


if __name__ == "__main__":
    main()
