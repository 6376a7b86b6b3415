#!/usr/bin/python3
"""Our tunnel beside others, measured in one run; `make bench` calls this.

All contenders stand at once and take turns, round after round, so that a slow minute of the machine hits all of them;
every figure is the median of its rounds. Everything is on the loopback interface and ends with this program.
"""

import argparse
import atexit
import collections
import os
import platform
import pwd
import re
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
HOST_PORT = "127.0.0.1:%d"

# --- settings of a full and of a quick run ------------------------------------

Settings = collections.namedtuple(
    "Settings", "rounds flow_ms trip_ms sparse_ms open_ms spawns tunnels idle flood_ms sources limit")
FULL = Settings(5, 500, 200, 300, 600, 40, 100, 1000, 30000, (1, 20, 250), 2400)
QUICK = Settings(3, 300, 100, 150, 300, 20, 100, 1000, 5000, (20,), 300)

SIZES = (1, 4096)
RATES = (300, 1000)  # strangers a second
TARGET = 9000  # where the tunnels of tests/bench/run lead

# The tunnels that run makes under systemd: their entry, and for strangers that of the decrypting end.
UNITS = {
    "spiped units": (7001, 8001),
    "dec line": (7002, 8002),
    "enc line": (7003, None),
    "dec and enc lines": (7004, None),
}
LINE = "spipe-line-dec@0.service"

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
    signal.alarm(0)
    stop(running)
    running.clear()
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)
    if made_run_sshd:
        os.rmdir("/run/sshd")


def inside(*argv):
    """Runs a command in the container of the units, and returns what it says."""
    return subprocess.run(
        ["nsenter", "-t", os.environ["INIT"], "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w", "--", *argv],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False).stdout


def cpu_used(group=""):
    """CPU seconds of all processes, living or ended, of a group below that of this run."""
    if not os.environ.get("BENCH_GROUP"):
        return None
    with open(os.path.join(os.environ["BENCH_GROUP"], group, "cpu.stat")) as file:
        return int(file.readline().split()[1]) / 1e6


def cpu_since(before, group=""):
    return None if before is None else cpu_used(group) - before


