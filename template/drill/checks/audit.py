"""Who changed what for somebody else."""

from sqlalchemy import select

from drill.environment import Scene
from drill.guarantees import promise
from gateway.accounts.audit import command_line
from gateway.db.tables import audit


@promise(
    "Each change for somebody else is in the audit, the command line's with its user",
    "from roomy to tight, by this machine's user",
)
async def change_by_command(scene: Scene) -> str:
    user = await scene.create_user("roomy", "moves")
    moves = ("--email", "moves@example.com", "--plan", "tight")
    await scene.command("users", "set-plan", *moves, "--json")
    mine = audit.c.target == f"user:{user.id}"
    last = (await scene.fetch(select(audit).where(mine).order_by(audit.c.id)))[-1]
    is_named = last.operator == command_line().operator
    who = "this machine's user" if is_named else last.operator
    return f"from {last.before['plan']} to {last.after['plan']}, by {who}"
