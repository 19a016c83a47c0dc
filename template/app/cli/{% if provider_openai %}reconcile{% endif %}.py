"""`python -m app reconcile`."""

import datetime as dt
from typing import Annotated

import typer

from app.cli.base import Json, Session, command, fail, show
from gateway.db.tables import utc_now
from gateway.ledger.reconciliation import DAY, reconcile
from gateway.prices import NANO

app = typer.Typer()


@command(app, "reconcile")
async def compare(
    session: Session,
    day: Annotated[
        dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Yesterday by default; in UTC.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a day of the ledger with what OpenAI billed; alert the owner of a difference."""
    chosen = day.date() if day else utc_now().date() - DAY
    url, key = session.settings.openai_base_url, session.settings.openai_admin_key
    found = await reconcile(session.database, url, key.get_secret_value(), chosen)
    ledger, billed, difference = (
        f"{amount / NANO:.9f} USD"
        for amount in (found.ledger_nano_usd, found.billed_nano_usd, found.difference_nano_usd)
    )
    text = f"{chosen}: {ledger} in the ledger, {billed} billed, a difference of {difference}"
    show(found, as_json, text)
    if not found.agrees:
        fail("OpenAI billed another sum: see docs/runbook.md, and the prices in models.toml.")
