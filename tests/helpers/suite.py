#!/usr/bin/python3
"""What the suites in Python share: cases, what they expect, and a runner that prints TAP.

suite.py [-l] [-n CASE]... FILE...     run the cases of these suites (or those named), JOBS at a time; -l lists them
suites/relay.py [-l] [CASE...]         the same for one suite

A case is a function: it passes when it returns, fails when it raises and is skipped by Skip. It runs in a process and in
an empty directory of its own, with $ENC and $DEC set, a key of peer.py's in ./secret, and nothing but /dev/null
as descriptors 6 and 7, which are for the far side. Its children, and theirs, are killed when it ends. TIMEOUT is how
many seconds it may take (default 300).
"""

import contextlib
import ctypes
import importlib.util
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback

sys.dont_write_bytecode = True

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SECRET = b"a key file that is no secret at all, for it is in the tests"
TIMEOUT = int(os.environ.get("TIMEOUT", "300"))
FOREIGN = """CREDENTIALS_DIRECTORY LISTEN_FDS LISTEN_PID LISTEN_FDNAMES NOTIFY_SOCKET JOURNAL_STREAM REMOTE_ADDR
    REMOTE_PORT REMOTE_HOST TCPREMOTEIP TCPREMOTEPORT SOCAT_PEERADDR SOCAT_PEERPORT""".split()
PR_SET_CHILD_SUBREAPER = 36
CASES = {}  # "suite: name" to function


class Wrong(AssertionError):
    """A case found what should not be."""


class Skip(Exception):
    """A case cannot run here; says why."""


def suite_of(function):
    name = function.__module__
    return os.path.splitext(os.path.basename(sys.argv[0]))[0] if name == "__main__" else name


def case(function, name=None, *arguments):
    """Register a case, under its function's name or another, to be called with these arguments."""
    full = "%s: %s" % (suite_of(function), name or function.__name__.replace("_", "-"))
    if full in CASES:
        raise ValueError("two cases are called " + full)
    CASES[full] = lambda: function(*arguments)
    return function


def both(function):
    """Register a case for both programs, as NAME-dec and NAME-enc, to be called with the role."""
    for role in "dec", "enc":
        case(function, "%s-%s" % (function.__name__.replace("_", "-"), role), role)
    return function


def expect(what, got, *wanted):
    if got not in wanted:
        raise Wrong("%s: %r, not %s" % (what, got, " or ".join(map(repr, wanted))))


def expect_like(what, got, pattern):
    if not re.fullmatch(pattern, got, re.S):
        raise Wrong("%s: %r, not like %r" % (what, got, pattern))


@contextlib.contextmanager
def far_side(one, other=None, unless=None):
    """
    Have `one` (a socket or a number), or `one` and `other`, as descriptors 6 and 7 as long as this lasts; gives what
    is to be passed on: those two. Nothing of that `unless` there is a command.
    """
    if unless:
        yield ()
        return
    for number, end in (6, one), (7, other or one):
        os.dup2(end if isinstance(end, int) else end.fileno(), number)
    try:
        yield 6, 7
    finally:
        null = os.open("/dev/null", os.O_RDWR)
        for number in 6, 7:
            os.dup2(null, number, inheritable=False)
        os.close(null)


def needs(program):
    """Skip the case where that program is not installed."""
    if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
        raise Skip("%s is not installed" % program)


# --- running --------------------------------------------------------------------------------------------


def environment():
    """What every case finds around it, and our programs with it."""
    build = os.path.join(ROOT, os.environ.get("BUILD", "build"))
    os.environ.update(BUILD=build, ENC=build + "/spipe-enc", DEC=build + "/spipe-dec", LC_ALL="C")
    # The leak check of sanitized builds would have to trace the process, which our programs forbid.
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.umask(0o077)


def children():
    with open("/proc/self/task/%d/children" % os.getpid()) as file:
        return [int(pid) for pid in file.read().split()]


