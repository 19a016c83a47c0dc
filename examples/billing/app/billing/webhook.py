"""Stripe's webhook: the signature, and what the events of a subscription mean for a plan.

Events come repeatedly and in any order. Each is applied once, and one that is older than the state
that is known changes nothing. https://docs.stripe.com/webhooks#verify-manually
"""

import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.billing.tables import billing_customers, billing_events
from gateway.accounts.audit import Actor, record
from gateway.db.engine import Database
from gateway.db.tables import users, utc_now
from gateway.errors import InvalidRequest

TOLERANCE_SECONDS = 300
# Stripe repeats an event for three days; its signature is new each time.
REMEMBERED = dt.timedelta(days=30)
ACTOR = Actor(operator="stripe")
PREFIX = "customer.subscription."
PAID = {"active", "trialing", "past_due"}
# From these a subscription does not come back.
OVER = {"canceled", "incomplete_expired"}


class EventData(BaseModel):
    object: dict[str, Any]


class Event(BaseModel):
    """An event; `created` is in seconds since 1970."""

    id: str
    type: str
    created: int
    data: EventData


def read_event(payload: bytes, header: str, secret: str, now: float) -> Event:
    """The event of a request that Stripe signed within the tolerance. Raises `InvalidRequest`."""
    fields = [part.partition("=") for part in header.split(",")]
    times = [value for name, _, value in fields if name == "t"]
    signatures = [value for name, _, value in fields if name == "v1"]
    if not secret or len(times) != 1 or not (times[0].isascii() and times[0].isdigit()):
        raise InvalidRequest("The signature is missing.")
    expected = sign(payload, times[0], secret)
    # Stripe signs with the old and the new secret while the secret is replaced.
    matches = [hmac.compare_digest(expected, each.encode()) for each in signatures]
    if True not in matches:
        raise InvalidRequest("The signature is wrong.")
    if abs(now - int(times[0])) > TOLERANCE_SECONDS:
        raise InvalidRequest("The signature is too old.")
    try:
        return Event.model_validate_json(payload)
    except ValidationError as error:
        raise InvalidRequest("This is not an event.") from error


def sign(payload: bytes, time: str, secret: str) -> bytes:
    """The signature of a payload, in hexadecimal."""
    signed = b".".join([time.encode(), payload])
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode()


async def apply(database: Database, event: Event, plans: Mapping[str, str], default: str) -> bool:
    """Apply an event: the user gets the plan of the price, or `default` without a subscription.

    Returns whether it was new. Raises `DatabaseUnavailable`: Stripe sends the event again then.
    """
    try:
        await database.transact(lambda connection: _apply(connection, event, plans, default))
    except IntegrityError:  # It was applied already.
        return False
    return True


def _apply(connection: Connection, event: Event, plans: Mapping[str, str], default: str) -> None:
    now = utc_now()
    old = billing_events.c.received_at < now - REMEMBERED
    connection.execute(delete(billing_events).where(old))
    connection.execute(insert(billing_events).values(id=event.id, received_at=now))
    if not event.type.startswith(PREFIX):
        return
    subscription = event.data.object
    own = billing_customers.c.customer_id == str(subscription.get("customer"))
    known = connection.execute(select(billing_customers).where(own).with_for_update()).one_or_none()
    if known is None or _is_outdated(event, known):
        return
    status = str(subscription.get("status"))
    state = {"subscription_id": subscription.get("id"), "status": status}
    state["changed_at"] = event.created
    connection.execute(update(billing_customers).where(own).values(state))
    plan = plans.get(_price(subscription)) if status in PAID else default
    if plan is not None:  # A price that STRIPE_PRICES does not name changes no plan.
        _set_plan(connection, known.user_id, plan)


def _is_outdated(event: Event, known: Row[Any]) -> bool:
    """Whether a newer state is known. A subscription that is over does not come back, and the end
    of an earlier subscription does not end the present one.
    """
    subscription = event.data.object
    is_same: bool = subscription.get("id") == known.subscription_id
    is_older: bool = event.created < known.changed_at
    if known.subscription_id is not None and not is_same and subscription.get("status") in OVER:
        return known.status not in OVER or is_older
    if is_same and known.status in OVER:
        return True
    if event.created == known.changed_at:
        return is_same and _comes_first(event, known)
    return is_older


def _comes_first(event: Event, known: Row[Any]) -> bool:
    """Whether an event of the same second is older: a subscription begins, is paid, then ends."""
    status = event.data.object.get("status")
    is_less = status not in PAID and status not in OVER and known.status in PAID
    return event.type == f"{PREFIX}created" or is_less


def _price(subscription: Mapping[str, Any]) -> str:
    """The price of the first item."""
    try:
        return str(subscription["items"]["data"][0]["price"]["id"])
    except (KeyError, IndexError, TypeError):
        return ""


def _set_plan(connection: Connection, user_id: str, plan: str) -> None:
    """Change the plan, which acts at the next call on every replica, and record it."""
    own = users.c.id == user_id
    before = connection.execute(select(users.c.plan).where(own).with_for_update()).scalar_one()
    if before != plan:
        connection.execute(update(users).where(own).values(plan=plan))
        record(connection, ACTOR, "change", f"user:{user_id}", {"plan": before}, {"plan": plan})
