#!/usr/bin/python3
"""The PROXY header that our programs send, for every kind of near side, as proxyparse.py reads it.

The near side is a socket of ours, and so is the far side (descriptors 6 and 7). Nothing is sent before the header
has come: it must not wait for the client to speak.
"""

import contextlib
import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../helpers"))
from peer import LIMIT, SHARED, SLOW, Peer, drain, read_all, tcp_pair
from proxyparse import Incomplete, parse
from suite import SECRET, Wrong, case, expect, far_side, main

KEY = "alice"


# --- near sides: the client's socket, the program's, and what the header has to say --------------------------


def accepted(family, server, client=None, reach=None):
    """A connection from `client` to a listener at `server`."""
    listener = socket.socket(family)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(server)
    listener.listen()
    address = reach or listener.getsockname()
    if reach:
        address = (reach[0], listener.getsockname()[1])
    ours = socket.socket(socket.AF_INET if reach else family)
    if client:
        ours.bind(client)
    ours.connect(address)
    theirs, _ = listener.accept()
    listener.close()
    return ours, theirs


def tcp4():
    ours, theirs = accepted(socket.AF_INET, ("127.0.0.3", 0), ("127.0.0.2", 0))
    return ours, theirs, ("TCP4", "127.0.0.2", "127.0.0.3", ours.getsockname()[1], ours.getpeername()[1])


def tcp6():
    ours, theirs = accepted(socket.AF_INET6, ("::1", 0))
    return ours, theirs, ("TCP6", "::1", "::1", ours.getsockname()[1], ours.getpeername()[1])


def mapped():
    """An IPv4 client of a socket that listens for both: IPv4, not ::ffff:127.0.0.2."""
    ours, theirs = accepted(socket.AF_INET6, ("::", 0), ("127.0.0.2", 0), ("127.0.0.3",))
    return ours, theirs, ("TCP4", "127.0.0.2", "127.0.0.3", ours.getsockname()[1], ours.getpeername()[1])


def unix():
    server, client = os.path.abspath("near.sock"), os.path.abspath("client.sock")
    for path in server, client:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    ours, theirs = accepted(socket.AF_UNIX, server, client)
    return ours, theirs, ("UNIX", client, server, None, None)


def unix_abstract():
    """An abstract name begins with NUL; odd bytes stay as they are."""
    server, client = "\0proxy.py %d" % os.getpid(), "\0proxy.py %d\t client" % os.getpid()
    ours, theirs = accepted(socket.AF_UNIX, server, client)
    return ours, theirs, ("UNIX", client, server, None, None)


def unix_nameless():
    """As most clients are."""
    server = os.path.abspath("near.sock")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(server)
    ours, theirs = accepted(socket.AF_UNIX, server)
    return ours, theirs, ("UNIX", "", server, None, None)


def nothing():
    """A socketpair: nobody knows who is behind it."""
    ours, theirs = socket.socketpair()
    return ours, theirs, ("UNSPEC", None, None, None, None)


NEAR = {f.__name__.replace("_", "-"): f for f in (tcp4, tcp6, mapped, unix, unix_abstract, unix_nameless, nothing)}


def run(role, near, options, environment=None, key=KEY):
    """Start a program between `near` and a TCP connection, whose other end is returned with it."""
    far, theirs = tcp_pair()
    with far_side(theirs) as passed:
        process = subprocess.Popen(
            [os.environ[role.upper()], "-k", key, *options], stdin=near, stdout=near, stderr=subprocess.PIPE,
            pass_fds=passed, env={**os.environ, **(environment or {})},
        )
    near.close()
    theirs.close()
    far.settimeout(LIMIT * SLOW)
    return process, far


def through(role, options, near, environment=None, key=KEY):
    """
    The bytes that arrive at the plaintext's end of a tunnel until they are a header, without a word from the client, and
    then what the client says. Returns the header and the client's words.
    """
    ours, theirs = near
    ours.settimeout(LIMIT * SLOW)
    with open(key, "wb") as f:
        f.write(SECRET)
    os.chmod(key, 0o600)
    process, far = run(role, theirs, options, environment, key)
    peer = Peer(ours, True, SHARED) if role == "dec" else Peer(far, False, SHARED)
    peer.shake()
    data = b""
    take = (lambda: far.recv(65536)) if role == "dec" else peer.take_packet
    while True:
        try:
            header = parse(data)
            break
        except Incomplete:
            more = take()
            if not more:
                raise Wrong("an end after %r" % data) from None
            data += more
    expect("after the header, from a silent client", data[header.size :], b"")
    words = b"words of the client"
    ours.sendall(peer.out.seal(words) if role == "dec" else words)
    said = take()
    # An honest end of both directions
    ours.shutdown(socket.SHUT_WR)
    far.shutdown(socket.SHUT_WR)
    drain(far)
    drain(ours)
    status = process.wait(LIMIT * SLOW)
    message = read_all(process.stderr.fileno())
    expect("status and stderr", (status, message), (0, ""))
    for sock in ours, far:
        sock.close()
    process.stderr.close()
    expect("the client's words", said, words)
    return header


