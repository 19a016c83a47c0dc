"""Where in a request an error is, by a path that the request has."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

LONGEST_PATH = 100
Error = TypeVar("Error", bound=Mapping[str, Any])


def place_of(errors: Sequence[Error], body: Any) -> tuple[str, Error]:
    """The path of the error that is deepest in `body`, and that error.

    Where a value has none of several forms, each form has its error; the client meant the one that
    fits furthest.
    """
    paths = [_path(error, body) for error in errors]
    deepest = max(range(len(errors)), key=lambda index: len(paths[index]))
    return ".".join(map(str, paths[deepest]))[:LONGEST_PATH], errors[deepest]


def _path(error: Mapping[str, Any], body: Any) -> list[int | str]:
    """The steps of an error's location that `body` has: pydantic adds the names of forms."""
    steps: list[int | str] = list(error["loc"][1:])
    if error["loc"][0] != "body":
        return steps
    path: list[int | str] = []
    for step in steps:
        if _has(body, step):
            body = body[step]
            path.append(step)
    if error["type"] == "missing" and steps:
        path.append(steps[-1])
    return path


def _has(holder: Any, step: int | str) -> bool:
    if isinstance(step, int):
        return isinstance(holder, list) and step < len(holder)
    return isinstance(holder, dict) and step in holder
