"""`python -m app stop`, `start` and `alert-key`."""

from typing import Annotated

import typer

from app.cli.base import Json, Session, show, show_list
from gateway.accounts.audit import command_line
from gateway.alerts.webhook import signing_key
from gateway.kill_switch import SERVICE, KillSwitch
from gateway.schemas.admin import Stop

Target = Annotated[
    str, typer.Argument(help="service, provider:NAME or model:NAME as models.toml has them.")
]


async def stop(
    session: Session,
    reason: Annotated[str, typer.Option(help="Why; the audit keeps it.")],
    target: Target = SERVICE,
    running: Annotated[bool, typer.Option("--running", help="End what runs, too.")] = False,
    as_json: Json = False,
) -> None:
    """End all generation, or that of a provider or a model, on every replica within a second."""
    stops = _stops(session, target)
    await stops.stop(target, reason, running=running, actor=command_line())
    await _tell(stops, as_json)


async def start(session: Session, target: Target = SERVICE, as_json: Json = False) -> None:
    """Lift a stop and the cooldowns of what it covers, and acknowledge that a model broke its
    bound; show what is stopped still.
    """
    stops = _stops(session, target)
    await stops.start(target, command_line())
    await _tell(stops, as_json)


async def alert_key(session: Session, as_json: Json = False) -> None:
    """Show the key that signs what is posted to ALERT_WEBHOOK_URL, for its receiver."""
    key = signing_key(session.settings.secret_key.get_secret_value())
    show({"key": key}, as_json, key)


def _stops(session: Session, target: str) -> KillSwitch:
    """An emergency does not wait for the policy files to be in order."""
    return KillSwitch(session.database, None if target == SERVICE else session.policy)


async def _tell(stops: KillSwitch, as_json: bool) -> None:
    found = [Stop.model_validate(row) for row in await stops.all()]
    empty = "Nothing is stopped."
    show_list(found, as_json, lambda each: f"{each.target} is {each.kind}: {each.reason}", empty)
