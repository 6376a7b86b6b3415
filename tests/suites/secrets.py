#!/usr/bin/python3
"""Search the memory of our programs, while they live, for key material that they should have wiped.

What must be gone after its phase is shown to be found before it: a scanner that finds nothing proves
nothing.
"""

import os
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../helpers"))
import held
from held import peer
from suite import ROOT, Skip, Wrong, both, case, expect, main, needs

# The process's own and libcrypto's copies have other shapes than the secrets themselves.


def compress(state, block):
    """One step of SHA-256 (FIPS 180-4), for the states that an HMAC key is turned into."""
    k, w = CONSTANTS, list(struct.unpack(">16I", block))
    rotate = lambda x, n: (x >> n | x << (32 - n)) & 0xFFFFFFFF
    for i in range(16, 64):
        a, b = w[i - 15], w[i - 2]
        w.append(
            (w[i - 16] + w[i - 7] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10))
            & 0xFFFFFFFF
        )
    a, b, c, d, e, f, g, h = state
    for i in range(64):
        t = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (e & f ^ ~e & 0xFFFFFFFF & g) + k[i] + w[i]
        u = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (t + u) & 0xFFFFFFFF, a, b, c, (d + t) & 0xFFFFFFFF, e, f, g
    return [(x + y) & 0xFFFFFFFF for x, y in zip(state, (a, b, c, d, e, f, g, h))]


