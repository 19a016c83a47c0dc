"""Statements as a driver takes them, past SQLAlchemy.

To compile a statement takes longer than a database needs for it, so that is done once.
"""

from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, Executable


class Prepared:
    """The text of a statement, its fixed parameters, and the form of the rows that it returns.

    `order` names the parameters as they stand in a text that has no names for them.
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
        self.parameters: Mapping[str, Any] = compiled.params
        self.order: Sequence[str] = compiled.positiontup or ()
        columns = list(getattr(statement, "selected_columns", ()))
        form: Any = namedtuple
        self._row = form("Row", [column.key for column in columns], rename=True)
        processors = [
            column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns
        ]
        self._processors = [(place, of) for place, of in enumerate(processors) if of]

    def rows(self, found: Iterable[Sequence[Any]]) -> list[Any]:
        """What the driver `found`, as tuples with columns as attributes, of Python's types."""
        return [self._row._make(self._converted(values)) for values in found]

    def _converted(self, values: Sequence[Any]) -> Sequence[Any]:
        if not self._processors:
            return values
        converted = list(values)
        for place, convert in self._processors:
            converted[place] = convert(converted[place])
        return converted
