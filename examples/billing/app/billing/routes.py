"""`/v1/billing/…`: Stripe's pages for the caller; `/billing/webhook`: Stripe's events."""

import time
from typing import Annotated

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel

from app.billing.customers import customer_of
from app.billing.stripe import open_stripe
from app.billing.webhook import apply, read_event
from app.dependencies import ERRORS, CurrentUser, EngineDep, SettingsDep
from gateway.accounts.principals import Scope
from gateway.errors import InvalidRequest
from gateway.http.query import StrictRoute
from gateway.schemas.base import RequestBody

DEFAULT_PLAN = "free"
router = APIRouter(tags=["billing"], responses=ERRORS, route_class=StrictRoute)


class CheckoutRequest(RequestBody):
    plan: str


class StripePage(BaseModel):
    """The address of a page of Stripe, for a browser."""

    url: str


@router.post("/v1/billing/checkout")
async def checkout(
    caller: CurrentUser, body: CheckoutRequest, engine: EngineDep, settings: SettingsDep
) -> StripePage:
    """A page on which the caller subscribes to a plan."""
    caller.require(Scope.ADMIN)
    prices = {plan: price for price, plan in settings.stripe_prices.items()}
    if body.plan not in prices:
        raise InvalidRequest(f"plan: there is {', '.join(prices) or 'none'}.", param="plan")
    async with open_stripe(settings) as stripe:
        customer = await customer_of(engine.database, stripe, caller.user_id)
        url = await stripe.checkout(customer, prices[body.plan], settings.stripe_return_url)
    return StripePage(url=url)


@router.post("/v1/billing/portal")
async def portal(caller: CurrentUser, engine: EngineDep, settings: SettingsDep) -> StripePage:
    """A page on which the caller changes or ends the subscription."""
    caller.require(Scope.ADMIN)
    async with open_stripe(settings) as stripe:
        customer = await customer_of(engine.database, stripe, caller.user_id)
        url = await stripe.portal(customer, settings.stripe_return_url)
    return StripePage(url=url)


@router.post("/billing/webhook", status_code=204)
async def webhook(
    request: Request,
    engine: EngineDep,
    settings: SettingsDep,
    stripe_signature: Annotated[str, Header()] = "",
) -> None:
    """Takes Stripe's events about subscriptions. Their signature is checked."""
    secret = settings.stripe_webhook_secret.get_secret_value()
    event = read_event(await request.body(), stripe_signature, secret, time.time())
    await apply(engine.database, event, settings.stripe_prices, DEFAULT_PLAN)
