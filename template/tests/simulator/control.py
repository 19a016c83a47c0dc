"""The routes by which other processes steer the simulator: queue faults, read calls, reset."""

from typing import Protocol

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from tests.simulator.faults import Fault
from tests.simulator.journal import Journal

_FAULTS = TypeAdapter(list[Fault])


class Controlled(Protocol):
    """What these routes need of the simulator."""

    journal: Journal

    def inject(self, *faults: Fault) -> None:
        """Queue faults, or raise ValueError."""

    def reset(self) -> None:
        """Forget everything."""


def mount(application: web.Application, simulator: Controlled) -> None:
    """Add `POST /_control/faults`, `GET /_control/calls` and `POST /_control/reset`."""

    async def queue_faults(request: web.Request) -> web.Response:
        try:
            simulator.inject(*_FAULTS.validate_json(await request.read()))
        except ValidationError as error:
            return web.json_response({"error": error.errors(include_input=False)}, status=400)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.Response(status=204)

    async def read_calls(_: web.Request) -> web.Response:
        journal = simulator.journal
        return web.json_response({"total": journal.total, "calls": journal.as_json()})

    async def reset(_: web.Request) -> web.Response:
        simulator.reset()
        return web.Response(status=204)

    application.router.add_post("/_control/faults", queue_faults)
    application.router.add_get("/_control/calls", read_calls)
    application.router.add_post("/_control/reset", reset)
