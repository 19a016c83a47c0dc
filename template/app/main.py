"""Builds the service: its parts in the lifespan, its routes on the application."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import import_module
from typing import Any

import aiohttp
from fastapi import FastAPI

from app import handlers, health, models, settings, wiring
from app.admin import routes as admin
from app.admin.stops import Stops
from app.auth.users import Users
from app.bodies import LargeBodies
from app.chat import routes as chat
from app.console import routes as console
from app.cors import Preflights, SharedAnswers
from app.db.pages import Pages
from app.embeddings import routes as embeddings
from app.errors import NO_DATABASE, DatabaseUnavailable, LimiterUnavailable, StartError
from app.guard.alerts import Alerts
from app.guard.attempts import Attempts
from app.guard.claims import Claims
from app.guard.cooldown import Cooldown
from app.guard.failure_report import FailureReport
from app.guard.idempotency import Idempotency
from app.guard.ledger import Ledger
from app.guard.limits import Limits
from app.guard.pipeline import Guard
from app.guard.running import Running
from app.guard.stalls import Stalls
from app.guard.sweeper import Sweeper
from app.guard.watch import Watch
from app.guard.webhook import Webhook, signing_key
from app.parts import open_parts
from app.predictions import routes as predictions
from app.predictions.records import Records
from app.predictions.runner import Runner
from app.providers.http import open_session
from app.readiness import Readiness
from app.responses import routes as responses
from app.sealing import Sealer
from app.settings import Settings
from app.state.base import Limiter
from app.telemetry.logging import configure, log
from app.telemetry.middleware import RequestMiddleware
from app.telemetry.redaction import make_redactor
from app.usage import routes as usage
from app.usage.report import Report

ROUTERS = (
    chat.router,
    responses.router,
    embeddings.router,
    predictions.router,
    models.router,
    usage.router,
    admin.router,
    *(import_module(name).router for name in wiring.auth.ROUTES),
    health.router,
    console.router,
)
# New objects after which the collector looks for cycles.
GARBAGE = 20_000
CANCEL_AGAIN_SECONDS = 1.0


class Application(FastAPI):
    """FastAPI whose description tells how to log in, at no cost for a request."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["securitySchemes"] = {"login": wiring.auth.SCHEME}
        for path, operations in document["paths"].items():
            for operation in operations.values():
                if path.startswith("/v1/"):
                    operation["security"] = [{"login": []}]
                document["components"]["schemas"] |= _definitions(operation)
        return document


def create_app(given: Settings | None = None) -> FastAPI:
    """The application. Raises `StartError` for a wrong environment."""
    chosen = given or settings.load()
    configure(chosen)
    if exposed := settings.exposure():
        log(logging.WARNING, exposed)
    app = Application(
        title=chosen.project["title"],
        description=chosen.project["description"],
        version=chosen.project["version"],
        lifespan=lifespan,
        docs_url=None,  # FastAPI's load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # to where the Host header says, which anyone can write
    )
    app.state.settings = chosen
    # As they are: to include a router makes all of its routes again, for every application.
    app.router.routes += [route for router in ROUTERS for route in router.routes]
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
        database = wiring.database.open_database(chosen)
        stack.push_async_callback(database.close)
        session = await stack.enter_async_context(open_session())
        rules, providers = open_parts(chosen, session)
        try:
            await stack.enter_async_context(wiring.alone(chosen, database))
        except DatabaseUnavailable as error:
            raise StartError(NO_DATABASE) from error
        limiter = wiring.limiter.open_limiter(chosen, database)
        stack.push_async_callback(limiter.close)
        await _require_kept_limits(chosen, limiter)
        ledger = Ledger(database, rules, keep_content=chosen.store_content)
        cooldown = Cooldown(limiter)
        limits = Limits(rules, limiter)
        stalls = Stalls()
        attempts = Attempts(
            rules, cooldown, limits, ledger, providers, stalls, production=chosen.production
        )
        report = FailureReport(make_redactor(chosen.secret_values()))
        running = Running(limits, ledger, attempts, report, log_content=chosen.log_content)
        stack.push_async_callback(running.drain)
        guard = Guard(rules, limits, attempts, running)
        watch = Watch(database, running, cooldown, rules)
        sweeper = Sweeper(database, ledger, rules, providers)
        told = Alerts(database, rules, open_webhook(chosen, session))
        runner = Runner(guard, running, database)
        loops = in_background(watch.run(), sweeper.run(), told.run(), runner.run(), stalls.run())
        app.state.loops = await stack.enter_async_context(loops)
        stack.push_async_callback(runner.close)
        claims = Claims(database, chosen.request_deadline_seconds)
        stack.push_async_callback(claims.drain)
        state = app.state
        state.idempotency = Idempotency(claims, Sealer("idempotency", *chosen.secret_keys()))
        state.database, state.limiter, state.guard, state.runner = database, limiter, guard, runner
        state.limits, state.large_bodies = limits, LargeBodies()
        state.policy, state.users, state.stops = rules, Users(database), Stops(database, rules)
        state.report, state.cooldown, state.watch = Report(database, rules), cooldown, watch
        state.running, state.readiness = running, Readiness(state)
        state.authenticator = wiring.auth.open_authenticator(chosen, database, limiter)
        state.records, state.pages = Records(database), Pages(database)
        if chosen.environment != "test":  # Where many services start in one process, none stays.
            _rest_collector()
        yield


async def _require_kept_limits(chosen: Settings, limiter: Limiter) -> None:
    """Raise `StartError` in production when the limiter could forget. One that does not answer is
    not ready yet, and is asked again by `/readyz`.
    """
    if chosen.production:
        with suppress(LimiterUnavailable):
            if weakness := await limiter.weakness():
                raise StartError(weakness)


def _rest_collector() -> None:
    """All that is loaded now stays, and a request leaves little for the collector: it need not
    look at everything again and again.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE)


def _definitions(operation: dict[str, Any]) -> dict[str, Any]:
    """The parts of a body that a route describes itself; they belong to the components."""
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    parts: dict[str, Any] = schema.pop("$defs", {})
    return parts


@asynccontextmanager
async def in_background(
    *loops: Coroutine[Any, Any, None],
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run `loops` until the end of the context. One that crashes is told, and the rest goes on."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    for task in tasks:
        task.add_done_callback(_tell_crash)
    try:
        yield tasks
    finally:
        running = set(tasks)
        while running:
            for task in running:
                task.cancel()
            # On Python 3.11, a cancellation can be lost in a library (CPython's issue 86296).
            _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_SECONDS)


def _tell_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log(logging.CRITICAL, "A background task crashed; restart the service", error=error)


def open_webhook(chosen: Settings, session: aiohttp.ClientSession) -> Webhook | None:
    """Where alerts are posted, if anywhere."""
    url = chosen.alert_webhook_url.get_secret_value()
    key = signing_key(chosen.secret_key.get_secret_value())
    return Webhook(session, url, key) if url else None
