"""Reads chat answers in OpenAI's format, which is also the service's own."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from gateway.providers.base import Body, Outcome, Usage
from gateway.providers.tool_calls import ToolCalls, grow, whole

MAX_TOKENS = 2**31 - 1
CHAT_COUNTS = ("prompt_tokens", "completion_tokens")
EMBEDDING_COUNTS = ("prompt_tokens",)
# The fields for input tokens that were read from a cache, and for those written into it: OpenAI's
# (chats, then responses), and those of DeepSeek, Moonshot and LiteLLM.
DETAILS = ("prompt_tokens_details", "input_tokens_details")
CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
WRITTEN = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
# What reading an answer of an unexpected form raises.
FORM_ERRORS = (AttributeError, LookupError, TypeError, ValueError)
FINISHED = {
    "length": Outcome.TRUNCATED,
    "max_tokens": Outcome.TRUNCATED,
    "content_filter": Outcome.FILTERED,
}
# The fields of a message whose text is streamed in pieces.
TEXTS = frozenset({"content", "reasoning", "reasoning_content", "refusal"})
OUTPUTS = TEXTS | {"tool_calls", "function_call"}
BILLED = ("input_tokens", "output_tokens", "cache_write_tokens")


def usage_of(usage: Any, counted: Sequence[str] = CHAT_COUNTS) -> Usage | None:
    """The usage that the provider reported; None if a count is missing or not a token count.

    Output tokens include reasoning. An invalid count of cached tokens is ignored, since the cache
    only lowers the cost. An invalid count of written tokens gives None, since writes cost more
    than plain input.
    """
    if not isinstance(usage, dict):
        return None
    counts = [token_count(usage.get(name)) for name in counted]
    places = [usage, *(usage[name] for name in DETAILS if isinstance(usage.get(name), dict))]
    written = [token_count(value) for value in _reported(places, WRITTEN)]
    if None in counts or None in written:
        return None
    cached = [token_count(value) for value in _reported(places, CACHED)]
    used = Usage(*(count or 0 for count in counts))._replace(
        cached_input_tokens=max((count or 0 for count in cached), default=0),
        cache_write_tokens=max((count or 0 for count in written), default=0),
    )
    total = token_count(usage.get("total_tokens")) if len(counted) > 1 else None
    return _with_the_rest(used, total or 0)


def _with_the_rest(used: Usage, total: int) -> Usage | None:
    """`used` with the tokens that some servers bill and leave out; None if that is no count.

    Proxies of Anthropic leave the cached and written tokens out of the input; xAI and Gemini count
    reasoning in the `total` alone.
    """
    parts = used.cached_input_tokens + used.cache_write_tokens
    read = used.input_tokens + (parts if parts > used.input_tokens else 0)
    wrote = max(used.output_tokens, total - read)
    if token_count(read) is None:
        return None
    return used._replace(input_tokens=read, output_tokens=wrote)


def _reported(places: Sequence[Body], names: Sequence[str]) -> list[Any]:
    """The values that `places` have under any of the `names`."""
    found = (place.get(name) for place in places for name in names)
    return [value for value in found if value is not None]


def token_count(value: Any) -> int | None:
    """A count of tokens, or of other pieces; None for another value, such as `true` or a text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count and 0 <= value <= MAX_TOKENS else None


def choices_of(document: Any) -> list[Body]:
    """The well-formed choices of an answer or a chunk."""
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list):
        return []
    return [choice for choice in choices if isinstance(choice, dict)]


def index_of(choice: Body, place: int) -> int | str:
    """The index of a choice; its `place` in the list where the server sends no index."""
    index = choice.get("index")
    return index if isinstance(index, int | str) else place


