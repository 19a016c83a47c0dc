"""The reference for the load: FastAPI on aiohttp, which relays bodies as they are.

No key is checked, nothing is limited, parsed, counted or kept.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

UPSTREAM = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
HEADERS = {
    "Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}",
    "Content-Type": "application/json",
}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open one session for all requests."""
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        app.state.session = session
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/chat/completions")
async def relay(request: Request) -> Response:
    """Send a request on, and its answer back: whole, or piece by piece."""
    session: aiohttp.ClientSession = request.app.state.session
    answer = await session.post(UPSTREAM, data=await request.body())
    if answer.content_type == "text/event-stream":
        return StreamingResponse(_pieces(answer), answer.status, media_type=answer.content_type)
    async with answer:
        return Response(await answer.read(), answer.status, media_type=answer.content_type)


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for piece in answer.content.iter_any():
            yield piece