def private(pid):
    """KiB of memory that no other process has."""
    try:
        with open("/proc/%d/smaps_rollup" % pid) as file:
            return sum(int(kib) for kib in re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", file.read(), re.M))
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
        """Starts a process in a control group of this contender, and waits until it listens."""
        if os.environ.get("BENCH_GROUP"):
            group = os.path.join(os.environ["BENCH_GROUP"], self.key)
            os.makedirs(group, exist_ok=True)
            argv = ["sh", "-c", "echo 0 >$0/cgroup.procs && exec \"$@\"", group, *argv]
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


class Unit(Contender):
    """Runs already, under systemd."""

    def __init__(self, key):
        super().__init__(key, key)
        self.port, self.wire = UNITS[key]


class Spiped(Contender):
    needs = ("spiped",)

    def run(self, target):
        middle = free_port()
        for side, source, to in (("-d", middle, target), ("-e", self.port, middle)):
            self.listen(["spiped", "-F", side, "-n", "0", "-k", keyfile,
                         "-s", "[127.0.0.1]:%d" % source, "-t", "[127.0.0.1]:%d" % to], source)


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


class Ours(Contender):
    """How: `listen` (a listening near side and -t), `tcpserver` (with -t), `command` (listening, nc -N relays)."""

    def __init__(self, key, label, build, how="listen"):
        super().__init__(key, label)
        self.build, self.how = build, how
        self.needs = {"tcpserver": ("tcpserver",), "command": ("systemd-socket-activate", netcat())}.get(
            how, ("systemd-socket-activate",))

    def missing(self):
        return super().missing() + [
            p for p in ("spipe-enc", "spipe-dec") if not os.access(os.path.join(self.build, p), os.X_OK)]

    def run(self, target):
        middle = free_port()
        for role, source, to in (("dec", middle, target), ("enc", self.port, middle)):
            argv = [os.path.abspath(os.path.join(self.build, "spipe-" + role)), "-k", keyfile]
            if self.how == "tcpserver":
                argv = ["tcpserver", "-q", "-D", "-H", "-R", "-l", "0", "-c", "1000", "-b", "256", HOST, str(source),
                        *argv, "-t", HOST_PORT % to]
            else:
                argv = ["systemd-socket-activate", "-l", HOST_PORT % source, *argv, "-n", "2000"]
                argv += [netcat(), "-N", HOST, str(to)] if self.how == "command" else ["-t", HOST_PORT % to]
            self.listen(argv, source)


def netcat():
    """OpenBSD's, by its whole path, as a unit names it."""
    return find("nc.openbsd") or find("nc") or "nc.openbsd"


# --- the load tool ------------------------------------------------------------


def numbers(line):
    words = line.split()
    return {k: float(v) for k, v in zip(words[::2], words[1::2])}


def load_started(*words):
    return start([tool, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                 text=True)


def load_result(process):
    out, err = process.communicate()
    running.remove(process)
    if process.returncode != 0:
        raise RuntimeError(err.strip() or "load tool: status %d" % process.returncode)
    return numbers(out)


def load(*words):
    """Runs the load tool and returns the numbers it prints."""
    return load_result(load_started(*words))


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
        if value is None:
            return
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


def measure_units(contenders):
    """Through units, with all of their hardening; the CPU is that of everything in this run."""

    def once(c):
        before = cpu_used()
        got = load("open", "-t", settings.open_ms, c.port)
        time.sleep(0.2)
        cpu = cpu_since(before)
        if got["failed"]:
            results.fail("units", c.key, "%d connections failed" % got["failed"])
        results.add("units", "1/s", c.key, got["rate"])
        results.add("units, CPU", "ms", c.key, cpu and cpu * 1e3 / max(got["connections"], 1))

    def strangers(c):
        for kind in ("leave", "wrong"):
            before = cpu_used()
            got = load("flood", "-k", kind, "-r", 200, "-a", 100, "-t", settings.open_ms, c.wire)
            time.sleep(0.2)
            cpu = cpu_since(before)
            results.add("units, CPU, stranger: " + kind, "ms", c.key, cpu and cpu * 1e3 / max(got["made"], 1))

    def first(c):
        inside("systemctl", "-q", "stop", LINE)
        time.sleep(0.3)
        got = load("open", "-j", 1, "-m", 1, c.port)
        results.add("units, first connection", "ms", c.key, got["median_ms"] if got["connections"] else None)
        inside("systemctl", "-q", "stop", LINE)

    rounds("units", contenders, once)
    rounds("strangers", [c for c in contenders if c.wire], strangers)
    rounds("first connections", [c for c in contenders if c.key == "dec line"], first)
    for key, unit in (("dec line", LINE), ("enc line", LINE.replace("dec", "enc"))):
        found = re.search(r"exposure level for .*: ([0-9.]+)", inside("systemd-analyze", "security", "--no-pager", unit))
        results.add("units, exposure", "", key, found and float(found[1]))


def measure_floods(contenders):
    """Holders of a key, 20 a second, while strangers come."""
    began = time.monotonic()
    floods = [("quiet", 0, 1)] + [
        (kind, rate, sources) for kind in ("wrong", "mixed") for rate in RATES for sources in settings.sources]
    for kind, rate, sources in floods:
        for c in contenders:
            process = rate and load_started("flood", "-k", kind, "-r", rate, "-a", sources, "-t", settings.flood_ms,
                                            c.wire)
            got = load("open", "-j", 2, "-g", 100000, "-t", settings.flood_ms, c.port)
            made = load_result(process) if process else {"rate": 0}
            name = "flood %s %d %d" % (kind, rate, sources)
            for what, unit, value in (("served", "", got["connections"]), ("refused", "", got["failed"]),
                                      ("median", "ms", got["median_ms"] if got["connections"] else None),
                                      ("rate", "1/s", made["rate"])):
                results.add(name + " " + what, unit, c.key, value)
            time.sleep(1)  # the strangers have gone with the load tool
    print("bench: floods took %.0f s" % (time.monotonic() - began), file=sys.stderr)


def measure_flow(contenders):
    def one_way(n):
        def once(c):
            before = cpu_used(c.key) if c.processes else None
            got = load("flow", "-n", n, "-t", settings.flow_ms, c.port)
            results.add("one way, tunnels: %d" % n, "MB/s", c.key, got["rate"])
            cpu = cpu_since(before, c.key)
            if n == 1:
                results.add("tunnel's CPU, one way", "ms/MB", c.key, cpu and cpu * 1e9 / got["bytes"])

        return once

    def both_ways(c):
        got = load("flow", "-b", "-t", settings.flow_ms, c.port)
        results.add("both ways, tunnels: 1", "MB/s", c.key, got["rate"])

    rounds("one way", contenders, one_way(1))
    rounds("both ways", contenders, both_ways)
    rounds("%d tunnels" % settings.tunnels, contenders, one_way(settings.tunnels))


def measure_trips(contenders):
    def once(c):
        for size in SIZES:
            got = load("trip", "-s", size, "-t", settings.trip_ms, c.port)
            results.add("round trip, %d bytes" % size, "us", c.key, got["median_us"])
        got = load("trip", "-g", 1000, "-t", settings.sparse_ms, c.port)
        results.add("round trip, 1 byte, 1 ms apart", "us", c.key, got["median_us"])

    rounds("round trip", contenders, once)


def measure_opening(contenders):
    def once(c):
        count = len(c.pids())
        before = cpu_used(c.key)
        got = load("open", "-t", settings.open_ms, c.port)
        wait_until_calm(c, count)
        cpu = cpu_since(before, c.key)
        if got["failed"]:
            results.fail("new connections", c.key, "%d failed" % got["failed"])
        results.add("new connections", "1/s", c.key, got["rate"])
        results.add("CPU a new connection", "ms", c.key, cpu and cpu * 1e3 / max(got["connections"], 1))

    rounds("new connections", contenders, once)


def measure_spawn(builds):
    """CPU from spawn to exit, of nothing at all, of both ends, and of a refused stranger."""
    nothing = os.path.join(options.build, "bench", "nothing")
    for _ in range(settings.rounds):
        got = load("spawn", "-n", settings.spawns, "--", nothing)
        results.add("CPU of a do-nothing program", "us", "nothing", got["cpu_us"])
        for key, build in builds:
            enc, dec = ([os.path.join(build, "spipe-" + role), "-k", keyfile, "-t", to]
                        for role, to in (("enc", "{A}"), ("dec", "{B}")))
            got = load("pair", "-n", settings.spawns, "--", *enc, "--", *dec)
            results.add("CPU of spipe-enc, spawn to exit", "us", key, got["enc_cpu_us"])
            results.add("CPU of spipe-dec, spawn to exit", "us", key, got["dec_cpu_us"])
            results.add("both ends up and one byte back", "us", key, got["wall_us"])
            got = load("stranger", "-n", settings.spawns, "--", *dec)
            results.add("CPU of a refused stranger", "us", key, got["cpu_us"])


def measure_memory(contenders):
    """What a connection adds at one end, idle, with many of them."""
    for c in contenders:
        before = {p: private(p) for p in c.pids()}
        process = load_started("hold", "-n", settings.idle, c.port)
        if process.stdout.readline() != "ready\n":
            results.fail("memory", c.key, "tunnels did not open")
            continue
        time.sleep(2)  # until buffers have been freed
        memory = collections.Counter()
        for pid in c.pids():
            memory[name_of(pid)] += private(pid) - before.get(pid, 0)
        for name, kib in memory.items():
            ends = 1 if name.startswith("spipe-") else 2
            results.add("memory, idle", "KiB", "%s %s" % (c.key, name), kib / settings.idle / ends)
        process.stdin.close()
        process.wait()
        running.remove(process)
        wait_until_calm(c, len(before))


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
        "programs: %s; spiped %s; stunnel %s; OpenSSH %s; libcrypto %s; ucspi-tcp %s; %s" % (
            first_line(os.path.join(options.build, "spipe-enc"), "--version"), package("spiped"),
            package("stunnel4"), package("openssh-client"), first_line("openssl", "version").split(" (")[0],
            package("ucspi-tcp"), first_line("systemctl", "--version").split(" (")[0]),
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


def print_rows(title, rows, note=None):
    if len(rows) < 2:
        return []
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["", title]
    if note:
        lines.append(note)
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:])]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def table(title, columns, note=None, base=None):
    """One row per contender, one column per measure; with `base`, each is followed by its ratio to that one's."""
    rows = [["", *(head for c in columns for head in ([c[0], "of it"] if base else [c[0]]))]]
    for key in all_keys():
        row = []
        for _, measure in columns:
            row.append(number(results.get(measure, key)))
            if base:
                row.append(number(results.ratio(measure, key, base)))
        if any(cell != "-" for cell in row):
            rows.append([labels.get(key, key), *row])
    return print_rows(title, rows, note)


