"""A node's changes as a stream of events:  uvicorn examples.fastapi_stream:app, then GET /live/ann"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from json import dumps

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import air


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with air.connect("ws://127.0.0.1:8765/gun") as app.state.graph:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/live/{soul}")
async def live(soul: str) -> StreamingResponse:
    nodes = app.state.graph.get(soul).on(whole=True)
    return StreamingResponse(f"data: {dumps(node.plain())}\n\n" async for node in nodes)
