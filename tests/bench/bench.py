#!/usr/bin/python3
"""Our tunnel beside others, measured in one run; `make bench` calls this.

All contenders stand at once and take turns, round after round, so that a slow
minute of the machine hits all of them; every figure is the median of its rounds.
Everything is on the loopback interface, on free ports, and ends with this program.
"""

import argparse
import atexit
import collections
import os
import platform
import pwd
import re
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
HOST = "127.0.0.1"
HOST_PORT = "[127.0.0.1]:%d"

# --- settings of a full and of a quick run ------------------------------------

Settings = collections.namedtuple(
    "Settings", "rounds flow_ms trip_ms sparse_ms open_ms open_most spawns tunnels limit")
FULL = Settings(5, 700, 250, 400, 600, 2000, 60, (1, 10, 100), 900)
QUICK = Settings(3, 350, 100, 200, 300, 800, 30, (1, 100), 180)

MANY = ("spiped", "stunnel", "ours-pass", "ours-fds", "mb-fds")  # in a quick run
SIZES = (1, 100, 4096)
QUIET = 10  # seconds of silence before memory is read again
BULK = 100_000_000  # bytes through each tunnel before that
HELD = 4  # tunnels whose memory is read

# --- processes ----------------------------------------------------------------

running = []  # every process started here
scratch = None
made_run_sshd = False


def start(argv, **options):
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stdout", subprocess.DEVNULL)
    options.setdefault("stderr", subprocess.DEVNULL)
    process = subprocess.Popen(argv, **options)
    running.append(process)
    return process


def parents():
    """The parent of every process there is."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat_fields(int(name))
            if fields:
                found[int(name)] = int(fields[1])
    return found


def stat_fields(pid):
    """The fields of /proc/PID/stat after the command's name, or None."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def tree(roots):
    """The given processes and all that descend from them."""
    children = collections.defaultdict(list)
    for pid, parent in parents().items():
        children[parent].append(pid)
    found, todo = [], list(roots)
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children[pid]
    return found


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass


def stop(processes):
    pids = tree([p.pid for p in processes if p.poll() is None])
    signal_all(pids, signal.SIGTERM)
    end = time.monotonic() + 0.5
    while time.monotonic() < end and any(p.poll() is None for p in processes):
        time.sleep(0.01)
    time.sleep(0.05)
    left = [p for p in pids if (f := stat_fields(p)) and f[0] != "Z"]
    signal_all(left, signal.SIGKILL)
    for process in processes:
        process.wait()


def clean_up():
    global made_run_sshd
    signal.alarm(0)
    stop(running)
    running.clear()
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)
    if made_run_sshd:
        try:
            os.rmdir("/run/sshd")
        except OSError:
            pass
        made_run_sshd = False


def cpu_exact(pids):
    """CPU seconds of the living threads, from the scheduler's own count in nanoseconds."""
    total = 0
    for pid in pids:
        try:
            for task in os.listdir("/proc/%d/task" % pid):
                with open("/proc/%d/task/%s/schedstat" % (pid, task)) as file:
                    total += int(file.read().split()[0])
        except OSError:
            pass
    return total / 1e9