def floods():
    rows = [["", "spiped: served", "refused", "median ms", "ours: served", "refused", "median ms"]]
    for name in dict.fromkeys(m.rpartition(" ")[0] for m, _ in results.values if m.startswith("flood")):
        _, kind, rate, sources = name.split()
        rows.append(["%s, %s/s from %s" % (kind, rate, sources)] + [
            number(results.get(name + " " + what, key))
            for key in ("spiped units", "dec line") for what in ("served", "refused", "median")])
    return print_rows("Holders of a key while strangers come, %.0f s each" % (settings.flood_ms / 1000), rows,
                      "every other of the mixed ones sends a byte and stays; the rest send a wrong proof")


def all_keys():
    seen = []
    for _, key in results.values:
        if key not in seen:
            seen.append(key)
    order = list(labels)
    return sorted(seen, key=lambda k: (order.index(k) if k in order else len(order), k))


def tables():
    lines = table("Units under systemd, new connections, four at a time; CPU of everything in this run, ms",
                  [("1/s", "units"), ("CPU", "units, CPU")], "ratios to spiped's", "spiped units")
    lines += table("Strangers under systemd: CPU of everything in this run, ms; first connection after an idle exit",
                   [("one byte", "units, CPU, stranger: leave"), ("wrong proof", "units, CPU, stranger: wrong"),
                    ("first, ms", "units, first connection")])
    lines += floods()
    lines += table("New connections without systemd, one byte echoed on each, four at a time",
                   [("1/s", "new connections"), ("CPU ms", "CPU a new connection")],
                   "CPU of both ends; ssh opens channels in one session; ratios to spiped's", "spiped")
    lines += table("Memory of an idle connection at one end, private, KiB; %d at once" % settings.idle,
                   [("idle", "memory, idle")])
    lines += table("Throughput, MB/s (10^6 bytes)",
                   [("one way", "one way, tunnels: 1"), ("both ways", "both ways, tunnels: 1"),
                    ("%d tunnels" % settings.tunnels, "one way, tunnels: %d" % settings.tunnels),
                    ("CPU ms/MB", "tunnel's CPU, one way")])
    lines += table("Round trip, microseconds",
                   [("%d B" % s, "round trip, %d bytes" % s) for s in SIZES]
                   + [("1 B, 1 ms apart", "round trip, 1 byte, 1 ms apart")])
    lines += table("A process for each connection, microseconds (CPU includes the children's)",
                   [("nothing", "CPU of a do-nothing program"), ("enc CPU", "CPU of spipe-enc, spawn to exit"),
                    ("dec CPU", "CPU of spipe-dec, spawn to exit"), ("stranger CPU", "CPU of a refused stranger"),
                    ("first byte back after", "both ends up and one byte back")])
    return lines