def text_of(content: Any) -> str:
    """The text of a message's content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(text_of, content))
    return text_of(content.get("text")) if isinstance(content, dict) else ""


def outcome_of(output: Any, asked: Mapping[str, Any]) -> Outcome:
    """The outcome of a chat: that of the first choice which is not OK, given what was `asked`."""
    outcomes = [_outcome(choice, asked) for choice in choices_of(output)] or [Outcome.EMPTY]
    return next((outcome for outcome in outcomes if outcome is not Outcome.OK), Outcome.OK)


def _outcome(choice: Body, asked: Mapping[str, Any]) -> Outcome:
    reported, message = choice.get("finish_reason"), choice.get("message")
    reason = reported if isinstance(reported, str) else ""
    if reason in FINISHED:
        return FINISHED[reason]
    message = message if isinstance(message, dict) else {}
    if message.get("refusal"):
        return Outcome.REFUSAL
    if message.get("tool_calls") or message.get("function_call"):
        return Outcome.OK
    if not message.get("content"):
        return Outcome.EMPTY
    form = (asked.get("response_format") or {}).get("type", "text")
    is_as_asked = form == "text" or is_json(text_of(message["content"]))
    return Outcome.OK if is_as_asked else Outcome.INVALID_SCHEMA


def is_json(text: str) -> bool:
    """Whether a text is JSON."""
    try:
        from_json(text)
    except ValueError:
        return False
    return True


class UsageCounter:
    """Reads the usage from the chunks of a stream.

    `usage` is the last one: None if it is invalid, and after output that it does not count.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._most = Usage()

    def add(self, chunk: Mapping[str, Any]) -> bool:
        """Add a chunk, and return whether it reports usage."""
        reported = chunk.get("usage")
        if isinstance(reported, dict) and not reported.keys().isdisjoint(CHAT_COUNTS):
            self.usage = self._at_least(usage_of(reported))
            return True
        return False

    def drop_before(self, chunk: Mapping[str, Any]) -> None:
        """Drop the usage if `chunk`, which reports none, goes on with the output."""
        if any(map(_has_output, choices_of(chunk))):
            self.usage = None

    def _at_least(self, usage: Usage | None) -> Usage | None:
        """`usage`, and at least the counts before: some proxies report the input first."""
        if usage is not None:
            counts = {name: max(getattr(self._most, name), getattr(usage, name)) for name in BILLED}
            self._most = usage = usage._replace(**counts)
        return usage


def _has_output(choice: Body) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(delta.get(name) for name in OUTPUTS)


class Transcript:
    """Assembles the chunks of a stream into the answer of a request without streaming.

    Skips what has an unknown form: the record must not end a stream that the client can read.
    """

    def __init__(self) -> None:
        self.choices: dict[int | str, Choice] = {}
        self._counter = UsageCounter()
        # Whether the usage came in a chunk of its own, after all choices.
        self._is_final = False

    def add(self, chunk: Body) -> None:
        """Add a chunk."""
        choices = chunk.get("choices")
        if self._counter.add(chunk):
            self._is_final = not choices
        elif self.usage is not None and not self._has_ended:
            self._counter.drop_before(chunk)
        if not isinstance(choices, list):
            return
        for place, part in enumerate(choices):
            if isinstance(part, dict):
                index = part.get("index")
                if type(index) is not int:
                    index = index_of(part, place)
                choice = self.choices.get(index)
                if choice is None:
                    choice = self.choices[index] = Choice(index)
                choice.add(part)

    @property
    def usage(self) -> Usage | None:
        """The usage so far."""
        return self._counter.usage

    @property
    def begun(self) -> bool:
        """Whether there is any output."""
        return bool(self.choices)

    @property
    def last_usage(self) -> Usage | None:
        """The usage of a stream that broke off.

        None for a running count, which some servers send with every chunk.
        """
        return self.usage if self._is_final or self._has_ended else None

    @property
    def _has_ended(self) -> bool:
        return self.begun and all(choice.finish_reason for choice in self.choices.values())

    @property
    def output(self) -> Body:
        """The choices in the form of a chat completion."""
        choices = [choice.output for choice in self.choices.values()]
        return {"object": "chat.completion", "choices": choices}


class Choice:
    """The streamed part of a choice."""

    def __init__(self, index: int | str) -> None:
        self.finish_reason: Any = None
        self._index = index
        # Lists of pieces, joined at the end: adding to a text would copy it for each piece.
        self._texts: dict[str, list[str]] = {}
        self._calls = ToolCalls()
        self._function: Body = {}

    def add(self, part: Body) -> None:
        """Add this choice's part of a chunk."""
        if reason := part.get("finish_reason"):
            self.finish_reason = reason
        delta = part.get("delta")
        if not isinstance(delta, dict):
            return
        for name, value in delta.items():
            if not value:
                continue
            if name in TEXTS:
                text = value if isinstance(value, str) else text_of(value)
                self._texts.setdefault(name, []).append(text)
            elif name == "tool_calls":
                self._calls.add(value)
            elif name == "function_call" and isinstance(value, dict):
                grow(self._function, value)

    @property
    def output(self) -> Body:
        """The choice in the format of a chat completion."""
        texts = {name: "".join(pieces) for name, pieces in self._texts.items()}
        calls, function = self._calls.output, whole(self._function)
        message: Body = {"role": "assistant", **texts}
        message |= {"tool_calls": calls} if calls else {}
        message |= {"function_call": function} if function else {}
        return {"index": self._index, "message": message, "finish_reason": self.finish_reason}
