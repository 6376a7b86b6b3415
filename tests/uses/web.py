#!/usr/bin/python3
"""HTTP through a tunnel, for services.bats.

web.py requests HOST PORT COUNT      requests over one connection, at 100 a second or more
web.py websocket-server HOST PORT    sends back what it receives, and a count of its own
web.py websocket HOST PORT           talks to that
"""

import asyncio
import http.client
import statistics
import sys
import time

MESSAGES = 200


def requests(host, port, count):
    connection = http.client.HTTPConnection(host, port, timeout=20)
    connection.connect()
    first = connection.sock
    times = []
    for number in range(count):
        start = time.monotonic()
        connection.request("GET", "/%d" % number)
        answer = connection.getresponse()
        assert answer.read() == b"answer to /%d\n" % number
        assert connection.sock is first, "the connection was closed after %d requests" % number
        times.append(time.monotonic() - start)
    # The median, because the machine may pause now and then. A packet that waits for an acknowledgement takes 40 ms.
    middle = statistics.median(times)
    print("median %.1f ms" % (1000 * middle))
    assert middle < 0.01


async def websocket_server(host, port):
    import websockets

    async def count(socket):
        for number in range(MESSAGES):
            await socket.send("number %d" % number)
            await asyncio.sleep(0.001)

    async def serve(socket):
        counting = asyncio.ensure_future(count(socket))
        async for message in socket:
            await socket.send(message)
        await counting

    async with websockets.serve(serve, host, port):
        await asyncio.Future()


async def websocket(host, port):
    import websockets

    sent = [bytes([number]) * (1 + 500 * number) for number in range(MESSAGES)]
    echoes, numbers = [], []
    async with websockets.connect("ws://%s:%d/socket" % (host, port)) as socket:

        async def send():
            for message in sent:
                await socket.send(message)

        sending = asyncio.ensure_future(send())
        while len(echoes) < MESSAGES or len(numbers) < MESSAGES:
            message = await asyncio.wait_for(socket.recv(), 20)
            (numbers if isinstance(message, str) else echoes).append(message)
        await sending
    assert echoes == sent
    assert numbers == ["number %d" % number for number in range(MESSAGES)]


if __name__ == "__main__":
    where = (sys.argv[2], int(sys.argv[3]))
    if sys.argv[1] == "requests":
        requests(*where, int(sys.argv[4]))
    elif sys.argv[1] == "websocket":
        asyncio.run(websocket(*where))
    else:
        asyncio.run(websocket_server(*where))
