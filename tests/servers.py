"""What tests do with a service that runs: many requests at once, and its processes."""

import asyncio
import json
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import Command, announcing, run
from projects import Project

# Supabase Auth, until its input ends, with an account.
_SUPABASE_AUTH = """
import asyncio, json, sys
from tests.supabase_stand_in import PUBLISHABLE_KEY, SupabaseStandIn

async def main(email, password):
    async with SupabaseStandIn() as supabase:
        supabase.passwords[email] = password
        settings = {"SUPABASE_URL": supabase.url, "SUPABASE_PUBLISHABLE_KEY": PUBLISHABLE_KEY}
        print(json.dumps([settings, supabase.token(email)]), flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main(*sys.argv[1:]))
"""


@dataclass(frozen=True)
class SupabaseAuth:
    """Where people sign in: the settings that lead a service there, and an account's token."""

    settings: Mapping[str, str]
    email: str
    password: str
    token: str


@contextmanager
def supabase_auth(
    directory: Path, python: Path, environment: Mapping[str, str]
) -> Iterator[SupabaseAuth]:
    """Run the stand-in of a project until the block ends."""
    email, password = "ada@example.com", secrets.token_urlsafe()
    command: Command = [python, "-c", _SUPABASE_AUTH, email, password]
    log = directory.with_name("supabase.log")
    with announcing(command, directory, environment, log) as (settings, token):
        yield SupabaseAuth(settings | {"REGISTRATION": "open"}, email, password, token)


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    status: int
    head: str
    body: str


# A user of a plan, with access for programs of this machine, as `python -m app ask` has it.
_ADMIT = """
import asyncio, sys
from app import wiring
from app.settings import load
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.accounts.users import Users

async def main(email, plan, role):
    settings = load()
    database = wiring.database.open_database(settings.gateway)
    user = await Users(database).create(email, Role(role), plan, command_line())
    access = await wiring.auth.create_access(settings, database, user.id, command_line())
    await database.close()
    print(wiring.auth.authorization(email, access))

asyncio.run(main(*sys.argv[1:]))
"""


def admit(project: Project, email: str, plan: str = "free", role: str = "user") -> dict[str, str]:
    """Make a user, and return the header that says who asks, whatever the log-in."""
    header = run(
        [project.python, "-c", _ADMIT, email, plan, role], project.directory, project.settings
    )
    return {"Authorization": header.strip()}


def add_plan(project: Project, name: str, requests_per_minute: int) -> None:
    """Add a plan that limits nothing but requests."""
    with (project.directory / "plans.toml").open("a", encoding="utf-8") as plans:
        plans.write(f"\n[plans.{name}]\nrequests_per_minute = {requests_per_minute}\n")


def burst(
    ports: Sequence[int], count: int, headers: Mapping[str, str], body: object
) -> list[Answer]:
    """Send the same chat `count` times at once, to each port in turn."""
    content = json.dumps(body).encode()
    given = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Connection": "close",
        **headers,
    }
    lines = ["POST /v1/chat/completions HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in given.items()]
    request = "\r\n".join([*lines, "", ""]).encode() + content

    async def send_all() -> list[Answer]:
        everyone_is_there = asyncio.Barrier(count)
        return await asyncio.gather(
            *(
                _send(ports[number % len(ports)], request, everyone_is_there)
                for number in range(count)
            )
        )

    return asyncio.run(send_all())


def processes() -> dict[int, tuple[int, str]]:
    """List the processes that run, each with its parent and its command line."""
    table = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(maxsplit=3) for line in table.stdout.splitlines())
    return {int(row[0]): (int(row[1]), row[3]) for row in rows if not row[2].startswith("Z")}


def descendants(pid: int) -> set[int]:
    """Find what a process started, and what that started."""
    found = {child for child, (parent, _) in processes().items() if parent == pid}
    return found.union(*map(descendants, found))


async def _send(port: int, request: bytes, everyone_is_there: asyncio.Barrier) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await everyone_is_there.wait()
    try:
        writer.write(request)
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    return Answer(int(head.split()[1]), head, body)
