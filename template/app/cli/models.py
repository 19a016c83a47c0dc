"""`python -m app models check`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from app.cli.base import Json, Session, command, fail, show
from app.startup_checks import open_parts
from gateway.findings import Finding
from gateway.ledger.budget import usd
from gateway.policy import Model
from gateway.pricing import cost, max_cost, max_usage
from gateway.providers.base import Provider
from gateway.providers.checking.failures import finding_of
from gateway.providers.checking.findings import Place, findings_of, problem, responses_finding
from gateway.providers.checking.probe import Seen, body_of, probe, probe_responses
from gateway.providers.http import open_session
from gateway.telemetry.redaction import make_redactor

app = typer.Typer(help="The models of models.toml.", no_args_is_help=True)


@command(app)
async def check(
    session: Session,
    name: Annotated[str, typer.Argument(help="A model of models.toml, by its public name.")],
    as_json: Json = False,
) -> None:
    """Make one small real call, and say whether the model is as models.toml claims.

    Looks at the credential, the name, the largest output, streaming and usage; a second call looks
    at responses, where the server is said to speak them. It costs a few tokens, which count for no
    user.
    """
    async with open_session() as http:
        rules, providers = open_parts(session.settings, http)
        model = rules.model(name)
        provider = providers[model.provider]
        place = _place(model, rules.servers, provider.missing_credential())
        findings, seen = await _findings(session, model, provider, place)
        if place.server and provider.responses and _was_chatted(model, seen):
            seen.append(await probe_responses(provider.responses, model))
            findings.append(responses_finding(seen[-1], place))
    price = _cost(model, seen)
    lines = [f"{f.mark} {f.check}{': ' * bool(f.advice)}{f.advice}" for f in findings]
    if seen:
        lines.append(f"It cost {usd(price)} by the prices of models.toml, charged to no user.")
    checks = [finding._asdict() for finding in findings]
    shown = {"model": model.id, "cost_nano_usd": price, "findings": checks}
    show(shown, as_json, "\n".join(lines))
    if any(finding.verdict == "problem" for finding in findings):
        fail("The model is not as models.toml says.")


async def _findings(
    session: Session, model: Model, provider: Provider, place: Place
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
        redact = make_redactor(session.settings.secret_values())
        return [finding_of(model, seen.failure, place, redact)], [seen]
    return list(findings_of(model, seen, place)), [seen]


def _was_chatted(model: Model, seen: Sequence[Seen]) -> bool:
    return model.kind == "chat" and bool(seen) and not seen[0].failure


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
