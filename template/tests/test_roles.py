"""Every route in every role: `docs/roles.md` is the table of what each may do."""

import re
from collections.abc import Mapping

import httpx2
import pytest

from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role, TeamRole
from gateway.accounts.teams import Teams
from tests.sign_in import signed_in
from tests.support import ROOT, Service, User
from tests.walk import Operation, operations

LINE = re.compile(r"\| `([A-Z]+ [^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|")
COLUMNS = ("anyone", "user", "owner", "auditor", "admin")
Table = Mapping[str, Mapping[str, str]]


def read_table() -> Table:
    """What each role may do, by operation and role."""
    page = (ROOT / "docs/roles.md").read_text(encoding="utf-8")
    return {route: dict(zip(COLUMNS, cells, strict=True)) for route, *cells in LINE.findall(page)}


@pytest.fixture
async def people(service: Service) -> dict[str, User | None]:
    """A user in each column, all of one team."""
    people: dict[str, User | None] = {"anyone": None, "owner": await service.create_user()}
    for role in Role:
        people[role] = await service.create_user(role=role)
    teams = Teams(service.database)
    team = await teams.create("Acme", "shared", command_line())
    for name, user in people.items():
        if user:
            own = TeamRole.OWNER if name == "owner" else TeamRole.MEMBER
            await teams.add(team.id, user.id, own, command_line())
    return people


async def test_every_route_in_every_role(service: Service, people: dict[str, User | None]) -> None:
    seen = {
        str(operation): {
            column: await _seen(service, operation, people[column]) for column in COLUMNS
        }
        for operation in operations(service.app)
    }
    table = read_table()
    missing = {route: cells for route, cells in seen.items() if table.get(route) != cells}
    assert not missing, _as_page(missing)
    assert not table.keys() - seen.keys(), "docs/roles.md has a route that is gone"


async def _seen(service: Service, operation: Operation, user: User | None) -> str:
    """Whether the operation works for a user, by the credential or by a session."""
    client, body = service.client(user), operation.example()
    if operation.path.startswith("/auth/"):
        # Wrong credentials are refused, and are no refusal of the caller: the body is empty.
        client, body = await signed_in(service, user) if user else client, body and {}
    answer = await operation.call(client, body)
    assert answer.status_code < 500, f"{operation}: {answer.text}"
    return _word(answer)


def _word(answer: httpx2.Response) -> str:
    """`no` for a refusal of the caller. A page that shows a wrong form again is none."""
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    return "no" if is_json and answer.status_code in {401, 403} else "yes"


def _as_page(seen: Table) -> str:
    """The lines of the page as they should be."""
    lines = [
        f"| `{route}` | {' | '.join(cells[column] for column in COLUMNS)} |"
        for route, cells in seen.items()
    ]
    return "docs/roles.md should have:\n" + "\n".join(lines)
