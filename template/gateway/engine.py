"""Opens the engine: its parts and its background tasks."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp

from gateway.accounts.invitations import Invitations
from gateway.accounts.sessions import Sessions
from gateway.accounts.teams import Teams
from gateway.accounts.users import Users
from gateway.alerts.alerts import Alerts
from gateway.alerts.webhook import Webhook, signing_key
from gateway.background import in_background
from gateway.circuit_breaker.breaker import CircuitBreaker
from gateway.circuit_breaker.stalls import Stalls
from gateway.config import GatewayConfig
from gateway.db.engine import Database
from gateway.db.pagination import Pages
from gateway.gateway import Gateway
from gateway.http.bodies import LargeBodies
from gateway.idempotency.idempotency import Idempotency
from gateway.idempotency.sealing import Sealer
from gateway.idempotency.store import IdempotencyStore
from gateway.kill_switch import KillSwitch
from gateway.ledger.ledger import Ledger
from gateway.ledger.records import Records
from gateway.ledger.retention import Retention
from gateway.ledger.sweeper import Sweeper
from gateway.ledger.usage_report import Report
from gateway.pipeline.attempts import Attempts
from gateway.pipeline.failure_report import FailureReport
from gateway.pipeline.in_flight import InFlight
from gateway.pipeline.pipeline import Pipeline
from gateway.pipeline.runner import Runner
from gateway.pipeline.stop_watcher import StopWatcher
from gateway.policy import Policy
from gateway.providers.base import Provider
from gateway.rate_limits.base import Limiter
from gateway.rate_limits.limits import Limits
from gateway.telemetry.redaction import make_redactor


@dataclass
class Engine:
    """The parts of the engine that the application uses."""

    config: GatewayConfig
    policy: Policy
    database: Database
    limiter: Limiter
    limits: Limits
    pipeline: Pipeline
    circuit_breaker: CircuitBreaker
    in_flight: InFlight
    runner: Runner
    idempotency: Idempotency
    stop_watcher: StopWatcher
    kill_switch: KillSwitch
    records: Records
    report: Report
    users: Users
    teams: Teams
    invitations: Invitations
    sessions: Sessions
    pages: Pages
    large_bodies: LargeBodies
    # The background tasks. Each runs until the engine is closed, unless it crashes.
    loops: list[asyncio.Task[None]]

    async def gateway_for(self, user_id: str, feature: str) -> Gateway:
        """The gateway for a command or a background job that works for a user.

        Raises `NotFound`, and `Forbidden` for a disabled user.
        """
        user = await self.users.principal(user_id)
        seconds = self.config.request_deadline_seconds
        return Gateway(self.pipeline, self.policy, user, feature=feature, seconds=seconds)


@asynccontextmanager
async def open_engine(
    config: GatewayConfig,
    policy: Policy,
    providers: Mapping[str, Provider],
    database: Database,
    limiter: Limiter,
    session: aiohttp.ClientSession,
) -> AsyncIterator[Engine]:
    """The engine on open parts. At its end, running generations are settled or recorded."""
    async with AsyncExitStack() as stack:
        ledger = Ledger(database, policy, keep_content=config.store_content)
        circuit_breaker, limits, stalls = CircuitBreaker(limiter), Limits(policy, limiter), Stalls()
        attempts = Attempts(
            policy, circuit_breaker, limits, ledger, providers, stalls, production=config.production
        )
        report = FailureReport(make_redactor(config.secret_values))
        in_flight = InFlight(limits, ledger, attempts, report, log_content=config.log_content)
        stack.push_async_callback(in_flight.drain)
        pipeline = Pipeline(policy, limits, attempts, in_flight)
        stop_watcher = StopWatcher(database, in_flight, circuit_breaker, policy)
        sweeper = Sweeper(database, ledger, policy, providers)
        url = config.alert_webhook_url.get_secret_value()
        webhook = Webhook(session, url, signing_key(config.secret_keys[0])) if url else None
        alerts = Alerts(database, policy, webhook)
        runner = Runner(pipeline, in_flight, database)
        loops = [work.run() for work in (stop_watcher, sweeper, alerts, runner, stalls)]
        if days := config.prediction_retention_days:
            loops.append(Retention(database, days).run())
        tasks = await stack.enter_async_context(in_background(*loops))
        stack.push_async_callback(runner.close)
        store = IdempotencyStore(database, config.request_deadline_seconds)
        stack.push_async_callback(store.drain)
        yield Engine(
            config=config,
            policy=policy,
            database=database,
            limiter=limiter,
            limits=limits,
            pipeline=pipeline,
            circuit_breaker=circuit_breaker,
            in_flight=in_flight,
            runner=runner,
            idempotency=Idempotency(store, Sealer("idempotency", *config.secret_keys)),
            stop_watcher=stop_watcher,
            kill_switch=KillSwitch(database, policy),
            records=Records(database),
            report=Report(database, policy),
            users=Users(database),
            teams=Teams(database),
            invitations=Invitations(database),
            sessions=Sessions(database),
            pages=Pages(database),
            large_bodies=LargeBodies(),
            loops=tasks,
        )
