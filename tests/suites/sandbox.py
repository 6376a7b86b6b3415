#!/usr/bin/python3
"""The sandbox: tried from inside by a program of our own; seen from outside, and tried, in the real ones while they run.

Those are seen in both roles in all shapes of helpers/held.py, before and after authentication.
"""

import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../helpers"))
import held
import suite
from suite import ROOT, Skip, Wrong, expect, main

NOBODY = 65534


def case(function, name=None, *arguments):
    """Register a case, for builds that have a sandbox."""
    def there():
        if "sandbox: no" in run([os.environ["DEC"], "--version"]):
            raise Skip("this build has no sandbox")
        function(*arguments)

    there.__module__ = function.__module__
    return suite.case(there, name or function.__name__.replace("_", "-"))


def run(command):
    """Its output; it must succeed."""
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    expect("status of " + command[0], result.returncode, 0)
    return result.stdout


def machine():
    """The processor that our programs are for. One for x86-64 may run a 32-bit system."""
    return os.uname().machine if sys.maxsize > 2**32 else "a 32-bit one"


def build(*sources):
    """Compile a tool of the tests'. It is the same whatever the build under test."""
    run([os.environ.get("CC", "cc"), "-std=gnu11", "-O1", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-I" + ROOT + "/common",
         "-o", "tool", *(ROOT + "/" + source for source in sources)])
    return os.path.abspath("tool")


# --- from inside ----------------------------------------------------------------------------------------

TRY = "tests/unit/sandbox.c", "common/sandbox.c"


@case
def forbidden_calls():
    """What it forbids works without it, and fails behind it."""
    tried = run([build(*TRY), "try"]).splitlines()
    if len(tried) < 60:
        raise Wrong("only %d attempts" % len(tried))
    for line in tried:
        if not line.endswith((" EPERM", " killed")):
            raise Wrong(line)
    # The attempts are good ones: root can do (nearly) all of it.
    if os.getuid() == 0 and sum(" works " in line for line in tried) < 45:
        raise Wrong("too few of these work without it: %s" % tried)


@case
def allowed_calls():
    """No system call gets through but those that were meant to."""
    run([build(*TRY), "list"])


@case
def what_a_relay_needs():
    """It works behind it."""
    run([build(*TRY), "use"])


# --- from outside ---------------------------------------------------------------------------------------


def read(pid, name, mode="r"):
    with open("/proc/%d/%s" % (pid, name), mode) as f:
        return f.read()


def children(pid):
    return [int(p) for p in read(pid, "task/%d/children" % pid).split()]


def look_at_status(run, phase):
    label = "%s, %s, %s authentication" % (run.role, run.shape, phase)
    fields = dict(line.split(":\t", 1) for line in read(run.pid, "status").splitlines() if ":\t" in line)
    expect(label + ": Seccomp", fields["Seccomp"], "2")
    expect(label + ": NoNewPrivs", fields["NoNewPrivs"], "1")
    if os.geteuid() == 0:
        # Not dumpable: its files in /proc are root's even when it runs as someone else.
        expect(label + ": owner of its /proc", os.stat("/proc/%d/environ" % run.pid).st_uid, 0)
    else:
        for name in "environ", "mem":
            expect(label + ": its user can read its " + name, os.access("/proc/%d/%s" % (run.pid, name), os.R_OK), False)
    secrets = [run.key_file, run.key, run.key.hex().encode(), run.key_file.hex().encode()]
    for pid in [run.pid, *children(run.pid)]:
        for name in "environ", "cmdline":
            try:
                data = read(pid, name, "rb")
            except (PermissionError, FileNotFoundError, ProcessLookupError):
                continue
            expect("%s: the key is in %s of %d" % (label, name, pid), any(s in data for s in secrets), False)


def descriptors(run):
    """The command's process, whether it waits as a launcher or runs already, has nothing of the connection."""
    if os.geteuid() != 0:
        return
    wires = {"socket:[%d]" % os.stat("/proc/%d/fd/0" % run.pid).st_ino}
    for pid in children(run.pid):
        label = "%s, %s: descriptors of the launcher" % (run.role, run.shape)
        limit = time.monotonic() + held.WAIT
        while len(os.listdir("/proc/%d/fd" % pid)) > 5 and time.monotonic() < limit:
            time.sleep(0.01)  # it may still be at it
        names = {fd: os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)}
        if wires & set(names.values()):
            raise Wrong("%s: it has the connection: %s" % (label, names))
        if len(names) > 5:
            raise Wrong("%s: it has more than 0-2 and its two pipes: %s" % (label, names))


