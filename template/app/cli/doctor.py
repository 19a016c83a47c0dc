"""`python -m app doctor`: is everything that the service needs in order, and if not, what to do."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import chain, combinations
from typing import Any

from sqlalchemy import Row, select

from app import wiring
from app.cli.placeholders import placeholders
from app.cli.serve import require_exact_limits
from app.readiness import CHECK_SECONDS
from app.settings import Settings, exposure, load
from app.startup_checks import open_parts
from gateway.config import ROOT
from gateway.db import lines
from gateway.db.engine import Database
from gateway.db.revisions import pending
from gateway.db.tables import teams, users
from gateway.errors import DatabaseUnavailable, ServiceError, StartError
from gateway.findings import Finding
from gateway.kill_switch import KillSwitch
from gateway.ledger.undeclared_usage import LAST_DAYS, undeclared
from gateway.patience import within
from gateway.policy import load as load_policy
from gateway.providers.base import misbilled
from gateway.providers.http import open_session
from gateway.rate_limits.base import Limiter

NO_ANSWER = "no answer within a second: is the server up, or does another session hold a lock?"
MAX_SAID = 200
# The checks without which no table can be read.
TABLES = {"database", "migrations"}


def examine(*, production: bool = False) -> list[Finding]:
    """Run every check that can be run; for `production`, as strictly as it starts there."""
    try:
        settings = load(production=production)
    except StartError as error:
        return [Finding("environment", "problem", str(error))]
    strict = [_separate_keys(settings)] if settings.production else []
    return [
        Finding("environment"),
        *strict,
        *([Finding("mode of .env", "warning", exposed)] if (exposed := exposure()) else []),
        _replicas(settings),
        *(Finding(file, "warning", said) for file, said in placeholders(ROOT, settings.project)),
        *asyncio.run(_examine(settings)),
    ]


def _separate_keys(settings: Settings) -> Finding:
    secrets = settings.secrets().items()
    same = [f"{one} and {other}" for (one, x), (other, y) in combinations(secrets, 2) if x == y]
    advice = f"{', '.join(same)} are the same; make one for each"
    return Finding("separate keys", "problem", advice) if same else Finding("separate keys")


def _replicas(settings: Settings) -> Finding:
    try:
        require_exact_limits(settings)
    except StartError as error:
        return Finding("replicas", "problem", str(error))
    return Finding("replicas")


async def _examine(settings: Settings) -> list[Finding]:
    async with AsyncExitStack() as stack:
        findings = await _policy(settings)
        try:
            database = wiring.database.open_database(settings.gateway)
            stack.push_async_callback(database.close)
            limiter = wiring.limiter.open_limiter(settings.gateway, database)
            stack.push_async_callback(limiter.close)
        except StartError as error:
            return [*findings, Finding("addresses", "problem", str(error))]

        checks = await asyncio.gather(*_checks(settings, database, limiter))
        if any(check.verdict == "problem" for check in checks if check.check in TABLES):
            return [*findings, *checks]  # What the tables say would take long, or not come.
        noticed = (
            await _attention(settings, database),
            await _undeclared(settings, database),
            await _exposure(settings, database),
        )
        return [*findings, *checks, *chain(*noticed)]


def _checks(
    settings: Settings, database: Database, limiter: Limiter
) -> Iterator[Awaitable[Finding]]:
    async def there() -> None:
        if absence := database.absence():
            raise StartError(absence)
        await database.check()

    async def migrated() -> None:
        if fault := next(lines.faults(lines.PROJECT), None):
            raise StartError(fault)
        with suppress(DatabaseUnavailable):  # Also without a table.
            if not await pending(database):
                return
        if database.absence() is None:
            await database.check()  # Without it, migrate cannot help.
        raise StartError("run: python -m app migrate")

    async def durable() -> None:
        if weakness := await database.weakness():
            raise StartError(weakness)

    async def keeping() -> None:
        if weakness := await limiter.weakness():
            raise StartError(weakness)

    yield _check("database", there, "is DATABASE_URL right, and does what it names work?")
    yield _check("migrations", migrated, "not known without the database.")
    yield _check("limiter", limiter.check, "is its address right, and the server up?")
    verdict = "problem" if settings.production else "warning"
    yield _check("limits are kept", keeping, verdict=verdict)
    if settings.production:
        yield _check("durability", durable)


async def _policy(settings: Settings) -> list[Finding]:
    async with open_session() as session:
        try:
            rules, providers = open_parts(settings, session)
        except StartError as error:
            return [Finding("policy", "problem", str(error))]
    findings = [Finding("policy", advice=f"version {rules.version}")]
    if rules.service.monthly_budget_usd is None and settings.production:
        advice = "plans.toml sets no monthly_budget_usd for the service: nothing bounds the bill"
        findings.append(Finding("budget", "warning", advice))
    for name in sorted({model.provider for model in rules.models.values()}):
        if missing := providers[name].missing_credential():
            advice = f"{missing} is not set; its models cannot answer"
            findings.append(Finding(f"key of {name}", "warning", advice))
    for model in rules.models.values():
        if wrong := misbilled(providers[model.provider], model):
            findings.append(Finding(f"price of {model.id}", "problem", wrong))
        if model.prices_are_old:
            advice = f"checked on {model.prices_checked}; compare it with the provider's list"
            findings.append(Finding(f"price of {model.id}", "warning", advice))
    return findings


async def _attention(settings: Settings, database: Database) -> list[Finding]:
    """Warnings from the tables; none where there are no tables."""
    try:
        stopped = await KillSwitch(database, None).all()
        used = await database.fetch(
            select(users.c.plan).where(users.c.disabled_at.is_(None)).distinct()
        )
        team_plans = await database.fetch(select(teams.c.plan).distinct())
        policy = load_policy(settings.policy_dir)
    except (ServiceError, StartError):
        return []  # Another finding says so.
    findings = [
        Finding(
            f"{row.target} is {row.kind}",
            "warning",
            f"{row.reason}; lift it: python -m app start {row.target}",
        )
        for row in stopped
    ]
    findings += _undeclared_plans("users", used, policy.plans)
    return [*findings, *_undeclared_plans("teams", team_plans, policy.team_plans)]


def _undeclared_plans(
    who: str, used: Sequence[Row[Any]], declared: Collection[str]
) -> list[Finding]:
    """A warning for each plan that users or teams have and `plans.toml` lacks."""
    missing = sorted({row.plan for row in used} - set(declared))
    advice = (
        f"{who} have it and plans.toml does not: they are refused; python -m app {who} set-plan"
    )
    return [Finding(f"plan {plan}", "warning", advice) for plan in missing]


async def _exposure(settings: Settings, database: Database) -> list[Finding]:
    """What lets the database's role see the rows of a user as another user."""
    verdict = "problem" if settings.production else "warning"
    exposed = await database.exposure()
    return [Finding("database role", verdict, exposed)] if exposed else []


