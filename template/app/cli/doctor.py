"""`python -m app doctor`: is everything that the service needs in order, and if not, what to do."""

import asyncio
from contextlib import AsyncExitStack
from itertools import combinations

from app import wiring
from app.cli.placeholders import placeholders
from app.cli.serve import require_exact_limits
from app.parts import open_parts
from app.settings import Settings, load
from gateway.config import ROOT
from gateway.doctor import policy_findings, state_findings
from gateway.environment import exposure
from gateway.errors import StartError
from gateway.findings import Finding
from gateway.providers.http import open_session


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
    config = settings.gateway
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session())
        try:
            rules, providers = open_parts(settings, session)
            findings = list(policy_findings(rules, providers, production=settings.production))
        except StartError as error:
            findings = [Finding("policy", "problem", str(error))]
        try:
            database = wiring.database.open_database(config)
            stack.push_async_callback(database.close)
            limiter = wiring.limiter.open_limiter(config, database)
            stack.push_async_callback(limiter.close)
        except StartError as error:
            return [*findings, Finding("addresses", "problem", str(error))]
        return [*findings, *await state_findings(config, database, limiter)]
