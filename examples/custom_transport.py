"""A transport of one's own, Unix sockets: ``/unix/PATH``. Of Air it needs only addresses and errors."""

import sys
import tempfile
from contextlib import asynccontextmanager

import anyio

from air.base.address import Multiaddr
from air.base.errors import Unreachable
from air.base.keys import Identity
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.protocols import Ping
from air.security.noise import Noise


class Conn:
    def __init__(self, stream, remote):
        self.remote_address, self.local_address = remote, None
        self.receive, self.send = stream.receive, stream.send
        self.send_eof, self.aclose = stream.send_eof, stream.aclose


class Listener:
    def __init__(self, below, address):
        self._below, self.addresses = below, (address,)
        self.close = lambda: None  # leaving the block of ``listen`` does it

    async def serve(self, handler):
        await self._below.serve(lambda stream: handler(Conn(stream, self.addresses[0])))


class Unix:
    def handles(self, address):
        return address.names[0] == "unix"

    async def dial(self, address):
        try:
            return Conn(await anyio.connect_unix(address.parts[0].value), address)
        except OSError as error:
            raise Unreachable(f"{address}: {error}", [(str(address), str(error))]) from error

    @asynccontextmanager
    async def listen(self, address):
        async with await anyio.create_unix_listener(address.parts[0].value) as below:
            yield Listener(below, address)


async def main():
    place, ping, stack = Multiaddr(f"/unix{tempfile.mkdtemp()}/air"), Ping(), ([Unix()], [Noise()], [Yamux()])
    ann, bob = (Node(Identity.generate(), *stack, [service]) for service in (Ping(), ping))
    async with ann, bob:
        await ann.swarm.listen(place)
        (seconds,) = await ping.ping(await bob.dial(ann.peer, [place]))
        print(f"{seconds * 1000:.1f} ms to {ann.peer} over {place}")


anyio.run(main, backend=sys.argv[1] if len(sys.argv) > 1 else "asyncio")
