"""The customers of Stripe: one for each user who asks for a page of Stripe."""

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from app.billing.stripe import Stripe
from app.billing.tables import billing_customers
from gateway.accounts.users import Users
from gateway.db.engine import Database


async def customer_of(database: Database, stripe: Stripe, user_id: str) -> str:
    """The id of a user's customer, who is created at the first call.

    Raises `ProviderError` and `DatabaseUnavailable`.
    """
    query = select(billing_customers.c.customer_id).where(billing_customers.c.user_id == user_id)
    if known := await database.fetch_one(query):
        return str(known.customer_id)
    user = await Users(database).get(user_id)
    made = await stripe.create_customer(user_id, user.email)
    row = insert(billing_customers).values(user_id=user_id, customer_id=made)
    try:
        await database.transact(lambda connection: connection.execute(row))
    except IntegrityError:
        """A simultaneous call wrote it: Stripe gave both calls the same customer."""
    return made