def targets():
    """What we want to reach, with what was measured beside it."""
    lines = ["", "What we want to reach"]

    def say(what, value, sign, target):
        if value is None:
            return
        met = value >= target if sign == ">=" else value <= target
        lines.append("  %-66s %8.2f  (%s %s)  %s" % (what, value, sign, target, "met" if met else "MISSED"))

    for key in ("dec line", "enc line"):
        say("%s, connections/s: of spiped's" % key, results.ratio("units", key, "spiped units"), ">=", 0.85)
        say("%s, CPU a connection: of spiped's" % key, results.ratio("units, CPU", key, "spiped units"), "<=", 1.5)
    for kind in ("leave", "wrong"):
        measure = "units, CPU, stranger: " + kind
        say("CPU of a stranger (%s): of a connection" % kind,
            results.ratio(measure, "dec line", "dec line", "units, CPU"), "<=", 0.5)
    say("first connection after an idle exit, ms", results.get("units, first connection", "dec line"), "<=", 150)
    for key in ("dec line", "enc line"):
        say("%s, exposure by systemd-analyze security" % key, results.get("units, exposure", key), "<=", 1.2)
    for measure in list(results.units):
        if not measure.startswith("flood") or not measure.endswith("median") or "quiet" in measure:
            continue
        name = measure.rpartition(" ")[0]
        say(name + ", holders refused", results.get(name + " refused", "dec line"), "<=", 0)
        if results.get(name + " refused", "spiped units"):
            say(name + ", latency: of the quiet one",
                results.ratio(measure, "dec line", "dec line", "flood quiet 0 1 median"), "<=", 3)
        else:
            say(name + ", latency: of spiped's", results.ratio(measure, "dec line", "spiped units"), "<=", 2)
    say("listening near side and -t, connections/s: of spiped's",
        results.ratio("new connections", "ours", "spiped"), ">=", 0.75)
    say("tcpserver and -t, connections/s: of spiped's",
        results.ratio("new connections", "ours-tcpserver", "spiped"), ">=", 0.45)
    for role in ("enc", "dec"):
        say("idle spipe-%s, KiB" % role, results.get("memory, idle", "ours spipe-" + role), "<=", 120)
    for base, target in (("spiped", 4.2), ("stunnel", 1.3)):
        say("one way, ipsec-mb: of %s's" % base, results.ratio("one way, tunnels: 1", "ipsec-mb", base), ">=", target)
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


