"""Who knows whom: eight peers in a row, and the first one finds the last by its name alone."""

import sys
from contextlib import AsyncExitStack

import anyio

from air.base.keys import Identity
from air.dht import Anything, Kademlia, Mode
from air.mux.yamux.conn import Yamux
from air.node.node import Node
from air.protocols import Identify
from air.security.noise import Noise
from air.transport.tcp_transport import Tcp


def peer():
    dht = Kademlia(mode=Mode.SERVER, namespaces={"demo": Anything()})
    services, listen = [Identify(), dht], ["/ip4/127.0.0.1/tcp/0"]
    return Node(Identity.generate(), [Tcp()], [Noise()], [Yamux()], services, listen), dht


async def main():
    async with AsyncExitStack() as stack:
        row = [peer() for _ in range(8)]
        for number, (node, dht) in enumerate(row):
            await stack.enter_async_context(node)
            if number:
                await node.dial(row[number - 1][0].addresses[0])
                await dht.ready()
        (_, dht), (last, far) = row[0], row[-1]
        found = await dht.find_peer(last.peer)
        print("found", found.peer, "at", *found.addresses)
        print("kept by", await dht.put_value(b"/demo/greeting", b"hello"), "peers")
        print("the last one reads", (await far.get_value(b"/demo/greeting")).decode())


anyio.run(main, backend=sys.argv[1] if len(sys.argv) > 1 else "asyncio")
