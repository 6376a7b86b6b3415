#!/usr/bin/python3
"""Look at the walls of our programs ($ENC, $DEC) from outside while they run, and try them in the live process.

walls.py [-u UID] status     Seccomp, NoNewPrivs, limits, descriptors, environment: before and after authentication
walls.py inject TOOL         have TOOL (inject.c) make calls inside them, before and after authentication

Both roles, all kinds of far side. Prints each thing that is not as promised, and a count; exit status 1 if any.
"""

import ctypes
import os
import subprocess
import sys
import time

import held
from held import peer

found = []
looked = 0


def expect(what, good, detail=""):
    global looked
    looked += 1
    if not good:
        found.append(what)
        print("%s: %s" % (what, detail))


def read(pid, name, mode="r"):
    with open("/proc/%d/%s" % (pid, name), mode) as f:
        return f.read()


def children(pid):
    return [int(p) for p in read(pid, "task/%d/children" % pid).split()]


def status(run, phase):
    label = "%s, %s, %s authentication" % (run.role, run.far, phase)
    fields = dict(line.split(":\t", 1) for line in read(run.pid, "status").splitlines() if ":\t" in line)
    expect(label, fields["Seccomp"] == "2", "Seccomp: " + fields["Seccomp"])
    expect(label, fields["NoNewPrivs"] == "1", "NoNewPrivs: " + fields["NoNewPrivs"])
    limits = [line.split() for line in read(run.pid, "limits").splitlines() if "core file" in line][0]
    expect(label, limits[4] == "0", "core file size: %s" % limits[4])  # the command gets its own back
    if os.geteuid() == 0:
        # Not dumpable: its files in /proc are root's even when it runs as someone else.
        expect(label, os.stat("/proc/%d/environ" % run.pid).st_uid == 0, "dumpable: /proc is its user's")
    else:
        try:
            read(run.pid, "environ")
            expect(label, False, "dumpable: its user can read its memory")
        except PermissionError:
            expect(label, True)
    expect(label, not readable_memory(run.pid) or os.geteuid() == 0, "its memory can be read by its user")
    secrets = [run.key_file, run.key, run.key.hex().encode(), run.key_file.hex().encode()]
    for pid in [run.pid, *children(run.pid)]:
        for name in "environ", "cmdline":
            try:
                data = read(pid, name, "rb")
            except (PermissionError, FileNotFoundError, ProcessLookupError):
                continue
            expect(label, not any(s in data for s in secrets), "the key is in %s of %d" % (name, pid))


def readable_memory(pid):
    try:
        with open("/proc/%d/mem" % pid, "rb"):
            return True
    except PermissionError:
        return False


def descriptors(run):
    """The command's process, whether it waits as a launcher or runs already, has nothing of the connection."""
    if os.geteuid() != 0:
        return
    wires = {"socket:[%d]" % os.stat("/proc/%d/fd/0" % run.pid).st_ino}
    for pid in children(run.pid):
        label = "%s, %s: descriptors of the launcher" % (run.role, run.far)
        limit = time.monotonic() + held.WAIT
        while len(os.listdir("/proc/%d/fd" % pid)) > 5 and time.monotonic() < limit:
            time.sleep(0.01)  # it may still be at it
        names = {fd: os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)}
        expect(label, not wires & set(names.values()), "it has the connection: %s" % names)
        expect(label, len(names) <= 5, "it has more than 0-2 and its two pipes: %s" % names)


def inject(run, phase, tool):
    label = "%s, %s, %s authentication" % (run.role, run.far, phase)
    expect(label, run.asleep(), "it does not come to rest")
    result = subprocess.run([tool, str(run.pid)], stdout=subprocess.PIPE, text=True)
    if result.returncode == 77:
        sys.exit(77)
    lines = [line.split() for line in result.stdout.splitlines()]
    expect(label, result.returncode == 0 and len(lines) >= 15, "the tool failed: %s" % result.stdout)
    for name, outcome in lines:
        expect(label, outcome == ("works" if name == "getpid" else "denied"), "%s: %s" % (name, outcome))
    result = subprocess.run([tool, "-s", str(run.pid)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    lines = [line.split() for line in result.stdout.splitlines()]
    if result.returncode == 0 and landlock():
        for name, outcome in lines:
            expect(label, outcome == "error-13", "with seccomp switched off, %s: %s" % (name, outcome))


def landlock():
    """Does this kernel have Landlock? The version of its interface is asked for."""
    create_ruleset, version = 444, 1
    return ctypes.CDLL(None).syscall(create_ruleset, None, 0, version) > 0


def play(role, far, look, **how):
    """One connection, with a look at the program before and after authentication; it has to end well all the same."""
    run = held.Run(role, far, ["-o", "30"], **how)
    message = b"walls " * 500
    with open("reply", "wb") as f:
        f.write(message)
    os.chmod("reply", 0o644)
    try:
        if run.peer is None:
            raise peer.Closed("it ended before its far side was connected")
        # It sends its nonce when the walls stand; nothing has come from the network before.
        run.peer.look_at_nonce()
        look(run, "before")
        if role == "dec":
            descriptors(run)
        run.authenticate()
        look(run, "after")
        run.wire.sendall(run.peer.out.seal_all(message))
        run.wire.shutdown(held.socket.SHUT_WR)
        if run.plain:
            expect(role + far, run.plain.recv(len(message), held.socket.MSG_WAITALL) == message, "wrong data")
            run.plain.sendall(message)
            run.plain.shutdown(held.socket.SHUT_WR)
        got = b""
        while len(got) < len(message):
            got += run.peer.take_packet()
        expect(role + far, got == message, "wrong reply")
        run.end()
        expect("%s, %s" % (role, far), run.status == 0, "status %s: %s" % (run.status, run.message))
    except (OSError, peer.Closed) as error:
        run.stop()
        expect("%s, %s" % (role, far), False, "%r; status %s: %s" % (error, run.status, run.message))
    finally:
        run.close()


def main():
    arguments = sys.argv[1:]
    how = {}
    if arguments[:1] == ["-u"]:
        uid = arguments[1]
        how = {"prefix": ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"]}
        arguments = arguments[2:]
    if arguments == ["status"]:
        look = status
    elif len(arguments) == 2 and arguments[0] == "inject":
        look = lambda run, phase: inject(run, phase, arguments[1])
    else:
        sys.exit(__doc__)
    for role in held.ROLES:
        for far in held.FARS:
            play(role, far, look, **how)
    print("%d looked at, %d wrong" % (looked, len(found)))
    sys.exit(1 if found or not looked else 0)


if __name__ == "__main__":
    main()
