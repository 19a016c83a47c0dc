"""The requests to Stripe that billing needs: forms out, JSON back. https://docs.stripe.com/api"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from app.settings import Settings
from gateway.errors import Conflict, ProviderError
from gateway.providers.http import open_session

# The version whose shapes this module knows; an account's own default may be another one.
VERSION = "2025-03-31.basil"
SECONDS = 20.0


class Stripe:
    """Stripe's API for one account. All methods raise `ProviderError`."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, secret_key: str) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {secret_key}", "Stripe-Version": VERSION}

    async def create_customer(self, user_id: str, email: str) -> str:
        """The id of a new customer; a repeated request gets the same one."""
        form = {"email": email, "metadata[user_id]": user_id}
        return str((await self._post("customers", form, f"customer-{user_id}"))["id"])

    async def checkout(self, customer_id: str, price: str, return_url: str) -> str:
        """The address of a page on which the customer subscribes to a price."""
        form = {
            "mode": "subscription",
            "customer": customer_id,
            "line_items[0][price]": price,
            "line_items[0][quantity]": "1",
            "success_url": return_url,
            "cancel_url": return_url,
        }
        return str((await self._post("checkout/sessions", form))["url"])

    async def portal(self, customer_id: str, return_url: str) -> str:
        """The address of a page on which the customer changes or ends the subscription."""
        form = {"customer": customer_id, "return_url": return_url}
        return str((await self._post("billing_portal/sessions", form))["url"])

    async def report(
        self, meter: str, customer_id: str, value: int, timestamp: int, identifier: str
    ) -> None:
        """Report usage to a meter. Idempotent: Stripe counts an identifier once."""
        form = {
            "event_name": meter,
            "identifier": identifier,
            "timestamp": str(timestamp),
            "payload[stripe_customer_id]": customer_id,
            "payload[value]": str(value),
        }
        try:
            await self._post("billing/meter_events", form, identifier)
        except ProviderError as error:
            if "already exists with identifier" not in str(error):
                raise

    async def _post(
        self, path: str, form: Mapping[str, str], idempotency_key: str | None = None
    ) -> dict[str, Any]:
        headers = dict(self._headers)
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        url = f"{self._base_url}/v1/{path}"
        try:
            async with (
                asyncio.timeout(SECONDS),
                self._session.post(
                    url, data=form, headers=headers, allow_redirects=False
                ) as response,
            ):
                body = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ProviderError("Stripe does not answer. Try again.") from error
        if response.status != 200:
            raise ProviderError(f"Stripe refused the request: {_message(body)}")
        return dict(body)


@asynccontextmanager
async def open_stripe(settings: Settings) -> AsyncIterator[Stripe]:
    """Stripe with a connection of its own. Raises `Conflict` without STRIPE_SECRET_KEY."""
    key = settings.stripe_secret_key.get_secret_value()
    if not key:
        raise Conflict("Billing is not set up.")
    async with open_session() as session:
        yield Stripe(session, settings.stripe_base_url, key)


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message", ""))[:200] if isinstance(error, dict) else "no reason given"
