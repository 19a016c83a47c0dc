"""`python -m app.billing`: report the ledger's usage to Stripe's meter. Run it every day."""

import asyncio

from app.billing.meter import report_usage
from app.billing.stripe import open_stripe
from app.cli.base import Session, in_session, show
from gateway.counts import counted


async def report(session: Session) -> None:
    """Report what Stripe does not have yet."""
    async with open_stripe(session.settings) as stripe:
        count = await report_usage(session.database, stripe, session.settings.stripe_meter)
    show({"reported": count}, as_json=False, text=f"{counted(count, 'day')} reported.")


if __name__ == "__main__":
    asyncio.run(in_session(report, {}))