def root_bits(n, power):
    """The first 32 bits of the fraction of n's square or cube root."""
    root = 1 << 40
    while True:  # Newton, in integers, on n * 2^(32*power)
        better = ((power - 1) * root + (n << 32 * power) // root ** (power - 1)) // power
        if better >= root:
            return root & 0xFFFFFFFF
        root = better


PRIMES = [n for n in range(2, 312) if all(n % m for m in range(2, n))]
CONSTANTS = [root_bits(n, 3) for n in PRIMES]
START = [root_bits(n, 2) for n in PRIMES[:8]]


def hmac_states(key):
    for pad in 0x36, 0x5C:
        block = bytes(b ^ pad for b in key.ljust(64, b"\0"))
        yield struct.pack("<8I", *compress(START, block))
        yield block


def eights(form):
    """Its parts of 8 bytes: a quarter of a key is one too many. Padding does not belong to a secret."""
    for at in range(0, len(form) - 7, 8):
        if len(set(form[at : at + 8])) > 2:
            yield form[at : at + 8]


def shapes(secret, is_hmac_key=False, is_number=False):
    """All the forms in which a secret may be lying about, in pieces."""
    yield from eights(secret)
    if is_number:
        yield from eights(secret[::-1])  # libcrypto's numbers have their lowest byte first
    if is_hmac_key:
        for form in hmac_states(secret):
            yield from eights(form)


# --- looking --------------------------------------------------------------------------------------------


def memory(pid):
    """All of a process's memory that can be read, as (address, bytes)."""
    with open("/proc/%d/maps" % pid) as f:
        maps = [line.split(None, 5) for line in f]
    with open("/proc/%d/mem" % pid, "rb", buffering=0) as mem:
        for fields in maps:
            start, end = (int(x, 16) for x in fields[0].split("-"))
            if "r" not in fields[1] or fields[-1].strip() in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                continue
            # Program text can't hold what was not known when it was written.
            if "w" not in fields[1] and fields[-1].startswith("/"):
                continue
            try:
                mem.seek(start)
                yield start, mem.read(end - start)
            except OSError:
                continue


def search(areas, secrets):
    """The names of the secrets that are there, in any shape, and where."""
    there = {}
    for start, data in areas:
        for name, forms in secrets.items():
            for form in forms:
                at = data.find(form)
                while at != -1:
                    there[name] = there.get(name, "") + " %x" % (start + at)
                    at = data.find(form, at + 1)
    return there


def find_exponent(run, areas):
    """The program's x: it lies near the nonces, and is what makes its public value."""
    for _, data in areas:
        at = data.find(b"".join(run.peer.nonces))
        while at != -1:
            for offset in range(at, min(at + 512, len(data) - 32), 4):
                x = data[offset : offset + 32]
                if any(x) and pow(2, int.from_bytes(x, "big"), peer.P) == run.peer.their_y:
                    return x
            at = data.find(b"".join(run.peer.nonces), at + 1)
    return None


def gone(label, areas, secrets):
    there = search(areas, secrets)
    for name, where in there.items():
        raise Wrong("%s: %s is still there, at%s" % (label, name, where))


def present(label, areas, secrets, names):
    there = search(areas, secrets)
    for name in names:
        if name not in there:
            raise Wrong("%s: %s was not found: would the scanner find it?" % (label, name))
    return there


def guarded(label, pid, areas, secrets, names):
    """They are there, and nowhere but in memory that is locked, left out of core dumps and wiped on fork."""
    safe = list(secret_memory(pid))
    for name, places in present(label, areas, secrets, names).items():
        for place in places.split():
            if not any(start <= int(place, 16) < end for start, end in safe):
                raise Wrong("%s: %s is at %s, which is not secret memory" % (label, name, place))


def secret_memory(pid):
    """The areas that the kernel knows as locked, not to be dumped, and to be wiped on fork."""
    with open("/proc/%d/smaps" % pid) as f:
        for line in f:
            field, *values = line.split()
            if "-" in field:
                start, end = (int(x, 16) for x in field.split("-"))
            elif field == "VmFlags:" and {"lo", "dd", "wf"} <= set(values):
                yield start, end


def play(role, shape, look, hold=None, end="clean"):
    """
    One connection, up to its `end` (clean, SIGTERM, tampered, refused). look(run) gives the memory at that moment.
    """
    label = "%s, %s, %s" % (role, shape, end)
    run = held.Run(role, shape, ["-o", "30"])
    with open("reply", "wb") as f:
        f.write(b"reply")
    secrets = {
        "K": list(shapes(run.key, is_hmac_key=True)),
        "the key file": list(shapes(run.key_file)),
    }
    # Before anything has come from the network: it has K, and its launcher does not.
    run.peer.look_at_nonce()
    holder = None
    if hold:
        holder = subprocess.Popen([hold, str(run.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holder.stdout.readline()
    rest(run)
    areas = list(look(run.pid))
    if look is memory:
        guarded(label + ", before the handshake", run.pid, areas, secrets, ["K"])
        gone(label + ", before the handshake", areas, {"the key file": secrets["the key file"]})
    else:
        gone(label + ", before the handshake", areas, secrets)
    with open("/proc/%d/task/%d/children" % (run.pid, run.pid)) as f:
        for child in f.read().split():
            gone(label + ", its child", memory(int(child)), secrets)
    if shape == "listening":
        gone(label + ", its listener", memory(run.process.parent), secrets)
    if end == "refused":
        run.peer.key = b"x" * 32
    run.peer.sock.sendall(run.peer.nonce)
    run.peer.take_nonce()
    if role == "enc":
        if end == "refused":
            run.peer.receive(peer.HELLO)
        else:
            run.peer.take_hello()
        rest(run)
        areas = list(look(run.pid))
        x = find_exponent(run, areas) if look is memory and end != "refused" else None
        if look is memory and end != "refused":
            expect(label + ": x was found in the handshake", x is not None, True)
            secrets["dhmac"] = [*shapes(run.peer.their_mac_key, True), *shapes(run.peer.mac_key, True)]
            guarded(label + ", in the handshake", run.pid, areas, secrets, ["dhmac"])
        run.peer.sock.sendall(run.peer.hello())
    else:
        # Its y is not known yet, but whoever stops it between its y and its keys needs a debugger: x is looked
        # for by what it is, after its answer, among all that lay near the nonce before.
        spots = near_nonce(run, areas) if look is memory else []
        run.peer.sock.sendall(run.peer.hello())
        x = None
        if end != "refused":
            run.peer.take_hello()
            for spot in spots:
                if pow(2, int.from_bytes(spot, "big"), peer.P) == run.peer.their_y:
                    x = spot
            expect(label + ": x was found before the handshake", x is not None or look is not memory, True)
    if end == "refused":
        finish(label, run, holder, look, secrets, peer.REFUSED)
        return
    run.peer.derive()
    if role == "dec" and run.plain is None and run.listener:
        run.plain = run.far_side()
    secrets["dhmac"] = [*shapes(run.peer.mac_key, True), *shapes(run.peer.their_mac_key, True)]
    shared = peer.big(pow(run.peer.their_y, run.peer.exponent, peer.P))
    secrets["y_SC"] = list(shapes(shared, is_number=True))
    if x:
        expect(label + ": x is random in every 4 bytes", pieces(x) & pieces(bytes(32)), set())
        expect(label + ": x is random in every 4 bytes", len(pieces(x)), 8)
        secrets["x"] = list(shapes(x, is_number=True))
    # One packet through: it relays. All that made its keys is gone, and the keys are there.
    run.wire.sendall(run.peer.out.seal(b"first"))
    if run.plain:
        assert run.plain.recv(5, held.socket.MSG_WAITALL) == b"first"
    rest(run)
    areas = list(look(run.pid))
    gone(label + ", relaying", areas, secrets)
    keys = {
        "E": [run.peer.out.cipher_key, run.peer.into.cipher_key],
        "H": [*shapes(run.peer.out.mac_key, True), *shapes(run.peer.into.mac_key, True)],
    }
    if look is memory:
        guarded(label + ", relaying", run.pid, areas, keys, ["E", "H"])
    else:
        gone(label + ", relaying", areas, keys)
    gone(label + ", relaying, as handed over", areas, {"H itself": [run.peer.out.mac_key, run.peer.into.mac_key]})
    with open("/proc/%d/task/%d/children" % (run.pid, run.pid)) as f:
        for child in f.read().split():
            gone(label + ", its command", memory(int(child)), {**secrets, **keys})
    if shape == "listening":
        gone(label + ", its listener", memory(run.process.parent), {**secrets, **keys})
    secrets.update(keys)
    if end == "SIGTERM":
        run.process.send_signal(signal.SIGTERM)
        status = -signal.SIGTERM
    elif end == "tampered":
        run.wire.sendall(bytes(peer.PACKET))
        status = peer.TAMPERED
    else:
        run.wire.shutdown(held.socket.SHUT_WR)
        if run.plain:
            run.plain.shutdown(held.socket.SHUT_WR)
        status = 0
    finish(label, run, holder, look, secrets, status)


def pieces(data):
    return {data[i : i + 4] for i in range(0, len(data), 4)}


def rest(run):
    """Let it come to rest, with a signal on the way: the kernel puts all its registers on its stack for that."""
    run.asleep()
    run.process.send_signal(signal.SIGUSR1)
    run.asleep()


def near_nonce(run, areas):
    """Every 32 bytes that may be its x, from around its own nonce."""
    spots = set()
    for _, data in areas:
        at = data.find(run.peer.their_nonce)
        while at != -1:
            for offset in range(at + 32, min(at + 320, len(data) - 32), 4):
                if any(data[offset : offset + 32]):
                    spots.add(data[offset : offset + 32])
            at = data.find(run.peer.their_nonce, at + 1)
    return spots


def finish(label, run, holder, look, secrets, status):
    if holder:
        word = holder.stdout.readline()
        expect(label + ", at exit: what the tool that holds it says", word, b"exits\n")
        gone(label + ", at exit", memory(run.pid), secrets)
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
    run.end()
    if run.status != status:
        raise Wrong("%s: status %s: %s" % (label, run.status, run.message))
    run.close()


def core(pid):
    """
    The memory in a core of it. gcore, as the kernel would, leaves out what is marked so; the limit of 0 does not stop
    root. The registers are in a core's notes, and there is no keeping a key in use out of those.
    """
    subprocess.run(["gcore", "-o", "core", str(pid)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open("core.%d" % pid, "rb") as f:
        data = f.read()
    os.unlink("core.%d" % pid)
    headers, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for i in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, headers + i * size)
        if kind == 1:  # PT_LOAD
            yield address, data[offset : offset + length]


def can_look():
    os.unlink("secret")  # for one of random bytes, whose pieces are nowhere else
    if os.getuid() != 0:
        raise Skip("needs root, to read another process's memory")
    with open(os.environ["DEC"], "rb") as file:
        if b"__asan_init" in file.read():
            raise Skip("AddressSanitizer keeps copies of what was freed")


@case
def on_the_stack():
    """What functions leave of secrets on the stack and in registers; `make check` builds the program."""
    can_look()
    result = subprocess.run([os.environ["BUILD"] + "/tests/unit/residue"], stdout=subprocess.PIPE, text=True)
    expect("what is left", (result.returncode, result.stdout), (0, ""))


@case
def nonces():
    """All of a nonce is random: no 4 bytes come twice."""
    for role in held.ROLES:
        runs = [held.Run(role, "ucspi", ["-o", "30"]) for _ in range(4)]
        seen = set().union(*(pieces(run.peer.look_at_nonce()) for run in runs))
        expect("different pieces of the nonces of 4 runs of spipe-" + role, len(seen), 4 * 8)
        for run in runs:
            run.close()


@case
def descriptors():
    """A key file, its rules and its directory are closed once they are read."""
    can_look()
    os.mkdir("keys")
    for name in "secret", "keys/one", "keys/two":
        with open(name, "wb") as f:
            f.write(os.urandom(32))
        with open(name + ".conf", "w") as f:
            f.write("expires 2099-12-31\n")
    for role in held.ROLES:
        run = held.Run(role, "ucspi", ["-o", "30"] + ["-K", "keys"] * (role == "dec"))
        run.peer.look_at_nonce()
        run.asleep()
        fds = "/proc/%d/fd" % run.pid
        places = [os.readlink("%s/%s" % (fds, fd)) for fd in os.listdir(fds)]
        expect("what spipe-%s has open here" % role, [x for x in places if x.startswith(os.getcwd())], [])
        run.close()


@case
def in_memory():
    """No secret stays in memory after its phase, none is left at exit, and the command never has any."""
    can_look()
    subprocess.run([os.environ.get("CC", "cc"), "-O1", "-Wall", "-Wextra", "-D_GNU_SOURCE", "-o", "hold",
                    ROOT + "/tests/helpers/hold.c"], check=True)
    for role in held.ROLES:
        for shape in held.SHAPES:
            play(role, shape, memory, "./hold")
        for end in "SIGTERM", "tampered", "refused":
            play(role, "ucspi", memory, "./hold", end)
        play(role, "listening", memory, "./hold", "refused")


@case
def in_a_core():
    """A core that gcore takes contains none."""
    can_look()
    needs("gcore")
    for role in held.ROLES:
        play(role, "ucspi", core)


@both
def delivered_plaintext(role):
    """What a silent connection has delivered, in either direction, is no longer in its memory."""
    can_look()
    run = held.Run(role, "ucspi")
    run.authenticate()
    out, into = os.urandom(5000), os.urandom(5000)
    run.plain.sendall(out)
    size = 0
    while size < len(out):
        size += len(run.peer.take_packet())
    run.wire.sendall(run.peer.out.seal_all(into))
    expect("delivered", run.plain.recv(len(into), held.socket.MSG_WAITALL) == into, True)
    run.process.send_signal(signal.SIGSTOP)  # or it may have been silent for long enough before we have looked
    pieces = {name: [data[i : i + 16] for i in range(0, 5000, 16)] for name, data in (("out", out), ("into", into))}
    present("just delivered", memory(run.pid), pieces, ["out", "into"])
    run.process.send_signal(signal.SIGCONT)
    limit = time.monotonic() + held.WAIT
    while there := search(memory(run.pid), pieces):
        if time.monotonic() > limit:
            raise Wrong("plaintext stays in memory: %s" % there)
    run.stop()


if __name__ == "__main__":
    main()
