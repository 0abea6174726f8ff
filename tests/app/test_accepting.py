"""Many connections that come at once are accepted in a few rounds of the event loop, and stay until they are used."""

import asyncio
import math
import socket
from contextlib import closing

import uvloop

from app import patience, streams, turns
from app.__main__ import ACCEPTED_AT_ONCE, KEEP_ALIVE_SECONDS, listening

CONNECTIONS = 100


def test_connections_that_come_at_once_wait_for_few_rounds() -> None:
    rounds, accepted = 0, list[int]()

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(rounds)
            transport.close()

    async def accept(listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal rounds
            rounds += 1
            if len(accepted) < CONNECTIONS:
                loop.call_soon(count)

        # As uvicorn does with the sockets that it is given.
        servers = [await loop.create_server(Accepted, sock=one) for one in listening(listener)]
        count()
        while len(accepted) < CONNECTIONS:
            await asyncio.sleep(0)
        for server in servers:
            server.close()

    listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(CONNECTIONS)]
    uvloop.run(accept(listener))
    for client in clients:
        with closing(client):
            assert client.recv(1) == b""
    assert accepted[-1] - accepted[0] < math.ceil(CONNECTIONS / ACCEPTED_AT_ONCE)


def test_who_comes_again_when_told_to_finds_the_connection_open() -> None:
    told = (patience.LONGEST_LOOK_S, turns.RETRY_S, streams.STREAMS_RETRY_S)
    assert max(told) < KEEP_ALIVE_SECONDS
