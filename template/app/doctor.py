"""`python -m app doctor`: is everything that the service needs in order, and if not, what to do."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import NamedTuple

from app import wiring
from app.db.migrate import pending
from app.errors import ServiceError, StartError
from app.main import open_policy, open_providers
from app.providers.http import open_session
from app.settings import Settings, load


class Finding(NamedTuple):
    """What a check found: `verdict` is ok, warning or problem; `advice` says what to do."""

    check: str
    verdict: str = "ok"
    advice: str = ""

    @property
    def mark(self) -> str:
        return {"ok": "✓", "warning": "!", "problem": "✗"}[self.verdict]


def examine() -> list[Finding]:
    """Run every check that can be run."""
    try:
        settings = load()
    except StartError as error:
        return [Finding("environment", "problem", str(error))]
    return [Finding("environment"), *asyncio.run(_examine(settings))]


async def _examine(settings: Settings) -> list[Finding]:
    async with AsyncExitStack() as stack:
        findings = await _policy(settings)
        try:
            database = wiring.database.open_database(settings)
            stack.push_async_callback(database.close)
            limiter = wiring.limiter.open_limiter(settings)
            stack.push_async_callback(limiter.close)
        except StartError as error:
            return [*findings, Finding("addresses", "problem", str(error))]

        async def migrated() -> None:
            if await pending(database):
                raise StartError("a migration is missing")

        return [
            *findings,
            await _check("database", database.check, "is DATABASE_URL right, and the server up?"),
            await _check("migrations", migrated, "run: python -m app migrate"),
            await _check("limiter", limiter.check, "is its address right, and the server up?"),
        ]


async def _policy(settings: Settings) -> list[Finding]:
    async with open_session() as session:
        providers = open_providers(settings, session)
        try:
            rules = open_policy(settings, providers)
        except StartError as error:
            return [Finding("policy", "problem", str(error))]
    findings = [Finding("policy")]
    for name in sorted({model.provider for model in rules.models.values()}):
        if missing := providers[name].missing():
            advice = f"{missing} is not set; its models cannot answer"
            findings.append(Finding(f"key of {name}", "warning", advice))
    for model in rules.models.values():
        if model.prices_are_old:
            advice = f"checked on {model.prices_checked}; compare it with the provider's list"
            findings.append(Finding(f"price of {model.id}", "warning", advice))
    return findings


async def _check(name: str, work: Callable[[], Awaitable[None]], advice: str) -> Finding:
    try:
        await work()
    except (ServiceError, StartError):
        return Finding(name, "problem", advice)
    return Finding(name)
