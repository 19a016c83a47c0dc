"""A promise of the service, and what was found when the drill looked whether it holds."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from drill.environment import Environment

PATIENCE_SECONDS = 120

Look = Callable[[Environment], Awaitable[str]]


class Finding(NamedTuple):
    """What the drill prints of a promise; its verdict is `holds` or `broken`."""

    promise: str
    expected: str
    seen: str
    verdict: str


class Guarantee(NamedTuple):
    """It holds when `look` sees what is expected, word for word."""

    text: str
    expected: str
    look: Look

    async def find(self, environment: Environment) -> Finding:
        """Look, with nothing left over from the look before."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await environment.simulator.reset()
                seen = await self.look(environment)
        except Exception as error:
            seen = f"{type(error).__name__}: {error}"
        verdict = "holds" if seen == self.expected else "broken"
        return Finding(self.text, self.expected, seen, verdict)


def guarantee(text: str, expected: str) -> Callable[[Look], Guarantee]:
    """Make a promise of the function that looks whether it holds."""
    return lambda look: Guarantee(text, expected, look)
