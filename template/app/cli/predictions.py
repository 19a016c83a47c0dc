"""`python -m app predictions show`."""

from typing import Annotated, Any

import typer
from pydantic_core import to_json

from app.cli.base import Json, Session, command, show
from gateway.ledger.attempt_list import attempts_of
from gateway.ledger.records import prediction_of_any_user
from gateway.schemas.admin import UserPrediction

app = typer.Typer(name="predictions", help="The records of generations.", no_args_is_help=True)


@command(app, "show")
async def show_prediction(
    session: Session,
    prediction_id: Annotated[str, typer.Argument(help="As in X-Prediction-ID of an answer.")],
    as_json: Json = False,
) -> None:
    """Show a record of any user with its attempts. An erased one has no content."""
    row = await prediction_of_any_user(session.database, prediction_id)
    made = await attempts_of(session.database, [row.id])
    shown = UserPrediction.of(row, attempts=made[row.id]).model_dump(mode="json")
    show(shown, as_json, "\n".join(f"{name}: {_text(value)}" for name, value in shown.items()))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value).decode()
