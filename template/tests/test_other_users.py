"""Another user's id on every route: the answer is that to an unknown id."""

from collections.abc import Mapping

import pytest

from gateway.accounts.audit import command_line
from gateway.accounts.invitations import Invitations
from gateway.db.tables import predictions
from tests.support import Service, chat
from tests.walk import UNKNOWN, create_owner, operations

REFUSED = {403, 404}
# No ids of a user's rows.
SHARED = {"name"}


@pytest.fixture
async def victim(service: Service) -> Mapping[str, str]:
    """The ids of rows of another user, by the names of the parameters in paths."""
    user = await create_owner(service)
    client = service.client(user)
    assert (await client.post("/v1/chat/completions", json=chat())).is_success
    team = (await client.get("/v1/team")).json()["id"]
    invitations = Invitations(service.database)
    invitation = await invitations.create(team, "jane@example.com", command_line())
    (prediction,) = await service.rows(predictions)
    ids = {
        "user_id": user.id,
        "team_id": team,
        "invitation_id": invitation.id,
        "prediction_id": prediction.id,
    }
    for operation in operations(service.app):
        if operation.method == "POST" and operation.path.endswith("/keys"):
            made = await operation.call(client, operation.example())
            ids["key_id"] = made.json()["id"]
    return ids


async def test_another_users_id_is_as_an_unknown_one(
    service: Service, victim: Mapping[str, str]
) -> None:
    client = service.client(await create_owner(service))
    tried = 0
    for operation in operations(service.app):
        for name in set(operation.parameters) - SHARED:
            body = operation.example()
            theirs = await operation.call(client, body, {name: victim[name]})
            unknown = await operation.call(client, body, {name: UNKNOWN[name]})
            assert theirs.status_code in REFUSED, f"{operation}: {theirs.text}"
            assert theirs.status_code == unknown.status_code, str(operation)
            assert theirs.content == unknown.content, str(operation)
            assert _names(theirs.headers) == _names(unknown.headers), str(operation)
            tried += 1
    assert tried >= len(victim)


async def test_another_users_id_in_a_body_is_as_an_unknown_one(
    service: Service, victim: Mapping[str, str]
) -> None:
    client = service.client(await create_owner(service))
    for operation in operations(service.app):
        for name in operation.fields.keys() & victim.keys():
            theirs, unknown = [
                await operation.call(client, {**operation.example(), name: value})
                for value in (victim[name], UNKNOWN[name])
            ]
            assert theirs.status_code in REFUSED, f"{operation}: {theirs.text}"
            assert theirs.content == unknown.content, str(operation)


def _names(headers: Mapping[str, str]) -> set[str]:
    return {name.lower() for name in headers}
