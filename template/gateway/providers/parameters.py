"""What becomes of each parameter of OpenAI's request types: one verdict each, in one table per
adapter.

The names are those of the official client's types (`CompletionCreateParams`,
`EmbeddingCreateParams`). `CHAT` and `EMBEDDING` are the tables of OpenAI itself; an adapter whose
server takes other parameters changes single lines of a copy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.errors import UnsupportedParameter

MAX_NAME = 100


class Verdict(StrEnum):
    """What becomes of a parameter."""

    PASSED = "passed"
    """Sent as it is: it does not change the price."""
    BOUNDED = "bounded"
    """Sent: the bound of the call contains what it changes."""
    DROPPED = "dropped"
    """Not sent: it changes nothing here."""
    REFUSED = "refused"
    """It changes the price, or keeps something elsewhere."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A verdict; one that refuses says the reason.

    A value that `accepts` lets through has the verdict `accepted` in place of the refusal.
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
    """The rule that refuses every value."""
    return Rule(Verdict.REFUSED, reason)


def only(*values: Any, reason: str, accepted: Verdict = Verdict.DROPPED) -> Rule:
    """The rule that refuses every other value; these ask for what happens anyway."""
    return Rule(Verdict.REFUSED, reason, lambda value: value in values, accepted)


def parameters_sent(table: Table | None, body: Mapping[str, Any]) -> dict[str, Any]:
    """What of `body` is sent; a table that is None sends everything.

    Raises `UnsupportedParameter` for the first parameter that is refused or in no table.
    """
    if table is None:
        return dict(body)
    return {name: value for name, value in body.items() if _is_sent(table, name, value)}


def takes(table: Table, name: str, value: Any) -> bool:
    """Whether a server can be asked for `value`, which is sent or changes nothing."""
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
    """Whether the provider caches a prompt for no longer than it does anyway."""
    return isinstance(options, dict) and options.get("ttl") in (None, "30m")


CHAT: Table = {
    # The service itself reads these.
    "model": BOUNDED,
    "stream": PASSED,
    "stream_options": PASSED,
    # What the model reads.
    "messages": BOUNDED,
    "functions": BOUNDED,
    "function_call": BOUNDED,
    "response_format": BOUNDED,
    "tool_choice": BOUNDED,
    "tools": BOUNDED,
    # How much it writes.
    "max_completion_tokens": BOUNDED,
    "max_tokens": BOUNDED,
    "n": BOUNDED,
    # How it writes.
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
    # The cache of prompts, whose writes are in the bound.
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
    # The service's own records name the user.
    "metadata": DROPPED,
    "safety_identifier": DROPPED,
    "user": DROPPED,
    # Another price, or something that is kept elsewhere.
    "audio": refused("spoken answers have a price of their own"),
    "modalities": only(["text"], reason="spoken answers have a price of their own"),
    "moderation": refused("what the provider checks beside the answer has no declared price"),
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