def give_up(number_, frame):
    del number_, frame
    raise SystemExit("bench: stopped")


def bring_up(contenders, target):
    """Starts them, and returns those that work."""
    up = []
    for c in contenders:
        try:
            if c.missing():
                raise RuntimeError("no " + " ".join(c.missing()))
            c.open(target)
            load("trip", "-t", 20, c.port)
            up.append(c)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            results.fail("left out", c.key, error)
            stop(c.processes)
    return up


def main():
    global options, settings, tool, keyfile, scratch, labels, load_at_start

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mode", choices=("full", "quick"), nargs="?", default="full")
    parser.add_argument("--build", default=os.environ.get("BUILD") or "build", help="where our programs are")
    parts = "units,floods,opening,memory,flow,trips,spawn"
    parser.add_argument("--only", default=os.environ.get("BENCH_ONLY") or parts, help="these alone: " + parts)
    options = parser.parse_args()
    only = options.only.split(",")
    settings = QUICK if options.mode == "quick" else FULL
    tool = os.path.join(options.build, "bench", "load")
    load_at_start = os.getloadavg()[0]

    for number_ in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number_, give_up)
    signal.alarm(settings.limit)
    atexit.register(clean_up)
    scratch = tempfile.mkdtemp(prefix="spipe-bench-")
    keyfile = os.path.join(scratch, "key")
    with open(os.open(keyfile, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(os.urandom(32))
    began = time.monotonic()

    units = "INIT" in os.environ
    server = start([tool, "serve"] + [str(TARGET)] * units, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    target = int(numbers(server.stdout.readline())["port"])

    build = options.build
    ours = Ours("ours", "ours", build)
    backends = [Ours(b, "ours, " + b, "%s-%s" % (build, b)) for b in ("libcrypto", "ipsec-mb")]
    spiped, stunnel, ssh = Spiped("spiped", "spiped"), Stunnel("stunnel", "stunnel, TLS 1.3 PSK"), Ssh("ssh", "ssh -L")
    opening = [spiped, stunnel, ssh, ours, Ours("ours-tcpserver", "ours, tcpserver", build, "tcpserver"),
               Ours("ours-static", "ours, static", build + "-static")]
    flowing = [Direct("direct", "no tunnel"), spiped, stunnel, ssh,
               *([b for b in backends if os.path.isdir(b.build)] or [ours]),
               Ours("ours-command", "ours, nc -N relays", build, "command")]
    labels = {c.key: c.label for c in flowing + opening}
    labels.update(nothing="a program that does nothing", default="ours", static="ours, static")

    if units and "units" in only:
        measure_units([Unit(key) for key in UNITS])
    if units and "floods" in only:
        measure_floods([Unit("spiped units"), Unit("dec line")])
    up = []
    if set(only) & {"opening", "memory", "flow", "trips"}:
        up = bring_up(list({c.key: c for c in opening + flowing}.values()), target)
    opening, flowing = [c for c in opening if c in up], [c for c in flowing if c in up]
    if "opening" in only:
        measure_opening(opening)
    if "memory" in only:
        measure_memory([c for c in opening if c in (spiped, ours)])
    if "flow" in only:
        measure_flow(flowing)
    if "trips" in only:
        measure_trips(flowing)
    if "spawn" in only:
        measure_spawn([("default", build), ("static", build + "-static")])

    about = machine()
    text = about + tables() + targets()
    if results.broken:
        text += ["", "What went wrong"] + ["  " + b for b in results.broken]
    text += ["", "%.0f seconds in all" % (time.monotonic() - began)]
    out = os.path.join(options.build, "bench")
    with open(os.path.join(out, "results.txt"), "w") as file:
        file.write("\n".join(text) + "\n")
    write_tsv(os.path.join(out, "results.tsv"), about)
    if "flow" in only and "trips" in only:
        draw(os.path.join(out, "chart.svg"))
    print("\n".join(text))


if __name__ == "__main__":
    main()
