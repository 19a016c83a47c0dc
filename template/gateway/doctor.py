"""What `doctor` finds in the policy files, the database and the limiter."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Row, select

from gateway import policy
from gateway.config import GatewayConfig
from gateway.db import lines
from gateway.db.engine import Database
from gateway.db.revisions import pending
from gateway.db.tables import teams, users
from gateway.errors import DatabaseUnavailable, ServiceError, StartError
from gateway.findings import Finding
from gateway.kill_switch import KillSwitch
from gateway.ledger.undeclared_usage import LAST_DAYS, undeclared
from gateway.patience import within
from gateway.policy import Policy
from gateway.providers.base import Provider, misbilled
from gateway.rate_limits.base import Limiter
from gateway.readiness import CHECK_SECONDS

NO_ANSWER = "no answer within a second: is the server up, or does another session hold a lock?"
MAX_SAID = 200
# The checks without which no table can be read.
TABLES = {"database", "migrations"}


def policy_findings(
    rules: Policy, providers: Mapping[str, Provider], *, production: bool
) -> Iterator[Finding]:
    """The version of the policy files; what lacks a budget, a key or a right price."""
    yield Finding("policy", advice=f"version {rules.version}")
    if rules.service.monthly_budget_usd is None and production:
        advice = "plans.toml sets no monthly_budget_usd for the service: nothing bounds the bill"
        yield Finding("budget", "warning", advice)
    for name in sorted({model.provider for model in rules.models.values()}):
        if missing := providers[name].missing_credential():
            advice = f"{missing} is not set; its models cannot answer"
            yield Finding(f"key of {name}", "warning", advice)
    for model in rules.models.values():
        if wrong := misbilled(providers[model.provider], model):
            yield Finding(f"price of {model.id}", "problem", wrong)
        if model.prices_are_old:
            advice = f"checked on {model.prices_checked}; compare it with the provider's list"
            yield Finding(f"price of {model.id}", "warning", advice)


async def state_findings(
    config: GatewayConfig, database: Database, limiter: Limiter
) -> list[Finding]:
    """The findings on the database, the limiter and the tables."""
    checks = await asyncio.gather(*_checks(config, database, limiter))
    if any(check.verdict == "problem" for check in checks if check.check in TABLES):
        return checks  # To read the tables would take long, or fail.
    with suppress(ServiceError, StartError):  # Another finding says so.
        rules = policy.load(config.policy_dir)
        checks += await _attention(rules, database)
        checks += await _undeclared(rules, database)
    if exposed := await database.exposure():
        verdict = "problem" if config.production else "warning"
        checks.append(Finding("database role", verdict, exposed))
    return checks


def _checks(
    config: GatewayConfig, database: Database, limiter: Limiter
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
    verdict = "problem" if config.production else "warning"
    yield _check("limits are kept", keeping, verdict=verdict)
    if config.production:
        yield _check("durability", durable)


async def _attention(rules: Policy, database: Database) -> list[Finding]:
    """A warning for each stop, and for each plan in use that `plans.toml` lacks."""
    stopped = await KillSwitch(database, None).all()
    is_active = users.c.disabled_at.is_(None)
    used = await database.fetch(select(users.c.plan).where(is_active).distinct())
    team_plans = await database.fetch(select(teams.c.plan).distinct())
    findings = [
        Finding(
            f"{row.target} is {row.kind}",
            "warning",
            f"{row.reason}; lift it: python -m app start {row.target}",
        )
        for row in stopped
    ]
    findings += _undeclared_plans("users", used, rules.plans)
    return [*findings, *_undeclared_plans("teams", team_plans, rules.team_plans)]


def _undeclared_plans(
    who: str, used: Sequence[Row[Any]], declared: Collection[str]
) -> list[Finding]:
    """A warning for each plan that users or teams have and `plans.toml` lacks."""
    missing = sorted({row.plan for row in used} - set(declared))
    advice = (
        f"{who} have it and plans.toml does not: they are refused; python -m app {who} set-plan"
    )
    return [Finding(f"plan {plan}", "warning", advice) for plan in missing]


async def _undeclared(rules: Policy, database: Database) -> list[Finding]:
    """The parts of the usage that no line of `models.toml` bills."""
    return [
        Finding(
            f"{each.part} of {each.model}",
            "warning",
            f"its provider counted {each.tokens} in the last {LAST_DAYS} days, and it has no "
            f"{each.line}: they are billed {each.billed}; add the provider's price",
        )
        for each in await undeclared(database, rules.models)
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
    """The first line of the error that a database or a limiter raised; empty without one."""
    cause = error.__cause__
    said = str(getattr(cause, "orig", cause) or "").partition("\n")[0].strip()
    return f" It said: {said[:MAX_SAID]}" if said else ""
