"""Builds the service: its parts in the lifespan, its routes on the application."""

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module

from fastapi import FastAPI

from app import settings, wiring
from app.auth.authenticator import RequestAuthenticator
from app.console import routes as console
from app.engine import open_engine
from app.routes import (
    admin,
    admin_teams,
    admin_users,
    chat,
    embeddings,
    health,
    models,
    predictions,
    responses,
    sessions,
    team,
    usage,
)
from app.settings import Settings
from gateway.environment import exposure
from gateway.http import exception_handlers as handlers
from gateway.http.cors import Preflights, SharedAnswers
from gateway.http.own_pages import OwnPages
from gateway.readiness import Readiness
from gateway.telemetry.logging import configure, log
from gateway.telemetry.middleware import RequestMiddleware

ROUTERS = (
    chat.router,
    responses.router,
    embeddings.router,
    predictions.generations,
    predictions.router,
    models.router,
    usage.router,
    team.router,
    admin.router,
    admin_users.router,
    admin_teams.router,
    *(import_module(name).router for name in wiring.ROUTES),
    sessions.router,
    health.router,
    console.router,
)
# New objects after which the collector looks for cycles.
GARBAGE = 20_000


def create_app(given: Settings | None = None) -> FastAPI:
    """The application. Raises `StartError` for a wrong environment."""
    chosen = given or settings.load()
    is_development = chosen.environment == "development"
    configure(chosen.secret_values(), chosen.log_level, for_people=is_development)
    if exposed := exposure():
        log(logging.WARNING, exposed)
    app = FastAPI(
        title=chosen.project["title"],
        description=chosen.project["description"],
        version=chosen.project["version"],
        lifespan=lifespan,
        docs_url=None,  # FastAPI's load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # to where the Host header says, which anyone can write
    )
    app.state.settings = chosen
    for router in ROUTERS:
        app.include_router(router)
    handlers.install(app)
    # The last one is the outermost.
    if chosen.cors_origins:
        app.add_middleware(Preflights)
    app.add_middleware(RequestMiddleware, max_body_bytes=chosen.max_body_bytes)
    if chosen.cors_origins:
        app.add_middleware(SharedAnswers, allowed=chosen.cors_origins)
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens what the service works with, and closes it in reverse order when it stops."""
    chosen: Settings = app.state.settings
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(chosen))
        app.state.engine = engine
        method = wiring.auth.open_authenticator(chosen, engine.database, engine.limiter)
        pages = OwnPages(chosen.public_url, chosen.cors_origins)
        app.state.authenticator = RequestAuthenticator(method, engine.sessions, pages)
        app.state.readiness = Readiness(engine)
        if chosen.environment != "test":  # Where many services start in one process, none stays.
            _rest_collector()
        yield


def _rest_collector() -> None:
    """All that is loaded now stays, and a request leaves little for the collector: it need not
    look at everything again and again.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE)
