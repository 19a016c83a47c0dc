"""Who changed what for somebody else."""

from sqlalchemy import select

from app.db.tables import audit
from drill.promises import promise
from drill.scene import Scene


@promise(
    "Each change for somebody else is in the audit, the command line's with its user",
    "a plan is in the audit with who set it",
)
async def command_line(scene: Scene) -> str:
    user = await scene.create_user("roomy")
    await scene.command("users", "set-plan", user.id, "tight", "--json")
    rows = await scene.fetch(select(audit).where(audit.c.target == user.id))
    return f"{rows}"
