"""A chat in two terminals:  python examples/chat.py ws://127.0.0.1:8765/gun Ann"""

import sys

import anyio
import anyio.to_thread

import air


async def main(url: str, name: str) -> None:
    async with air.connect(url) as graph, anyio.create_task_group() as tasks:
        room = graph.get("chat/lobby")
        tasks.start_soon(show, room)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            await room.add({"who": name, "text": line.strip()})
        tasks.cancel_scope.cancel()


async def show(room: air.Ref) -> None:
    async for _, message in room.map():
        print(f"{message['who']}: {message['text']}", flush=True)


anyio.run(main, *sys.argv[1:])
