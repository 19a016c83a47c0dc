"""Billing by Stripe: pages, plans by the webhook, usage to the meter."""

import datetime as dt
import itertools
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete

from app.billing.meter import report_usage
from app.billing.stripe import open_stripe
from app.billing.tables import billing_reports
from app.billing.webhook import TOLERANCE_SECONDS, sign
from gateway.db.tables import utc_now
from gateway.errors import ProviderError
from tests.factories import account
from tests.fixtures.service import Run, Start
from tests.stripe_server import KEY, StripeServer, event, stripe_server, subscription
from tests.support import Service, User, error_of

SECRET = "whsec_ForTests0123456789"
PAGE = "https://app.example.com/account"
WEBHOOK = "/billing/webhook"
METER = "spent_micro_usd"


@pytest.fixture
async def stripe() -> AsyncIterator[StripeServer]:
    async with stripe_server() as server:
        yield server


@pytest.fixture
async def service(start: Start, stripe: StripeServer) -> Service:
    return await start(
        stripe_secret_key=KEY,
        stripe_webhook_secret=SECRET,
        stripe_base_url=stripe.url,
        stripe_return_url=PAGE,
        stripe_prices={"price_pro": "many", "price_max": "brisk"},
        stripe_meter=METER,
    )


@pytest.fixture
async def user(service: Service) -> User:
    return await service.create_user("few")


async def _send(
    service: Service, given: dict[str, Any], age: float = 0, secret: str = SECRET
) -> httpx2.Response:
    payload, at = json.dumps(given).encode(), str(int(time.time() - age))
    header = f"t={at},v1={sign(payload, at, secret).decode()},v0=old"
    headers = {"Stripe-Signature": header}
    return await service.client().post(WEBHOOK, content=payload, headers=headers)


async def _plan(service: Service, user: User) -> str:
    plan: str = (await service.client(user).get("/v1/me")).json()["plan"]
    return plan


@pytest.fixture
async def customer(service: Service, client: httpx2.AsyncClient) -> str:
    """The id of the user's customer at Stripe."""
    answer = await client.post("/v1/billing/checkout", json={"plan": "many"})
    assert answer.json()["url"].startswith("https://stripe.example/")
    return "cus_1"


async def test_pages_of_stripe_are_for_one_customer(
    stripe: StripeServer, client: httpx2.AsyncClient, user: User, customer: str
) -> None:
    await client.post("/v1/billing/portal")
    (_, made), (_, checkout), (_, portal) = stripe.requests
    assert made == {"email": user.email, "metadata[user_id]": user.id}
    assert (checkout["customer"], portal["customer"]) == (customer, customer)
    assert (checkout["mode"], checkout["line_items[0][price]"]) == ("subscription", "price_pro")
    assert {checkout["success_url"], checkout["cancel_url"], portal["return_url"]} == {PAGE}


async def test_a_plan_that_is_not_sold(stripe: StripeServer, client: httpx2.AsyncClient) -> None:
    answer = await client.post("/v1/billing/checkout", json={"plan": "few"})
    assert error_of(answer) == (422, "invalid_request", "plan")
    assert stripe.requests == []


async def test_without_a_key_nothing_is_asked(start: Start, stripe: StripeServer) -> None:
    service = await start(stripe_base_url=stripe.url)
    client = service.client(await service.create_user())
    assert error_of(await client.post("/v1/billing/portal")) == (409, "conflict", None)
    assert stripe.requests == []


async def test_stripe_fails(stripe: StripeServer, client: httpx2.AsyncClient) -> None:
    """A repeated request gets the customer that the first one made."""
    stripe.broken = 1
    assert error_of(await client.post("/v1/billing/portal"))[:2] == (502, "provider_error")
    assert (await client.post("/v1/billing/portal")).status_code == 200
    assert stripe.requests[-1][1]["customer"] == "cus_1"


async def test_a_subscription_sets_the_plan_and_its_end_takes_it(
    service: Service, user: User, customer: str
) -> None:
    plans = []
    for name, at, status in (
        ("created", 1, "incomplete"),
        ("updated", 2, "active"),
        ("updated", 3, "past_due"),
        ("updated", 4, "unpaid"),
        ("updated", 5, "active"),
        ("deleted", 6, "canceled"),
    ):
        given = event(name, at, subscription(customer, status=status))
        assert (await _send(service, given)).status_code == 204
        plans.append(await _plan(service, user))
    assert plans == ["free", "many", "many", "free", "many", "free"]
    changes = [row for row in await service.changes() if row.target == f"user:{user.id}"]
    assert {row.operator for row in changes} == {"stripe"}


SAME_SECOND = [("created", 1, "incomplete"), ("updated", 1, "active"), ("updated", 2, "canceled")]
LIFE = [("created", 1, "active"), ("updated", 2, "past_due"), ("deleted", 3, "canceled")]
START = [("created", 5, "incomplete"), ("updated", 5, "active")]


@pytest.mark.parametrize(
    ("order", "expected"),
    [(order, "free") for life in (LIFE, SAME_SECOND) for order in itertools.permutations(life)]
    + [(order, "many") for order in itertools.permutations(START)],
)
async def test_the_order_of_events_does_not_matter(
    service: Service,
    user: User,
    customer: str,
    order: tuple[tuple[str, int, str], ...],
    expected: str,
) -> None:
    for name, at, status in order:
        await _send(service, event(name, at, subscription(customer, status=status)))
    assert await _plan(service, user) == expected