def kill_children():
    """Kill all that a case has left, and what those have left."""
    while pids := children():
        # All before any is waited for: a traced one is gone only when its tracer is.
        for action in (lambda pid: os.kill(pid, signal.SIGKILL)), (lambda pid: os.waitpid(pid, 0)):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    action(pid)  # unless a thread or a Popen of the case was faster


def too_late(*_):
    raise Wrong("not done in %d s" % TIMEOUT)


def play(function, directory):
    """Run a case in this process, which ends with it: status 0, 1 when it failed, 2 when it was skipped."""
    status = 1
    output = os.open(os.path.join(directory, ".output"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open("/dev/null", os.O_RDWR)
    for number, fd in (0, null), (1, output), (2, output), (6, null), (7, null):
        os.dup2(fd, number)
    os.closerange(8, 256)
    for fd in {output, null} - {0, 1, 2, 6, 7}:
        os.close(fd)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for name in "HUP INT QUIT TERM CHLD USR1 USR2".split():
        signal.signal(getattr(signal, "SIG" + name), signal.SIG_DFL)  # a job in the background ignores some
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(TIMEOUT)
    try:
        os.chdir(directory)
        with open("secret", "wb") as file:
            file.write(SECRET)
        function()
        status = 0
    except Skip as reason:
        print(reason)
        status = 2
    except Wrong as wrong:
        line = [frame.lineno for frame in traceback.extract_tb(wrong.__traceback__) if "/suites/" in frame.filename]
        print("line %s: %s" % (", ".join(map(str, line)), wrong))
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    finally:
        signal.alarm(0)
        sys.stdout.flush()
        kill_children()
        os._exit(status)


def print_result(number, name, status, directory):
    with open(os.path.join(directory, ".output"), errors="replace") as file:
        output = file.read().rstrip("\n")
    if status == 2:
        print("ok %d %s # skip %s" % (number, name, output))
    else:
        print("%sok %d %s" % ("" if status == 0 else "not ", number, name))
        if status != 0:
            print(re.sub("(?m)^", "# ", output or "status %d" % status))
    sys.stdout.flush()


def run(cases):
    """Run these cases, JOBS at a time, and print TAP. True when none failed."""
    environment()
    jobs = int(os.environ.get("JOBS", 2 * os.cpu_count()))
    waiting, running, done, good = list(cases.items()), {}, 0, True
    print("1..%d" % len(cases), flush=True)
    while waiting or running:
        while waiting and len(running) < jobs:
            name, function = waiting.pop(0)
            directory = tempfile.mkdtemp(prefix="spipe-")
            pid = os.fork()
            if pid == 0:
                play(function, directory)
            running[pid] = name, directory
        pid, status = os.wait()
        name, directory = running.pop(pid)
        done += 1
        status = os.waitstatus_to_exitcode(status)
        print_result(done, name, status, directory)
        shutil.rmtree(directory, ignore_errors=True)
        good = good and status in (0, 2)
    return good and done > 0


def load(path):
    """Import a suite, whose cases register themselves."""
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def main():
    """For a suite that is run by itself: the cases that the command line names, or all."""
    words = sys.argv[1:]
    unknown = [word for word in words if word != "-l" and not named([word])]
    if unknown:
        sys.exit("no such case: " + ", ".join(unknown))
    several([], words)


def named(names):
    """The cases of these names, with or without that of their suite."""
    return {full: function for full, function in CASES.items() if full in names or full.split(": ", 1)[1] in names}


def several(files, names):
    """Load these suites; list or run the cases of these names, or all."""
    for path in files:
        load(path)
    if "-l" in names:
        print("\n".join(CASES))
        sys.exit(0)
    sys.exit(0 if run(named(names) if names else CASES) else 1)


def arguments(words):
    """The command line of this file: its suites, and what is asked of them."""
    files, names = [], []
    while words:
        word = words.pop(0)
        if word == "-n" and words:
            names.append(words.pop(0))
        elif word == "-l":
            names.append(word)
        else:
            files.append(word)
    if not files:
        sys.exit(__doc__)
    return files, names


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import suite  # the one that the suites import: this here is __main__

    suite.several(*arguments(sys.argv[1:]))
