"""Checks a model of `models.toml` with small real calls."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.findings import Finding
from gateway.policy import Model
from gateway.pricing import cost, max_cost, max_usage
from gateway.providers.base import Provider
from gateway.providers.checking.failures import finding_of
from gateway.providers.checking.findings import Place, findings_of, problem, responses_finding
from gateway.providers.checking.probe import Seen, body_of, probe, probe_responses


class Checked(NamedTuple):
    """What was found, and what the `calls` cost in nano-dollars."""

    findings: list[Finding]
    calls: int
    cost_nano_usd: int


async def check_model(
    model: Model, servers: Mapping[str, Any], provider: Provider, redact: Callable[[str], str]
) -> Checked:
    """Compare a model with what a small call shows, and a second one of `/v1/responses`."""
    place = _place(model, servers, provider.missing_credential())
    findings, seen = await _findings(model, provider, place, redact)
    was_chatted = model.kind == "chat" and bool(seen) and not seen[0].failure
    if place.server and provider.responses and was_chatted:
        seen.append(await probe_responses(provider.responses, model))
        findings.append(responses_finding(seen[-1], place))
    return Checked(findings, len(seen), _cost(model, seen))


async def _findings(
    model: Model, provider: Provider, place: Place, redact: Callable[[str], str]
) -> tuple[list[Finding], list[Seen]]:
    """What was found, and the call if one was made."""
    if provider.missing_credential():
        return [problem("credential", place.credential)], []
    if model.kind == "task":
        advice = "a run costs what the model's page says, and no request keeps it small: "
        advice += "nothing was asked; make a prediction of it to try it"
        return [problem("task", advice)], []
    seen = await probe(provider, model)
    if seen.failure:
        return [finding_of(model, seen.failure, place, redact)], [seen]
    return list(findings_of(model, seen, place)), [seen]


def _place(model: Model, servers: Mapping[str, Any], missing: str | None) -> Place:
    """Where a person changes what concerns `model`."""
    server = servers.get(model.provider)
    entry, address = f'[models."{model.id}"]', f"is the address of {model.provider} right?"
    if server is None:
        key = missing or f"the credential of {model.provider}"
        return Place(entry, None, f"set {key} in the environment or in .env", address)
    table, key = f"[servers.{model.provider}]", server.get("api_key_env")
    address = f"is base_url in {table} right, {server['base_url']}? Many end with /v1"
    credential = f"set {key}, which {table} names, in the environment or in .env"
    if key is None:
        credential = f"in {table}, name the variable of the key as api_key_env"
    return Place(entry, table, credential, address)


def _cost(model: Model, seen: Sequence[Seen]) -> int:
    """What the calls cost in nano-dollars, at most where their usage is not known."""
    most = max_cost(model.price, max_usage(model, body_of(model))) if seen else 0
    billed = [each for each in seen if not each.failure or each.failure.billed is not False]
    return sum(cost(model.price, each.usage) if each.usage else most for each in billed)
