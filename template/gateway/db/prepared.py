"""Compiled statements, which a driver executes without SQLAlchemy.

Compiling a statement takes longer than its execution, so it is done once.
"""

from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, Executable

# The prefix of the parameters for a query's rows: SQLAlchemy reserves the columns' own names.
GIVEN = "given_"


class Prepared:
    """The text of a statement, and the form of the rows that it returns.

    `fixed` are the constant parameters. `order` lists the names of all parameters in the order of
    the text's placeholders, for a driver without named ones.
    """

    def __init__(self, statement: Executable, engine: Engine) -> None:
        clause: Any = statement
        dialect = engine.dialect
        schemas = engine.get_execution_options().get("schema_translate_map")
        compiled = clause.compile(
            dialect=dialect,
            schema_translate_map=schemas,
            render_schema_translate=schemas is not None,
        )
        self.text = str(compiled)
        self.fixed: Mapping[str, Any] = {
            name: value for name, value in compiled.params.items() if not name.startswith(GIVEN)
        }
        self.order = [name.removeprefix(GIVEN) for name in compiled.positiontup or ()]
        columns = list(getattr(statement, "selected_columns", ()))
        form: Any = namedtuple
        self._row = form("Row", [column.key for column in columns], rename=True)
        processors = [
            column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns
        ]
        self._processors = [(place, of) for place, of in enumerate(processors) if of]

    def rows(self, found: Iterable[Sequence[Any]]) -> list[Any]:
        """The driver's rows as named tuples, with values of Python's types."""
        return [self._row._make(self._converted(values)) for values in found]

    def _converted(self, values: Sequence[Any]) -> Sequence[Any]:
        if not self._processors:
            return values
        converted = list(values)
        for place, convert in self._processors:
            converted[place] = convert(converted[place])
        return converted
