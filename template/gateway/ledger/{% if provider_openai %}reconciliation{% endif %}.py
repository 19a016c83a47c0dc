"""Does OpenAI bill what the ledger says?"""

import datetime as dt
from collections.abc import AsyncIterator
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

import aiohttp
from pydantic import BaseModel, ValidationError
from sqlalchemy import func, select

from gateway.alerts.alerts import raise_alert
from gateway.db.engine import Database
from gateway.db.tables import attempts
from gateway.errors import StartError
from gateway.ids import earliest_id
from gateway.ledger.usage_report import MAX_SECONDS
from gateway.prices import NANO
from gateway.providers.http import open_session

DAY = dt.timedelta(days=1)
TIMEOUT = aiohttp.ClientTimeout(total=30)
# Less is rounding, or a call at midnight: 1 % of the bill, or a cent.
TOLERATED_PERCENT, TOLERATED_NANO_USD = 1, NANO // 100


class Amount(BaseModel):
    value: Decimal
    currency: Literal["usd"]


class Cost(BaseModel):
    amount: Amount


class Bucket(BaseModel):
    results: list[Cost]


class CostsPage(BaseModel):
    """A page of OpenAI's costs API."""

    data: list[Bucket]
    has_more: bool = False
    next_page: str | None = None


class Reconciliation(BaseModel):
    """A day's sums, ours and theirs."""

    provider: str = "openai"
    day: dt.date
    ledger_nano_usd: int
    billed_nano_usd: int
    difference_nano_usd: int

    @property
    def agrees(self) -> bool:
        tolerated = max(self.billed_nano_usd * TOLERATED_PERCENT, TOLERATED_NANO_USD * 100)
        return abs(self.difference_nano_usd) * 100 <= tolerated


async def reconcile(database: Database, url: str, key: str, day: dt.date) -> Reconciliation:
    """Compare what the ledger settled for a day with what OpenAI billed; alert of a difference.

    `url` is OpenAI's, and `key` an admin key. Raises `StartError` if OpenAI's costs cannot be read.
    """
    ledger, billed = await _spent(database, day), await _billed(url, key, day)
    found = Reconciliation(
        day=day,
        ledger_nano_usd=ledger,
        billed_nano_usd=billed,
        difference_nano_usd=billed - ledger,
    )
    if not found.agrees:
        details = found.model_dump(mode="json")
        await raise_alert(database, f"reconcile:openai:{day}", "reconcile", details)
    return found


async def _spent(database: Database, day: dt.date) -> int:
    """What the ledger settled for the calls of `day`."""
    query = (
        select(func.coalesce(func.sum(attempts.c.cost_nano_usd), 0).label("spent"))
        .where(
            attempts.c.id.between(earliest_id("att", day - DAY), earliest_id("att", day + 2 * DAY))
        )
        .where(attempts.c.provider == "openai", attempts.c.day == day.isoformat())
    )
    (row,) = await database.fetch(query, seconds=MAX_SECONDS)
    return int(row.spent)


async def _billed(url: str, key: str, day: dt.date) -> int:
    """What OpenAI billed the organisation for `day`, in nano-dollars."""
    usd = Decimal(0)
    async for page in _pages(url, key, day):
        usd += sum((c.amount.value for bucket in page.data for c in bucket.results), Decimal(0))
    return int((usd * NANO).quantize(Decimal(1), ROUND_HALF_UP))


async def _pages(url: str, key: str, day: dt.date) -> AsyncIterator[CostsPage]:
    if not key:
        raise StartError("OPENAI_ADMIN_KEY is not set; an owner of the organisation makes one.")
    url = f"{url.rstrip('/')}/organization/costs"
    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    params = {"start_time": str(int(start.timestamp())), "bucket_width": "1d"}
    params["end_time"] = str(int((start + DAY).timestamp()))
    async with open_session() as http:
        page = await _page(http, url, key, params)
        yield page
        while page.has_more and page.next_page:
            page = await _page(http, url, key, {**params, "page": page.next_page})
            yield page


async def _page(
    http: aiohttp.ClientSession, url: str, key: str, params: dict[str, str]
) -> CostsPage:
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with http.get(
            url, params=params, headers=headers, timeout=TIMEOUT, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise StartError(
                    f"OpenAI's costs API answers {response.status}: is OPENAI_ADMIN_KEY an admin "
                    "key, and OPENAI_BASE_URL OpenAI's own?"
                )
            return CostsPage.model_validate_json(await response.read())
    except (aiohttp.ClientError, TimeoutError) as error:
        raise StartError("OpenAI's costs API does not answer; try again later.") from error
    except ValidationError as error:
        raise StartError("OpenAI's costs API answers in a form that is not known here.") from error
