"""Billing by Stripe: checkout and portal, the webhook that sets plans, usage to Stripe's meter."""
