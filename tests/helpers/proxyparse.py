#!/usr/bin/python3
"""A strict parser of PROXY protocol headers, written from HAProxy's proxy-protocol.txt alone.

proxyparse.py FILE    say what the header at the start of FILE is, a line for each part; - is standard input
proxyparse.py check   the parser against headers written by hand, right and wrong
"""

import ipaddress
import re
import struct
import sys

SIGNATURE = bytes.fromhex("0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A")
TLV_NAMES = {1: "ALPN", 2: "AUTHORITY", 3: "CRC32C", 4: "NOOP", 5: "UNIQUE_ID", 0x20: "SSL", 0x30: "NETNS"}


class Invalid(Exception):
    """Not a header, or not one that a sender may send."""


class Incomplete(Exception):
    """The start of a header; more is needed."""


class Header:
    """What a header says. Addresses are texts, `rest` is what follows it."""

    def __init__(self):
        self.version = self.command = self.family = None
        self.source = self.destination = None
        self.source_port = self.destination_port = None
        self.tlvs = []
        self.size = 0

    def tlv(self, kind):
        """The value of the only TLV of a kind, or None."""
        values = [value for name, value in self.tlvs if name == kind]
        if len(values) > 1:
            raise Invalid("more than one TLV %s" % kind)
        return values[0] if values else None


