#!/usr/bin/python3
"""Senders of metrics through a tunnel, for services.bats.

graphite.py send HOST PORT    three of them, until each has noticed that its connection was reset, which it says with
                              a file: reset.0 to reset.2
graphite.py check FOLDER      is every value that `send` delivered in these whisper files?

A value is delivered when the connection that it was sent over has ended properly: carbon acknowledges nothing else.
The names and values that were delivered are in the files delivered.0 to delivered.2.
"""

import os
import socket
import sys
import threading
import time

METRICS = 100
START = int(time.time()) - 1800


def batch(sender, number):
    """The next values of a sender's metrics: (name, value, time)."""
    return [("sender%d.metric%d" % (sender, n), 1000 * number + n, START + number) for n in range(METRICS)]


def deliver(where, values):
    """Send them over a connection of their own. False if it broke."""
    try:
        with socket.create_connection(where, timeout=20) as connection:
            for value in values:
                connection.sendall(b"%s %d %d\n" % (value[0].encode(), *value[1:]))
                time.sleep(0.001)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(1) == b""
    except OSError:
        return False


def send(where, sender):
    number, reset = 0, False
    with open("delivered.%d" % sender, "w") as delivered:
        while number < 3 or not reset:
            values = batch(sender, number)
            number += 1
            while not deliver(where, values):
                reset = True
                open("reset.%d" % sender, "w").close()
            for value in values:
                print(*value, file=delivered)


def check(folder):
    import whisper

    expected = {}
    for sender in range(3):
        for line in open("delivered.%d" % sender):
            name, value, when = line.split()
            expected.setdefault(name, {})[int(when)] = float(value)
    assert len(expected) == 3 * METRICS
    end = time.monotonic() + 20
    while missing := [
        (name, when, value)
        for name, values in expected.items()
        for when, value in values.items()
        if stored(whisper, folder, name).get(when) != value
    ]:
        assert time.monotonic() < end, "%d are not there: %r" % (len(missing), missing[:5])
        time.sleep(0.2)
    print("%d values" % sum(len(values) for values in expected.values()))


def stored(whisper, folder, name):
    """What carbon has of a metric: {time: value}."""
    path = os.path.join(folder, *name.split(".")) + ".wsp"
    if not os.path.exists(path):
        return {}
    try:
        (start, end, step), values = whisper.fetch(path, int(time.time()) - 3000)
    except whisper.CorruptWhisperFile:  # carbon is about to write it
        return {}
    return dict(zip(range(start, end, step), values))


if __name__ == "__main__":
    if sys.argv[1] == "send":
        where = (sys.argv[2], int(sys.argv[3]))
        senders = [threading.Thread(target=send, args=(where, number)) for number in range(3)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    else:
        check(sys.argv[2])