def cpu_with_children(pids):
    """CPU seconds of processes, their ended threads and reaped children; in steps of 10 ms."""
    ticks = 0
    for pid in pids:
        fields = stat_fields(pid)
        if fields:
            ticks += sum(int(f) for f in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def private_dirty(pid):
    """KiB of private dirty memory."""
    try:
        with open("/proc/%d/smaps_rollup" % pid) as file:
            found = re.search(r"^Private_Dirty: +(\d+)", file.read(), re.M)
            return int(found.group(1)) if found else 0
    except OSError:
        return 0


def name_of(pid):
    try:
        with open("/proc/%d/comm" % pid) as file:
            return file.read().strip()
    except OSError:
        return ""


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def wait_for_listener(port, processes):
    """Looks in the kernel's table, since a connection to try would go through the tunnel."""
    wanted = ":%04X" % port
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with open("/proc/net/tcp") as file:
            for line in file:
                fields = line.split()
                if fields[3] == "0A" and fields[1].endswith(wanted):
                    return
        for process in processes:
            if process.poll() is not None:
                raise RuntimeError("%s ended at once" % process.args[0])
        time.sleep(0.01)
    raise RuntimeError("nothing listens")


def write(name, text, mode=0o600):
    path = os.path.join(scratch, name)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


# --- contenders ---------------------------------------------------------------
# Each makes the processes between an entry port and the target port.


class Contender:
    needs = ()

    def __init__(self, key, label):
        self.key, self.label = key, label
        self.processes, self.port = [], 0

    def missing(self):
        return [n for n in self.needs if not find(n)]

    def listen(self, argv, port):
        self.processes.append(start(argv))
        wait_for_listener(port, self.processes)

    def open(self, target):
        self.port = free_port()
        self.run(target)

    def pids(self):
        return tree([p.pid for p in self.processes])


def find(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Direct(Contender):
    def open(self, target):
        self.port = target


class Spiped(Contender):
    needs = ("spiped",)

    def run(self, target):
        middle = free_port()
        for side, source, to in (("-d", middle, target), ("-e", self.port, middle)):
            self.listen(["spiped", "-F", side, "-n", "0", "-k", keyfile,
                         "-s", HOST_PORT % source, "-t", HOST_PORT % to], source)


class Stunnel(Contender):
    needs = ("stunnel",)

    def run(self, target):
        middle = free_port()
        secrets = write("psk", "bench:%s\n" % os.urandom(32).hex())
        for side, source, to in (("no", middle, target), ("yes", self.port, middle)):
            config = write("stunnel-" + side, (
                "foreground = yes\npid =\ndebug = 3\nsslVersion = TLSv1.3\n"
                "socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n"
                "[tunnel]\nclient = %s\naccept = 127.0.0.1:%d\nconnect = 127.0.0.1:%d\n"
                "PSKsecrets = %s\n" % (side, source, to, secrets)))
            self.listen(["stunnel", config], source)


class Ssh(Contender):
    needs = ("ssh", "sshd", "ssh-keygen")

    def run(self, target):
        global made_run_sshd
        if os.getuid() == 0 and not os.path.isdir("/run/sshd"):
            os.mkdir("/run/sshd", 0o755)
            made_run_sshd = True
        middle = free_port()
        for name in ("host", "user"):
            path = os.path.join(scratch, name)
            if os.path.exists(path):
                continue
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path],
                           check=True, stdin=subprocess.DEVNULL)
        shutil.copy(os.path.join(scratch, "user.pub"), os.path.join(scratch, "authorized"))
        server = write("sshd", (
            "ListenAddress 127.0.0.1:%d\nHostKey %s/host\nAuthorizedKeysFile %s/authorized\n"
            "StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nLogLevel QUIET\n"
            % (middle, scratch, scratch)))
        self.listen([find("sshd"), "-D", "-f", server], middle)
        self.listen(["ssh", "-F", "/dev/null", "-N", "-p", str(middle), "-i", scratch + "/user",
                     "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
                     "-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes",
                     "-L", "127.0.0.1:%d:127.0.0.1:%d" % (self.port, target),
                     pwd.getpwuid(os.getuid()).pw_name + "@127.0.0.1"], self.port)


class Socat(Contender):
    needs = ("socat", "openssl")

    def run(self, target):
        middle = free_port()
        certificate = os.path.join(scratch, "certificate")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                        "/CN=bench", "-keyout", certificate + ".key", "-out", certificate],
                       check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        listen = "bind=127.0.0.1,fork,reuseaddr,backlog=256,nodelay"
        self.listen(["socat", "-b", "65536",
                     "OPENSSL-LISTEN:%d,%s,verify=0,cert=%s,key=%s.key"
                     % (middle, listen, certificate, certificate),
                     "TCP:127.0.0.1:%d,nodelay" % target], middle)
        self.listen(["socat", "-b", "65536", "TCP-LISTEN:%d,%s" % (self.port, listen),
                     "OPENSSL:127.0.0.1:%d,verify=0,nodelay" % middle], self.port)


