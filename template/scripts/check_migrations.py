"""Refuse migrations that the version before them could not live with.

While a deployment runs, old code meets new tables, and after a rollback for longer. So a change is
made in two releases: one that only adds (expand), and, once no version in use needs it any more,
one that takes away (contract). A migration of the second kind says so, and why it is safe:

    CONTRACT = "users.nickname: v1.4.0 was the last version that read it"

Only `upgrade()` and what it calls is looked at. Each of the two lines of migrations, the template's
and the owner's, has to be one. Exit codes: 0, all may run; 1, one may not.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator

from gateway.db import lines
from scripts.workflow import error

# What takes something away, or refuses what old code writes.
TAKES_AWAY = {"drop_table", "drop_column", "rename_table"}
ALTERATIONS = {"type_": "changes a type", "new_column_name": "renames a column"}
TIGHTENS = {"create_unique_constraint", "create_check_constraint", "create_foreign_key"}
DESTRUCTIVE_SQL = re.compile(r"\b(drop|alter|rename|truncate|delete)\b", re.IGNORECASE)


def problems(source: str) -> list[str]:
    """What is wrong with a migration: a sentence each, which says what to do."""
    tree = ast.parse(source)
    steps = [step for body in _reached(tree) for step in _destructive(body)]
    reason = _contract(tree)
    if reason is None:
        return [
            f"{step}. Old code could not live with it: see docs/add-a-table.md" for step in steps
        ]
    if not reason.strip():
        return ["CONTRACT has to say why no version in use needs it any more"]
    return [] if steps else ["CONTRACT is set, but nothing is taken away: remove the line"]


def _contract(tree: ast.Module) -> str | None:
    """Why it may take something away; None where it does not say so."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and _names(node.targets) == ["CONTRACT"]:
            return _text(node.value) or ""
    return None


def _reached(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """`upgrade()` and the functions of the module that it calls, directly or not."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    waiting, seen = ["upgrade"], set[str]()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in seen:
            seen.add(name)
            yield functions[name]
            waiting += _names(ast.walk(functions[name]))


def _destructive(function: ast.FunctionDef) -> Iterator[str]:
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    made = {_text(call.args[0]) for call in calls if _name(call.func) == "create_table"}
    for call in calls:
        for what in _effects(call, made):
            yield f"line {call.lineno}: {_name(call.func)} {what}"


def _effects(call: ast.Call, made: set[str | None]) -> Iterator[str]:
    """What a call does that old code could not live with. `made` are tables that are new too."""
    name = _name(call.func)
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    if name in TAKES_AWAY:
        yield "takes away what it may use"
    elif name == "alter_column":
        yield from (what for argument, what in ALTERATIONS.items() if argument in given)
        if "nullable" in given and not _is(given["nullable"], True):
            yield "refuses rows that it writes without a value"
    elif name == "add_column" and any(_is_required(argument) for argument in call.args):
        yield "adds a column that needs a value and has no server_default"
    elif _tightens(name, given) and not made & _texts(call):
        yield "refuses rows that it may write"
    elif name in ("execute", "exec_driver_sql"):
        yield from _sql(call)


def _tightens(name: str, given: dict[str, ast.expr]) -> bool:
    unique = name == "create_index" and "unique" in given and not _is(given["unique"], False)
    return unique or name in TIGHTENS


def _is_required(argument: ast.expr) -> bool:
    """Whether a column is one that rows of old code could not fill."""
    if not isinstance(argument, ast.Call):
        return False
    given = {keyword.arg: keyword.value for keyword in argument.keywords}
    required = "nullable" in given and not _is(given["nullable"], True)
    return required and "server_default" not in given


def _sql(call: ast.Call) -> Iterator[str]:
    texts = _texts(call)
    if not texts:
        yield "runs SQL that cannot be read here: write it out"
    for text in texts:
        if found := DESTRUCTIVE_SQL.search(text):
            yield f"runs SQL with {found[0].upper()}"


def _texts(call: ast.Call) -> set[str]:
    nodes = (node for argument in call.args for node in ast.walk(argument))
    return {text for node in nodes if (text := _text(node)) is not None}


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _names(nodes: Iterable[ast.AST]) -> list[str]:
    return [node.id for node in nodes if isinstance(node, ast.Name)]


def main() -> int:
    failed = False
    for revision in lines.known().values():
        for problem in problems(revision.path.read_text(encoding="utf-8")):
            error(f"{revision.path.relative_to(lines.PROJECT)}, {problem}.")
            failed = True
    for fault in lines.faults(lines.PROJECT):
        error(fault)
        failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
