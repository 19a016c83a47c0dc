"""Reservations, settlements and budgets."""