async def test_the_end_of_an_earlier_subscription_ends_no_later_one(
    service: Service, user: User, customer: str
) -> None:
    await _send(service, event("created", 1, subscription(customer, id="sub_a")))
    await _send(service, event("created", 2, subscription(customer, id="sub_b")))
    ended = subscription(customer, id="sub_a", status="canceled")
    await _send(service, event("deleted", 3, ended))
    assert await _plan(service, user) == "many"


async def test_an_event_is_applied_once(service: Service, user: User, customer: str) -> None:
    given = event("created", 5, subscription(customer))
    await _send(service, given)
    await _send(service, event("updated", 6, subscription(customer, status="unpaid")))
    again = given | {"created": 9}  # A new signature, and the id that is known.
    assert (await _send(service, again)).status_code == 204
    assert await _plan(service, user) == "free"


@pytest.mark.parametrize(
    ("age", "secret", "change"),
    [
        (0, "whsec_another", b""),
        (TOLERANCE_SECONDS + 5, SECRET, b""),
        (-TOLERANCE_SECONDS - 5, SECRET, b""),
        (0, SECRET, b" "),
    ],
    ids=["wrong", "old", "early", "changed"],
)
async def test_only_stripe_sends_events(
    service: Service, user: User, customer: str, age: float, secret: str, change: bytes
) -> None:
    payload = json.dumps(event("created", 1, subscription(customer))).encode()
    at = str(int(time.time() - age))
    header = f"t={at},v1={sign(payload, at, secret).decode()}"
    headers = {"Stripe-Signature": header}
    answer = await service.client().post(WEBHOOK, content=payload + change, headers=headers)
    assert error_of(answer)[:2] == (422, "invalid_request")
    assert await _plan(service, user) == "few"


@pytest.mark.parametrize("header", ["", "t=1", "v1=x", "t=a,v1=b", "t=1,t=2,v1=x", "t=²,v1=ä"])
async def test_a_broken_signature(service: Service, header: str) -> None:
    headers = {b"Stripe-Signature": header.encode()}
    answer = await service.client().post(WEBHOOK, content=b"{}", headers=headers)
    assert error_of(answer)[:2] == (422, "invalid_request")


async def test_other_events_and_strangers_change_nothing(
    service: Service, user: User, customer: str
) -> None:
    for given in (
        event("created", 1, subscription("cus_stranger")),
        event("created", 2, subscription(customer), type="invoice.paid"),
        event("created", 3, subscription(customer, items={"data": []})),
        event("created", 4, {}),
    ):
        assert (await _send(service, given)).status_code == 204
    assert await _plan(service, user) == "few"
    assert (await _send(service, {"id": "evt_1"})).status_code == 422


async def test_each_day_is_reported_once(
    service: Service, stripe: StripeServer, user: User, customer: str
) -> None:
    today = utc_now().date()
    days = [(today - dt.timedelta(days=ago)).isoformat() for ago in (0, 1, 2, 3, 40)]
    amounts = [5_000, 7_999, 9_000, 1_000, 3_000]
    rows = [account(f"user:{user.id}", *pair) for pair in zip(days, amounts, strict=True)]
    rows.append(account(f"user:{user.id}", days[0][:7], 99_000))
    rows.append(account("service", days[1], 99_000))
    other = await service.create_user()
    rows.append(account(f"user:{other.id}", days[1], 99_000))
    await service.write(*rows)
    expected = {f"{user.id}-{day}": value for day, value in zip(days[1:4], (7, 9, 1), strict=True)}
    assert (await _report(service), stripe.usage) == (3, expected)
    assert await _report(service) == 0
    sent = [fields for path, fields in stripe.requests if path == "billing/meter_events"]
    assert {(each["event_name"], each["payload[stripe_customer_id]"]) for each in sent} == {
        (METER, customer)
    }
    # The note of a report is lost: Stripe counts the identifier once, today and after a day.
    await service.write(delete(billing_reports))
    assert (await _report(service), stripe.usage) == (3, expected)
    await service.write(delete(billing_reports))
    stripe.forget_answers()
    assert (await _report(service), stripe.usage) == (3, expected)


async def test_a_day_on_which_a_call_still_runs_waits(
    service: Service, stripe: StripeServer, user: User, customer: str
) -> None:
    yesterday = (utc_now().date() - dt.timedelta(days=1)).isoformat()
    await service.write(account(f"user:{user.id}", yesterday, 5_000, reserved=1))
    assert (await _report(service), stripe.usage) == (0, {})


async def test_a_report_that_stripe_refuses_is_tried_again(
    service: Service, stripe: StripeServer, user: User, customer: str
) -> None:
    yesterday = (utc_now().date() - dt.timedelta(days=1)).isoformat()
    await service.write(account(f"user:{user.id}", yesterday, 5_000))
    stripe.broken = 1
    with pytest.raises(ProviderError):
        await _report(service)
    assert await _report(service) == 1
    assert stripe.usage == {f"{user.id}-{yesterday}": 5}


async def _report(service: Service) -> int:
    async with open_stripe(service.settings) as stripe:
        return await report_usage(service.database, stripe, METER)


async def test_a_deleted_user_has_no_customer(
    service: Service, user: User, customer: str, run: Run
) -> None:
    assert (await run("users", "delete", "--email", user.email, "--yes")).exit_code == 0
    answer = await _send(service, event("created", 1, subscription(customer)))
    assert answer.status_code == 204
