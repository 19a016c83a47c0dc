"""Findings about an entry of `models.toml` from a call that was answered."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gateway.counts import counted
from gateway.findings import Finding
from gateway.ledger.undeclared_usage import PARTS
from gateway.policy import Model
from gateway.pricing import max_usage
from gateway.providers.base import MAXIMA, Usage
from gateway.providers.checking.probe import Seen
from gateway.providers.completion import CACHED, DETAILS, WRITTEN

# No token of the requested text is longer.
CHARS_PER_TOKEN = 16
NAMES_OF_PARTS = {"cached_input_tokens": CACHED, "cache_write_tokens": WRITTEN}


class Place(NamedTuple):
    """Where to edit a model's entry, its server, its credential and its address."""

    model: str
    server: str | None
    credential: str
    address: str


def problem(check: str, advice: str) -> Finding:
    """A finding that is a problem."""
    return Finding(check, "problem", advice)


def findings_of(model: Model, seen: Seen, place: Place) -> Iterator[Finding]:
    """One finding for each claim of the entry in `models.toml`."""
    yield Finding("credential")
    yield Finding("name")
    if model.kind == "chat":
        yield _output_limit(seen, place)
        yield _streaming(seen)
    elif not seen.answers:
        yield problem("vectors", "the answer has none; is it a model for embeddings?")
    yield from _usage(model, seen, place)


def responses_finding(seen: Seen, place: Place) -> Finding:
    """Whether the server speaks `/v1/responses` itself, with the same limits."""
    allowed, wrote = seen.request.body["max_output_tokens"], seen.usage and seen.usage.output_tokens
    if seen.failure:
        said = f"it does not answer /v1/responses ({seen.failure})"
    elif wrote is None:
        said = "it reports no usage at /v1/responses"
    elif wrote > allowed:
        said = f"it wrote {counted(wrote, 'token')} at /v1/responses, where {allowed} were allowed"
    else:
        return Finding("responses")
    return problem("responses", f"{said}; in {place.server}, write responses = false")


def _output_limit(seen: Seen, place: Place) -> Finding:
    *refused, taken = seen.request.output_limits or ("max_tokens",)
    allowed = seen.request.body["max_tokens"]
    wrote = seen.usage.output_tokens if seen.usage else -(-seen.characters // CHARS_PER_TOKEN)
    if wrote > allowed:
        other = next(name for name in MAXIMA if name != taken)
        said = f"it wrote {counted(wrote, 'token')} at least, though {taken} allowed {allowed}"
        return problem("output limit", f"{said}; {_write(place, other)}")
    if refused:
        said = f"it refuses {refused[0]} and takes {taken}: the first call of each process is "
        return problem("output limit", f"{said}made twice; {_write(place, taken)}")
    return Finding("output limit")


def _write(place: Place, name: str) -> str:
    if place.server:
        return f'in {place.server}, write output_limit = "{name}"'
    return f'declare the server as [servers.NAME] in models.toml, with output_limit = "{name}"'


def _streaming(seen: Seen) -> Finding:
    if not seen.answers:
        return problem("streaming", "the stream had no choices: the server does not stream chats")
    if seen.finish_reason is None:
        return problem("streaming", "the stream ended without a finish_reason: it may be cut")
    return Finding("streaming")


def _usage(model: Model, seen: Seen, place: Place) -> Iterator[Finding]:
    if seen.usage is None:
        said = "it reports no usage, so that each call is charged the most that it can cost"
        advice = "; look for an option of the server that counts the tokens of streams"
        yield problem("usage", said + advice * (model.kind == "chat"))
        return
    most = max_usage(model, seen.request.body)
    if seen.usage.input_tokens > most.input_tokens:
        needed = model.overhead_tokens + seen.usage.input_tokens - most.input_tokens
        said = f"it counted {counted(seen.usage.input_tokens, 'token')} of input, "
        said += f"{most.input_tokens} at most"
        yield problem("usage", f"{said}; in {place.model}, write overhead_tokens = {2 * needed}")
    elif model.kind == "chat" and not seen.usage.output_tokens and seen.characters:
        yield problem(
            "usage", "it counted 0 tokens of an answer that has some, so that it is charged nothing"
        )
    else:
        yield Finding("usage")
    yield from _parts(model, seen.usage, seen.reported, place)


def _parts(
    model: Model, usage: Usage, reported: Mapping[str, Any], place: Place
) -> Iterator[Finding]:
    """Warnings for parts of the input that the usage has, also as 0, without a price line."""
    details = (reported.get(name) for name in DETAILS)
    places = [reported, *(each for each in details if isinstance(each, dict))]
    for part, (line, billed) in PARTS.items():
        names = NAMES_OF_PARTS[part]
        is_reported = any(each.get(name) is not None for each in places for name in names)
        is_declared = getattr(model, line) is not None or not model.input_usd_per_million_tokens
        if not is_declared and (is_reported or getattr(usage, part)):
            said = f"it reports {part}, which are billed {billed}"
            advice = f"{said}; in {place.model}, add {line} if the price list has such a price"
            yield Finding("price lines", "warning", advice)
