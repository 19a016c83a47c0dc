"""A stand-in for Stripe's API on loopback, with the shapes that its documentation shows."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.ports import kept_port

KEY = "sk_test_51StandInForStripe"
# The fields that each request has to have.
NEEDED = {
    "customers": {"email", "metadata[user_id]"},
    "checkout/sessions": {
        *("mode", "customer", "line_items[0][price]", "line_items[0][quantity]"),
        *("success_url", "cancel_url"),
    },
    "billing_portal/sessions": {"customer", "return_url"},
    "billing/meter_events": {
        *("event_name", "identifier", "timestamp", "payload[stripe_customer_id]"),
        "payload[value]",
    },
}


@dataclass
class StripeServer:
    """The requests so far, and how many of the next ones fail after their work is done."""

    url: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    broken: int = 0

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._answers: dict[str, dict[str, Any]] = {}

    async def handle(self, request: web.Request) -> web.Response:
        path, form = request.match_info["path"], dict(await request.post())
        fields = {name: str(value) for name, value in form.items()}
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return _error(401, "Invalid API Key provided")
        if path not in NEEDED or set(fields) != NEEDED[path]:
            return _error(400, f"Received unknown or missing parameters: {sorted(fields)}")
        self.requests.append((path, fields))
        repeated = request.headers.get("Idempotency-Key", "")
        if repeated in self._answers:
            return web.json_response(self._answers[repeated])
        if fields.get("identifier") in self.usage:
            name = fields["identifier"]
            return _error(400, f"An event already exists with identifier {name}.")
        answer = self._answer(path, fields)
        if repeated:
            self._answers[repeated] = answer
        if self.broken:
            self.broken -= 1
            return _error(500, "Something went wrong on Stripe's end.")
        return web.json_response(answer)

    def forget_answers(self) -> None:
        """As Stripe does after a day: only the identifiers of meter events stay."""
        self._answers.clear()

    def _answer(self, path: str, fields: dict[str, str]) -> dict[str, Any]:
        number = next(self._numbers)
        if path == "customers":
            return {"id": f"cus_{number}", "object": "customer", "email": fields["email"]}
        if path == "billing/meter_events":
            self.usage[fields["identifier"]] = int(fields["payload[value]"])
            return {"object": "billing.meter_event", "identifier": fields["identifier"]}
        kind = "checkout.session" if path == "checkout/sessions" else "billing_portal.session"
        return {"id": f"s_{number}", "object": kind, "url": f"https://stripe.example/{number}"}


@asynccontextmanager
async def stripe_server() -> AsyncIterator[StripeServer]:
    """The server on a free port."""
    server = StripeServer()
    app = web.Application()
    app.router.add_post("/v1/{path:.+}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    with kept_port() as port:
        server.url = f"http://127.0.0.1:{port}"
        await web.TCPSite(runner, "127.0.0.1", port, reuse_port=True).start()
        try:
            yield server
        finally:
            await runner.cleanup()


def subscription(customer: str, **changes: Any) -> dict[str, Any]:
    """A subscription, as far as its fields matter."""
    price = {"id": "price_pro", "object": "price", "type": "recurring"}
    items = [{"id": "si_1", "object": "subscription_item", "price": price, "quantity": 1}]
    return {
        "id": "sub_1",
        "object": "subscription",
        "customer": customer,
        "status": "active",
        "items": {"object": "list", "data": items, "has_more": False},
        **changes,
    }


def event(name: str, created: int, resource: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An event about a subscription."""
    return {
        "id": f"evt_{name}_{created}",
        "object": "event",
        "api_version": "2025-03-31.basil",
        "created": created,
        "data": {"object": resource},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": f"customer.subscription.{name}",
        **changes,
    }


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error"}
    return web.json_response({"error": error}, status=status)
