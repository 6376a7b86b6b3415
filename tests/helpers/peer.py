"""A second implementation of spiped's protocol, written from its description alone, that can lie.

suites/liar.py checks it against known answers and real spiped, and then lies with it. Below it: sockets, as its users need
them.
"""

import hashlib
import hmac
import os
import select
import socket
import struct
import time

import suite
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

P = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F"
    "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510"
    "15728E5A8AACAA68FFFFFFFFFFFFFFFF",
    16,
)
NONCE, Y, MAC, DATA, PACKET = 32, 256, 32, 1024, 1060
HELLO = Y + MAC

# sysexits.h, as our programs promise
OK, USAGE, COMMAND, SYSTEM, LOST, TIMEOUT, TAMPERED, REFUSED, KEY = 0, 64, 69, 71, 74, 75, 76, 77, 78


# --- the protocol ---------------------------------------------------------------------------------------


def pbkdf2(key, salt, size):
    return hashlib.pbkdf2_hmac("sha256", key, salt, 1, size)


def mac(key, data):
    return hmac.digest(key, data, "sha256")


def key_id(key):
    """The fingerprint of a key, as spipectl(8) describes it."""
    digits = "%012d" % (int.from_bytes(mac(key, b"spipe key id")[:8], "big") % 10**12)
    return "-".join(digits[i : i + 3] for i in range(0, 12, 3))


def big(number):
    return number.to_bytes(Y, "big")


class Direction:
    """Keys of one direction, and the number of its next packet."""

    def __init__(self, cipher_key, mac_key):
        self.cipher_key, self.mac_key, self.number = cipher_key, mac_key, 0

    def keystream(self, data, number):
        counter = struct.pack(">QQ", number, 0)
        encryptor = Cipher(algorithms.AES(self.cipher_key), modes.CTR(counter)).encryptor()
        return encryptor.update(data)

    def seal_raw(self, block, number):
        """A packet around 1028 bytes that need not make sense."""
        c = self.keystream(block, number)
        return c + mac(self.mac_key, c + struct.pack(">Q", number))

    def seal(self, data):
        packet = self.seal_raw(data.ljust(DATA, b"\0") + struct.pack(">I", len(data)), self.number)
        self.number += 1
        return packet

    def seal_all(self, data):
        return b"".join(self.seal(data[i : i + DATA]) for i in range(0, len(data), DATA))

    def open(self, packet):
        c, tag = packet[:-MAC], packet[-MAC:]
        if mac(self.mac_key, c + struct.pack(">Q", self.number)) != tag:
            raise ValueError("packet %d: wrong MAC" % self.number)
        block = self.keystream(c, self.number)
        (length,) = struct.unpack(">I", block[DATA:])
        if not 1 <= length <= DATA:
            raise ValueError("packet %d: length %d" % (self.number, length))
        self.number += 1
        return block[:length]


def first_keys(key, nonce_c, nonce_s):
    both = pbkdf2(key, nonce_c + nonce_s, 64)
    return both[:32], both[32:]


def directions(key, nonce_c, nonce_s, shared):
    keys = pbkdf2(key, nonce_c + nonce_s + shared, 128)
    return Direction(keys[:32], keys[32:64]), Direction(keys[64:96], keys[96:])


class Closed(Exception):
    """The other side ended where more was to come."""


class Peer:
    """Our end of a handshake and of what follows. client: we are spiped's client, so the subject is spipe-dec."""

    exponent = int.from_bytes(os.urandom(32), "big")
    own_y = pow(2, exponent, P)  # the same for all cases: only the speed depends on it

    def __init__(self, sock, client, key, pfs=False):
        self.sock, self.client, self.key, self.pfs = sock, client, key, pfs
        self.nonce = os.urandom(NONCE)
        self.y = self.own_y if pfs else 1

    def receive(self, size):
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise Closed("closed after %d of %d bytes" % (len(data), size))
            data += more
        return data

    def take_nonce(self):
        self.their_nonce = self.receive(NONCE)
        self.nonces = (self.nonce, self.their_nonce) if self.client else (self.their_nonce, self.nonce)
        keys = first_keys(self.key, *self.nonces)
        self.mac_key, self.their_mac_key = keys if self.client else keys[::-1]

    def hello(self, y=None):
        y = big(self.y if y is None else y)
        return y + mac(self.mac_key, y)

    def take_hello(self):
        message = self.receive(HELLO)
        if mac(self.their_mac_key, message[:Y]) != message[Y:]:
            raise ValueError("the handshake's MAC is wrong")
        self.their_y = int.from_bytes(message[:Y], "big")
        if self.their_y >= P:
            raise ValueError("y is too large")

    def derive(self):
        shared = pow(self.their_y, self.exponent, P) if self.pfs else 1
        pair = directions(self.key, *self.nonces, big(shared))
        self.out, self.into = pair if self.client else pair[::-1]

    def shake(self, nonce=None, hello=None):
        """The whole handshake; `nonce` and `hello` change those messages on their way out."""
        self.sock.sendall(nonce(self.nonce) if nonce else self.nonce)
        self.take_nonce()
        if not self.client:
            self.take_hello()
        message = self.hello()
        self.sock.sendall(hello(message) if hello else message)
        if self.client:
            self.take_hello()
        self.derive()

    def take_packet(self):
        return self.into.open(self.receive(PACKET))


# --- sockets -------------------------------------------------------------------------------------------

LIMIT = 10  # seconds that anything may take; SLOW=n (valgrind and the like) multiplies it
PROMPT = 1.8  # seconds for what is done at once, on a busy machine; what our programs wait for takes 2 s or more
SLOW = float(os.environ.get("SLOW", "1"))
SHARED = hashlib.sha256(suite.SECRET).digest()
OUTLIVED = "(a process outlived it)"


def tcp_pair():
    """Two ends of a TCP connection on loopback."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    one = socket.create_connection(listener.getsockname())
    two, _ = listener.accept()
    listener.close()
    for sock in one, two:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, two


def read_all(stderr):
    """
    What a program that has ended wrote to the pipe `stderr`. Its command has the same stderr: an end of file there
    means that all of them are gone, and that is waited for.
    """
    message, end = b"", time.monotonic() + 2 * SLOW
    while True:
        if not select.select([stderr], [], [], max(0, end - time.monotonic()))[0]:
            message += OUTLIVED.encode()
            break
        more = os.read(stderr, 65536)
        if not more:
            break
        message += more
    return message.decode(errors="replace")


def drain(sock):
    """All that is still to come from a socket, and how it ended: 'end', 'reset' or 'open'."""
    data = b""
    try:
        while True:
            more = sock.recv(65536)
            if not more:
                return data, "end"
            data += more
    except ConnectionResetError:
        return data, "reset"
    except socket.timeout:
        return data, "open"


def reset(sock):
    """End a TCP connection with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