def crc32c(data):
    """RFC 4960, appendix B: the reflected polynomial 0x1EDC6F41."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def port(text):
    if not re.fullmatch("0|[1-9][0-9]{0,4}", text) or int(text) > 65535:
        raise Invalid("port %r" % text)
    return int(text)


def parse_1(data):
    """The line, section 2.1."""
    end = data.find(b"\r\n")
    if end == -1 and len(data) < 107:
        raise Incomplete
    if end == -1 or end + 2 > 107:
        raise Invalid("no CRLF in the first 107 characters")
    line = data[:end].decode("ascii")
    header = Header()
    header.version, header.command, header.size = 1, "PROXY", end + 2
    words = line.split(" ")
    header.family = words[1] if len(words) > 1 else ""
    if header.family == "UNKNOWN":
        return header
    if len(words) != 6 or header.family not in ("TCP4", "TCP6"):
        raise Invalid("%r" % line)
    kind = ipaddress.IPv4Address if header.family == "TCP4" else ipaddress.IPv6Address
    try:
        header.source, header.destination = (str(kind(word)) for word in words[2:4])
    except ValueError as error:
        raise Invalid(str(error)) from None
    header.source_port, header.destination_port = (port(word) for word in words[4:])
    limit = 56 if header.family == "TCP4" else 104
    if header.size > limit:
        raise Invalid("%d characters" % header.size)
    return header


def unix_path(block):
    """One of AF_UNIX's 108 bytes: up to the first NUL (an abstract name's second), and nothing but NULs after it."""
    path, _, padding = block[1:].partition(b"\0")
    path = (block[:1] + path).rstrip(b"\0")
    if padding.strip(b"\0"):
        raise Invalid("bytes after a path's NUL: %r" % block)
    return path.decode()


def parse_tlvs(header, data, start):
    while start < header.size:
        if header.size - start < 3:
            raise Invalid("%d bytes left for a TLV" % (header.size - start))
        kind, length = struct.unpack(">BH", data[start : start + 3])
        value = data[start + 3 : start + 3 + length]
        if start + 3 + length > header.size:
            raise Invalid("a TLV of %d bytes reaches out of the header" % length)
        name = TLV_NAMES.get(kind, "0x%02x" % kind)
        if name == "AUTHORITY":
            value.decode("utf-8")
        if name == "CRC32C":
            zeroed = data[: start + 3] + bytes(4) + data[start + 7 : header.size]
            if length != 4 or struct.unpack(">I", value)[0] != crc32c(zeroed):
                raise Invalid("the checksum is wrong")
        header.tlvs.append((name, value))
        start += 3 + length


def parse_2(data):
    """The binary form, section 2.2."""
    if len(data) < 16:
        raise Incomplete
    version_command, family, length = struct.unpack(">BBH", data[12:16])
    header = Header()
    header.size = 16 + length
    if len(data) < header.size:
        raise Incomplete
    if version_command >> 4 != 2 or version_command & 15 > 1:
        raise Invalid("version and command 0x%02x" % version_command)
    header.version, header.command = 2, ("LOCAL", "PROXY")[version_command & 15]
    families = {0x00: ("UNSPEC", 0), 0x11: ("TCP4", 12), 0x21: ("TCP6", 36), 0x31: ("UNIX", 216)}
    if family not in families:
        raise Invalid("family and protocol 0x%02x" % family)
    header.family, size = families[family]
    if header.command == "LOCAL" and header.family != "UNSPEC":
        raise Invalid("LOCAL with the family %s" % header.family)
    if length < size:
        raise Invalid("%d bytes for a %s address" % (length, header.family))
    block = data[16 : 16 + size]
    if header.family == "TCP4":
        header.source, header.destination = (str(ipaddress.IPv4Address(block[i : i + 4])) for i in (0, 4))
    elif header.family == "TCP6":
        header.source, header.destination = (str(ipaddress.IPv6Address(block[i : i + 16])) for i in (0, 16))
    elif header.family == "UNIX":
        header.source, header.destination = unix_path(block[:108]), unix_path(block[108:])
    if header.family in ("TCP4", "TCP6"):
        header.source_port, header.destination_port = struct.unpack(">HH", block[-4:])
    parse_tlvs(header, data, 16 + size)
    return header


def parse(data):
    """The header at the start of `data`, of either version. Raises Invalid or Incomplete."""
    try:
        if data[:12] == SIGNATURE:
            return parse_2(data)
        if data[:6] == b"PROXY ":
            return parse_1(data)
    except UnicodeDecodeError as error:
        raise Invalid(str(error)) from None
    if SIGNATURE.startswith(data) or b"PROXY ".startswith(data):
        raise Incomplete
    raise Invalid("no header: %r" % data[:16])


def show(header, rest):
    print("version", header.version)
    print("command", header.command)
    print("family", header.family)
    if header.source is not None:
        print("source", header.source, *([] if header.source_port is None else [header.source_port]))
        print("destination", header.destination, *([] if header.destination_port is None else [header.destination_port]))
    for name, value in header.tlvs:
        print("tlv", name, value.decode("utf-8", "backslashreplace"))
    print("size", header.size)
    print("rest", len(rest))


def check():
    """Known answers; that of the checksum is RFC 3720's (B.4): 32 bytes of zeros."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283
    h = bytes.fromhex
    tcp4 = h("21 11 000c 7f000002 7f000003 1234 0050")
    good = {
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET /": ("TCP4", "192.168.0.1", 56324),
        b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n": ("TCP6", "2001:db8::1", 1),
        b"PROXY UNKNOWN\r\n": ("UNKNOWN", None, None),
        b"PROXY UNKNOWN ffff::1 what ever\r\n": ("UNKNOWN", None, None),
        SIGNATURE + tcp4 + b"more": ("TCP4", "127.0.0.2", 0x1234),
        SIGNATURE + h("21 11 0012 7f000002 7f000003 1234 0050 02 0003") + b"bob": ("TCP4", "127.0.0.2", 0x1234),
        SIGNATURE + h("20 00 0000"): ("UNSPEC", None, None),
        SIGNATURE + h("21 31 00d8") + b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0"): ("UNIX", "/a", None),
        SIGNATURE + h("21 21 0024") + bytes(15) + b"\1" + bytes(16) + h("0001 0002"): ("TCP6", "::1", 1),
    }
    for data, wanted in good.items():
        header = parse(data)
        assert (header.family, header.source, header.source_port) == wanted, data
        for cut in range(header.size):
            try:
                parse(data[:cut])
                raise AssertionError((data, cut))
            except Incomplete:
                pass
    summed = SIGNATURE + h("20 00 0007 03 0004 00000000")
    summed = summed[:-4] + struct.pack(">I", crc32c(summed))
    parse(summed)
    bad = [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.168.0.01 192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11  443\r\n",
        b"PROXY TCP4 ::1 ::1 1 443\r\n",
        b"PROXY TCP5 192.168.0.1 192.168.0.11 56324 443\r\n",
        b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
        SIGNATURE + h("11 11 000c 7f000002 7f000003 1234 0050"),
        SIGNATURE + h("22 11 000c 7f000002 7f000003 1234 0050"),
        SIGNATURE + h("21 41 000c 7f000002 7f000003 1234 0050"),
        SIGNATURE + h("21 21 000c 7f000002 7f000003 1234 0050"),
        SIGNATURE + h("21 11 000d 7f000002 7f000003 1234 0050 02"),
        SIGNATURE + h("21 11 0010 7f000002 7f000003 1234 0050 02 0002 61"),
        summed[:-1] + bytes([summed[-1] ^ 1]),
    ]
    for data in bad:
        try:
            parse(data)
        except Invalid:
            continue
        raise AssertionError("taken for good: %r" % data)
    print("%d good, %d bad" % (len(good) + 1, len(bad)))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sys.argv[1] == "check":
        check()
        return
    with open("/dev/stdin" if sys.argv[1] == "-" else sys.argv[1], "rb") as f:
        data = f.read()
    try:
        header = parse(data)
    except (Invalid, Incomplete) as error:
        sys.exit("proxyparse: %s: %s" % (type(error).__name__, error))
    show(header, data[header.size :])


if __name__ == "__main__":
    main()
