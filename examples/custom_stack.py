"""A node put together by hand: one transport, one security, one muxer, and a protocol of its own."""

import sys

import anyio

from air.base.keys import Identity
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.protocols import Identify, Ping
from air.security.noise import Noise
from air.transport.tcp_transport import Tcp


class Shout:
    """Answers whatever it hears in capitals."""

    async def _shout(self, stream):
        heard = await stream.receive()
        await stream.send(heard.upper())

    handlers = property(lambda self: {"/shout/1": self._shout})

    async def run(self, host, *, task_status):
        task_status.started()


def node(*services, listen=()):
    return Node(Identity.generate(), [Tcp()], [Noise()], [Yamux()], [Ping(), Identify(), *services], listen)


async def main():
    async with node(Shout(), listen=["/ip4/127.0.0.1/tcp/0"]) as ann, node() as bob:
        session = await bob.dial(ann.addresses[0])
        async with await session.open_stream("/shout/1") as stream:
            await stream.send(b"hello from bob")
            print((await stream.receive()).decode())


anyio.run(main, backend=sys.argv[1] if len(sys.argv) > 1 else "asyncio")
