"""Handles each request: journal, credentials, fault, answer, bill, delivery."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from aiohttp import web

from tests.simulator.delivery import deliver
from tests.simulator.exchange import Exchange, Reply, Route, WireFormat
from tests.simulator.faults import STREAMING, Fault, FaultQueue, Refusal, RefusedError, refuse
from tests.simulator.journal import Call, Journal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Dispatcher:
    """Runs the routes of the wire formats; `url` and `elsewhere` are known once it listens."""

    def __init__(self, journal: Journal, faults: FaultQueue) -> None:
        self.url = ""
        self.elsewhere = ""
        self._journal = journal
        self._faults = faults

    def handler(self, wire_format: WireFormat, route: Route) -> Handler:
        """Bind a route to its wire format, as a handler of aiohttp."""

        async def handle(request: web.Request) -> web.StreamResponse:
            path = request.path.removeprefix(wire_format.base)
            call = self._record(wire_format.name, request, path)
            try:
                return await self._serve(wire_format, route, request, call)
            except (asyncio.CancelledError, ConnectionError):
                call.outcome = "abandoned"
                raise

        return handle

    async def record_leak(self, request: web.Request) -> web.StreamResponse:
        """Answer a client that followed a foreign URL, and record its request."""
        call = self._record("elsewhere", request, request.match_info["path"])
        call.outcome = "answered"
        return web.json_response({})

    def _record(self, provider: str, request: web.Request, path: str) -> Call:
        headers = {name.lower(): value for name, value in request.headers.items()}
        return self._journal.record(provider, request.method, path, headers)

    async def _serve(
        self, wire_format: WireFormat, route: Route, request: web.Request, call: Call
    ) -> web.StreamResponse:
        content = await request.read()
        fault = None
        try:
            call.body = _parse(content, request.content_type)
            if wire_format.needs_key:
                _check_credentials(call)
            fault = self._take_fault(route, call)
            reply = self._answer(route, request, call, fault)
        except RefusedError as refused:
            reply = wire_format.refuse(refused.refusal)
        call.status, call.billed = reply.status, reply.billed
        headers = {**wire_format.headers(call.number), **reply.headers}
        return await deliver(request, replace(reply, headers=headers), fault, call)

    def _take_fault(self, route: Route, call: Call) -> Fault | None:
        streamed = call.body is not None and call.body.get("stream") is True
        playable = route.faults if streamed else route.faults - STREAMING
        fault = self._faults.take(call.provider, call.method, call.path, playable)
        call.fault = None if fault is None else fault.kind
        return fault

    def _answer(self, route: Route, request: web.Request, call: Call, fault: Fault | None) -> Reply:
        refuse(fault, self.elsewhere + call.path)
        exchange = Exchange(
            number=call.number,
            url=self.url,
            elsewhere=self.elsewhere,
            headers=call.headers,
            params=request.match_info,
            body=call.body or {},
            fault=fault,
            query=request.query,
        )
        return route.answer(exchange)


def _parse(content: bytes, content_type: str) -> dict[str, Any] | None:
    """Read a JSON object; an empty or binary body is None."""
    if not content or content_type != "application/json":
        return None
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise RefusedError(Refusal(400, "We could not parse the JSON body of your request."))
    return body


def _check_credentials(call: Call) -> None:
    """Accept any bearer token, and refuse a request without one."""
    if not call.headers.get("authorization", "").startswith("Bearer "):
        raise RefusedError(Refusal(401, "You didn't provide an API key."))