class Ours(Contender):
    """mode: command (nc -N relays), pass (-p with nc -F) or fds (tcpclient, fds 6 and 7)."""

    def __init__(self, key, label, build, mode, supervisor="tcpserver"):
        super().__init__(key, label)
        self.build, self.mode, self.supervisor = build, mode, supervisor
        self.needs = (supervisor, "tcpclient" if mode == "fds" else netcat())

    def missing(self):
        return super().missing() + [
            p for p in ("spipe-enc", "spipe-dec")
            if not os.access(os.path.join(self.build, p), os.X_OK)]

    def filter(self, role, to):
        return end_command(self.build, role, self.mode, str(to))

    def run(self, target):
        middle = free_port()
        for role, source, to in (("dec", middle, target), ("enc", self.port, middle)):
            command = self.filter(role, to)
            if self.mode == "fds":
                command = ["tcpclient", "-H", "-R", "-l", "0", HOST, str(to)] + command
            self.listen(getattr(self, "under_" + self.supervisor)(source, command), source)

    def under_tcpserver(self, port, command):
        return ["tcpserver", "-q", "-D", "-H", "-R", "-l", "0", "-c", "1000", "-b", "256",
                HOST, str(port)] + command

    def under_xinetd(self, port, command):
        config = write("xinetd-%d" % port, (
            "service bench-%d\n{\ntype = UNLISTED\nbind = 127.0.0.1\nport = %d\n"
            "socket_type = stream\nprotocol = tcp\nwait = no\nuser = %s\ncps = 100000 1\n"
            "instances = UNLIMITED\nper_source = UNLIMITED\nflags = NODELAY NOLIBWRAP\n"
            "log_type = FILE /dev/null\nserver = %s\nserver_args = %s\n}\n"
            % (port, port, pwd.getpwuid(os.getuid()).pw_name,
               os.path.abspath(find(command[0])), " ".join(command[1:]))))
        return [find("xinetd"), "-dontfork", "-f", config, "-pidfile", config + ".pid"]

    def under_socat(self, port, command):
        return ["socat", "TCP-LISTEN:%d,bind=127.0.0.1,fork,reuseaddr,backlog=256,nodelay" % port,
                "EXEC:%s,nofork" % " ".join(command)]


def netcat():
    """OpenBSD's, by its whole path, as a unit names it."""
    return find("nc.openbsd") or find("nc") or "nc.openbsd"


def end_command(build, role, mode, to):
    argv = [os.path.join(build, "spipe-" + role), "-k", keyfile]
    if mode == "command":
        argv += [netcat(), "-N", HOST, to]
    elif mode == "pass":
        argv += ["-p", netcat(), "-F", HOST, to]
    return argv


# --- the load tool ------------------------------------------------------------


def numbers(line):
    words = line.split()
    return {k: float(v) for k, v in zip(words[::2], words[1::2])}


