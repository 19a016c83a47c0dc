"""Changes for other users, in the audit."""

from sqlalchemy import select

from drill.environment import Environment
from drill.guarantees import guarantee
from gateway.accounts.audit import command_line
from gateway.db.tables import audit


@guarantee(
    "Each change for another user is in the audit, the command line's with its operator",
    "from roomy to tight, by this machine's user",
)
async def change_by_command(environment: Environment) -> str:
    user = await environment.create_user("roomy", "moves")
    moves = ("--email", "moves@example.com", "--plan", "tight")
    await environment.command("users", "set-plan", *moves, "--json")
    mine = audit.c.target == f"user:{user.id}"
    last = (await environment.fetch(select(audit).where(mine).order_by(audit.c.id)))[-1]
    is_named = last.operator == command_line().operator
    actor = "this machine's user" if is_named else last.operator
    return f"from {last.before['plan']} to {last.after['plan']}, by {actor}"
