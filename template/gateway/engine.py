"""Opens the engine: its parts, and the background work that keeps its promises."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp

from gateway.accounts.users import Users
from gateway.alerts.alerts import Alerts
from gateway.alerts.webhook import Webhook, signing_key
from gateway.background import in_background
from gateway.circuit_breaker.breaker import Cooldown
from gateway.circuit_breaker.stalls import Stalls
from gateway.config import GatewayConfig
from gateway.db.engine import Database
from gateway.db.pagination import Pages
from gateway.gateway import Gateway
from gateway.http.bodies import LargeBodies
from gateway.idempotency.idempotency import Idempotency
from gateway.idempotency.sealing import Sealer
from gateway.idempotency.store import Claims
from gateway.kill_switch import Stops
from gateway.ledger.ledger import Ledger
from gateway.ledger.records import Records
from gateway.ledger.sweeper import Sweeper
from gateway.ledger.usage_report import Report
from gateway.pipeline.attempts import Attempts
from gateway.pipeline.failure_report import FailureReport
from gateway.pipeline.in_flight import Running
from gateway.pipeline.pipeline import Guard
from gateway.pipeline.runner import Runner
from gateway.pipeline.stop_watcher import Watch
from gateway.policy import Policy
from gateway.providers.base import Provider
from gateway.rate_limits.base import Limiter
from gateway.rate_limits.limits import Limits
from gateway.telemetry.redaction import make_redactor


@dataclass
class Engine:
    """The parts of the engine that the application asks for something."""

    config: GatewayConfig
    policy: Policy
    database: Database
    limiter: Limiter
    limits: Limits
    guard: Guard
    cooldown: Cooldown
    running: Running
    runner: Runner
    idempotency: Idempotency
    watch: Watch
    stops: Stops
    records: Records
    report: Report
    users: Users
    pages: Pages
    large_bodies: LargeBodies
    # The background work: none of it ends before the engine is closed, unless it crashed.
    loops: list[asyncio.Task[None]]

    async def gateway_for(self, user_id: str, feature: str) -> Gateway:
        """The gateway for a command or a background job that works for a user.

        Raises `NotFound`, `Forbidden` for a user who is disabled.
        """
        user = await self.users.principal(user_id)
        seconds = self.config.request_deadline_seconds
        return Gateway(self.guard, self.policy, user, feature=feature, seconds=seconds)


@asynccontextmanager
async def open_engine(
    config: GatewayConfig,
    policy: Policy,
    providers: Mapping[str, Provider],
    database: Database,
    limiter: Limiter,
    session: aiohttp.ClientSession,
) -> AsyncIterator[Engine]:
    """The engine on parts that are open; what runs at its end is settled or recorded."""
    async with AsyncExitStack() as stack:
        ledger = Ledger(database, policy, keep_content=config.store_content)
        cooldown, limits, stalls = Cooldown(limiter), Limits(policy, limiter), Stalls()
        attempts = Attempts(
            policy, cooldown, limits, ledger, providers, stalls, production=config.production
        )
        report = FailureReport(make_redactor(config.secret_values))
        running = Running(limits, ledger, attempts, report, log_content=config.log_content)
        stack.push_async_callback(running.drain)
        guard = Guard(policy, limits, attempts, running)
        watch = Watch(database, running, cooldown, policy)
        sweeper = Sweeper(database, ledger, policy, providers)
        alerts = Alerts(database, policy, _open_webhook(config, session))
        runner = Runner(guard, running, database)
        loops = in_background(watch.run(), sweeper.run(), alerts.run(), runner.run(), stalls.run())
        tasks = await stack.enter_async_context(loops)
        stack.push_async_callback(runner.close)
        claims = Claims(database, config.request_deadline_seconds)
        stack.push_async_callback(claims.drain)
        yield Engine(
            config=config,
            policy=policy,
            database=database,
            limiter=limiter,
            limits=limits,
            guard=guard,
            cooldown=cooldown,
            running=running,
            runner=runner,
            idempotency=Idempotency(claims, Sealer("idempotency", *config.secret_keys)),
            watch=watch,
            stops=Stops(database, policy),
            records=Records(database),
            report=Report(database, policy),
            users=Users(database),
            pages=Pages(database),
            large_bodies=LargeBodies(),
            loops=tasks,
        )


def _open_webhook(config: GatewayConfig, session: aiohttp.ClientSession) -> Webhook | None:
    """Where alerts are posted, if anywhere."""
    url = config.alert_webhook_url.get_secret_value()
    key = signing_key(config.secret_key.get_secret_value())
    return Webhook(session, url, key) if url else None
