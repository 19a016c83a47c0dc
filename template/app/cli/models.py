"""`python -m app models check`."""

from typing import Annotated

import typer

from app.cli.base import Json, Session, command, fail, show_findings
from app.parts import open_parts
from gateway.ledger.budget import usd
from gateway.providers.checking.check import check_model
from gateway.providers.http import open_session
from gateway.telemetry.redaction import make_redactor

app = typer.Typer(name="models", help="The models of models.toml.", no_args_is_help=True)


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
    redact = make_redactor(session.settings.secret_values())
    async with open_session() as http:
        rules, providers = open_parts(session.settings, http)
        model = rules.model(name)
        provider = providers[model.provider]
        findings, calls, price = await check_model(model, rules.servers, provider, redact)
    checks = [finding._asdict() for finding in findings]
    shown = {"model": model.id, "cost_nano_usd": price, "findings": checks}
    paid = f"It cost {usd(price)} by the prices of models.toml, charged to no user."
    show_findings(shown, findings, as_json, *([paid] if calls else []))
    if any(finding.verdict == "problem" for finding in findings):
        fail("The model is not as models.toml says.")
