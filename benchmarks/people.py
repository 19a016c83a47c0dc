"""Make users with passwords, and print them as JSON: `python -m people COUNT`."""

import asyncio
import json
import sys

from app import wiring
from app.settings import load
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.accounts.users import Users


async def main(count: int) -> None:
    """Print a list of `{"email", "password"}`."""
    settings = load()
    database = wiring.database.open_database(settings.gateway)
    people = []
    for number in range(count):
        user = await Users(database).create(
            f"{number}@example.com", Role.USER, "pro", command_line()
        )
        made = (settings, database, user.id, command_line())
        password = await wiring.auth.create_credential(*made)
        people.append({"email": user.email, "password": password})
    await database.close()
    print(json.dumps(people))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
