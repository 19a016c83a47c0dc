"""Sends replies over the wire, or sabotages their delivery as a fault asks."""

import asyncio
from collections.abc import Sequence
from typing import Literal, NoReturn

from aiohttp import web

from tests.simulator.exchange import Reply
from tests.simulator.faults import Fault
from tests.simulator.journal import Call

_BROKEN_JSON = b'{"id": "broken", "choices": [{"index"'

_Ending = Literal["finish", "close", "hang"]


async def deliver(
    request: web.Request, reply: Reply, fault: Fault | None, call: Call
) -> web.StreamResponse:
    """Send the reply, unless the fault is about its delivery."""
    if fault is not None and fault.kind == "slow":
        await asyncio.sleep(fault.seconds)
    if fault is not None and fault.kind == "timeout":
        await _hang()
    if fault is not None and fault.kind == "drop":
        _hang_up(request, call)
        return web.Response()
    if reply.chunks or (fault is not None and fault.kind == "cut"):
        return await _send_parts(request, reply, fault, call)
    call.outcome = "answered"
    malformed = fault is not None and fault.kind == "malformed"
    return web.Response(
        body=_BROKEN_JSON if malformed else reply.body,
        status=reply.status,
        headers={"Content-Type": reply.content_type, **reply.headers},
    )


async def _send_parts(
    request: web.Request, reply: Reply, fault: Fault | None, call: Call
) -> web.StreamResponse:
    """Send chunk by chunk, so that each arrives on its own, up to the ending."""
    response = web.StreamResponse(
        status=reply.status, headers={"Content-Type": reply.content_type, **reply.headers}
    )
    if not reply.chunks:
        response.content_length = len(reply.body)
    await response.prepare(request)
    parts, ending = _sabotage(reply, fault)
    for part in parts:
        await response.write(part)
    await _end(request, response, ending, call)
    return response


def _sabotage(reply: Reply, fault: Fault | None) -> tuple[Sequence[bytes], _Ending]:
    """Decide which parts are sent and how it ends."""
    if fault is None:
        return reply.chunks, "finish"
    if not reply.chunks:
        return (reply.body[: len(reply.body) // 2],), "close"
    first = reply.chunks[: fault.after]
    match fault.kind:
        case "cut":
            return first, "close"
        case "stall":
            return first, "hang"
        case "malformed":
            return (*first, b"data: %s\n\n" % _BROKEN_JSON), "finish"
        case _:
            return reply.chunks, "finish"


async def _end(
    request: web.Request, response: web.StreamResponse, ending: _Ending, call: Call
) -> None:
    if ending == "hang":
        await _hang()
    elif ending == "close":
        _hang_up(request, call)
    else:
        await response.write_eof()
        call.outcome = "answered"


async def _hang() -> NoReturn:
    """Wait until the client disconnects: the server then cancels the handler."""
    await asyncio.Event().wait()
    raise AssertionError("this event is never set")


def _hang_up(request: web.Request, call: Call) -> None:
    """Close the connection once what was written is out."""
    call.outcome = "dropped"
    if request.transport is not None:
        request.transport.close()
