"""What the tables hold of one user, those of the application included.

The tables of `metadata` say it themselves. A row with the user's id in `user_id`, or with their
e-mail address in `email`, is theirs; so is a row that refers to such a row. A new table takes part
in exports and deletions by that.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    CompoundSelect,
    LargeBinary,
    Row,
    Select,
    Table,
    and_,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)

from gateway.db.engine import Database
from gateway.db.pagination import size_of
from gateway.db.tables import accounts, audit, metadata, users

# Hashes of credentials and encrypted texts stay where they are.
SECRET = re.compile("hash|secret|password|token(?!s)")
ROWS_AT_ONCE = 500
# In all documents of a batch, at least one row.
BATCH_CHARACTERS = 1024 * 1024
# A query for a batch may take longer than those of requests.
MAX_SECONDS = 30.0


class Holding(NamedTuple):
    """The rows of one user in a table."""

    table: Table
    mine: ColumnElement[bool]

    @property
    def key(self) -> list[Column[Any]]:
        """The columns by which the rows are read in order."""
        return list(self.table.primary_key)

    @property
    def shown(self) -> list[Column[Any]]:
        """The columns that are the user's to see."""
        return [
            column
            for column in self.table.c
            if not (isinstance(column.type, LargeBinary) or SECRET.search(column.name))
        ]

    async def size(self, database: Database) -> int:
        """The number of rows. Raises `DatabaseUnavailable`."""
        query = select(func.count()).select_from(self.table).where(self.mine)
        return int((await database.fetch(query, seconds=MAX_SECONDS))[0][0])

    def after(self, last: Sequence[Any]) -> ColumnElement[bool]:
        """The rows behind the key `last`; all rows if it is empty."""
        if not last:
            return self.mine
        behind = self.key[0] > last[0] if len(self.key) == 1 else tuple_(*self.key) > tuple(last)
        return and_(self.mine, behind)

    def among(self, keys: Sequence[Sequence[Any]]) -> ColumnElement[bool]:
        """The rows with these keys."""
        if len(self.key) == 1:
            return self.key[0].in_([key[0] for key in keys])
        return tuple_(*self.key).in_([tuple(key) for key in keys])

    def keys(self, last: Sequence[Any], most: int) -> Select[Any]:
        """The next keys behind `last`, in order, with the sizes of their rows' documents."""
        query = select(*self.key, size_of(self.table)).where(self.after(last))
        return query.order_by(*self.key).limit(most)


def holdings_of(user: Row[Any]) -> Iterator[Holding]:
    """All that the tables hold of a user: the user first, each table after those it refers to."""
    yield Holding(users, users.c.id == user.id)
    held: dict[Table, ColumnElement[bool]] = {}
    for table in metadata.sorted_tables:
        if table is users:
            continue
        for mine in [*_conditions(table, user)] or _conditions_below(table, held):
            held[table] = mine
            yield Holding(table, mine)


def _conditions(table: Table, user: Row[Any]) -> Iterator[ColumnElement[bool]]:
    """The conditions that a user's rows meet. No row meets two of them."""
    named, owner = _names(user), (("user_id", user.id), ("email", user.email))
    if table is accounts:
        yield table.c.name.in_(named)
    elif table is audit:
        yield table.c.target.in_(named)
        yield and_(table.c.actor_id == user.id, table.c.target.not_in(named))
    elif mine := [table.c[name] == value for name, value in owner if name in table.c]:
        yield or_(*mine)


def _conditions_below(
    table: Table, held: Mapping[Table, ColumnElement[bool]]
) -> Iterator[ColumnElement[bool]]:
    """The condition of a table without a user of its own: its rows refer to held ones."""
    links = [link for link in table.foreign_keys if link.column.table in held]
    above = ((link, select(link.column).where(held[link.column.table])) for link in links)
    if conditions := [link.parent.in_(query) for link, query in above]:
        yield or_(*conditions)


def _names(user: Row[Any]) -> CompoundSelect[Any]:
    """The user and their API keys, as accounts and the audit name them."""
    own = [select(literal(f"{kind}:{user.id}")) for kind in ("user", "password")]
    keys = metadata.tables.get("api_keys")
    if keys is not None:
        own.append(select(literal("key:") + keys.c.id).where(keys.c.user_id == user.id))
    return union_all(*own)
