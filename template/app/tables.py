"""Your tables, in the template's `metadata`: docs/add-a-table.md adds one."""

from gateway.db.tables import metadata

__all__ = ["metadata"]
