#!/usr/bin/python3
"""A bad link between two network namespaces, where the kernel has no netem.

badlink.py OTHER [loss=PERCENT] [delay=MS] [jitter=MS] [reorder=PERCENT] [duplicate=PERCENT] [rate=KBYTES] [queue=PACKETS]

Runs in one namespace (ip netns exec), joins it to the namespace OTHER with a pair of TUN devices:
10.99.0.1 here, 10.99.0.2 there. Every packet between them passes through here, in both directions
alike, and is treated as said. Prints "ready" when the link is up; runs until killed; then prints what
it did to how many packets.
"""

import fcntl
import heapq
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def tun(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


def ip(*words):
    subprocess.run(("ip",) + words, check=True)


def main():
    other = sys.argv[1]
    want = dict(loss=0.0, delay=0.0, jitter=0.0, reorder=0.0, duplicate=0.0, rate=0.0, queue=1000)
    for word in sys.argv[2:]:
        name, value = word.split("=")
        want[name] = float(value)
    here, there = tun("here"), tun("there")
    ip("link", "set", "there", "netns", other)
    ip("addr", "add", "10.99.0.1", "peer", "10.99.0.2", "dev", "here")
    ip("link", "set", "here", "up")
    ip("-n", other, "addr", "add", "10.99.0.2", "peer", "10.99.0.1", "dev", "there")
    ip("-n", other, "link", "set", "there", "up")

    counts = dict(passed=0, lost=0, reordered=0, duplicated=0, overflowed=0)
    waiting = []  # (when, order, to, packet)
    pending = {here: 0, there: 0}
    free_at = {here: 0.0, there: 0.0}  # when the line to it is free again
    order = 0

    def end(*_):
        print(" ".join("%s=%d" % item for item in counts.items()), flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, to, packet = heapq.heappop(waiting)
            pending[to] -= 1
            try:
                os.write(to, packet)
                counts["passed"] += 1
            except (BlockingIOError, OSError):
                counts["overflowed"] += 1
        timeout = max(0, waiting[0][0] - now) if waiting else None
        for source in select.select([here, there], [], [], timeout)[0]:
            to = there if source == here else here
            for _ in range(64):
                try:
                    packet = os.read(source, 65536)
                except BlockingIOError:
                    break
                copies = 1
                if random.random() * 100 < want["loss"]:
                    counts["lost"] += 1
                    continue
                if random.random() * 100 < want["duplicate"]:
                    counts["duplicated"] += 1
                    copies = 2
                for _ in range(copies):
                    if pending[to] >= want["queue"]:
                        counts["overflowed"] += 1
                        continue
                    when = time.monotonic()
                    if want["rate"]:
                        when = max(when, free_at[to]) + len(packet) / (want["rate"] * 1000)
                        free_at[to] = when
                    if random.random() * 100 < want["reorder"]:
                        counts["reordered"] += 1
                    else:
                        when += (want["delay"] + random.uniform(0, want["jitter"])) / 1000
                    order += 1
                    pending[to] += 1
                    heapq.heappush(waiting, (when, order, to, packet))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main()
