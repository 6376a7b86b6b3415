#!/usr/bin/python3
"""Load on a fleet, for fleet.bats.

fleet.py HOST PORT CONNECTIONS   that many HTTP connections at the same time, a request over each every few milliseconds,
                                 until the file `stop` is there

Prints a line when a connection has its first answer (`opened MACHINE`), when it breaks, after which it is opened once
more (`lost MACHINE`), and, at the end, when it has never been broken (`kept MACHINE`). MACHINE is - as long as there has
been no answer.
"""

import http.client
import os
import sys
import threading
import time


def one(host, port):
    broken = False
    while True:
        machine = "-"
        connection = http.client.HTTPConnection(host, port, timeout=20)
        try:
            connection.connect()
            socket = connection.sock
            while not os.path.exists("stop") or machine == "-":
                connection.request("GET", "/")
                words = connection.getresponse().read().decode().split()
                assert words[0] == "machine" and connection.sock is socket, words
                if machine == "-":
                    print("opened %s\n" % words[1], end="", flush=True)
                machine = words[1]
                time.sleep(0.02)
            connection.close()
            if not broken:
                print("kept %s\n" % machine, end="", flush=True)
            return
        except (OSError, http.client.HTTPException):
            broken = True
            print("lost %s\n" % machine, end="", flush=True)
            time.sleep(0.05)


if __name__ == "__main__":
    threads = [threading.Thread(target=one, args=(sys.argv[1], int(sys.argv[2]))) for _ in range(int(sys.argv[3]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