def inject(run, phase, tool):
    label = "%s, %s, %s authentication" % (run.role, run.shape, phase)
    expect(label + ": it comes to rest", run.asleep(), True)
    result = subprocess.run([tool, str(run.pid)], stdout=subprocess.PIPE, text=True)
    lines = [line.split() for line in result.stdout.splitlines()]
    if result.returncode != 0 or len(lines) < 15:
        raise Wrong("%s: the tool failed: %s" % (label, result.stdout))
    for name, outcome in lines:
        expect("%s: %s" % (label, name), outcome, "works" if name == "getpid" else "denied")
    result = subprocess.run([tool, "-s", str(run.pid)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines = [line.split() for line in result.stdout.splitlines()]
    if result.returncode == 0 and landlock():
        for name, outcome in lines:
            expect("%s, with seccomp switched off: %s" % (label, name), outcome, "error-13")


def landlock():
    """Does this kernel have Landlock? The version of its interface is asked for."""
    create_ruleset, version = 444, 1
    return ctypes.CDLL(None).syscall(create_ruleset, None, 0, version) > 0


def play(role, shape, look, uid):
    """One connection, with a look at the program before and after authentication; it has to end well all the same."""
    prefix = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"] if uid else ()
    run = held.Run(role, shape, ["-o", "30"], prefix=prefix)
    message = b"sandbox " * 500
    with open("reply", "wb") as f:
        f.write(message)
    os.chmod("reply", 0o644)
    if run.peer is None:
        run.stop()
        raise Wrong("%s, %s: status %s before its far side was connected: %s" % (role, shape, run.status, run.message))
    # It sends its nonce when the sandbox is complete; nothing has come from the network before.
    run.peer.look_at_nonce()
    look(run, "before")
    if role == "dec":
        descriptors(run)
    run.authenticate()
    look(run, "after")
    run.wire.sendall(run.peer.out.seal_all(message))
    run.wire.shutdown(held.socket.SHUT_WR)
    if run.plain:
        expect("data", run.plain.recv(len(message), held.socket.MSG_WAITALL) == message, True)
        run.plain.sendall(message)
        run.plain.shutdown(held.socket.SHUT_WR)
    got = b""
    while len(got) < len(message):
        got += run.peer.take_packet()
    expect("reply", got == message, True)
    run.end()
    expect("%s, %s: status and stderr" % (role, shape), (run.status, run.message), (0, ""))
    run.close()


def as_nobody():
    """Let a process that is not root's work in this directory, with programs that it can reach."""
    if os.getuid() != 0:
        raise Skip("not root: all that this suite does is done as a user who is not")
    os.umask(0o022)
    for role in held.ROLES:
        run(["cp", os.environ[role.upper()], "."])
        os.environ[role.upper()] = os.path.abspath("spipe-" + role)
    for path in ".", "secret":
        os.chown(path, NOBODY, NOBODY)
    os.chmod(".", 0o755)


def play_all(look, uid):
    if uid:
        as_nobody()
    for role in held.ROLES:
        for shape in held.SHAPES:
            play(role, shape, look, uid)


def injected(uid):
    if machine() != "x86_64":
        raise Skip("the tool that injects calls is for x86-64")
    if os.getuid() != 0:
        raise Skip("needs root, to trace")
    tool = build("tests/helpers/inject.c")
    os.chmod(tool, 0o755)
    play_all(lambda run, phase: inject(run, phase, tool), uid)


# seccomp, no_new_privs, not dumpable
case(play_all, "status", look_at_status, 0)
case(play_all, "status-of-a-user-who-is-not-root", look_at_status, NOBODY)
# Code that runs in the live process can't get out.
case(injected, "injected-calls", 0)
case(injected, "injected-calls-of-a-user-who-is-not-root", NOBODY)


def dumps_core(process):
    """Kill a process as its own faults would: does it leave a core dump?"""
    process.send_signal(signal.SIGABRT)
    status = os.waitpid(process.pid, 0)[1]
    process.returncode = os.waitstatus_to_exitcode(status)
    expect("how it ended", process.returncode, -signal.SIGABRT)
    return os.WCOREDUMP(status)


@case
def no_core_dump():
    """Where another program leaves a core dump, ours leave none."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
    if not dumps_core(subprocess.Popen(["sleep", "100"])):
        raise Skip("no core dumps here")
    for role in held.ROLES:
        # Without a connection: behind Landlock, nothing could leave one.
        with socket.create_server(("127.0.0.1", 0)) as sock:
            listener = subprocess.Popen([os.environ[role.upper()], "-k", "secret", "-t", "127.0.0.1:1"], stdin=sock)
        while "SigBlk:\t0000000000000000" in read(listener.pid, "status"):
            time.sleep(0.01)  # not started yet
        expect("a core dump of spipe-" + role, dumps_core(listener), False)


@case
def require_is_content():
    """--sandbox=require takes this sandbox."""
    os.symlink("secret", "key")
    enc, dec = os.environ["ENC"], os.environ["DEC"]
    result = subprocess.run([enc, "--sandbox=require", "-k", "key", "--", dec, "--sandbox=require", "-k", "key", "--", "cat"],
                            input=b"hello", stdout=subprocess.PIPE)
    expect("status and output", (result.returncode, result.stdout), (0, b"hello"))


def deny_filters():
    """In a new process: as on a kernel without seccomp filters, setting one fails."""
    prctl, set_seccomp = {"x86_64": 157, "aarch64": 167}[os.uname().machine], 22
    program = [
        (0x20, 0, 0, 0),  # load the call's number
        (0x15, 0, 3, prctl),  # jump over the next 3 if it is another
        (0x20, 0, 0, 16),  # load its first argument
        (0x15, 0, 1, set_seccomp),
        (0x06, 0, 0, 0x00050000 | errno.EINVAL),
        (0x06, 0, 0, 0x7FFF0000),  # allow
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None)
    if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(set_seccomp, 2, filters, 0, 0) != 0:  # 38: no_new_privs
        os._exit(99)


@case
def without_a_sandbox():
    """Where the kernel has none, --sandbox=require refuses to run; else there is a warning."""
    if machine() not in ("x86_64", "aarch64"):
        raise Skip("the numbers of this machine's system calls are not known here")
    os.symlink("secret", "key")
    enc, dec = os.environ["ENC"], os.environ["DEC"]
    for option, wanted in (
        ("require", (71, b"", "spipe-enc: no sandbox: this kernel or build lacks seccomp (status 71)\n")),
        ("auto", (0, b"hello", "spipe-enc: continuing without a sandbox: this kernel lacks seccomp\n")),
    ):
        result = subprocess.run([enc, "--sandbox=" + option, "-k", "key", "--", "sh", "-c", '"$0" -k key -- cat 2>dec.err', dec],
                                input=b"hello", stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=deny_filters)
        expect(option, (result.returncode, result.stdout, result.stderr.decode()), wanted)


if __name__ == "__main__":
    main()
