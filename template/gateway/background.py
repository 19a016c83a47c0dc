"""Work in the background: looks that are repeated for as long as the service runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

from gateway.errors import DatabaseUnavailable
from gateway.telemetry.logging import log


async def repeat(look: Callable[[], Awaitable[None]], seconds: float) -> NoReturn:
    """Look again and again, with a pause of `seconds`. While there is no database, in vain."""
    while True:
        try:
            with suppress(DatabaseUnavailable):
                await look()
        except Exception as error:  # One look that crashed must not be the last one.
            log(logging.ERROR, "A look in the background crashed", error=error)
        await asyncio.sleep(seconds)
