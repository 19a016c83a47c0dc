"""A chat's answer in the shape of OpenAI's chat completions, which is this service's own."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from app.providers.base import BadAnswer, Body, Outcome, Usage

MOST_TOKENS = 2**31 - 1
CHAT_COUNTS = ("prompt_tokens", "completion_tokens")
EMBEDDING_COUNTS = ("prompt_tokens",)
# Where servers tell which tokens of the input were read from a cache, and which written into it:
# OpenAI (chats, then responses), and the names of DeepSeek, Moonshot and LiteLLM.
DETAILS = ("prompt_tokens_details", "input_tokens_details")
CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
WRITTEN = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
# What reading an answer of another form raises.
FORM_ERRORS = (AttributeError, LookupError, TypeError)
FINISHED = {"length": Outcome.TRUNCATED, "content_filter": Outcome.FILTERED}


def usage_of(usage: Any, counted: Sequence[str] = CHAT_COUNTS) -> Usage | None:
    """What the provider counted, if it said all of it. Reasoning is part of the output tokens."""
    try:
        told = Usage(*(int(usage[name]) for name in counted))
    except (KeyError, OverflowError, TypeError, ValueError):
        return None
    if min(told) < 0 or max(told) > MOST_TOKENS:
        return None
    places = [usage, *(usage[name] for name in DETAILS if isinstance(usage.get(name), dict))]
    cached, written = (_part(places, names, told.input_tokens) for names in (CACHED, WRITTEN))
    return told._replace(cached_input_tokens=cached, cache_write_tokens=written)


def _part(places: Sequence[Body], names: Sequence[str], most: int) -> int:
    """A part of the input, by whichever name it has; what is no count is ignored."""
    return min(max(_count(place.get(name)) for place in places for name in names), most)


def _count(value: Any) -> int:
    """A number of tokens; 0 for what is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and value is not True and value > 0 else 0


def outcome_of(output: Body, asked: Mapping[str, Any]) -> Outcome:
    """How a chat ended, by its first choice that is not as `asked`. Raises `ProviderFailure`."""
    try:
        outcomes = [_outcome(choice, asked) for choice in output["choices"]] or [Outcome.EMPTY]
    except FORM_ERRORS as error:
        raise BadAnswer("the answer is no chat completion") from error
    return next((outcome for outcome in outcomes if outcome is not Outcome.OK), Outcome.OK)


def _outcome(choice: Body, asked: Mapping[str, Any]) -> Outcome:
    message = choice.get("message") or {}
    if choice.get("finish_reason") in FINISHED:
        return FINISHED[choice["finish_reason"]]
    if message.get("refusal"):
        return Outcome.REFUSAL
    if message.get("tool_calls"):
        return Outcome.OK
    if not message.get("content"):
        return Outcome.EMPTY
    form = (asked.get("response_format") or {}).get("type", "text")
    return Outcome.OK if form == "text" or _is_json(message["content"]) else Outcome.INVALID_SCHEMA


def _is_json(text: str) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True


class Transcript:
    """Puts the chunks of a stream together, as the answer that would have come in one piece."""

    def __init__(self) -> None:
        self.choices: dict[int, Body] = {}
        self.usage: Usage | None = None
        self._told_apart = False

    def add(self, chunk: Body) -> None:
        """Add a chunk. Raises `ProviderFailure` for what is none."""
        told = chunk.get("usage")
        if told and (usage := usage_of(told)):
            self.usage, self._told_apart = usage, not chunk.get("choices")
        try:
            self._add_choices(chunk)
        except FORM_ERRORS as error:
            raise BadAnswer("the stream has a chunk of no known form") from error

    @property
    def begun(self) -> bool:
        """Whether there is any output."""
        return bool(self.choices)

    @property
    def last_usage(self) -> Usage | None:
        """The usage of a stream that broke off, unless it is only what was used so far, which
        some tell with every chunk.
        """
        finished = all(choice["finish_reason"] for choice in self.choices.values())
        return self.usage if self._told_apart or finished else None

    def _add_choices(self, chunk: Body) -> None:
        for part in chunk.get("choices") or ():
            index = part.get("index", 0)
            choice = self.choices.get(index)
            if choice is None:
                message = {"role": "assistant"}
                choice = {"index": index, "message": message, "finish_reason": None}
                self.choices[index] = choice
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
            _merge(choice["message"], part.get("delta") or {})

    @property
    def output(self) -> Body:
        """The choices in the form of a chat completion."""
        return {"object": "chat.completion", "choices": list(self.choices.values())}


def _merge(message: Body, delta: Body) -> None:
    for name in ("content", "refusal"):
        if delta.get(name):
            message[name] = message.get(name, "") + delta[name]
    for piece in delta.get("tool_calls") or ():
        _merge_call(message.setdefault("tool_calls", []), piece)


def _merge_call(calls: list[Body], piece: Body) -> None:
    """Add a piece of a tool call: its arguments come bit by bit, all else at once."""
    place = piece.get("index", len(calls))
    if place >= len(calls):
        calls.append({"function": {}})
    call = calls[min(place, len(calls) - 1)]
    given = piece.get("function") or {}
    call |= {name: piece[name] for name in piece if name not in {"index", "function"}}
    so_far = call["function"].get("arguments", "")
    call["function"] |= {**given, "arguments": so_far + given.get("arguments", "")}