async def _undeclared(settings: Settings, database: Database) -> list[Finding]:
    """The parts of the usage that no line of `models.toml` bills."""
    try:
        found = await undeclared(database, load_policy(settings.policy_dir).models)
    except (ServiceError, StartError):
        return []  # Another finding says so.
    return [
        Finding(
            f"{each.part} of {each.model}",
            "warning",
            f"its provider counted {each.tokens} in the last {LAST_DAYS} days, and it has no "
            f"{each.line}: they are billed {each.billed}; add the provider's price",
        )
        for each in found
    ]


async def _check(
    name: str, work: Callable[[], Awaitable[None]], advice: str = "", verdict: str = "problem"
) -> Finding:
    """Without `advice`, the error's own words say what to do."""
    try:
        await within(work(), CHECK_SECONDS)
    except StartError as error:
        return Finding(name, verdict, str(error))
    except ServiceError as error:
        if isinstance(error.__cause__, TimeoutError):
            return Finding(name, "problem", NO_ANSWER)
        return Finding(name, "problem", f"{advice or error}{_said(error)}")
    except TimeoutError:
        return Finding(name, "problem", NO_ANSWER)
    return Finding(name)


def _said(error: ServiceError) -> str:
    """What a database or limiter said itself, in a line."""
    cause = error.__cause__
    said = str(getattr(cause, "orig", cause) or "").partition("\n")[0].strip()
    return f" It said: {said[:MAX_SAID]}" if said else ""
