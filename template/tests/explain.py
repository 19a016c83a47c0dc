"""How the database would execute a query."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Select, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement


class Explain(Executable, ClauseElement):
    """The plan of a query, with its parameters."""

    inherit_cache = False

    def __init__(self, query: Select[Any]) -> None:
        self.query = query


@compiles(Explain)
def _compile(element: Explain, compiler: Any, **options: Any) -> str:
    how = {"sqlite": "QUERY PLAN"}.get(compiler.dialect.name, "")
    return f"EXPLAIN {how} {compiler.process(element.query, **options)}"


def explain(connection: Connection, query: Select[Any]) -> Sequence[str]:
    """How the database would read: of an empty table, a server prefers a scan."""
    if connection.dialect.name == "postgresql":
        for way in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
            connection.execute(text(f"SET LOCAL {way} = off"))
    return [str(row[-1]) for row in connection.execute(Explain(query))]
