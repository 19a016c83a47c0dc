"""The tables of billing. They hold ids of Stripe and no payment data."""

from sqlalchemy import BigInteger, Column, ForeignKey, String, Table

from gateway.db.tables import UtcDateTime, metadata

# A user's customer at Stripe, and the newest that is known of their subscription.
billing_customers = Table(
    "billing_customers",
    metadata,
    Column("user_id", String(40), ForeignKey("users.id"), primary_key=True),
    Column("customer_id", String(255), nullable=False, unique=True),
    Column("subscription_id", String(255)),
    Column("status", String(40)),
    # The time of the newest event that counts, in Stripe's seconds since 1970.
    Column("changed_at", BigInteger, nullable=False, default=0),
)
# The events that were applied, for as long as Stripe may send them again.
billing_events = Table(
    "billing_events",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("received_at", UtcDateTime, nullable=False, index=True),
)
# The days whose usage Stripe's meter has.
billing_reports = Table(
    "billing_reports",
    metadata,
    Column("user_id", String(40), ForeignKey("users.id"), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("reported_at", UtcDateTime, nullable=False),
)