def load(*words):
    """Runs the load tool and returns the numbers it prints."""
    process = start([tool, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    text=True)
    out, err = process.communicate()
    running.remove(process)
    if process.returncode != 0:
        raise RuntimeError(err.strip() or "load tool: status %d" % process.returncode)
    return numbers(out)


def load_metered(contender, *words):
    """The same, with the CPU seconds that the tunnel took meanwhile."""
    process = start([tool, words[0], "-w", *map(str, words[1:])], stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, cpu = "", 0
    if process.stdout.readline() == "ready\n":
        pids = contender.pids()
        before = cpu_exact(pids)
        process.stdin.write("go\n")
        process.stdin.flush()
        out = process.stdout.readline()
        cpu = cpu_exact(pids) - before
    _, err = process.communicate()
    running.remove(process)
    if process.returncode != 0:
        raise RuntimeError(err.strip() or "load tool: status %d" % process.returncode)
    return dict(numbers(out), cpu=cpu)


def wait_until_calm(contender, count):
    """Until the processes of the last connections have ended."""
    end = time.monotonic() + 3
    while len(contender.pids()) > count and time.monotonic() < end:
        time.sleep(0.02)


# --- results ------------------------------------------------------------------


class Results:
    def __init__(self):
        self.values = collections.OrderedDict()  # (measure, contender) -> list
        self.units = {}
        self.broken = []

    def add(self, measure, unit, contender, value):
        self.units[measure] = unit
        self.values.setdefault((measure, contender), []).append(value)

    def get(self, measure, contender):
        values = self.values.get((measure, contender))
        return statistics.median(values) if values else None

    def ratio(self, measure, contender, base, base_measure=None):
        a, b = self.get(measure, contender), self.get(base_measure or measure, base)
        return a / b if a is not None and b else None

    def fail(self, measure, contender, why):
        note = "%s, %s: %s" % (measure, contender, why)
        self.broken.append(note)
        print("bench: " + note, file=sys.stderr)


results = Results()


def rounds(measure, contenders, once):
    """Every contender in turn, as many times as there are rounds."""
    began = time.monotonic()
    gone = set()
    for _ in range(settings.rounds):
        for contender in contenders:
            if contender.key in gone:
                continue
            count = len(contender.pids())
            try:
                once(contender)
            except RuntimeError as error:
                results.fail(measure, contender.key, error)
                gone.add(contender.key)
            wait_until_calm(contender, count)
    print("bench: %s took %.0f s" % (measure, time.monotonic() - began), file=sys.stderr)


# --- what is measured ---------------------------------------------------------


def measure_flow(contenders):
    def one_way(n):
        def once(c):
            got = load_metered(c, "flow", "-n", n, "-t", settings.flow_ms, c.port)
            results.add("one way, tunnels: %d" % n, "MB/s", c.key, got["rate"])
            if n == 1:
                results.add("tunnel's CPU, one way", "ms/MB", c.key,
                            got["cpu"] * 1e9 / got["bytes"])
        return once

    def both_ways(c):
        got = load("flow", "-b", "-t", settings.flow_ms, c.port)
        results.add("both ways, tunnels: 1", "MB/s", c.key, got["rate"])

    rounds("one way", contenders, one_way(1))
    rounds("both ways", contenders, both_ways)
    some = contenders
    if options.mode == "quick":
        some = [c for c in contenders if c.key in MANY]
    for n in settings.tunnels[1:]:
        rounds("%d tunnels" % n, some, one_way(n))


def measure_trips(contenders):
    def once(c):
        for size in SIZES:
            got = load_metered(c, "trip", "-s", size, "-t", settings.trip_ms, c.port)
            results.add("round trip, %d bytes" % size, "us", c.key, got["median_us"])
            if size == 1:
                results.add("tunnel's CPU a round trip", "us", c.key,
                            got["cpu"] * 1e6 / got["trips"])

    def sparse(c):
        got = load_metered(c, "trip", "-g", 1000, "-t", settings.sparse_ms, c.port)
        results.add("round trip, 1 byte, 1 ms apart", "us", c.key, got["median_us"])
        results.add("tunnel's CPU a round trip, 1 ms apart", "us", c.key,
                    got["cpu"] * 1e6 / got["trips"])

    rounds("round trip", contenders, once)
    rounds("sparse round trip", contenders, sparse)


def measure_opening(contenders):
    def once(c):
        count = len(c.pids())
        before = cpu_with_children(c.pids())
        got = load("open", "-t", settings.open_ms, "-m", settings.open_most, c.port)
        wait_until_calm(c, count)
        cpu = cpu_with_children(c.pids()) - before
        if got["failed"]:
            results.fail("new connections", c.key, "%d failed" % got["failed"])
        results.add("new connections", "1/s", c.key, got["rate"])
        results.add("CPU a new connection", "ms", c.key, cpu * 1e3 / max(got["connections"], 1))

    rounds("new connections", contenders, once)


def measure_spawn(builds):
    """CPU from spawn to exit, of nothing at all, of both ends, and of a refused stranger."""
    began = time.monotonic()
    gone = set()

    def pair(name, build, mode):
        got = load("pair", *(["-6"] if mode == "fds" else []), "-n", settings.spawns, "--",
                   *end_command(build, "enc", mode, "{A}"), "--",
                   *end_command(build, "dec", mode, "{B}"))
        if got["enc_status"] or got["dec_status"]:
            raise RuntimeError("exit statuses %(enc_status)d and %(dec_status)d" % got)
        results.add("CPU of spipe-enc, spawn to exit", "us", name, got["enc_cpu_us"])
        results.add("CPU of spipe-dec, spawn to exit", "us", name, got["dec_cpu_us"])
        results.add("both ends up and one byte back", "us", name, got["wall_us"])

    def stranger(name, build, mode):
        got = load("stranger", *(["-6"] if mode == "fds" else []), "-n", settings.spawns, "--",
                   *end_command(build, "dec", mode, "{B}"))
        if got["status"] != 77:
            raise RuntimeError("exit status %(status)d" % got)
        results.add("CPU of a refused stranger", "us", name, got["cpu_us"])
        results.add("spawn to nonce sent", "us", name, got["ready_us"])

    for _ in range(settings.rounds):
        for name in ("nothing", "nothing-static"):
            got = load("spawn", "-n", settings.spawns, "--", os.path.join(helpers, name))
            results.add("CPU of a do-nothing program", "us", name, got["cpu_us"])
        got = load("spawn", "-n", settings.spawns, "--", netcat(), "-h")
        results.add("CPU of a do-nothing program", "us", "netcat", got["cpu_us"])
        for label, build in builds:
            for mode in ("fds", "pass", "command"):
                for step in (pair, stranger):
                    name = "%s-%s" % (label, mode)
                    if (step, name) in gone:
                        continue
                    try:
                        step(name, build, mode)
                    except RuntimeError as error:
                        results.fail("start-up", name, error)
                        gone.add((step, name))
    print("bench: start-up took %.0f s" % (time.monotonic() - began), file=sys.stderr)


def measure_memory(contenders, target):
    """Idle, busy, and after a lot of data and silence: all contenders are silent together."""
    began = time.monotonic()
    held = []
    base = {}

    def figures(c, pids):
        """Memory by role: of our filters each, of the others' processes together, per end."""
        if not isinstance(c, Ours):
            rise = sum(private_dirty(p) for p in pids) - base[c.key]
            return {"": rise / HELD / 2}
        roles = collections.defaultdict(list)
        for pid in pids:
            name, fields = name_of(pid), stat_fields(pid)
            if fields and name in ("spipe-enc", "spipe-dec"):
                if name_of(int(fields[1])) == name:
                    name += " (launcher)"
                roles[name].append(private_dirty(pid))
        return {" " + k: statistics.mean(v) for k, v in roles.items()}

    def note(state, c, now):
        for role, kib in now.items():
            results.add("memory, " + state, "KiB", c.key + role, kib)

    for c in contenders:
        if not isinstance(c, Ours):
            # A daemon would serve from memory that earlier connections made it take.
            stop(c.processes)
            c.processes = []
            c.open(target)
            time.sleep(0.3)
        base[c.key] = sum(private_dirty(p) for p in c.pids())
        process = start([tool, "hold", "-n", str(HELD), "-m", str(BULK), str(c.port)],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if process.stdout.readline() != "ready\n":
            results.fail("memory", c.key, "tunnels did not open")
            continue
        held.append((c, process))
    time.sleep(0.3)
    for c, process in held:
        note("idle", c, figures(c, c.pids()))
    quiet = []
    for c, process in held:
        pids = c.pids()
        most = {}
        process.stdin.write("go\n")
        process.stdin.flush()
        end = time.monotonic() + 30
        while time.monotonic() < end and not select.select([process.stdout], [], [], 0.02)[0]:
            for role, kib in figures(c, pids).items():
                most[role] = max(most.get(role, 0), kib)
        if time.monotonic() >= end or process.stdout.readline() != "ready\n":
            results.fail("memory", c.key, "the tunnel broke")
            continue
        note("busy", c, most)
        quiet.append((c, process))
    time.sleep(QUIET + 0.5)
    for c, process in quiet:
        note("%d s after %d MB" % (QUIET, BULK // 1_000_000), c, figures(c, c.pids()))
    for c, process in held:
        process.stdin.close()
        process.wait()
        running.remove(process)
    print("bench: memory took %.0f s" % (time.monotonic() - began), file=sys.stderr)


# --- the report ---------------------------------------------------------------


def first_line(*argv):
    try:
        got = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=5, check=False)
        return got.stdout.strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "?"


def package(name):
    got = first_line("dpkg-query", "-W", "-f", "${Version}", name)
    return got if re.match(r"\d", got) else "?"


def machine():
    cpu = "?"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    with open("/proc/cpuinfo") as file:
        found = re.search(r"^(?:flags|Features)\s*: (.*)", file.read(), re.M)
        flags = set(found.group(1).split()) if found else set()
    with open("/proc/meminfo") as file:
        memory = int(re.search(r"MemTotal: +(\d+)", file.read()).group(1)) // 1024
    system = "?"
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        pass
    use = [f for f in ("aes", "vaes", "avx2", "avx512f", "sha_ni") if f in flags]
    virtual = ", virtual" if "hypervisor" in flags else ""
    return [
        "machine: %s%s, %d CPUs (%s), %d MiB" % (cpu, virtual, len(os.sched_getaffinity(0)),
                                                 " ".join(use) or "no extensions known", memory),
        "system: %s, Linux %s, load at the start %.2f" % (
            system, platform.release(), load_at_start),
        "programs: %s; spiped %s; stunnel %s; OpenSSH %s; socat %s; libcrypto %s; ucspi-tcp %s; "
        "xinetd %s" % (first_line(os.path.join(options.build, "spipe-enc"), "--version"),
                       package("spiped"), package("stunnel4"), package("openssh-client"),
                       package("socat"), first_line("openssl", "version").split(" (")[0],
                       package("ucspi-tcp"), package("xinetd")),
        "stunnel negotiates TLS_AES_128_GCM_SHA256 with its PSK; spiped and ours use AES-256",
        "run: %s, %d rounds, medians; loopback, one machine for load, both ends and target"
        % (options.mode, settings.rounds),
    ]


def number(value):
    if value is None:
        return "-"
    if value >= 100:
        return "%.0f" % value
    return "%.3g" % value


def table(title, columns, keys, note=None):
    """One row per contender, one column per measure."""
    rows = [["", *[c[0] for c in columns]]]
    for key in keys:
        row = [number(results.get(c[1], key)) for c in columns]
        if any(cell != "-" for cell in row):
            rows.append([labels.get(key, key), *row])
    if len(rows) == 1:
        return []
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["", title]
    if note:
        lines.append(note)
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:])]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def all_keys():
    seen = []
    for _, key in results.values:
        if key not in seen:
            seen.append(key)
    order = list(labels)
    return sorted(seen, key=lambda k: (order.index(k) if k in order else len(order), k))


def tables():
    keys = all_keys()
    lines = []
    lines += table(
        "Throughput, MB/s (10^6 bytes)",
        [("one way", "one way, tunnels: 1"), ("both ways", "both ways, tunnels: 1")]
        + [("%d tunnels" % n, "one way, tunnels: %d" % n) for n in settings.tunnels[1:]]
        + [("CPU ms/MB", "tunnel's CPU, one way")], keys)
    lines += table(
        "Round trip, microseconds, and the tunnel's CPU for one",
        [("%d B" % s, "round trip, %d bytes" % s) for s in SIZES]
        + [("CPU", "tunnel's CPU a round trip"),
           ("1 B, 1 ms apart", "round trip, 1 byte, 1 ms apart"),
           ("CPU", "tunnel's CPU a round trip, 1 ms apart")], keys)
    lines += table(
        "New connections, one byte echoed on each, four at a time",
        [("1/s", "new connections"), ("CPU ms", "CPU a new connection")], keys,
        "CPU of both ends, supervisor, command and handshake; ssh opens channels in one session")
    lines += table(
        "Start-up, microseconds (CPU includes the children's)",
        [("nothing", "CPU of a do-nothing program"),
         ("enc CPU", "CPU of spipe-enc, spawn to exit"),
         ("dec CPU", "CPU of spipe-dec, spawn to exit"),
         ("stranger CPU", "CPU of a refused stranger"),
         ("nonce after", "spawn to nonce sent"),
         ("first byte back after", "both ends up and one byte back")], keys)
    lines += table(
        "Memory of a connection at one end, private dirty, KiB",
        [("idle", "memory, idle"), ("busy", "memory, busy"),
         ("%d s after %d MB" % (QUIET, BULK // 1_000_000),
          "memory, %d s after %d MB" % (QUIET, BULK // 1_000_000))], keys,
        "ours: each filter process; the others: what a connection adds, over both ends, halved")
    return lines


def targets():
    """The figures promised, with what was measured beside them."""
    lines = ["", "The promised figures"]

    def say(what, value, sign, target):
        if value is None:
            lines.append("  %-74s %8s  (%s %s)  not measured" % (what, "-", sign, target))
            return
        met = value >= target if sign == ">=" else value <= target
        lines.append("  %-74s %8.2f  (%s %s)  %s" % (
            what, value, sign, target, "met" if met else "MISSED"))

    backends = [("libcrypto", "ours", 3.5, 1.15)]
    if "mb-pass" in labels:
        backends.append(("ipsec-mb", "mb", 4.5, 1.5))
    for title in ("one way", "both ways"):
        measure = title + ", tunnels: 1"
        for backend, key, upstream, tls in backends:
            for mode in ("pass", "fds"):
                name = "%s-%s" % (key, mode)
                for base, target in (("spiped", upstream), ("stunnel", tls)):
                    say("1. %s, %s, %s: times %s" % (title, backend, MODES[mode], base),
                        results.ratio(measure, name, base), ">=", target)
    for mode in ("pass", "fds"):
        name = "ours-" + mode
        say("2. round trip back to back, 1 byte, %s: of spiped's" % MODES[mode],
            results.ratio("round trip, 1 bytes", name, "spiped"), "<=", 0.7)
        say("2. CPU of a round trip, 1 ms apart, %s: of spiped's" % MODES[mode],
            results.ratio("tunnel's CPU a round trip, 1 ms apart", name, "spiped"), "<=", 1.2)
    nothing = "CPU of a do-nothing program"
    for label, whole in (("default", 6), ("static", 4.5)):
        for role in ("enc", "dec"):
            for mode in ("fds", "pass"):
                say("3. CPU of spipe-%s, %s build, %s: times do-nothing" % (
                    role, label, MODES[mode]),
                    results.ratio("CPU of spipe-%s, spawn to exit" % role,
                                  "%s-%s" % (label, mode), "nothing", nothing), "<=", whole)
        for mode in ("fds", "pass"):
            name = "%s-%s" % (label, mode)
            say("3. CPU of a refused stranger, %s build, %s: times do-nothing" % (
                label, MODES[mode]),
                results.ratio("CPU of a refused stranger", name, "nothing", nothing),
                "<=", whole / 2)
            say("3. CPU of a refused stranger, %s build, %s: of one served" % (
                label, MODES[mode]),
                results.ratio("CPU of a refused stranger", name, name,
                              "CPU of spipe-dec, spawn to exit"), "<=", 0.5)
    for key in ("ours-pass", "ours-fds", "static-pass", "static-fds"):
        say("3. new connections a second, tcpserver, %s: of spiped's" % labels.get(key, key),
            results.ratio("new connections", key, "spiped"), ">=", 0.5)
    after = "memory, %d s after %d MB" % (QUIET, BULK // 1_000_000)
    for label, key, most in (("default", "ours-fds", 600), ("default", "ours-pass", 600),
                             ("static", "static-fds", 200)):
        for role in ("spipe-enc", "spipe-dec"):
            name = "%s %s" % (key, role)
            idle, late = results.get("memory, idle", name), results.get(after, name)
            mode = MODES[key.partition("-")[2]]
            say("4. idle memory of %s, %s build, %s: KiB" % (role, label, mode), idle, "<=", most)
            say("4. the same after %d MB and %d s of silence: KiB more" % (
                BULK // 1_000_000, QUIET), late - idle if late is not None and idle is not None
                else None, "<=", 400)
    for key in [b[1] + "-" + m for b in backends for m in ("pass", "fds")]:
        say("5. 100 tunnels in total, %s: of what one moves" % labels.get(key, key),
            results.ratio("one way, tunnels: 100", key, key, "one way, tunnels: 1"), ">=", 0.9)
    return lines


def write_tsv(path, about):
    with open(path, "w") as file:
        for line in about:
            file.write("# %s\n" % line)
        file.write("measure\tcontender\tunit\tmedian\tleast\tmost\trounds\tof_spiped\n")
        for (measure, key), values in results.values.items():
            ratio = results.ratio(measure, key, "spiped")
            file.write("%s\t%s\t%s\t%.6g\t%.6g\t%.6g\t%d\t%s\n" % (
                measure, key, results.units[measure], statistics.median(values), min(values),
                max(values), len(values), "%.3f" % ratio if ratio is not None else ""))


def draw(path):
    """The chart for the README, drawn by gnuplot."""
    if not find("gnuplot"):
        print("bench: no gnuplot, no chart", file=sys.stderr)
        return
    rows = []
    for key in labels:
        if key == "direct":
            continue
        cells = [results.get(m, key) for m in ("one way, tunnels: 1", "both ways, tunnels: 1",
                                               "round trip, 1 bytes", "round trip, 4096 bytes")]
        if all(c is not None for c in cells):
            rows.append('"%s"\t%s' % (labels[key].replace(", ", "\\n"),
                                     "\t".join("%.6g" % c for c in cells)))
    if not rows:
        return
    data = write("chart.tsv", "\n".join(rows) + "\n")
    got = subprocess.run(["gnuplot", "-e", "data='%s'; chart='%s'" % (data, path),
                          os.path.join(HERE, "chart.gp")], check=False)
    if got.returncode != 0:
        print("bench: gnuplot failed, no chart", file=sys.stderr)


# --- the whole ----------------------------------------------------------------

MODES = {"command": "nc -N relays", "pass": "-p", "fds": "UCSPI fds"}


def give_up(number, frame):
    del number, frame
    raise SystemExit("bench: stopped")


def main():
    global options, settings, tool, helpers, keyfile, scratch, labels, load_at_start

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mode", choices=("full", "quick"), nargs="?", default="full")
    parser.add_argument("--build", default=os.environ.get("BUILD") or "build",
                        help="where our programs are")
    parser.add_argument("--static", help="where the static ones are (BUILD-static)")
    parser.add_argument("--ipsec-mb", help="where those with ipsec-mb are (BUILD-ipsec-mb)")
    parser.add_argument("--only", help="these alone: flow,trips,opening,spawn,memory")
    parser.add_argument("--contenders", help="these alone, as results.tsv names them")
    options = parser.parse_args()
    options.static = options.static or options.build + "-static"
    options.ipsec_mb = options.ipsec_mb or options.build + "-ipsec-mb"
    only = set((options.only or "flow,trips,opening,spawn,memory").split(","))
    settings = QUICK if options.mode == "quick" else FULL
    helpers = os.path.join(options.build, "bench")
    tool = os.path.join(helpers, "load")
    load_at_start = os.getloadavg()[0]

    for number_ in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number_, give_up)
    signal.alarm(settings.limit)
    atexit.register(clean_up)
    scratch = tempfile.mkdtemp(prefix="spipe-bench-")
    keyfile = os.path.join(scratch, "key")
    with open(keyfile, "wb") as file:
        file.write(os.urandom(32))
    began = time.monotonic()

    server = start([tool, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    target = int(numbers(server.stdout.readline())["port"])

    main_build = options.build
    tunnels = [
        Direct("direct", "no tunnel"),
        Spiped("spiped", "spiped"),
        Stunnel("stunnel", "stunnel, TLS 1.3 PSK"),
        Ssh("ssh", "ssh -L"),
        Socat("socat", "socat, OPENSSL"),
        Ours("ours-command", "ours, nc -N relays", main_build, "command"),
        Ours("ours-pass", "ours, -p", main_build, "pass"),
        Ours("ours-fds", "ours, UCSPI fds", main_build, "fds"),
    ]
    if os.path.isdir(options.ipsec_mb):
        tunnels += [
            Ours("mb-pass", "ours, ipsec-mb, -p", options.ipsec_mb, "pass"),
            Ours("mb-fds", "ours, ipsec-mb, UCSPI fds", options.ipsec_mb, "fds"),
        ]
    extra = [
        Ours("ours-xinetd", "ours, -p, xinetd", main_build, "pass", "xinetd"),
        Ours("ours-socat", "ours, -p, socat", main_build, "pass", "socat"),
    ]
    static = [Ours("static-" + mode, "", options.static, mode) for mode in ("fds", "pass")]
    if not os.path.isdir(options.static):
        static = []
    if options.contenders:
        wanted = options.contenders.split(",")
        tunnels, extra, static = [
            [c for c in some if c.key in wanted] for some in (tunnels, extra, static)]
    labels = {c.key: c.label for c in tunnels + extra}
    labels.update({
        "nothing": "do-nothing program", "nothing-static": "do-nothing program, static",
        "netcat": "nc -h, for comparison"})
    for label in ("default", "static", "ipsec-mb"):
        for mode, words in MODES.items():
            labels["%s-%s" % (label, mode)] = "%s build, %s" % (label, words)

    up = {}
    for c in tunnels + extra + static:
        missing = c.missing()
        try:
            if missing:
                raise RuntimeError("no " + " ".join(missing))
            c.open(target)
            load("trip", "-t", 20, c.port)
            up[c.key] = c
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            if isinstance(error, subprocess.CalledProcessError):
                error = "%s failed" % error.cmd[0]
            results.fail("left out", c.key, error)
            stop(c.processes)
    tunnels = [c for c in tunnels if c.key in up]
    extra = [c for c in extra if c.key in up]
    static = [c for c in static if c.key in up]
    time.sleep(0.3)

    if "spawn" in only:
        measure_spawn([b for b in (("default", main_build), ("static", options.static),
                                   ("ipsec-mb", options.ipsec_mb))
                       if os.access(os.path.join(b[1], "spipe-dec"), os.X_OK)])
    if "flow" in only:
        measure_flow(tunnels)
    if "trips" in only:
        measure_trips(tunnels)
    if "opening" in only:
        measure_opening(tunnels + extra + static)
    if "memory" in only:
        measure_memory([c for c in tunnels + static if c.key != "direct"], target)

    about = machine()
    text = about + tables() + targets()
    if results.broken:
        text += ["", "What went wrong"] + ["  " + b for b in results.broken]
    text.append("")
    text.append("%.0f seconds in all" % (time.monotonic() - began))
    out = os.path.join(options.build, "bench")
    with open(os.path.join(out, "results.txt"), "w") as file:
        file.write("\n".join(text) + "\n")
    write_tsv(os.path.join(out, "results.tsv"), about)
    if "flow" in only and "trips" in only:
        draw(os.path.join(out, "chart.svg"))
    print("\n".join(text))


if __name__ == "__main__":
    main()
