"""`python -m app reconcile`: does OpenAI bill what the ledger says?"""

import datetime as dt
from collections.abc import AsyncIterator
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Literal

import aiohttp
import typer
from pydantic import BaseModel, ValidationError
from sqlalchemy import func, select

from app.cli.base import Json, Session, command, fail, show
from gateway.alerts.alerts import raise_alert
from gateway.db.engine import Database
from gateway.db.tables import attempts, utc_now
from gateway.errors import StartError
from gateway.ids import earliest_id
from gateway.ledger.usage_report import MAX_SECONDS
from gateway.prices import NANO
from gateway.providers.http import open_session

app = typer.Typer()
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


@command(app)
async def reconcile(
    session: Session,
    day: Annotated[
        dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Yesterday by default; in UTC.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a day of the ledger with what OpenAI billed; alert the owner of a difference."""
    chosen = day.date() if day else utc_now().date() - DAY
    ledger, billed = await _spent(session.database, chosen), await _billed(session, chosen)
    found = Reconciliation(
        day=chosen,
        ledger_nano_usd=ledger,
        billed_nano_usd=billed,
        difference_nano_usd=billed - ledger,
    )
    sums = f"{ledger / NANO:.9f} USD in the ledger, {billed / NANO:.9f} USD billed"
    text = f"{chosen}: {sums}, a difference of {(billed - ledger) / NANO:.9f} USD"
    details = found.model_dump(mode="json")
    show(details, as_json, text)
    if not found.agrees:
        await raise_alert(session.database, f"reconcile:openai:{chosen}", "reconcile", details)
        fail("OpenAI billed another sum: see docs/runbook.md, and the prices in models.toml.")


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


async def _billed(session: Session, day: dt.date) -> int:
    """What OpenAI billed the organisation for `day`, in nano-dollars."""
    usd = Decimal(0)
    async for page in _pages(session, day):
        usd += sum((c.amount.value for bucket in page.data for c in bucket.results), Decimal(0))
    return int((usd * NANO).quantize(Decimal(1), ROUND_HALF_UP))


async def _pages(session: Session, day: dt.date) -> AsyncIterator[CostsPage]:
    key = session.settings.openai_admin_key.get_secret_value()
    if not key:
        raise StartError("OPENAI_ADMIN_KEY is not set; an owner of the organisation makes one.")
    url = f"{session.settings.openai_base_url.rstrip('/')}/organization/costs"
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