def judge(role, header, wanted, version, key=KEY):
    family, *rest = wanted
    command = "PROXY"
    if version == 1 and family not in ("TCP4", "TCP6"):
        family, rest = "UNKNOWN", [None] * 4
    elif family == "UNSPEC":
        command = "LOCAL"
    expect("version", header.version, version)
    expect("command", header.command, command)
    expect("family", header.family, family)
    expect(
        "addresses",
        [header.source, header.destination, header.source_port, header.destination_port],
        rest,
    )
    tlvs = [("AUTHORITY", key.encode())] if role == "dec" and version == 2 else []
    expect("TLVs", header.tlvs, tlvs)


def header_of(role, name):
    forms = [("-x", 2), ("-x1", 1)]
    if name == "tcp4":
        forms += [("-x2", 2), ("--proxy-protocol", 2), ("--proxy-protocol=2", 2), ("--proxy-protocol=1", 1)]
    for option, version in forms:
        ours, theirs, wanted = NEAR[name]()
        judge(role, through(role, [option], (ours, theirs)), wanted, version)


for _role in "dec", "enc":
    for _name in NEAR:
        case(header_of, "%s-%s" % (_role, _name), _role, _name)


ENVIRONMENTS = {
    "socat": {"SOCAT_PEERADDR": "192.0.2.7", "SOCAT_PEERPORT": "4007",
              "SOCAT_SOCKADDR": "192.0.2.1", "SOCAT_SOCKPORT": "5001"},
    "socat-6": {"SOCAT_PEERADDR": "[2001:0db8:0000:0000:0000:0000:0000:0007]", "SOCAT_PEERPORT": "4007",
                "SOCAT_SOCKADDR": "[2001:0db8:0000:0000:0000:0000:0000:0001]", "SOCAT_SOCKPORT": "5001"},
    "ucspi": {"TCPREMOTEIP": "192.0.2.7", "TCPREMOTEPORT": "4007", "TCPLOCALIP": "192.0.2.1", "TCPLOCALPORT": "5001"},
}


@case
def environment_both_ends():
    """A socketpair (as socat's EXEC makes), and a supervisor that says who is behind it and where it came to."""
    for name, environment in ENVIRONMENTS.items():
        wanted = ("TCP4", "192.0.2.7", "192.0.2.1", 4007, 5001)
        if name == "socat-6":
            wanted = ("TCP6", "2001:db8::7", "2001:db8::1", 4007, 5001)
        for role in "dec", "enc":
            for version in 1, 2:
                header = through(role, ["-x%d" % version], socket.socketpair(), environment)
                judge(role, header, wanted, version)


@case
def environment_wrong():
    """What a supervisor's variables say is taken only where it makes sense, and never over the socket's word."""
    for environment in (
        {"REMOTE_ADDR": "localhost", "REMOTE_PORT": "1"},
        {"REMOTE_ADDR": "192.0.2.7\r\nX: y", "REMOTE_PORT": "1"},
        {"REMOTE_ADDR": "192.0.2", "REMOTE_PORT": "1"},
        {"SOCAT_PEERADDR": "192.0.2.7", "SOCAT_PEERPORT": "1", "SOCAT_SOCKADDR": "::1", "SOCAT_SOCKPORT": "2"},
    ):
        for version in 1, 2:
            header = through("dec", ["-x%d" % version], socket.socketpair(), environment)
            judge("dec", header, ("UNSPEC", None, None, None, None), version)
    ours, theirs, wanted = tcp4()
    header = through("dec", ["-x"], (ours, theirs), ENVIRONMENTS["socat"])
    judge("dec", header, wanted, 2)


@case
def key_names():
    """What a file may be called and a TLV may carry."""
    for key in "a", "a b", "größe", "n" * 250, "key.with.dots", "-", "%s%n":
        ours, theirs, wanted = tcp4()
        options = ["-x"]
        header = through("dec", options, (ours, theirs), key="./" + key)
        judge("dec", header, wanted, 2, key)


if __name__ == "__main__":
    main()
