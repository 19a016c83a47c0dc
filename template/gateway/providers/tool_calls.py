"""Tool calls, in the formats of several servers."""

from typing import Any

from gateway.json_text import encode
from gateway.providers.base import Body

# The fields that a stream sends in pieces.
GROWING = frozenset({"arguments", "input"})


def mend(message: Any) -> None:
    """Make the tool calls of a message or delta a list, and their arguments text, in place.

    text-generation-inference writes an object for both, on which OpenAI's clients fail.
    """
    if not isinstance(message, dict):
        return
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        calls = message["tool_calls"] = [calls]
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            _mend_arguments(call.get("function"))
    _mend_arguments(message.get("function_call"))


def _mend_arguments(function: Any) -> None:
    if isinstance(function, dict) and isinstance(function.get("arguments"), dict | list):
        function["arguments"] = encode(function["arguments"]).decode()


class ToolCalls:
    """Assembles tool calls from the pieces of a stream."""

    def __init__(self) -> None:
        self._calls: list[Body] = []
        # The latest call of each index.
        self._places: dict[int | str, Body] = {}

    def add(self, pieces: Any) -> None:
        """Add the pieces of a chunk. Skips what is not an object."""
        for piece in pieces if isinstance(pieces, list) else [pieces]:
            if isinstance(piece, dict):
                grow(self._call_of(piece), piece)

    @property
    def output(self) -> list[Body]:
        """The calls so far."""
        return [whole(call) for call in self._calls]

    def _call_of(self, piece: Body) -> Body:
        """The call that `piece` belongs to: the latest of its index, unless its id differs.

        Without an index, a piece with an id or a name begins a call.
        """
        index, call_id = piece.get("index"), piece.get("id")
        if not isinstance(index, int | str):
            index = None
        call = self._last(piece) if index is None else self._places.get(index)
        if call is None or (call_id and call.get("id", call_id) != call_id):
            call = {}
            self._calls.append(call)
        if index is not None:
            self._places[index] = call
        return call

    def _last(self, piece: Body) -> Body | None:
        """The last call, if `piece` continues it."""
        function = piece.get("function")
        has_name = isinstance(function, dict) and bool(function.get("name"))
        begins = has_name and not piece.get("id")
        return self._calls[-1] if self._calls and not begins else None


def grow(call: Body, piece: Body) -> None:
    """Add `piece` to `call`. Texts that are sent in pieces become lists of pieces."""
    for name, value in piece.items():
        if name in GROWING:
            text = encode(value).decode() if isinstance(value, dict | list) else value
            call.setdefault(name, []).append(text if isinstance(text, str) else "")
        elif isinstance(value, dict):
            if not isinstance(call.get(name), dict):
                call[name] = {}
            grow(call[name], value)
        elif value and name != "index":
            call[name] = value


def whole(call: Body) -> Body:
    """`call` with its lists of pieces joined."""
    return {name: _whole(name, value) for name, value in call.items()}


def _whole(name: str, value: Any) -> Any:
    if name in GROWING:
        return "".join(value)
    return whole(value) if isinstance(value, dict) else value
