"""Tables of verdicts: how an adapter treats each parameter of OpenAI's request types.

The names are those of the official client's types (`CompletionCreateParams`,
`EmbeddingCreateParams`). `CHAT` and `EMBEDDING` are the tables for OpenAI itself; the adapter of
another server changes single lines of a copy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.errors import UnsupportedParameter

MAX_NAME = 100


class Verdict(StrEnum):
    """How a parameter is treated."""

    PASSED = "passed"
    """Sent unchanged: it does not change the price."""
    BOUNDED = "bounded"
    """Sent: it changes the price, and the upper bound of the call's cost includes that."""
    DROPPED = "dropped"
    """Not sent: it has no effect here."""
    REFUSED = "refused"
    """An error: it changes the price in an unknown way, or stores data at the provider."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A verdict, with the `reason` of a refusal.

    A value for which `accepts` returns true has the verdict `accepted` instead.
    """

    verdict: Verdict
    reason: str = ""
    accepts: Callable[[Any], bool] | None = None
    accepted: Verdict = Verdict.DROPPED

    def of(self, value: Any) -> Verdict:
        """The verdict on a value."""
        return self.accepted if self.accepts is not None and self.accepts(value) else self.verdict


Table = Mapping[str, Rule]
PASSED = Rule(Verdict.PASSED)
BOUNDED = Rule(Verdict.BOUNDED)
DROPPED = Rule(Verdict.DROPPED)
SENT = frozenset({Verdict.PASSED, Verdict.BOUNDED})


def refused(reason: str) -> Rule:
    """A rule that refuses every value."""
    return Rule(Verdict.REFUSED, reason)


def only(*values: Any, reason: str, accepted: Verdict = Verdict.DROPPED) -> Rule:
    """A rule that accepts these `values`, which ask for the default, and refuses all others."""
    return Rule(Verdict.REFUSED, reason, lambda value: value in values, accepted)


def parameters_sent(table: Table | None, body: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of `body` that are sent. Without a table, all are.

    Raises `UnsupportedParameter` for the first parameter that is refused or not in the table.
    """
    if table is None:
        return dict(body)
    return {name: value for name, value in body.items() if _is_sent(table, name, value)}


def takes(table: Table, name: str, value: Any) -> bool:
    """Whether the table accepts `value` for the parameter `name`."""
    rule = table.get(name)
    return rule is not None and rule.of(value) is not Verdict.REFUSED


def _is_sent(table: Table, name: str, value: Any) -> bool:
    rule = table.get(name)
    if rule is PASSED or rule is BOUNDED:
        return True
    verdict = rule.of(value) if rule else Verdict.REFUSED
    if verdict is Verdict.REFUSED:
        reason = rule.reason if rule else "its effect on the price is unknown"
        name = name[:MAX_NAME]
        message = f"The parameter {name!r} is not supported for this model: {reason}."
        raise UnsupportedParameter(message, param=name)
    return verdict in SENT


def is_usual_cache(options: Any) -> bool:
    """Whether the options ask for the default lifetime of a cached prompt."""
    return isinstance(options, dict) and options.get("ttl") in (None, "30m")


CHAT: Table = {
    # The service reads these itself.
    "model": BOUNDED,
    "stream": PASSED,
    "stream_options": PASSED,
    # The input of the model.
    "messages": BOUNDED,
    "functions": BOUNDED,
    "function_call": BOUNDED,
    "response_format": BOUNDED,
    "tool_choice": BOUNDED,
    "tools": BOUNDED,
    # The length of the output.
    "max_completion_tokens": BOUNDED,
    "max_tokens": BOUNDED,
    "n": BOUNDED,
    # The sampling of the output.
    "frequency_penalty": PASSED,
    "logit_bias": PASSED,
    "logprobs": PASSED,
    "parallel_tool_calls": PASSED,
    "presence_penalty": PASSED,
    "reasoning_effort": PASSED,
    "seed": PASSED,
    "stop": PASSED,
    "temperature": PASSED,
    "top_logprobs": PASSED,
    "top_p": PASSED,
    "verbosity": PASSED,
    # The prompt cache. The upper bound of the cost includes its writes.
    "prompt_cache_key": PASSED,
    "prompt_cache_options": Rule(
        Verdict.REFUSED,
        "only a cache of 30 minutes has a declared price",
        is_usual_cache,
        Verdict.BOUNDED,
    ),
    "prompt_cache_retention": only(
        "in_memory",
        reason="the provider would keep the prompt for a day",
        accepted=Verdict.PASSED,
    ),
    # The service's own records hold the user.
    "metadata": DROPPED,
    "safety_identifier": DROPPED,
    "user": DROPPED,
    # Another price, or data that the provider stores.
    "audio": refused("spoken answers have a price of their own"),
    "modalities": only(["text"], reason="spoken answers have a price of their own"),
    "moderation": refused("the provider's moderation has no declared price"),
    "prediction": refused("predicted tokens that the answer does not use are billed"),
    "service_tier": only("auto", "default", reason="another tier has another price"),
    "store": only(False, reason="the provider would keep the conversation"),
    "web_search_options": refused("a search has a price of its own"),
}

EMBEDDING: Table = {
    "model": BOUNDED,
    "input": BOUNDED,
    "dimensions": PASSED,
    "encoding_format": PASSED,
    "user": DROPPED,
}
