"""`python -m app doctor`: is everything that the service needs in order, and if not, what to do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from app import policy, wiring
from app.command import fail, show
from app.db import migrate
from app.errors import InvalidRequest, ServiceError, StartError
from app.main import open_policy, open_providers
from app.policy import Policy
from app.providers.http import open_session
from app.settings import Settings, load


class Finding(NamedTuple):
    """`verdict` is ok, warning or problem; `advice` says what to do."""

    check: str
    verdict: str
    advice: str = ""


def examine(*, as_json: bool) -> None:
    """Run every check and show what was found; exit code 1 when there is a problem."""
    findings = asyncio.run(_findings())
    marks = {"ok": "✓", "warning": "!", "problem": "✗"}
    lines = [f"{marks[f.verdict]} {f.check}{': ' * bool(f.advice)}{f.advice}" for f in findings]
    show([finding._asdict() for finding in findings], as_json, "\n".join(lines))
    if any(finding.verdict == "problem" for finding in findings):
        fail("There is something to do before this service can run.")


def known_plan(settings: Settings, plan: str) -> None:
    """Raise `InvalidRequest` unless `plans.toml` has `plan`."""
    names = policy.load(settings.policy_dir).plans
    if plan not in names:
        raise InvalidRequest(f"There is no plan {plan!r} in plans.toml; use {', '.join(names)}.")


async def _findings() -> list[Finding]:
    try:
        settings = load()
    except StartError as error:
        return [Finding("environment", "problem", str(error))]
    return [
        Finding("environment", "ok"),
        *await _policy(settings),
        *await _stores(settings),
    ]


async def _policy(settings: Settings) -> list[Finding]:
    async with open_session() as session:
        try:
            providers = open_providers(settings, session)
            rules = open_policy(settings, providers)
        except StartError as error:
            return [Finding("policy", "problem", str(error))]
    used = sorted({model.provider for model in rules.models.values()})
    missing = [(name, providers[name].missing()) for name in used]
    return [
        Finding("policy", "ok"),
        *[Finding("policy", "warning", warning) for warning in rules.warnings],
        *_old_prices(rules),
        *[
            Finding(f"key of {name}", "warning", f"{variable} is not set; its models cannot answer")
            if variable
            else Finding(f"key of {name}", "ok")
            for name, variable in missing
        ],
    ]


def _old_prices(rules: Policy) -> list[Finding]:
    return [
        Finding(
            f"price of {model.id}",
            "warning",
            f"checked on {model.prices_checked}; compare it with the provider's list",
        )
        for model in rules.models.values()
        if model.prices_are_old
    ]


async def _stores(settings: Settings) -> list[Finding]:
    try:
        database = wiring.database.open_database(settings)
        limiter = wiring.limiter.open_limiter(settings)
    except StartError as error:
        return [Finding("addresses", "problem", str(error))]

    async def migrated() -> None:
        if await migrate.pending(database):
            raise StartError("tables are not up to date")

    try:
        return [
            await _check("database", database.check, "is DATABASE_URL right, and the server up?"),
            await _check("migrations", migrated, "run: python -m app migrate"),
            await _check("limiter", limiter.check, "is its address right, and the server up?"),
        ]
    finally:
        await limiter.close()
        await database.close()


async def _check(name: str, work: Callable[[], Awaitable[None]], advice: str) -> Finding:
    try:
        await work()
    except (ServiceError, StartError):
        return Finding(name, "problem", advice)
    return Finding(name, "ok")
