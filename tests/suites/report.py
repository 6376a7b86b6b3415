#!/usr/bin/python3
"""Where messages and records go: the journal, syslog, the service manager, stderr.

Each case runs in a mount namespace of its own: /dev and /run are covered, and the sockets of journald and syslogd
there are this script's.
"""

import ctypes
import functools
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../helpers"))
import held
import start
from held import peer
from start import each_way
from suite import Skip, Wrong, case, expect, expect_like, main

SEND, REPLY = os.urandom(5000), os.urandom(3000)
JOURNAL, LOG = "/run/systemd/journal/socket", "/dev/log"
INFO, NOTICE, WARNING, ERROR = 6, 5, 4, 3
DAEMON = 3 << 3
# What precedes the command line: fd 2 said to be the journal, or made the connection.
STREAM = ["/bin/sh", "-c", 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"', "sh"]
WIRE = ["/bin/sh", "-c", 'exec "$@" 2>&0', "sh"]


def covered(function):
    """Have a case run where nothing of the machine's own logs is seen."""
    @functools.wraps(function)
    def run():
        if function.__name__ in ("ready", "status") or function.__name__.startswith("journal"):
            if not os.path.exists(os.environ["BUILD"] + "/spipe-generator"):
                raise Skip("built without systemd")
        own_mounts()
        cover()
        function()

    return run


def own_mounts():
    """Enter a mount namespace of our own, as root, or as root of a user namespace."""
    CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
    uid, gid, unshare = os.getuid(), os.getgid(), ctypes.CDLL(None).unshare
    if unshare(CLONE_NEWNS) != 0:
        if unshare(CLONE_NEWNS | CLONE_NEWUSER) != 0:
            raise Skip("no mount namespaces here")
        for name, text in ("setgroups", "deny"), ("uid_map", "0 %d 1" % uid), ("gid_map", "0 %d 1" % gid):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
    # Nothing that is mounted here is to be seen elsewhere: that fails in a chroot without a mount point of its own.
    if subprocess.run(["mount", "--make-rprivate", "/"], stderr=subprocess.DEVNULL).returncode != 0:
        raise Skip("no mounts of its own here")


def cover():
    """/dev with little in it and /run with nothing, both for us alone."""
    names = ("null", "zero", "urandom", "random")
    os.makedirs("dev")
    subprocess.run(["mount", "-t", "tmpfs", "dev", "dev"], check=True)
    for name in names:
        open("dev/" + name, "w").close()
        subprocess.run(["mount", "--bind", "/dev/" + name, "dev/" + name], check=True)
    os.symlink("/proc/self/fd", "dev/fd")
    subprocess.run(["mount", "--rbind", "dev", "/dev"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "run", "/run"], check=True)
    os.makedirs(os.path.dirname(JOURNAL))


class Listener:
    """A datagram socket at `path` (a first \\0: an abstract name)."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(path)
        self.path = path

    def next(self, seconds=held.WAIT):
        """The next datagram, or None."""
        if not select.select([self.sock], [], [], seconds)[0]:
            return None
        return self.sock.recv(65536).decode()

    def rest(self):
        """All that has come: what a program sent before its end is there."""
        found = []
        while (message := self.next(0)) is not None:
            found.append(message)
        return found

    def close(self):
        self.sock.close()
        if self.path[0] != "\0":
            os.unlink(self.path)


def entries(messages):
    """Entries of the journal's format, which must be whole lines KEY=VALUE, each key once."""
    found = []
    for message in messages:
        expect("the end of an entry", message[-1:], "\n")
        pairs = [line.split("=", 1) for line in message[:-1].split("\n")]
        expect("keys twice", len(dict(pairs)), len(pairs))
        found.append(dict(pairs))
    return found


def log_line(message):
    """Priority, program and pid, and text of a message to syslog."""
    match = re.fullmatch(r"<(\d+)>\w\w\w [ \d]\d \d\d:\d\d:\d\d (spipe-\w+)\[(\d+)\]: (.*)\n?", message)
    if not match:
        raise Wrong("no message to syslog: %r" % message)
    return int(match[1]), match[2], int(match[3]), match[4]


class Run(held.Run):
    """A connection that has not begun."""

    def __init__(self, role, options=(), prefix=(), make=peer.tcp_pair, **environment):
        with open("reply", "wb") as f:
            f.write(REPLY)
        shape = "listening" if start.listens else "command"
        super().__init__(role, shape, ["-o", "30", *options], kept(environment), prefix=prefix, make=make)
        self.name = "%s:%d" % self.near.getsockname() if self.near.family == socket.AF_INET else "-"

    def converse(self):
        """The whole connection, ending well."""
        self.authenticate()
        self.talk()

    def talk(self):
        self.served_by = self.pid
        if self.role == "enc":
            self.plain.sendall(SEND)
            self.plain.shutdown(socket.SHUT_WR)
            peer.drain(self.wire)
            self.wire.sendall(self.peer.out.seal_all(REPLY))
            self.wire.shutdown(socket.SHUT_WR)
            expect("what arrived", peer.drain(self.plain), (REPLY, "end"))
        else:
            self.wire.sendall(self.peer.out.seal_all(SEND))
            self.wire.shutdown(socket.SHUT_WR)
            if self.plain:
                expect("what arrived", peer.drain(self.plain), (SEND, "end"))
                self.plain.sendall(REPLY)
                self.plain.shutdown(socket.SHUT_WR)
            data, end = peer.drain(self.wire)
            data = b"".join(self.peer.into.open(data[i : i + 1060]) for i in range(0, len(data), 1060))
            expect("what arrived", (data, end), (REPLY, "end"))
        self.end()
        expect("status", self.status, 0)
        self.close()

    def record(self, reason="ended cleanly", key="secret"):
        """What the record of the connection matches; all bytes when it ended well."""
        counts = (len(SEND), len(REPLY)) if reason == "ended cleanly" else (r"\d+", r"\d+")
        return r"%s key %s: %s bytes in, %s bytes out, \d+\.\d{3} s: %s" % (re.escape(self.name), key, *counts, reason)


def kept(environment):
    """The environment with these changes, and nobody to tell but those whom they name."""
    names = os.environ.keys() - {"JOURNAL_STREAM", "NOTIFY_SOCKET"}
    return {**{name: os.environ[name] for name in names}, **environment}


def direct(role, arguments, prefix=(), sends=0, **environment):
    """A connection whose peer says nothing, and is sent so many bytes: status and stderr of the program."""
    command = [*prefix, os.environ[role.upper()], *arguments]
    if start.listens:
        listener = start.listening()
        near, process = start.connected(listener), start.Listener(command, listener, env=kept(environment))
        status, message = process.wait(60), process.message
    else:
        near, theirs = peer.tcp_pair()
        result = subprocess.run(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=kept(environment), timeout=60)
        theirs.close()
        status, message = result.returncode, result.stderr.decode()
    expect("bytes on the wire", len(peer.drain(near)[0]), sends)
    near.close()
    return status, message


def key_file():
    with open("secret", "wb") as f:
        f.write(os.urandom(32))
    os.chmod("secret", 0o600)


# --- the journal ----------------------------------------------------------------------------------------


@each_way(case)
@covered
def journal():
    """One entry with all fields, and not a word anywhere else."""
    here, log = Listener(JOURNAL), Listener(LOG)
    for role in held.ROLES:
        run = Run(role, prefix=STREAM)
        run.converse()
        found = entries(here.rest())
        expect("entries", len(found), 1)
        expect_like("MESSAGE", found[0].pop("MESSAGE"), run.record())
        expect_like("SPIPE_SECONDS", found[0].pop("SPIPE_SECONDS"), r"\d+\.\d{3}")
        expect("the entry", found[0], {
            "PRIORITY": "6", "SYSLOG_IDENTIFIER": "spipe-" + role, "SPIPE_ROLE": role, "SPIPE_PEER": run.name,
            "SPIPE_KEY": "secret", "SPIPE_KEY_ID": peer.key_id(run.peer.key), "SPIPE_BYTES_IN": str(len(SEND)), "SPIPE_BYTES_OUT": str(len(REPLY)),
            "SPIPE_RESULT": "clean", "MESSAGE_ID": "0af363394fce43deaac4667232ef5a77",
        })
        expect("stderr", run.message, "")
        expect("syslog", log.rest(), [])


@each_way(case)
@covered
def journal_results():
    """SPIPE_RESULT and the priority for each way in which a connection can end badly."""
    here, kinds = Listener(JOURNAL), {}
    key_file()

    def ended(what, priority, status, got, message=".*"):
        (code, stderr), found = got, entries(here.rest())
        if not start.listens:  # a listener's stderr would say it
            expect("status (%s)" % what, code, status)
        expect("stderr (%s)" % what, stderr, "")
        expect("entries (%s)" % what, len(found), 1)
        expect("result", found[0].get("SPIPE_RESULT"), what)
        expect_like("message", found[0]["MESSAGE"], message)
        expect("who has this MESSAGE_ID", kinds.setdefault(found[0]["MESSAGE_ID"], what), what)
        expect("priority (%s)" % what, found[0]["PRIORITY"], str(priority))
        if status > 0 and not found[0]["MESSAGE"].endswith(" (status %d)" % status):
            raise Wrong("the message has no status: %r" % found[0]["MESSAGE"])

    ended("usage", ERROR, 64, direct("dec", ["-k", "secret"], STREAM))
    ended("target", ERROR, 69, direct("enc", ["-k", "secret", "--", "false"], STREAM))
    if not start.listens:  # which would have too few itself
        ended("system", ERROR, 71, direct("enc", ["-k", "secret", "--", "cat"], [*STREAM, "prlimit", "--nofile=7"]))
    ended("timeout", ERROR, 75, direct("dec", ["-o", "1", "-k", "secret", "--", "cat"], STREAM, sends=peer.NONCE))
    ended("key", ERROR, 78, direct("dec", ["-k", "missing", "--", "cat"], STREAM))

    def relaying(end):
        run = Run("dec", prefix=STREAM)
        run.authenticate()
        end(run)
        run.end()
        run.close()
        return run.status, run.message

    def reset(run):
        run.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        run.wire.close()

    def tamper(run):
        packet = run.peer.out.seal_all(SEND)
        run.wire.sendall(packet[:500] + bytes([packet[500] ^ 1]) + packet[501:])

    def terminate(run):
        run.process.send_signal(signal.SIGTERM)

    ended("lost", ERROR, 74, relaying(reset))
    ended("tampered", ERROR, 76, relaying(tamper))
    run = Run("dec", prefix=STREAM)
    run.peer.key = bytes(32)
    try:
        run.authenticate()
    except (peer.Closed, OSError, ValueError):
        pass
    run.end()
    run.close()
    wrong_key = r".* key -: .* the client did not prove that it holds the key %s: .*" % peer.key_id(run.key)
    ended("refused", NOTICE, 77, (run.status, run.message), wrong_key)
    ended("terminated", ERROR, -signal.SIGTERM, relaying(terminate))


@case
@covered
def journal_before_a_connection():
    """What is wrong with the command line is an entry, but no connection's record."""
    here = Listener(JOURNAL)
    status, stderr = direct("dec", ["--nonsense"], STREAM)
    expect("status", status, 64)
    expect("stderr", stderr, "")
    found = entries(here.rest())
    expect("entries", len(found), 1)
    expect("fields", set(found[0]), {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "SPIPE_ROLE"})
    expect("PRIORITY", found[0]["PRIORITY"], str(ERROR))
    if "nonsense" not in found[0]["MESSAGE"]:
        raise Wrong("the message: %r" % found[0]["MESSAGE"])


@each_way(case)
@covered
def journal_warnings_and_progress():
    """Each is an entry of its own, and --verbose does not write the record to stderr as well."""
    here, log = Listener(JOURNAL), Listener(LOG)
    key_file()
    os.chmod("secret", 0o644)
    run = Run("dec", prefix=STREAM)
    run.authenticate()
    warning, = entries(here.rest())
    expect("warning", warning, {
        "MESSAGE": "key secret: readable by everyone, chmod 600 it", "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "spipe-dec", "SPIPE_ROLE": "dec",
    })
    run.process.send_signal(signal.SIGUSR1)
    progress, = entries([here.next() or ""])
    expect_like("progress", progress["MESSAGE"], run.record("in progress"))
    expect("priority", progress["PRIORITY"], "6")
    run.talk()
    expect("entries", len(here.rest()), 1)
    expect("stderr", run.message, "")
    expect("syslog", log.rest(), [])


@each_way(case)
@covered
def no_journal():
    """JOURNAL_STREAM is of another stream, makes no sense, or there is no journal: stderr and syslog."""
    log = Listener(LOG)
    key_file()
    for prefix, listens, stream in ((), True, "1:1"), ((), True, "nonsense"), (STREAM, False, ""):
        here = Listener(JOURNAL) if listens else None
        status, stderr = direct("dec", ["-k", "secret"], prefix, JOURNAL_STREAM=stream)
        expect("status", status, 64)
        expect_like("stderr", stderr, r"spipe-dec: no target \(-t\) and no command is given[^\n]*\n")
        (priority, program, _, text), = map(log_line, log.rest())
        expect("priority", priority, DAEMON | ERROR)
        expect("program", program, "spipe-dec")
        expect_like("syslog", text, r"127\.0\.0\.1:\d+ key -: 0 bytes in, 0 bytes out, .* \(status 64\)")
        if here:
            expect("the journal", here.rest(), [])
            here.close()


# --- syslog ---------------------------------------------------------------------------------------------


@each_way(case)
@covered
def syslog():
    """A network connection's record goes there, from behind the sandbox too, unless --verbose asks for it."""
    log = Listener(LOG)
    with open("zone", "wb") as file:  # 7 hours east of UTC (tzfile(5), version 1)
        file.write(b"TZif" + bytes(16) + struct.pack(">6L", 0, 0, 0, 0, 1, 4) + struct.pack(">lBB", 25200, 0, 0) + b"EST\0")
    for role in held.ROLES:
        run = Run(role)
        run.converse()
        message, = map(log_line, log.rest())
        expect("priority, program, pid", message[:3], (DAEMON | INFO, "spipe-" + role, run.served_by))
        expect_like("record", message[3], run.record())
        expect("stderr", run.message, "")

        # In the time of this place: its file is read before the sandbox forbids that. musl's syslog(3) takes UTC.
        with open(os.environ[role.upper()], "rb") as file:
            offsets = (7, 8) if b"GLIBC" in file.read() else (0, 1)
        run = Run(role, TZ=":" + os.path.abspath("zone"))
        run.converse()
        hour, = (int(message[11:13]) for message in log.rest())
        expect("hours from UTC", (hour - time.gmtime(time.time() - 30).tm_hour) % 24 in offsets, True)

        run = Run(role, ["--verbose"])
        run.converse()
        expect("syslog", log.rest(), [])
        expect_like("stderr", run.message, "spipe-%s: %s\n" % (role, run.record()))


@each_way(case)
@covered
def syslog_of_failures():
    """The error is said on stderr, the record has its priority."""
    log = Listener(LOG)
    run = Run("dec")
    run.peer.key = bytes(32)
    try:
        run.authenticate()
    except (peer.Closed, OSError, ValueError):
        pass
    run.end()
    run.close()
    expect("status", run.status, 77)
    message, = map(log_line, log.rest())
    expect("priority", message[0], DAEMON | NOTICE)
    expect_like("record", message[3], run.record(r".* \(status 77\)", key="-"))
    expect_like("stderr", run.message, r"spipe-dec: [^\n]* \(status 77\)\n")


@case
@covered
def syslog_restarted():
    """A listener whose stderr is its socket, as under inetd: its later connections find a new syslogd."""
    key_file()
    log = Listener(LOG)
    with socket.create_server(("127.0.0.1", 0)) as near:
        command = [os.environ["DEC"], "-k", "secret", "--", "cat"]
        process = subprocess.Popen(command, stdin=near, stdout=near, stderr=near)
        for _ in range(2):
            client = start.connected(near)
            client.shutdown(socket.SHUT_WR)
            expect_like("record", log_line(log.next() or "")[3], r".* key -: .* \(status 77\)")
            client.close()
            log.close()
            log = Listener(LOG)
        process.terminate()
        expect("status", process.wait(held.WAIT), 0)


@each_way(case)
@covered
def syslog_only_for_networks():
    """A connection on a UNIX socket leaves no record there: only errors are reported, on stderr."""
    log = Listener(LOG)
    run = Run("enc", make=socket.socketpair)
    run.converse()
    expect("syslog", log.rest(), [])
    expect("stderr", run.message, "")


@each_way(case)
@covered
def no_syslog():
    """Nobody reads the record: the connection does not suffer."""
    run = Run("dec")
    run.converse()
    expect("stderr", run.message, "")


@each_way(case)
@covered
def stderr_is_the_connection():
    """Warnings, errors and the record go to syslog, even with --verbose, and nothing to the connection."""
    log = Listener(LOG)
    key_file()
    os.chmod("secret", 0o640)
    run = Run("dec", ["--verbose"], WIRE)
    run.authenticate()  # nothing came before the handshake
    run.process.send_signal(signal.SIGUSR1)
    warning, progress = log_line(log.next() or ""), log_line(log.next() or "")
    expect("warning", (warning[0], warning[3]),
           (DAEMON | WARNING, "key secret: readable by its group, chmod 600 it"))
    expect("priority", progress[0], DAEMON | INFO)
    expect_like("progress", progress[3], run.record("in progress"))
    run.talk()  # and nothing but packets after it
    record, = map(log_line, log.rest())
    expect("priority", record[0], DAEMON | INFO)
    expect_like("record", record[3], run.record())

    # Errors: once, as the record where there was a connection, by itself where not.
    for arguments, pattern in (
        (["-k", "missing", "--", "cat"], r"127\.0\.0\.1:\d+ key -: 0 bytes in, .* \(status 78\)"),
        (["--nonsense"], r"[^\n]*nonsense[^\n]* \(status 64\)"),
    ):
        if start.listens and "--nonsense" in arguments:
            continue  # no listener, no connection
        direct("dec", arguments, WIRE)
        message, = map(log_line, log.rest())
        expect("priority", message[0], DAEMON | ERROR)
        expect_like("message", message[3], pattern)


@each_way(case)
@covered
def progress():
    """SIGUSR1: the record so far, to syslog where the record goes there, else to stderr."""
    log = Listener(LOG)
    for options, network in ([], True), (["--verbose"], True), ([], False):
        run = Run("enc", options, make=peer.tcp_pair if network else socket.socketpair)
        run.authenticate()
        run.process.send_signal(signal.SIGUSR1)
        pattern = run.record("in progress")
        if network and not options:
            priority, _, _, text = log_line(log.next() or "")
            expect("priority", priority, DAEMON | INFO)
            expect_like("progress", text, pattern)
        else:
            expect("stderr says something", bool(select.select([run.stderr], [], [], held.WAIT)[0]), True)
            expect_like("progress", os.read(run.stderr, 4096).decode(), "spipe-enc: %s\n" % pattern)
        run.talk()
        expect("records", len(log.rest()), 1 if network and not options else 0)


# --- the service manager --------------------------------------------------------------------------------


@case
@covered
def ready():
    """READY=1 with a status, once, when the peer has proved its key, not before; at a path and an abstract name."""
    for place in os.path.abspath("notify"), "\0spipe-test-%d" % os.getpid():
        manager = Listener(place)
        for role in held.ROLES:
            run = Run(role, NOTIFY_SOCKET=place.replace("\0", "@"))
            run.peer.look_at_nonce()
            expect("said before authentication", manager.rest(), [])
            run.authenticate()
            message = manager.next()
            expect_like("READY", message or "", r"READY=1\nSTATUS=%s\n" % run.record("relaying"))
            run.talk()
            expect("said later", manager.rest(), [])
        manager.close()


@case
@covered
def status():
    """The status follows the traffic, once in ten seconds however much there is, even if no more comes."""
    manager = Listener(os.path.abspath("notify"))
    run = Run("enc", NOTIFY_SOCKET=manager.path)
    run.authenticate()
    expect_like("READY", manager.next() or "", "READY=1\n.*")
    start = time.monotonic()
    for _ in range(10):
        run.plain.sendall(b"x" * 100)
        expect("said early", manager.next(0.1), None)
    message = manager.next(60)
    if time.monotonic() - start < 9.5:
        raise Wrong("%r after %.1f s" % (message, time.monotonic() - start))
    expect_like("STATUS", message or "", r"STATUS=\S+ key secret: 1000 bytes in, 0 bytes out, \d+\.\d{3} s: relaying\n")
    run.plain.sendall(b"x")
    run.stop()
    expect("said right after", manager.rest(), [])


@case
@covered
def no_manager():
    """A NOTIFY_SOCKET that nobody reads, or that does not exist: the connection does not suffer."""
    for place in "/nowhere/socket", "relative", "", "@" + "x" * 107, "/" + "x" * 200, "vsock:2:1234":
        run = Run("dec", NOTIFY_SOCKET=place)
        run.converse()
        expect("stderr", run.message, "")


if __name__ == "__main__":
    main()
