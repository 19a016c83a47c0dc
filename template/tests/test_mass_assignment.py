"""Bodies that give the caller more than the route is for: refused on every route."""

from typing import Any

import pytest
from sqlalchemy import Table, select

from gateway.accounts.principals import Role
from gateway.db.tables import teams, users
from tests.sign_in import form_of
from tests.support import Service, User, error_of
from tests.test_roles import read_table
from tests.walk import Operation, create_owner, operations

GIVEN: dict[str, Any] = {
    "id": "usr_" + 32 * "0",
    "user_id": "usr_" + 32 * "0",
    "role": "admin",
    "plan": "many",
    "team": "team_" + 32 * "0",
    "team_id": "team_" + 32 * "0",
    "team_role": "owner",
    "created_at": "2020-01-01T00:00:00Z",
    "disabled": False,
    "disabled_at": None,
    "cost_nano_usd": 0,
}


async def _all(service: Service, table: Table) -> list[Any]:
    return [tuple(row) for row in await service.database.fetch(select(table))]


@pytest.fixture
async def admin(service: Service) -> User:
    return await create_owner(service, Role.ADMIN)


async def test_no_body_takes_what_its_route_does_not_declare(service: Service, admin: User) -> None:
    client = service.client(admin)
    before = [await _all(service, table) for table in (users, teams)]
    for operation in _with_bodies(service):
        for name in GIVEN.keys() - operation.fields.keys():
            body = {**operation.example(), name: GIVEN[name]}
            status, code, param = error_of(await operation.call(client, body))
            assert status in {400, 422}, f"{operation}, {name}: {code}"
            assert (code, param) == ("unsupported_parameter", name), str(operation)
    assert [await _all(service, table) for table in (users, teams)] == before


async def test_only_routes_of_administrators_take_a_role_a_plan_or_a_user(service: Service) -> None:
    table = read_table()
    for operation in _with_bodies(service):
        if GIVEN.keys() & operation.fields.keys():
            cells = table[str(operation)]
            assert cells["admin"] == "yes", str(operation)
            assert cells["user"] == cells["owner"] == "no", str(operation)


async def test_the_form_to_sign_in_assigns_nothing(service: Service, user: User) -> None:
    before = await _all(service, users)
    form = {name: str(value) for name, value in GIVEN.items()} | form_of(user)
    assert (await service.client().post("/auth/session", data=form)).status_code == 303
    assert await _all(service, users) == before


def _with_bodies(service: Service) -> list[Operation]:
    return [operation for operation in operations(service.app) if operation.body]
