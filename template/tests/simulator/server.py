"""The simulator itself: the chosen wire formats on a port, with what a test needs to steer them."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.simulator import control
from tests.simulator.dispatch import Dispatcher
from tests.simulator.exchange import WireFormat
from tests.simulator.faults import Fault, FaultQueue
from tests.simulator.journal import Call, Journal
from tests.simulator.wiring import FORMATS

# Larger than any bound that a service sets itself: those are to be met before a provider is.
_MAX_BODY_BYTES = 64 * 2**20


class Simulator:
    """The providers' stand-in on a port of 127.0.0.1, as an asynchronous context manager."""

    def __init__(self, formats: Sequence[Callable[[], WireFormat]] = FORMATS) -> None:
        self.journal = Journal()
        self._formats = [wire_format() for wire_format in formats]
        self._faults = FaultQueue()
        self._dispatcher = Dispatcher(self.journal, self._faults)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Scheme, host and port, once it listens."""
        return self._dispatcher.url

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point a service's providers here."""
        return {each.variable: self.url + each.base for each in self._formats}

    @property
    def calls(self) -> list[Call]:
        """The requests so far, oldest first."""
        return self.journal.calls

    def inject(self, *faults: Fault) -> None:
        """Queue faults; if one could never be played, none is queued and ValueError tells why."""
        for fault in faults:
            if not self._is_playable(fault):
                whose = fault.provider or "any provider"
                raise ValueError(f"No route of {whose} can play {fault}.")
        for fault in faults:
            self._faults.add(fault)

    def reset(self) -> None:
        """Forget calls, faults and what the providers remember."""
        self.journal.clear()
        self._faults.clear()
        for wire_format in self._formats:
            wire_format.reset()

    async def start(self, port: int = 0) -> None:
        """Listen; port 0 picks a free one."""
        # A handler that hangs on purpose ends when its client leaves or the server stops.
        self._runner = web.AppRunner(
            self._application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        listening = self._runner.addresses[0][1]
        self._dispatcher.url = f"http://127.0.0.1:{listening}"
        self._dispatcher.elsewhere = f"http://localhost:{listening}/elsewhere"

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_MAX_BODY_BYTES)
        control.mount(application, self)
        for wire_format in self._formats:
            for route in wire_format.routes():
                handler = self._dispatcher.handler(wire_format, route)
                path = wire_format.base + route.path
                application.router.add_route(route.method, path, handler)
        application.router.add_route("*", "/elsewhere{path:.*}", self._dispatcher.record_leak)
        return application

    def _is_playable(self, fault: Fault) -> bool:
        return any(
            fault.kind in route.faults
            for wire_format in self._formats
            if fault.provider in (None, wire_format.name)
            for route in wire_format.routes()
        )
